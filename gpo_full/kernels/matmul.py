"""Large float32 matrix products on a CPU by oneDNN, which torch includes but uses for half precision only."""

__all__ = ["fast_products", "product"]

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpo_full.kernels.autocast import autocast_dtype
from gpo_full.kernels.layers import Forward, forwards_replaced

# The number of multiplications from which it is faster (measured): for less, finding its compiled code takes longer.
LEAST = 2**25
# The CPU capability for which it was measured (10 to 40% faster than the BLAS that torch calls; LOG.md).
CAPABILITY = "AVX512"
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# The largest allowed difference from torch's product, relative to the largest entry: some 80 float32 roundings.
SAME = 1e-5


def fast_products(model: nn.Module) -> AbstractContextManager[None]:
    """Let the linear layers of `model` that are in float32 on a CPU multiply by `product`, forward and backward.

    Does nothing in modules that are compiled, or if activations are checkpointed.
    """
    return forwards_replaced(model, filter(_is_linear, _open_modules(model)), _fast)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows weight' + bias, [..., out] from [..., in], [out, in] and [out]; it is not differentiable.

    >>> product(torch.ones(1, 2), torch.eye(2)).tolist()
    [[1.0, 1.0]]
    """
    kernel = _kernel() if _pays(rows, weight) else None
    return F.linear(rows, weight, bias) if kernel is None else kernel(rows, weight, bias)


def _pays(rows: Tensor, weight: Tensor) -> bool:
    kinds = {(each.dtype, each.device.type) for each in (rows, weight)}
    # Fake tensors, with which memory is estimated, are of another type.
    plain = all(type(each) in (Tensor, nn.Parameter) for each in (rows, weight))
    return plain and kinds == {(torch.float32, "cpu")} and rows.shape[:-1].numel() * weight.numel() >= LEAST


@cache
def _kernel() -> Product | None:
    """Return the operator that torch's compiler calls for a linear layer, None if it is missing or differs."""
    if torch.backends.cpu.get_cpu_capability() != CAPABILITY or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is None:
        return None

    def kernel(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found: Tensor = operator(rows, weight, bias, "none", [], "")
        return found

    return kernel if _agrees(kernel) else None


def _agrees(kernel: Product) -> bool:
    # The operator is private, and may change. Both memory orders of the weight are tested.
    rows, weight, bias = (torch.linspace(-1, 2, n, device="cpu") for n in (3 * 5, 7 * 5, 7))
    rows, weight = rows.view(3, 5), weight.view(7, 5)
    with torch.autocast("cpu", enabled=False):
        try:
            found = kernel(rows, weight, bias), kernel(rows, weight.T.contiguous().T, None)
        except (RuntimeError, TypeError):
            return False
        expected = F.linear(rows, weight, bias), F.linear(rows, weight)
    pairs = zip(expected, found, strict=True)
    return all(a.shape == b.shape and bool((a - b).abs().max() <= SAME * a.abs().max()) for a, b in pairs)


def _open_modules(module: nn.Module) -> Iterator[nn.Module]:
    if module._compiled_call_impl is None:
        yield module
        for child in module.children():
            yield from _open_modules(child)


def _is_linear(module: nn.Module) -> bool:
    if type(module) is not nn.Linear or "forward" in module.__dict__:
        return False
    weight = module.weight.data
    # A sharded weight is whole only while the model's own forward runs.
    plain = type(weight) is Tensor and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return plain and _kernel() is not None


def _fast(module: Any) -> Forward:
    original: Forward = module.forward

    def linear(states: Tensor) -> Tensor:
        if autocast_dtype(states) != torch.float32 or not _pays(states, module.weight):
            return original(states)
        values: Tensor = _Linear.apply(states, module.weight, module.bias)  # type: ignore[no-untyped-call]
        return values

    return linear


class _Linear(torch.autograd.Function):
    """y = x w' + b. With g the incoming gradient: dx = g w, dw = g' x, db = sum of g over all rows."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_states, of_weight, _ = ctx.needs_input_grad
        # A frozen layer does not keep its input.
        ctx.save_for_backward(states if of_weight else None, weight if of_states else None)
        return product(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        of_states, of_weight, of_bias = ctx.needs_input_grad
        rows = incoming.flatten(0, -2)
        return (
            product(incoming, weight.T) if of_states else None,
            # oneDNN would copy both factors first, and is no faster.
            rows.T @ states.flatten(0, -2) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )
