"""The decoder layers of a model, whether backward recomputes them, and replacing a module's forward."""

__all__ = ["Forward", "checkpointed", "forward_replaced", "forwards_replaced", "layer_stack"]

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]


@contextmanager
def forwards_replaced(model: nn.Module, modules: Iterable[Any], faster: Callable[[Any], Forward]) -> Iterator[None]:
    """Replace the forward of each of `modules`, all parts of `model`, by `faster(module)` while the context is open.

    Does nothing if activations are checkpointed: backward would recompute the layers after the context is left.
    """
    with ExitStack() as stack:
        if not any(map(checkpointed, model.modules())):
            for module in modules:
                stack.enter_context(forward_replaced(module, faster(module)))
        yield


@contextmanager
def forward_replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
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
