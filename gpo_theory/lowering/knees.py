"""The knees of a loss: the points beyond which its tangent continues it, because it would overflow float32."""

__all__ = ["KNEE", "Knee", "find_knees"]

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from flint import arb

from gpo_theory.calculus.balls import enclose, expand
from gpo_theory.calculus.pieces import UnsplitError, beside, split
from gpo_theory.formula.expression import Expr, rebuild
from gpo_theory.lowering.normal_form import to_normal_form
from gpo_theory.lowering.program import compiled, numpy_operations

KNEE = 2.0**64  # of |f| or |f'|: the square root of 2^128, where float32 overflows
_LARGEST = 2.0**63  # of |x| at a knee: the square of the next power of two overflows float32


@dataclass(frozen=True)
class Knee:
    """The point x beyond which f is continued by its tangent, whose slope is f'(x)."""

    x: float
    slope: float


@lru_cache(maxsize=256)
def find_knees(f: Expr) -> tuple[Knee | None, Knee | None]:
    """Return the points left and right of 0 where |f| or |f'| first reaches 2^64, None where that is beyond 2^63.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> left, right = find_knees(parse_formula("exp(-x)").primitive())
    >>> print(left, right)
    Knee(x=-44.3614195558..., slope=-1.844674407...e+19) None
    """
    return _knee(f, -1), _knee(f, 1)


def _knee(f: Expr, side: int) -> Knee | None:
    low, high = 0.0, 1.0
    while not _beyond(f, side * high):
        low, high = high, 2 * high
        if high >= _LARGEST:
            return None
    while high - low > 2.0**-40 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _beyond(f, side * middle) else (middle, high)
    return Knee(side * low, _value_and_slope(f, side * low)[1])


def _beyond(f: Expr, x: float) -> bool:
    return not all(abs(v) < KNEE for v in _value_and_slope(f, x))


def _value_and_slope(f: Expr, x: float) -> tuple[float, float]:
    at = Fraction(x)
    balls = expand(_active(_piece(f, at), at), at, 1, 256)
    if all(b.is_finite() and bool(arb(b.rad()) <= arb(2) ** -64 * (1 + abs(b.mid()))) for b in balls):
        return float(balls[0].mid()), float(balls[1].mid())
    # Arb's erfc has no digits at large x: there the normal form is evaluated, which is smooth on the scale of x itself.
    program, operations, step = compiled(to_normal_form(f)), numpy_operations(), max(abs(x), 1e-30) * 2.0**-17
    with np.errstate(all="ignore"):
        below, value, above = (float(v) for v in program.run(np.array([x - step, x, x + step]), operations))
    return value, (above - below) / (2 * step)


def _piece(f: Expr, at: Fraction) -> Expr:
    """Return the formula that holds at a point and on its right; f itself where it cannot be split."""
    try:
        return beside(split(f), at, 1).f
    except UnsplitError:
        return f


def _active(node: Expr, at: Fraction) -> Expr:
    """Return the formula with each max and min replaced by its argument that is the largest or smallest at a point."""
    children = tuple(_active(child, at) for child in node.children)
    if node.head in ("max", "min"):
        choose = max if node.head == "max" else min
        return choose(children, key=lambda child: float(enclose(child, at).mid()))
    return rebuild(node, children)
