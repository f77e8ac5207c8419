"""All kernels for the time of a forward pass."""

__all__ = ["fast_kernels"]

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from gpo_full.kernels.gated_mlp import fused_gates
from gpo_full.kernels.matmul import fast_products
from gpo_full.kernels.norms import fused_norms
from gpo_full.kernels.rotary import fused_rotary

KERNELS = (fast_products, fused_gates, fused_norms, fused_rotary)  # empty: the model's own code


@contextmanager
def fast_kernels(model: nn.Module) -> Iterator[None]:
    """Let `model` compute by the kernels of this folder while the context is open, where they are faster and the same.

    Without KERNELS it does nothing.
    """
    with ExitStack() as stack:
        for kernel in KERNELS:
            stack.enter_context(kernel(model))
        yield
