"""The range of a parameter over which a loss is convex, where f is a straight line in that parameter."""

__all__ = ["range_of_convexity"]

from fractions import Fraction

from gpo_theory.analysis import analyze
from gpo_theory.calculus.balls import sign_at
from gpo_theory.calculus.rational import as_rational
from gpo_theory.certificate import Verdict
from gpo_theory.errors import InputError, nearest
from gpo_theory.loss import Loss

FAR = Fraction(64)


def range_of_convexity(loss: Loss, parameter: str) -> tuple[Fraction, Fraction]:
    """Return the least and the largest value of a parameter at which f is convex.

    For f'' = A(x) + e B(x) with A/B rational in exp(k x): far out on a side where A/B tends to q, f'' >= 0 needs
    e >= -q where B > 0 and e <= -q where B < 0. Both ends are then proved convex by `analyze`, and so is everything
    between, since a mean of convex functions is convex. Raises InputError where this does not give the whole range.

    >>> from gpo_theory.catalogue import LOSSES
    >>> range_of_convexity(LOSSES["poly1"], "eps")
    (Fraction(-1, 1), Fraction(1, 1))
    """
    if parameter not in loss.parameters:
        raise InputError(f"loss {loss.name!r} has no parameter {parameter!r}{nearest(parameter, loss.parameters)}; "
                         f"allowed: {', '.join(loss.parameters) or 'none'}")  # fmt: skip
    low, high = _necessary(loss, parameter)
    for end in (low, high):
        if analyze(loss.with_parameters({parameter: end})).claims["convex"].verdict is not Verdict.PROVED:
            raise InputError(f"{loss.name} is not proved convex at {parameter} = {end}, which its tails allow")
    return low, high


def _necessary(loss: Loss, parameter: str) -> tuple[Fraction, Fraction]:
    """Return the values between which f'' is not negative far out on either side."""
    refusal = InputError(f"the range of {parameter} over which {loss.name} is convex is not bounded by its tails, or "
                         f"f'' is not a line in {parameter}, rational in an exponential")  # fmt: skip
    try:
        zero, one, two = (loss.with_parameters({parameter: k}).f.primitive().diff().diff() for k in range(3))
        ratio, bend = as_rational(zero / (one - zero)), as_rational(two - 2 * one + zero)
    except (ValueError, ZeroDivisionError):
        raise refusal from None
    if ratio is None or ratio.slope is None or bend is None or not bend.is_zero or ratio.constant.number != 1:
        raise refusal
    above, below = ratio.numerator, ratio.denominator
    degree = above.degree()
    if below.degree() != degree or 0 in (above[0], below[0]):
        raise refusal
    ends = {}
    for side in (-1, 1):
        at = degree if side * ratio.slope > 0 else 0
        ends[sign_at(one - zero, side * FAR)] = -Fraction(str(above[at])) / Fraction(str(below[at]))
    if set(ends) != {-1, 1}:
        raise refusal
    return ends[1], ends[-1]
