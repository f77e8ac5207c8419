"""The least value of f: is f bounded below, and what is its infimum?"""

__all__ = ["bounded_below"]

from dataclasses import replace
from fractions import Fraction

from mpmath import mp

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.infimum import Infimum, proposed_infimum
from gpo_theory.calculus.pieces import UnsplitError, split
from gpo_theory.calculus.tails import tail
from gpo_theory.certificate import Certificate, proved, refuted, unknown
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.intervals import interval

DEEP = -1000  # the verifier demands a point at which f is below it
# A value below SMALL may be nothing but the error of a minimiser known to 16 to 18 digits. It is computed again at one
# known to BITS bits, where a value below NOTHING is 0.
SMALL, NOTHING, BITS = 1e-20, 1e-60, 512


def bounded_below(f: Expr) -> Certificate:
    """Decide whether a total primitive formula is bounded below; the value is its infimum.

    A continuous f on R is bounded below iff neither tail tends to -infinity. Refuted with a point where f < -1000.
    """
    claim = "bounded_below"
    try:
        value = proposed_infimum(split(f))
    except UnsplitError:
        value = None
    if value is not None:
        number = _settled(value, f).number
        return proved(claim, "f stays above its infimum on every piece", number, near=str(value.near))
    floor = float(interval(f, None, None).a)
    if floor > -mp.inf:  # beyond the floats, as exp(2401) is, any of them is a floor
        below = Fraction(min(floor, 1e300)) - 1
        return proved(claim, "the range of f, composed from its parts", None, floor=str(below))
    for side in (-1, 1):
        end = tail(f, side)
        x = _deep_point(f, side) if end.verdict == "proved" and end.limit == "-inf" else None
        if x is not None:
            where = "left" if side < 0 else "right"
            return refuted(claim, f"f tends to -infinity on the {where}", kind="point", x=str(x))
    return unknown(claim, "no lower bound was found, and no tail is shown to tend to -infinity")


def _deep_point(f: Expr, side: int) -> Fraction | None:
    """Return a power of two, negative on the left, at which f < DEEP."""
    # The second range is for tails that fall like a logarithm.
    powers = [*range(60), *(2**k for k in range(6, 13))]
    return next((side * Fraction(2) ** k for k in powers if enclose(f, side * Fraction(2) ** k) < DEEP), None)


def _settled(value: Infimum, f: Expr) -> Infimum:
    """Return a very small infimum computed again at a sharper minimiser, found by Newton's method on f' = 0."""
    if value.exact is not None or value.near is None or abs(value.value) > SMALL:
        return value
    x, slope = value.near, f.diff()
    for _ in range(6):  # each doubles the digits
        step = (enclose(slope, x, BITS) / enclose(slope.diff(), x, BITS)).mid()
        if not step.is_finite():
            return value
        mantissa, exponent = step.man_exp()
        x -= int(mantissa) * Fraction(2) ** int(exponent)
        x = Fraction(round(x * 2**BITS), 2**BITS)
    least_found = float(enclose(f, x, BITS).mid())
    if not least_found <= value.value:  # Newton's method has not found the minimiser
        return value
    return replace(value, value=0.0 if abs(least_found) < NOTHING else least_found)
