"""The least value of f: is f bounded below, and what is its infimum?"""

__all__ = ["bounded_below"]

from collections.abc import Iterator
from fractions import Fraction
from math import inf, isfinite

from mpmath import mp

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.infimum import infimum_of
from gpo_theory.calculus.pieces import UnsplitError, pieces_of
from gpo_theory.calculus.samples import pace
from gpo_theory.calculus.tails import limit_along
from gpo_theory.certificate import Certificate, proved, refuted, unknown
from gpo_theory.claims.extrema import least
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.intervals import interval

DEEP = 1000  # the verifier demands a point at which f has fallen by so many times its changes from 0 to 1 and -1


def bounded_below(f: Expr) -> Iterator[Certificate]:
    """Propose whether a total primitive formula is bounded below, with its infimum first and without it afterwards.

    A continuous f on R is bounded below iff neither tail tends to -infinity. Refuted with a point where f has fallen
    far below f(0).
    """
    claim = "bounded_below"
    try:
        value = least(pieces_of(f))
    except UnsplitError:
        value = None
    if value is not None:
        yield proved(claim, "f stays above its infimum on every piece", value.number, near=value.near)
        for way in ("signs", "limit") if value.near == "inf" else ():
            yield proved(claim, "f never rises and tends to this", value.number, near="inf", falls="yes", by=way)
    found = infimum_of(f)
    bound = -inf if found is None else float(found.low - abs(enclose(f, Fraction(0)).mid()) / 2**20)
    if isfinite(bound):
        yield proved(claim, "a lower bound of f on every piece", None, floor=str(Fraction(bound)))
    floor = float(interval(f, None, None).a)
    if floor > -mp.inf:  # beyond the floats, as exp(2401) is, any of them is a floor
        below = Fraction(min(floor, 1e300)) - 1
        yield proved(claim, "the range of f, composed from its parts", None, floor=str(below))
    for side in (-1, 1):
        x = _deep_point(f, side)
        if x is not None and limit_along(f, side, x) == "-inf":
            where = "left" if side < 0 else "right"
            yield refuted(claim, f"f tends to -infinity on the {where}", kind="point", x=str(x))
    yield unknown(claim, "no lower bound was found, and no tail is shown to tend to -infinity")


def _deep_point(f: Expr, side: int) -> Fraction | None:
    """Return a power of two times `pace`, negative on the left, at which f lies DEEP."""
    # The distances at the end are for tails that fall like a logarithm.
    points = [*(pace(f) * Fraction(2) ** k for k in range(100)), *(Fraction(2) ** 2**k for k in range(7, 13))]
    start, *near = (enclose(f, Fraction(x), 512) for x in (0, 1, -1))
    level = start - (DEEP + 1) * sum(abs(value - start) for value in near)
    return next((side * x for x in points if enclose(f, side * x, 512) < level), None)
