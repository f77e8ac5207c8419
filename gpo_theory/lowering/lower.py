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
from gpo_theory.lowering.cancellation import polynomials_near_zeros
from gpo_theory.lowering.knees import Knee, find_knees
from gpo_theory.lowering.native import native_kernel
from gpo_theory.lowering.normal_form import to_normal_form
from gpo_theory.lowering.program import Program, compiled, numpy_operations, with_polynomials

if TYPE_CHECKING:
    from torch import Tensor

Ends = tuple[Knee | None, Knee | None]


@dataclass(frozen=True)
class TorchLoss:
    """f as an elementwise differentiable function of a tensor x = beta * rho, of any shape and floating dtype.

    bfloat16 and float16 are computed in float32 and rounded. At a kink the gradient is that of the piece on the right:
    0 for the hinge at x = 1. `knees` = (left, right): beyond a knee, where |f| or |f'| first reaches 2^64, the tangent
    there continues f (C1); None where no knee lies within |x| <= 2^63. So for finite x the gradient is finite, and the
    value is infinite only where f or its tangent exceeds the dtype, or, in float32 beyond 2^63, where a square in its
    formula does. f(nan) is nan; at x = inf or -inf the value is the limit or nan, and the gradient may be nan.

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
    run = _torch(f)
    left, right = find_knees(f)
    return TorchLoss(loss, (_place(left), _place(right)), run)


def to_numpy(loss: Loss) -> Callable[[Any], NDArray[Any]]:
    """Return the same function on arrays of float64 or float32 (computed in float64 and rounded), without torch.

    >>> from gpo_theory.loss import parse
    >>> to_numpy(parse("log(1+exp(-x))"))(np.array([-1e6, 0.0, 1e6]))
    array([1.00000000e+06, 6.93147181e-01, 0.00000000e+00])
    """
    f = loss.f.primitive()
    program, ends, operations = _program(f), find_knees(f), numpy_operations()

    def inner(x: NDArray[Any]) -> Any:
        return program.run(x, operations)

    def run(x: Any) -> NDArray[Any]:
        points = np.asarray(x)
        if points.dtype not in (np.float64, np.float32, np.float16):
            raise InputError(f"x has dtype {points.dtype}; a floating dtype is needed")
        with np.errstate(under="ignore"):
            value = _continued(points.astype(np.float64), inner, ends, operations["clamp"])
        return np.asarray(value, points.dtype)

    return run


@lru_cache(maxsize=256)
def _program(f: Expr) -> Program:
    plain, operations = compiled(to_normal_form(f)), numpy_operations()
    return with_polynomials(plain, polynomials_near_zeros(f, lambda x: float(plain.run(np.float64(x), operations))))


def _place(knee: Knee | None) -> float | None:
    return None if knee is None else knee.x


def _continued(x: Any, inner: Callable[[Any], Any], ends: Ends, clamp: Callable[..., Any]) -> Any:
    left, right = ends
    if left is None and right is None:
        return inner(x)
    value = inner(clamp(x, _place(left), _place(right)))
    # Each clamp has a gradient of exactly zero inside: 2^64 - 2^64 would leave rounding errors there.
    if left:
        value = value + left.slope * clamp(x - left.x, None, 0.0)
    if right:
        value = value + right.slope * clamp(x - right.x, 0.0, None)
    return value


@lru_cache(maxsize=256)
def _torch(f: Expr) -> Callable[["Tensor"], "Tensor"]:
    program, ends, operations, inner = _program(f), find_knees(f), _torch_operations(), native_kernel(f)
    if inner is None:

        def inner(x: "Tensor") -> "Tensor":
            value: Tensor = program.run(x, operations)
            return value

    if ends == (None, None):
        return inner

    def run(x: "Tensor") -> "Tensor":
        return inner(x) if _within(x, ends) else _continued(x, inner, ends, operations["clamp"])

    return run


def _within(x: "Tensor", ends: Ends) -> bool:
    """Whether all of x is shown to lie between the knees, so that neither clamps nor tangents are needed."""
    import torch

    if x.device.type != "cpu" or torch.compiler.is_compiling() or not x.numel():
        return False
    left, right = ends
    values = x.detach().reshape(-1)
    try:
        if left and right:  # sum of x^2 < knee^2: one pass in place of two, and knees are large
            return bool(values.dot(values) < min(abs(left.x), abs(right.x)) ** 2)
        return bool(values.amin() > left.x) if left else bool(values.amax() < right.x)  # type: ignore[union-attr]
    except RuntimeError:  # under vmap the elements cannot be read
        return False


@lru_cache(maxsize=1)
def _torch_operations() -> dict[str, Callable[..., "Tensor"]]:
    import torch

    return {
        "exp": torch.exp, "expm1": _expm1, "log": torch.log, "log1p": torch.log1p, "sin": torch.sin, "cos": torch.cos,
        "atan": torch.atan, "acot": lambda u: torch.atan2(torch.ones_like(u), u), "sqrt": torch.sqrt,
        "square": torch.square, "erfc": torch.special.erfc, "erfcx": torch.special.erfcx, "where": torch.where,
        "log_erfcx": _log_erfcx, "sigmoid": _sigmoid,
        "maximum": torch.maximum, "minimum": torch.minimum, "clamp": torch.clamp,
        "sign": lambda v: torch.copysign(torch.ones_like(v), v.detach() + 0.0),
    }  # fmt: skip


def _expm1(u: "Tensor") -> "Tensor":
    """expm1, whose own gradient, expm1(u) + 1, would lose the digits of exp(u) below -1."""
    import torch

    return torch.where(u > -1, torch.expm1(u.clamp(min=-1)), torch.exp(u) - 1)


def _log_erfcx(u: "Tensor") -> "Tensor":
    """log(erfcx(u)), u >= 0: torch's erfcx is 7 ulp off below 1, where erfc is not."""
    import torch

    near, far = u.clamp(max=1), u.clamp(min=1)
    return torch.where(u < 1, torch.special.erfc(near).log() + near.square(), torch.special.erfcx(far).log())


def _sigmoid(u: "Tensor") -> "Tensor":
    """sigmoid(u), u <= 0: torch's own is 2 ulp off and flushes to 0 where exp(u) does not yet."""
    from torch.nn import functional

    return functional.logsigmoid(u).exp()
