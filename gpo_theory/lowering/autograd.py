"""The torch function of a loss, whose derivatives are code of their own and not the derivatives of its code."""

__all__ = ["TorchCode"]

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gpo_theory.formula.expression import Expr
from gpo_theory.lowering.accurate_code import program_of
from gpo_theory.lowering.knees import Knee, find_knees
from gpo_theory.lowering.program import operations as operations_of

_OPERATIONS = operations_of(torch)
_TRACED = {name: each for name, each in _OPERATIONS.items() if name != "in place"}  # torch.compile fuses by itself


class TorchCode:
    """f, f' and f'' of a primitive formula on tensors; f'' is made when it is first asked for."""

    def __init__(self, f: Expr) -> None:
        self.f, self.knees = f, find_knees(f)
        self.programs = [program_of(f, 0), program_of(f, 1)]

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x), with derivatives up to the second in reverse and forward mode."""
        return cast(Tensor, (_Compiled if torch.compiler.is_compiling() else _Derivative).apply(x, self, 0))  # type: ignore[no-untyped-call]

    def value(self, x: Tensor, order: int) -> Tensor:
        """Return f^(order)(x) without a graph, continued by the tangents beyond the knees."""
        operations = _TRACED if torch.compiler.is_compiling() else _OPERATIONS
        program = self.programs[order] if order < 2 else program_of(self.f, order)
        left, right = self.knees
        if (not left and not right) or self._within(x):
            return cast(Tensor, program.run(x, operations))
        inside = x.clip(None if left is None else left.x, None if right is None else right.x)
        value = program.run(inside, operations)
        for knee, sign in ((left, -1), (right, 1)):
            if knee:
                tangent = (value + knee.slope * (x - knee.x), knee.slope, 0.0)[order]
                value = torch.where((x - knee.x) * sign > 0, tangent, value)
        return cast(Tensor, value)

    def _within(self, x: Tensor) -> bool:
        """Whether all of x is seen to lie between the knees, so that neither clamps nor tangents are needed."""
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not x.numel():
            return False
        left, right = self.knees
        values = x.detach().reshape(-1)
        if left and right:  # sum of x^2 < knee^2: one pass in place of two, and knees are large
            return bool(values.dot(values) < min(abs(left.x), abs(right.x)) ** 2)
        return bool(values.amin() > left.x) if left else bool(values.amax() < cast(Knee, right).x)


class _Compiled(torch.autograd.Function):
    """f^(order), whose gradient is f^(order + 1): all that torch.compile traces."""

    @staticmethod
    def forward(x: Tensor, code: TorchCode, order: int) -> Tensor:
        value = code.value(x, order)
        return x.clone() if value is x else value  # as the slope of x**2/2: torch saves no input that is an output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.code, ctx.order = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * _Compiled.apply(*ctx.saved_tensors, ctx.code, ctx.order + 1), None, None  # type: ignore[no-untyped-call]


class _Derivative(_Compiled):
    """The same with forward mode and vmap, which torch.compile does not trace."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Compiled.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            return gradient * _Derivative.apply(x, ctx.code, ctx.order + 1), None, None  # type: ignore[no-untyped-call]
        slope = ctx.code.value(x, ctx.order + 1)
        # Without a graph the product takes the memory of the slope, unless that is x itself, as for x**2/2.
        return gradient * slope if slope.data_ptr() == x.data_ptr() else slope.mul_(gradient), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        # torch switches forward mode off in here, so that the tangents of an outer jvp would be lost.
        with forward_ad._set_fwd_grad_enabled(True):
            x = forward_ad.unpack_dual(*ctx.saved_tensors).primal  # type: ignore[no-untyped-call]
            return cast(Tensor, tangent * _Derivative.apply(x, ctx.code, ctx.order + 1))  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, code: TorchCode, order: int) -> tuple[Tensor, Any]:
        return cast(Tensor, _Derivative.apply(x, code, order)), in_dims[0]  # type: ignore[no-untyped-call]
