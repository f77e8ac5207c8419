"""Root-mean-square norms in few passes over memory; as most models write them, each is a dozen passes."""

__all__ = ["fused_norms"]

import copy
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.fsdp import FSDPModule

from gpo_full.kernels.layers import Forward, forwards_replaced

# The names in models of the number eps under the root.
EPSILONS = ("variance_epsilon", "eps")
# The largest allowed difference from the norm that is replaced, relative to the largest value.
SAME = 1e-5
# Whether a class of norms computes x / rms(x) * weight, by a test of one of them.
_tried: dict[type, bool] = {}


def fused_norms(model: nn.Module) -> AbstractContextManager[None]:
    """Let the norms of `model` that compute x / sqrt(mean(x^2) + eps) * weight in full precision do so in few passes.

    One norm of each class whose name ends in RMSNorm is tested, since the name alone does not say what it computes.
    Does nothing if activations are checkpointed.
    """
    return forwards_replaced(model, filter(_is_root_mean_square, model.modules()), _fused)


def _is_root_mean_square(module: Any) -> bool:
    if not type(module).__name__.endswith("RMSNorm") or "forward" in module.__dict__ or _epsilon(module) is None:
        return False
    if isinstance(module, FSDPModule):  # its weight is whole after the last pass, but will be sharded again
        return False
    weight = getattr(module, "weight", None)
    # A sharded weight is whole only while the model's own forward runs.
    if not isinstance(weight, nn.Parameter) or type(weight.data) is not Tensor or weight.ndim != 1:
        return False
    return _tried[type(module)] if type(module) in _tried else _tried.setdefault(type(module), _agrees(module))


def _epsilon(module: nn.Module) -> float | None:
    found = next((getattr(module, name) for name in EPSILONS if hasattr(module, name)), None)
    return found if isinstance(found, float) else None


@torch.no_grad()
def _agrees(module: nn.Module) -> bool:
    # A copy with other weights: those of the model may be on the meta device, and may all be 1.
    copied: Any = copy.deepcopy(module).to_empty(device="cpu").float()
    nn.init.uniform_(copied.weight, 0.5, 2, generator=torch.Generator().manual_seed(0))
    states = torch.linspace(-2, 3, 2 * len(copied.weight)).view(1, 2, -1)
    expected = copied(states)
    found = _RootMeanSquare.apply(states, copied.weight, _epsilon(copied))  # type: ignore[no-untyped-call]
    return bool((expected - found).abs().max() <= SAME * expected.abs().max())


def _fused(module: nn.Module) -> Forward:
    original: Forward = module.forward

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
        # The memory of `product` is reused for the gradient.
        to_states: Tensor = torch.mul(incoming, weight, out=product).mul_(scale[..., None])
        to_states.addcmul_(states, pull[..., None])
        return to_states, to_weight, None
