"""Root-mean-square norms in few passes over memory: as written out in most models, one is a dozen of them."""

__all__ = ["fused_norms"]

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.fsdp import FSDPModule

from gpo_full.kernels.layers import checkpointed, forward_replaced

# What models call the number under the root.
EPSILONS = ("variance_epsilon", "eps")
# The largest difference, relative to the largest value, between a norm that is replaced and what replaces it.
SAME = 1e-5
# Per class of norm: whether it computes x / rms(x) * weight, as was found by trying.
_tried: dict[type, bool] = {}


@contextmanager
def fused_norms(model: nn.Module) -> Iterator[None]:
    """Let the norms of `model` that compute x / sqrt(mean(x^2) + eps) * weight in full precision do so in few passes.

    Of each class whose name ends in RMSNorm one is tried, for the name alone does not say what it computes. With
    checkpointed activations nothing changes: the layers are computed once more when this is over.
    """
    with ExitStack() as stack:
        if not any(map(checkpointed, model.modules())):
            for module in filter(_is_root_mean_square, model.modules()):
                stack.enter_context(forward_replaced(module, _fused(module, module.forward)))
        yield


def _is_root_mean_square(module: Any) -> bool:
    if not type(module).__name__.endswith("RMSNorm") or "forward" in module.__dict__ or _epsilon(module) is None:
        return False
    if isinstance(module, FSDPModule):  # its weight, left whole by the last pass, will be in pieces again
        return False
    weight = getattr(module, "weight", None)
    # A sharded weight is whole only during the model's own forward pass.
    if not isinstance(weight, nn.Parameter) or type(weight.data) is not Tensor or weight.ndim != 1:
        return False
    return _tried[type(module)] if type(module) in _tried else _tried.setdefault(type(module), _agrees(module))


def _epsilon(module: nn.Module) -> float | None:
    found = next((getattr(module, name) for name in EPSILONS if hasattr(module, name)), None)
    return found if isinstance(found, float) else None


@torch.no_grad()
def _agrees(module: nn.Module) -> bool:
    # A copy with weights of its own: those of the model may not be there yet, and may all be 1.
    copied: Any = copy.deepcopy(module).to_empty(device="cpu").float()
    nn.init.uniform_(copied.weight, 0.5, 2, generator=torch.Generator().manual_seed(0))
    states = torch.linspace(-2, 3, 2 * len(copied.weight)).view(1, 2, -1)
    expected = copied(states)
    found = _RootMeanSquare.apply(states, copied.weight, _epsilon(copied))  # type: ignore[no-untyped-call]
    return bool((expected - found).abs().max() <= SAME * expected.abs().max())


def _fused(module: nn.Module, original: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def norm(states: Tensor) -> Tensor:
        weight = module.weight
        if states.dtype != torch.float32 or weight.dtype != torch.float32:
            return original(states)
        values: Tensor = _RootMeanSquare.apply(states, weight, _epsilon(module))  # type: ignore[no-untyped-call]
        return values

    return norm


class _RootMeanSquare(torch.autograd.Function):
    """y = s x w with s = (mean(x^2) + eps)^(-1/2), over the last dimension, of d numbers.

    With g the incoming gradient: dx = s g w - x (s^3 / d) sum(g w x), and dw = sum of s g x over all rows.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            scale = (torch.linalg.vecdot(states, states) / states.shape[-1] + epsilon).rsqrt_()
            ctx.save_for_backward(states, weight, scale)
            normed: Tensor = (states * scale[..., None]).mul_(weight)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, scale = ctx.saved_tensors
        product = incoming * states
        rows, width = product.flatten(0, -2), product.shape[-1]
        with torch.autocast(states.device.type, enabled=False):
            to_weight = rows.T @ scale.flatten() if ctx.needs_input_grad[1] else None
            pull = torch.mv(rows, weight).view_as(scale).mul_(scale.pow(3)).div_(-width)
        # `product` is not needed any more: its memory takes the gradient.
        to_states: Tensor = torch.mul(incoming, weight, out=product).mul_(scale[..., None])
        to_states.addcmul_(states, pull[..., None])
        return to_states, to_weight, None
