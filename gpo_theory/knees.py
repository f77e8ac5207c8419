"""Where a loss grows too large for a dtype with float32's range: there its tangent takes over."""

__all__ = ["KNEE", "Knee", "knees"]

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from flint import arb

from gpo_theory.balls import enclose, expand
from gpo_theory.formula import Expr, rebuild
from gpo_theory.pieces import Piece, UnsplitError, split

KNEE = 2.0**64
_LARGEST = 2.0**63


@dataclass(frozen=True)
class Knee:
    """The point x beyond which f is continued by its tangent, whose slope is f'(x)."""

    x: float
    slope: float


@lru_cache(maxsize=256)
def knees(f: Expr) -> tuple[Knee | None, Knee | None]:
    """Return the points left and right of 0 where |f| or |f'| first reaches 2^64, None where that is beyond 2^63.

    >>> from gpo_theory.grammar import parse_formula
    >>> left, right = knees(parse_formula("exp(-x)").primitive())
    >>> print(left, right)
    Knee(x=-44.3614195558..., slope=-1.844674407...e+19) None
    """
    try:
        pieces = split(f)
    except UnsplitError:
        pieces = (Piece(None, None, f),)
    return _knee(pieces, -1), _knee(pieces, 1)


def _knee(pieces: tuple[Piece, ...], side: int) -> Knee | None:
    low, high = 0.0, 1.0
    while not _beyond(pieces, side * high):
        low, high = high, 2 * high
        if high >= _LARGEST:
            return None
    while high - low > 2.0**-40 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _beyond(pieces, side * middle) else (middle, high)
    return Knee(side * low, float(_value_and_slope(pieces, side * low)[1]))


def _beyond(pieces: tuple[Piece, ...], x: float) -> bool:
    return not all(abs(v) < KNEE for v in _value_and_slope(pieces, x))


def _value_and_slope(pieces: tuple[Piece, ...], x: float) -> list[arb]:
    at = Fraction(x)
    holds = (p for p in pieces if (p.low is None or p.low <= at) and (p.high is None or at < p.high or p.low == at == p.high))
    smooth = _active([*holds][-1].f, at)
    return expand(smooth, at, 1, 256)


def _active(node: Expr, at: Fraction) -> Expr:
    """Return the formula with each max and min replaced by its argument that is the largest or smallest at a point."""
    children = tuple(_active(child, at) for child in node.children)
    if node.head in ("max", "min"):
        choose = max if node.head == "max" else min
        return choose(children, key=lambda child: float(enclose(child, at).mid()))
    return rebuild(node, children)
