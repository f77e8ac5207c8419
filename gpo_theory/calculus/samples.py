"""Fast float samples of f. They suggest where to look, and decide nothing."""

__all__ = ["sample"]

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpo_theory.formula.expression import Expr, fold
from gpo_theory.formula.operations import COMPARISONS, CONSTANTS

_REDUCED: dict[str, Callable[[Any, Any], Any]] = {"+": np.add, "*": np.multiply, "max": np.maximum, "min": np.minimum,
                                                  "and": np.logical_and, "or": np.logical_or}  # fmt: skip


def sample(f: Expr, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float values of a primitive formula at the points x; NaN or infinity where floats fail."""

    def value(part: Expr, of: Callable[[Expr], Any]) -> Any:
        if part.number is not None:
            return float(part.number)
        if part.head == "x" or part.head in CONSTANTS:
            return x if part.head == "x" else getattr(np, part.head)
        values = list(map(of, part.children))
        if part.head == "where":
            return np.where(*values)
        if part.head == "**":
            n = part.power
            return np.power(values[0], int(n) if n is not None and n.denominator == 1 and n > 0 else values[1])
        if part.head in _REDUCED:
            return reduce(_REDUCED[part.head], values)
        if part.head in COMPARISONS:
            return COMPARISONS[part.head](*values)
        return _function(part.head)(*values)

    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(fold(f, value), dtype=np.float64), x.shape)


def _function(name: str) -> Callable[..., Any]:
    if hasattr(np, name):
        return getattr(np, name)  # type: ignore[no-any-return]
    from scipy import special  # takes 0.3 s, and few formulas need it

    return getattr(special, name)  # type: ignore[no-any-return]
