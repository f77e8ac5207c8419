"""The knees of a loss: the points beyond which its tangent continues it, because it would overflow float32."""

__all__ = ["Knee", "find_knees"]

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gpo_theory.formula.expression import Expr
from gpo_theory.lowering.accurate_code import program_of
from gpo_theory.lowering.exact_values import KNEE
from gpo_theory.lowering.program import operations

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
    return Knee(side * low, _values(f, side * low)[1])


def _beyond(f: Expr, x: float) -> bool:
    return not all(abs(value) < KNEE for value in _values(f, x))


def _values(f: Expr, x: float) -> list[float]:
    with np.errstate(all="ignore"):
        return [float(program_of(f, order).run(np.float64(x), operations(np))) for order in range(2)]
