"""The least value of a formula: proposed for the verifier to prove, or enclosed rigorously.

`proposed_infimum` is quick and as exact as the formula allows, and not proved: it returns exact text, and a point near
which the value is reached (`exact_infimum` is its exact half). `infimum_of` is rigorous by itself, by branch and bound
in ball arithmetic: for the risk C_p, which has no certificate. It returns bounds of the value and of its place.
"""

__all__ = ["Enclosure", "Infimum", "exact_infimum", "infimum_of", "proposed_infimum"]

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, reduce
from math import inf, nextafter

import numpy as np
from flint import arb, ctx

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import UndecidedError, between, enclose, enclose_between, exact_value
from gpo_theory.calculus.constants import exact, text
from gpo_theory.calculus.pieces import Piece, UnsplitError, clipped, sign_charts, split
from gpo_theory.calculus.rational import as_rational
from gpo_theory.calculus.samples import sample
from gpo_theory.calculus.tails import half_line, tail
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_constant

# Sample points: 1/200 apart up to 8, where most losses are least, then in growing steps.
_STEPS = np.concatenate([np.linspace(0, 8, 1601), np.geomspace(8, 1000, 200)[1:]])
_GRID = np.concatenate([-_STEPS[:0:-1], _STEPS])
# Distances at which an outer piece is compared with its limit.
FAR = tuple(Fraction(2) ** k for k in (3, 4, 5, 6, 8, 10, 14, 20, 30, 45, 60))
# Limits of the branch and bound: its time, and the width of a box at which the value is known to about f'' 2^-80.
MOST_BOXES, SMALLEST, BITS = 6000, Fraction(1, 2**40), 160


@dataclass(frozen=True)
class Infimum:
    """A proposed infimum of a formula: exact text where known, a float, where it is attained, and a point near it.

    Only the verifier proves it (`gpo_theory.claims.lower_bounds`), or `infimum_of` encloses it.

    `at` is the least x that attains it, "inf" or "-inf" where it is only approached, None where only samples were
    taken; `near` is None where no rational point is found at which the formula comes near.
    """

    exact: str | None
    value: float
    at: str | None
    near: Fraction | None

    @property
    def number(self) -> dict[str, str | float | None]:
        """The value of a certificate."""
        return {"exact": self.exact, "float": self.value}

    @property
    def negated(self) -> "Infimum":
        """The supremum of the negated formula."""
        plain = self.exact is not None and not any(sign in self.exact[1:] for sign in "+-")
        turned = self.exact.removeprefix("-") if self.exact and plain else None
        return replace(self, exact=turned, value=abs(self.value))


def proposed_infimum(pieces: tuple[Piece, ...]) -> Infimum | None:
    """Return the infimum over the open pieces: exactly from the signs of the slope, else numerically."""
    found = exact_infimum(pieces) or _sampled(pieces)
    return found if found is not None and found.near is not None else None


@lru_cache(maxsize=256)
def exact_infimum(pieces: tuple[Piece, ...]) -> Infimum | None:
    """Return the infimum over the open pieces of a function that need not be continuous, or None if undecided.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> exact_infimum(split(parse_formula("max(0, 1-x)").primitive()))
    Infimum(exact='0', value=0.0, at='1', near=Fraction(1, 1))
    """
    charts = list(sign_charts(pieces, 1))
    if any(chart is None for _, chart in charts):
        return None
    ends = [("-inf", tail(pieces[0].f, -1)), ("inf", tail(pieces[-1].f, 1))]
    if any(end.verdict != "proved" or end.limit == "-inf" for _, end in ends):
        return None
    candidates = [Infimum(end.limit, _float(parse_constant(end.limit)), at, None) for at, end in ends
                  if end.limit not in ("inf", None)]  # fmt: skip
    for piece, chart in charts:
        assert chart is not None
        stationary = [(root.low, root.exact) for root in chart.roots]
        edges = [(x, x) for x in (piece.low, piece.high) if x is not None]
        candidates += [_candidate(piece.f, near, x) for near, x in [*stationary, *edges]]
    best = min(candidates, key=_rank)
    side = -1 if best.at == "-inf" else 1
    return best if best.near is not None else replace(best, near=_reached(pieces, side, best.value))


def _rank(candidate: Infimum) -> tuple[float, bool, float]:
    """Order by value; at equal values a point that attains it comes before an end that only approaches it."""
    place = float(candidate.at or 0) if candidate.near is None else float(candidate.near)
    return round(candidate.value, 12), candidate.near is None, place


def _candidate(f: Expr, near: Fraction, x: Fraction | None) -> Infimum:
    value = _float(f, near)
    if x is None:
        return Infimum(None, value, repr(float(near)), Fraction(repr(float(near))))
    known = exact_value(f, x)
    at = substitute(f, {Expr.x(): Expr.of(x)})
    return Infimum(str(known) if known is not None else text(exact(at)), value, str(x), x)


@lru_cache(maxsize=256)
def _sampled(pieces: tuple[Piece, ...]) -> Infimum | None:
    """Return the infimum over the open pieces, or None where a tail is not known or falls without bound."""
    found: list[Infimum] = []
    for piece in pieces:
        inside = [float(end) for end in (piece.low, piece.high) if end is not None]
        if not piece.is_point:
            points = [x for x in _GRID if piece.contains(x)]
            found += _refined(piece, np.array(sorted({*points, *inside, float(piece.sample)})))
    for side, outer in ((-1, pieces[0].f), (1, pieces[-1].f)):
        end = tail(outer, side)
        if end.verdict != "proved" or end.limit == "-inf":
            return None
        if end.limit not in ("inf", None):
            limit = _float(parse_constant(end.limit))
            near = _reached(pieces, side, limit)
            found += [Infimum(end.limit, limit, None, near)] if near is not None else []
    return min(found, key=lambda one: (one.value, one.exact is None), default=None)


def _float(g: Expr, x: Fraction = Fraction(0)) -> float:
    return float(enclose(g, x, 256).mid())


def _reached(pieces: tuple[Piece, ...], side: int, limit: float) -> Fraction | None:
    """Return a point at which the outer piece is within a millionth of its limit, as the verifier demands."""
    outer = pieces[0 if side < 0 else -1]
    inside = (side * x for x in FAR if outer.contains(side * x))
    return next((x for x in inside if abs(_float(outer.f, x) - limit) < 9e-7 * (1 + abs(limit))), None)


def _refined(piece: Piece, grid: np.ndarray) -> list[Infimum]:
    """Return the least value near the lowest sample, and the values at the ends of the piece."""
    values = sample(piece.f, grid)
    if not np.isfinite(values).any():
        return []
    # Floats can be wrong where terms cancel: the lowest few are evaluated again in balls.
    order = np.argsort(np.where(np.isfinite(values), values, np.inf))[:24]
    best = min(map(int, order), key=lambda i: _float(piece.f, Fraction(float(grid[i]))))
    a, b = (Fraction(float(grid[i])) for i in (max(best - 1, 0), min(best + 1, len(grid) - 1)))
    edges = [(_float(piece.f, x), x) for x in (piece.low, piece.high) if x is not None]
    for _ in range(70):  # a third less each time: 70 times is 5e-13 of the step
        spend()
        left, right = a + (b - a) / 3, b - (b - a) / 3
        a, b = (a, right) if enclose(piece.f, left, 192).mid() < enclose(piece.f, right, 192).mid() else (left, b)
        a, b = a.limit_denominator(2**60), b.limit_denominator(2**60)
    middle = ((a + b) / 2).limit_denominator(10**9)
    edges += [(_float(piece.f, middle), middle)] if piece.contains(middle) else []
    return [Infimum(None, value, None, x) for value, x in edges if np.isfinite(value)]


@dataclass(frozen=True)
class Enclosure:
    """low <= inf g <= high; every point that attains it, or end that approaches it, lies in [left, right]."""

    low: float
    high: float
    left: float
    right: float


@dataclass(frozen=True)
class _Leaf:
    """A box or a point that may hold the infimum, with the ball of the values there."""

    value: arb
    left: float
    right: float


@lru_cache(maxsize=512)
def infimum_of(g: Expr, low: Fraction | None = None, high: Fraction | None = None) -> Enclosure | None:
    """Return the infimum of a primitive formula over [low, high] (None: no end), or None where it is not certified.

    Branch and bound: where the slope has a sign on a box, the infimum there is at one of its ends; on a half-line the
    exact sign of the slope and the limit of the tail decide.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> found = infimum_of(parse_formula("(x-1)**2 + 1/2").primitive())
    >>> 0.4999999999 < found.low <= 0.5 <= found.high < 0.5000000001, abs(found.left - 1) < 1e-9
    (True, True)
    """
    try:
        with ctx.workprec(BITS):  # the ends of balls are rounded to the working precision
            return _infimum(g, low, high)
    except (UnsplitError, UndecidedError):
        return None


def _infimum(g: Expr, low: Fraction | None, high: Fraction | None) -> Enclosure | None:
    leaves = [leaf for piece in clipped(split(g), low, high) for leaf in _leaves(piece)]
    top = _least(leaf.value.upper() for leaf in leaves)
    kept = [leaf for leaf in leaves if leaf.value.lower() <= top]
    if not kept:
        return None
    return Enclosure(_rounded(_least(leaf.value.lower() for leaf in kept), -inf), _rounded(top, inf),
                   min(leaf.left for leaf in kept), max(leaf.right for leaf in kept))  # fmt: skip


def _least(values: Iterable[arb]) -> arb:
    return reduce(lambda a, b: a if a <= b else b, values, arb("inf"))


def _rounded(value: arb, towards: float) -> float:
    """Return an exact ball as a float, rounded towards -inf or inf where it is no float."""
    number = float(value)
    return number if arb(number) == value else nextafter(number, towards)


def _leaves(piece: Piece) -> list[_Leaf]:
    """Return boxes and points of which one holds the infimum over the piece."""
    slope = piece.f.diff()
    form = as_rational(slope)
    if slope.number == 0 or (form is not None and form.is_zero):
        ends = (-inf if piece.low is None else float(piece.low)), (inf if piece.high is None else float(piece.high))
        return [_Leaf(_value(piece.f, piece.sample), *ends)]
    if piece.is_point:
        return [_leaf(piece.f, piece.sample)]
    out, span = list[_Leaf](), list[Fraction]()
    for end, side in ((piece.low, -1), (piece.high, 1)):
        if end is None:
            found = half_line(replace(piece, f=slope), side)
            if found is None or not found.sign:
                raise UndecidedError
            end = found.start
            # Where g falls outwards, its limit counts.
            out += [_Leaf(_limit(piece.f, side), side * inf, side * inf)] if found.sign != side else []
        span.append(end)
    return out + _search(piece.f, slope, *span)


def _value(g: Expr, x: Fraction) -> arb:
    value = enclose(g, x, BITS)
    if not value.is_finite():
        raise UndecidedError
    return value


def _leaf(g: Expr, x: Fraction) -> _Leaf:
    return _Leaf(_value(g, x), nextafter(float(x), -inf), nextafter(float(x), inf))


def _limit(g: Expr, side: int) -> arb:
    found = tail(g, side)
    if found.verdict != "proved" or found.limit is None:
        raise UndecidedError
    if found.limit in ("inf", "-inf"):
        return arb(found.limit)
    return enclose(parse_constant(found.limit), Fraction(0), BITS)


def _search(g: Expr, slope: Expr, low: Fraction, high: Fraction) -> list[_Leaf]:
    """Halve [low, high] until each box has a slope with a sign, lies above a value found, or is small."""
    out = [_leaf(g, low), _leaf(g, high)]
    top, todo, seen = _least(leaf.value.upper() for leaf in out), [(low, high)], 0
    while todo:
        spend()
        seen += 1
        if seen > MOST_BOXES:
            raise UndecidedError
        a, b = todo.pop()
        middle = (a + b) / 2
        slopes = enclose_between(slope, a, b, BITS)
        if slopes > 0 or slopes < 0:
            out.append(_leaf(g, a if slopes > 0 else b))
            top = _least((top, out[-1].value.upper()))
            continue
        here = _value(g, middle)
        top = _least((top, here.upper()))
        ways = enclose(g, between(a, b), BITS), here + slopes * between(a - middle, b - middle)
        values = [way for way in ways if way.is_finite()]
        if any(v > top for v in values):
            continue
        if b - a < SMALLEST:
            if not values:
                raise UndecidedError
            out.append(_Leaf(values[-1], nextafter(float(a), -inf), nextafter(float(b), inf)))
            continue
        todo += [(a, middle), (middle, b)]
    return out
