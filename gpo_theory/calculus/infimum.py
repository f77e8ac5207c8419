"""The certified infimum of a formula on an interval: a rigorous enclosure of its value, and of where it is attained."""

__all__ = ["Infimum", "infimum_of"]

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, reduce
from math import inf, nextafter

from flint import arb, ctx

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import UndecidedError, between, enclose, enclose_between
from gpo_theory.calculus.pieces import Piece, UnsplitError, clipped, split
from gpo_theory.calculus.rational import as_rational
from gpo_theory.calculus.tails import half_line, tail
from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_constant

MOST_BOXES, SMALLEST, BITS = 6000, Fraction(1, 2**40), 160


@dataclass(frozen=True)
class Infimum:
    """low <= inf g <= high; every point that attains it, or end that approaches it, lies in [left, right]."""

    low: float
    high: float
    left: float
    right: float


@dataclass(frozen=True)
class _Leaf:
    value: arb
    left: float
    right: float


@lru_cache(maxsize=512)
def infimum_of(g: Expr, low: Fraction | None = None, high: Fraction | None = None) -> Infimum | None:
    """Return the infimum of a primitive formula over [low, high] (None: no end), or None where it is not certified.

    Where the slope has a sign on a box only an end of the box counts; a half-line is left to the exact sign of the
    slope on it, and to the limit of the tail.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> found = infimum_of(parse_formula("(x-1)**2 + 1/2").primitive())
    >>> 0.4999999999 < found.low <= 0.5 <= found.high < 0.5000000001, abs(found.left - 1) < 1e-9
    (True, True)
    """
    try:
        with ctx.workprec(BITS):  # also where ends of balls are taken: they round to the working precision
            return _infimum(g, low, high)
    except (UnsplitError, UndecidedError):
        return None


def _infimum(g: Expr, low: Fraction | None, high: Fraction | None) -> Infimum | None:
    leaves = [leaf for piece in clipped(split(g), low, high) for leaf in _leaves(piece)]
    top = _least(leaf.value.upper() for leaf in leaves)
    kept = [leaf for leaf in leaves if leaf.value.lower() <= top]
    if not kept:
        return None
    return Infimum(_float(_least(leaf.value.lower() for leaf in kept), -inf), _float(top, inf),
                   min(leaf.left for leaf in kept), max(leaf.right for leaf in kept))  # fmt: skip


def _least(values: Iterable[arb]) -> arb:
    return reduce(lambda a, b: a if a <= b else b, values, arb("inf"))


def _float(value: arb, towards: float) -> float:
    """Return an exact ball as a float, rounded one way where it is none."""
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
