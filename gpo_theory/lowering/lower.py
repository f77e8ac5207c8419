"""The loss as a function of torch tensors or numpy arrays, both from one normal form."""

__all__ = ["TorchLoss", "to_numpy", "to_torch"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr
from gpo_theory.loss import Loss
from gpo_theory.lowering.accurate_code import program_of
from gpo_theory.lowering.knees import find_knees
from gpo_theory.lowering.program import operations

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TorchLoss:
    """f as an elementwise differentiable function of a tensor x = beta * rho, of any shape and floating dtype.

    bfloat16 and float16 are computed in float32 and rounded. At a kink the gradient is that of the piece on the right:
    0 for the hinge at x = 1. `knees` = (left, right): beyond a knee, where |f| or |f'| first reaches 2^64, the tangent
    there continues f (C1); None where no knee lies within |x| <= 2^63. So for finite x the gradient is finite, and the
    value is infinite only where f or its tangent exceeds the dtype, or, in float32 beyond 2^63, where a square in its
    formula does; a gradient that is divided by such a square is 0 there. f(nan) is nan; at x = inf or -inf the value is
    the limit or nan, and the gradient may be nan.

    Second derivatives are within 4 ulp of |f''| + |x f'''| where that was measured, or an InputError is raised: for a
    formula whose f'' is not so accurate, and for every third derivative. Beyond a knee the second derivative is 0.

    >>> import torch
    >>> from gpo_theory.catalogue import LOSSES
    >>> to_torch(LOSSES["hinge"])(torch.tensor([-1.0, 0.5, 3.0]))
    tensor([2.0000, 0.5000, 0.0000])
    """

    loss: Loss
    knees: tuple[float | None, float | None]
    _run: Callable[["Tensor"], "Tensor"]

    def __call__(self, x: "Tensor") -> "Tensor":
        """Return f(x), elementwise, in the dtype of x."""
        import torch

        if not x.is_floating_point():
            raise InputError(f"x has dtype {x.dtype}; a floating dtype is needed")
        if x.dtype in (torch.bfloat16, torch.float16):
            return self._run(x.float()).to(x.dtype)
        return self._run(x)


def to_torch(loss: Loss) -> TorchLoss:
    """Return the stable torch function of a loss, compiled once per formula.

    >>> import torch
    >>> from gpo_theory.loss import parse
    >>> f = to_torch(parse("log(1+exp(-x))"))
    >>> f(torch.tensor([-1e6, 0.0, 30.0]))
    tensor([1.0000e+06, 6.9315e-01, 9.3576e-14])
    """
    f = loss.f.primitive()
    left, right = find_knees(f)
    return TorchLoss(loss, (None if left is None else left.x, None if right is None else right.x), _torch_code(f))


@lru_cache(maxsize=256)
def _torch_code(f: Expr) -> Callable[["Tensor"], "Tensor"]:
    from gpo_theory.lowering.autograd import TorchCode

    return TorchCode(f)


def to_numpy(loss: Loss, order: int = 0) -> Callable[[Any], NDArray[Any]]:
    """Return the same function, or its derivative (order 1), on arrays of float64 or float32, without torch.

    Computed in float64 and rounded.

    >>> from gpo_theory.loss import parse
    >>> to_numpy(parse("log(1+exp(-x))"))(np.array([-1e6, 0.0, 1e6]))
    array([1.00000000e+06, 6.93147181e-01, 0.00000000e+00])
    """
    if order not in (0, 1):
        raise InputError(f"`order={order}` is neither 0, the loss, nor 1, its derivative")
    f = loss.f.primitive()
    program, knees, ops = program_of(f, order), find_knees(f), operations(np)
    low, high = (None if knee is None else knee.x for knee in knees)

    def run(x: Any) -> NDArray[Any]:
        points = np.asarray(x)
        if points.dtype not in (np.float64, np.float32, np.float16):
            raise InputError(f"x has dtype {points.dtype}; a floating dtype is needed")
        wide = points.astype(np.float64)
        with np.errstate(all="ignore"):
            value = program.run(np.clip(wide, low, high) if any(knees) else wide, ops)
            for knee, beyond in zip(knees, (np.minimum, np.maximum), strict=True):
                value = value + knee.slope * beyond(wide - knee.x, 0) if knee and not order else value
            return np.asarray(value, points.dtype)

    return run
