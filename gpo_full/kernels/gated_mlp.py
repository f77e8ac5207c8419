"""Gated MLPs that keep less for backward: the activation is recomputed from the gate, in memory that exists."""

__all__ = ["fused_gates"]

import copy
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.fsdp import FSDPModule
from torch.utils._python_dispatch import _disable_current_modes

from gpo_full.kernels.layers import Forward, forwards_replaced

# The names of the three linear layers in models.
PRODUCTS = ("gate_proj", "up_proj", "down_proj")
# A factor of the test input, which takes it beyond any bound to which models clamp activations.
LARGE = 1e4
# Whether a module computes down(silu(gate(x)) up(x)), by a test on the module itself.
_tried: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def fused_gates(model: nn.Module) -> AbstractContextManager[None]:
    """Let the MLPs of `model` that compute down(silu(gate(x)) up(x)) keep only gate(x) and up(x), bitwise the same.

    Each is tested first, since its names do not say what it computes. Does nothing if activations are checkpointed.
    """
    return forwards_replaced(model, filter(_is_gated, model.modules()), _fused)


def _is_gated(module: Any) -> bool:
    if not all(name in module._modules for name in PRODUCTS) or "forward" in module.__dict__:
        return False
    if module._compiled_call_impl is not None or isinstance(module, FSDPModule):  # compiled, or sharded
        return False
    if any(isinstance(part, nn.Dropout) for part in module.modules()):
        return False
    return _tried[module] if module in _tried else _tried.setdefault(module, _agrees(module))


@torch.no_grad()
def _agrees(module: Any) -> bool:
    """Compare the module, with small linear layers of known weights for its own, which may be on the meta device.

    Large inputs too, which some modules clamp; in training mode, where some draw random numbers.
    """
    with _disable_current_modes(), torch.autocast("cpu", enabled=False), torch.random.fork_rng(devices=[]):
        gate, up, down = small = [_known(*shape) for shape in ((2, 3, -1), (2, 3, -2), (3, 2, -3))]
        states = torch.linspace(-2, 3, 4, device="cpu").view(1, 2, 2)
        try:
            tried = copy.copy(module)
            tried._modules = module._modules | dict(zip(PRODUCTS, small, strict=True))
            tried.training = True
            return all(torch.equal(down(F.silu(gate(x)) * up(x)), tried.forward(x)) for x in (states, LARGE * states))
        except Exception:  # foreign code, on inputs it was not written for
            return False


def _known(into: int, out: int, least: int) -> nn.Linear:
    # Random weights would advance the generator, and change the run.
    layer: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, into, out, bias=False, device="cpu", dtype=torch.float32
    )
    layer.weight.copy_(torch.linspace(least, 2, into * out, device="cpu").view(out, into))
    return layer


def _fused(module: Any) -> Forward:
    def mlp(states: Tensor) -> Tensor:
        gate, up = module.gate_proj(states), module.up_proj(states)
        same = gate.dtype == up.dtype
        return module.down_proj(_Gated.apply(gate, up) if same else F.silu(gate) * up)  # type: ignore[no-any-return, no-untyped-call]

    return mlp


class _Gated(torch.autograd.Function):
    """h = silu(a) b. With g the incoming gradient: da = silu'(a) g b and db = silu(a) g."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        to_gate = incoming * up
        torch.ops.aten.silu_backward.grad_input(to_gate, gate, grad_input=to_gate)
        return to_gate, F.silu(gate).mul_(incoming)
