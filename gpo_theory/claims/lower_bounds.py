"""The least value of f: is f bounded below, what is its infimum, and where is it attained?"""

__all__ = ["Infimum", "Minimum", "bounded_below", "infimum", "minimum"]

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import inf

from mpmath import mp

from gpo_theory.calculus.balls import enclose, exact_value
from gpo_theory.calculus.constants import exact, text
from gpo_theory.calculus.extremes import lowest, reached
from gpo_theory.calculus.pieces import Piece, UnsplitError, split
from gpo_theory.calculus.tails import tail
from gpo_theory.certificate import Certificate, proved, refuted, unknown
from gpo_theory.claims.monotonicity import slope_charts
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.intervals import interval

DEEP = -1000
# What f may be beside a least point known to 18 digits, and beside one with ten times as many; bits for the latter.
SMALL, NOTHING, BITS = 1e-20, 1e-60, 512


@dataclass(frozen=True)
class Minimum:
    """The infimum of f, exact text where known, and the least x at which it is attained ("inf": only approached)."""

    exact: str | None
    value: float
    at: str


def bounded_below(f: Expr) -> Certificate:
    """Decide whether a total primitive formula is bounded below; the value is its infimum.

    A continuous f on R is bounded below iff neither tail tends to -infinity. Refuted with a point where f < -1000.
    """
    claim = "bounded_below"
    try:
        value = infimum(split(f))
    except UnsplitError:
        value = None
    if value is not None:
        return proved(claim, "f stays above its infimum on every piece", _settled(value, f).number, near=value.near)
    floor = interval(f, None, None).a
    if floor > -mp.inf:
        return proved(claim, "the range of f, composed from its parts", None, floor=str(Fraction(float(floor)) - 1))
    for side in (-1, 1):
        end = tail(f, side)
        x = _deep_point(f, side) if end.verdict == "proved" and end.limit == "-inf" else None
        if x is not None:
            where = "left" if side < 0 else "right"
            return refuted(claim, f"f tends to -infinity on the {where}", kind="point", x=str(x))
    return unknown(claim, "no lower bound was found, and no tail is shown to tend to -infinity")


def _deep_point(f: Expr, side: int) -> Fraction | None:
    # The second range is for tails that fall like a logarithm.
    powers = [*range(60), *(2**k for k in range(6, 13))]
    return next((side * Fraction(2) ** k for k in powers if enclose(f, side * Fraction(2) ** k) < DEEP), None)


def minimum(f: Expr) -> Minimum | None:
    """Return the infimum of f and the least point that attains it, where exact signs of f' give them.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> minimum(parse_formula("max(0, 1-x)").primitive())
    Minimum(exact='0', value=0.0, at='1')
    """
    try:
        return least(split(f))
    except UnsplitError:
        return None


@lru_cache(maxsize=256)
def least(pieces: tuple[Piece, ...]) -> Minimum | None:
    """Return the infimum over the open pieces of a function that need not be continuous, or None if undecided."""
    charts = list(slope_charts(pieces))
    if any(chart is None for _, chart in charts):
        return None
    ends = [("-inf", tail(pieces[0].f, -1)), ("inf", tail(pieces[-1].f, 1))]
    if any(end.verdict != "proved" or end.limit == "-inf" for _, end in ends):
        return None
    candidates = [_limit(end.limit, at) for at, end in ends if end.limit not in ("inf", None)]
    for piece, chart in charts:
        assert chart is not None
        stationary = [(root.low, root.exact) for root in chart.roots]
        edges = [(x, x) for x in (piece.low, piece.high) if x is not None]
        candidates += [_candidate(piece.f, near, x) for near, x in [*stationary, *edges]]
    return min(candidates, key=_rank)


@dataclass(frozen=True)
class Infimum:
    """The infimum of a formula: exact text where known, a float, and a rational point that comes near it."""

    exact: str | None
    value: float
    near: str

    @property
    def number(self) -> dict[str, str | float | None]:
        """The value of a certificate."""
        return {"exact": self.exact, "float": self.value}

    @property
    def negated(self) -> "Infimum":
        """The supremum of the negated formula."""
        plain = self.exact is not None and not any(sign in self.exact[1:] for sign in "+-")
        return Infimum(self.exact.removeprefix("-") if self.exact and plain else None, abs(self.value), self.near)


def infimum(pieces: tuple[Piece, ...]) -> Infimum | None:
    """Return the infimum over the open pieces: exactly from the signs of the slope, else numerically."""
    exactly, found = least(pieces), lowest(pieces)
    if exactly is None:
        return None if found is None else Infimum(found.exact, found.value, str(found.near))
    if "inf" not in exactly.at:
        near = Fraction(exactly.at)
        inside = any(p.f for p in pieces if (p.low is None or p.low <= near) and (p.high is None or near <= p.high))
        if inside:
            return Infimum(exactly.exact, exactly.value, str(near))
    far = reached(pieces, -1 if exactly.at == "-inf" else 1, exactly.value)
    return Infimum(exactly.exact, exactly.value, str(far)) if far is not None else None


def _settled(value: Infimum, f: Expr) -> Infimum:
    """Return a very small infimum as f has it at a sharper least point, by Newton's method on f' = 0."""
    if value.exact is not None or abs(value.value) > SMALL:
        return value
    x, slope = Fraction(value.near), f.diff()
    for _ in range(6):  # each doubles the digits
        step = (enclose(slope, x, BITS) / enclose(slope.diff(), x, BITS)).mid()
        if not step.is_finite():
            return value
        mantissa, exponent = step.man_exp()
        x -= int(mantissa) * Fraction(2) ** int(exponent)
        x = Fraction(round(x * 2**BITS), 2**BITS)
    least_found = float(enclose(f, x, BITS).mid())
    if not least_found <= value.value:  # no minimum of a smooth f
        return value
    return replace(value, value=0.0 if abs(least_found) < NOTHING else least_found)


def _rank(candidate: Minimum) -> tuple[float, bool, float]:
    """Order by value; at equal values a point that attains it comes before an end that only approaches it."""
    ends = {"-inf": -inf, "inf": inf}
    place = ends[candidate.at] if candidate.at in ends else float(Fraction(candidate.at))
    return round(candidate.value, 12), candidate.at in ends, place


def _limit(limit: str | None, at: str) -> Minimum:
    return Minimum(limit, float(enclose(parse_constant(limit or "0"), Fraction(0), 256).mid()), at)


def _candidate(f: Expr, near: Fraction, x: Fraction | None) -> Minimum:
    value = float(enclose(f, near, 256).mid())
    if x is None:
        return Minimum(None, value, repr(float(near)))
    known = exact_value(f, x)
    at = substitute(f, {Expr.x(): Expr.of(x)})
    return Minimum(str(known) if known is not None else text(exact(at)), value, str(x))
