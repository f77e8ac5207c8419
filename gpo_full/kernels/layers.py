"""The decoder layers of a model, whether backward recomputes them, and replacing a module's forward."""

__all__ = ["checkpointed", "forward_replaced", "layer_stack"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the forward of `module` while the context is open."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def checkpointed(layer: nn.Module) -> bool:
    """Return whether backward recomputes `layer`, by gradient checkpointing of transformers or of FSDP."""
    return bool(getattr(layer, "gradient_checkpointing", False)) or type(layer).__name__ == "CheckpointWrapper"


def layer_stack(model: Any) -> list[nn.Module]:
    """Return the decoder's layers, [] if the decoder does not have exactly one ModuleList."""
    stacks = [child for child in model.get_decoder().children() if isinstance(child, nn.ModuleList)]
    return [*stacks[0]] if len(stacks) == 1 else []
