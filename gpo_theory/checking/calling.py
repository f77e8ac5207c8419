"""Calls of a user's torch function on margins given as numpy arrays, and what is found in them."""

__all__ = ["Finding", "UserCodeError", "call", "evaluate"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[["Tensor"], "Tensor"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One finding: the test, the dtype, the scaled margin x (None where it is not about one), and a message."""

    test: str
    dtype: str
    x: float | None
    message: str

    @property
    def place(self) -> str:
        """The dtype and the margin, with all the digits that it takes to repeat it."""
        if self.x is None:
            return self.dtype
        short = f"{self.x:g}"
        return f"{self.dtype} at x = {short if float(short) == self.x else repr(self.x)}"

    def __str__(self) -> str:
        return f"{self.test} ({self.place}): {self.message}"


class UserCodeError(Exception):
    """The user's function raised an error, or returned a value that the other tests cannot use."""

    def __init__(self, message: str, test: str = "runs") -> None:
        super().__init__(message)
        self.test = test


def call(function: Function, x: "Tensor", where: str = "") -> Any:
    """Return function(x), or raise UserCodeError with whatever it raises; x is the caller's to lose."""
    where = where or f"on a tensor of shape {tuple(x.shape)}"
    try:
        return function(x)
    except Exception as error:
        raise UserCodeError(f"{where} it raises {_line(error)}") from error


def evaluate(function: Function, x: Floats, dtype: str, weights: Floats | None = None,
             layout: Function | None = None) -> tuple[Floats, Floats]:  # fmt: skip
    """Return the value and the gradient at each margin, the latter times the upstream `weights` (default: 1).

    `layout` gives the function the same margins in another place of memory or another shape.
    """
    import torch

    leaf = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    # A copy, because the user's function may write into its argument.
    given = layout(leaf.clone()) if layout else leaf.clone()
    where = f"on a tensor of shape {tuple(given.shape)}" + ("" if given.is_contiguous() else " that is not contiguous")
    value = call(function, given, where)
    if not isinstance(value, torch.Tensor) or value.shape != given.shape:
        raise UserCodeError(f"{where} it returns {getattr(value, 'shape', type(value).__name__)}", "shape")
    upstream = torch.ones_like(value) if weights is None else torch.tensor(weights, dtype=value.dtype)
    try:
        (slope,) = torch.autograd.grad(value, leaf, upstream)
    except Exception as error:
        raise UserCodeError(f"{where} its gradient raises {_line(error)}") from error
    return value.detach().double().numpy().reshape(x.shape), slope.double().numpy()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
