"""Fast float samples of f. They suggest where to look, and decide nothing."""

__all__ = ["sample"]

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from gpo_theory.formula.expression import Expr

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {"exp": np.exp, "log": np.log, "atan": np.arctan, "erfc": erfc,
                                               "sin": np.sin, "cos": np.cos}  # fmt: skip
_REDUCED: dict[str, Callable[[Any, Any], Any]] = {"+": np.add, "*": np.multiply, "max": np.maximum, "min": np.minimum,
                                                  "and": np.logical_and, "or": np.logical_or}  # fmt: skip
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {"<": np.less, "<=": np.less_equal, ">": np.greater,
                                                   ">=": np.greater_equal}  # fmt: skip


def sample(f: Expr, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float values of a primitive formula at the points x; NaN or infinity where floats fail."""
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(_evaluate(f, x), dtype=np.float64), x.shape)


def _evaluate(node: Expr, x: NDArray[np.float64]) -> Any:
    match node.head:
        case "number":
            return float(node.args[0])
        case "x":
            return x
        case "pi" | "e":
            return np.pi if node.head == "pi" else np.e
    values = [_evaluate(child, x) for child in node.children]
    if node.head == "where":
        return np.where(*values)
    if node.head == "**":
        n = node.args[1].number
        return np.power(values[0], int(n) if n is not None and n.denominator == 1 and n > 0 else values[1])
    if node.head in _REDUCED:
        return reduce(_REDUCED[node.head], values)
    return _COMPARED[node.head](*values) if node.head in _COMPARED else _FUNCTIONS[node.head](values[0])
