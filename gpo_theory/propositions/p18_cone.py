"""P18: losses that are Bradley-Terry exact with the same c form a convex cone."""

__all__ = ["mixed_link", "mixed_strength", "mixture"]

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from math import log

from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import link_at, strength_at_zero
from gpo_theory.propositions.p03_bradley_terry import exactness


def mixture(losses: Sequence[Loss], weights: Sequence[Fraction]) -> tuple[Loss, float]:
    """Return sum_i weights[i] f_i and its c, which is that of every f_i.

    Hypotheses: every f_i is Bradley-Terry exact with the same c, and every weight is above 0; InputError elsewhere. The
    same c is sufficient, not necessary: exp(-x/2) + exp(-3x/2)/3, of c = 1 and 1/3, is exact with c = 1/2.
    Convexity carries over only where every f_i has it.

    >>> from gpo_theory.catalogue import LOSSES
    >>> mixture([LOSSES["logistic"], LOSSES["savage"]], [Fraction(1), Fraction(2)])
    (<Loss log(1 + exp(-x)) + 2/(1 + exp(x))**2>, 1.0)
    """
    constants = {exactness(loss) for loss in losses}
    if len(constants) != 1 or len(weights) != len(losses) or min(weights) <= 0:
        raise InputError(f"P18 needs losses with one c and weights above 0; got c in {sorted(constants)}, {weights}")
    f = reduce(lambda total, pair: total + pair[1] * pair[0].f, zip(losses, weights, strict=True), Expr.of(0))
    return Loss(str(f), f), constants.pop()


def mixed_link(losses: Sequence[Loss], weights: Sequence[Fraction], p: Fraction) -> tuple[float, float]:
    """Return x*(p) of the mixture, and c logit p; 1/2 < p < 1.

    >>> from gpo_theory.catalogue import LOSSES
    >>> [round(x, 9) for x in mixed_link([LOSSES["kliep"], LOSSES["savage"]], [Fraction(1)] * 2, Fraction(3, 4))]
    [1.098612289, 1.098612289]
    """
    loss, c = mixture(losses, weights)
    return link_at(loss, p), c * log(p / (1 - p))


def mixed_strength(losses: Sequence[Loss], weights: Sequence[Fraction]) -> tuple[float, float]:
    """Return R of the mixture by difference quotients, the mean of the sides where f'' jumps, and 1/(2c).

    >>> from gpo_theory.catalogue import LOSSES
    >>> mixed_strength([LOSSES["exponential"], LOSSES["logitboost"]], [Fraction(1, 3), Fraction(1)])
    (1.0, 1.0)
    """
    loss, c = mixture(losses, weights)
    return strength_at_zero(loss), 1 / (2 * c)
