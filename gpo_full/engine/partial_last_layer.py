"""The last layer at source positions only: its output at other tokens is not used, only their keys and values are."""

__all__ = ["last_layer_at_sources"]

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from gpo_full.attention.mask import PairMask
from gpo_full.engine.packing import Batch
from gpo_full.kernels.layers import Forward, checkpointed, forward_replaced, layer_stack

# Modules of a layer that act on each position separately, and whose output at a position is used at that position only.
PARTS = ("mlp", "feed_forward", "self_attn.q_proj", "self_attn.o_proj")


@contextmanager
def last_layer_at_sources(model: Any, batch: Batch) -> Iterator[None]:
    """Let the last layer of `model` compute queries, attention and MLP at `batch.distinct_sources` only, 0 elsewhere.

    Does nothing in layout "apart", or if the layer's activations are checkpointed: backward would recompute them after
    this context is left.
    """
    layers = [] if batch.layout == "apart" else layer_stack(model)
    with ExitStack() as stack:
        if layers and not checkpointed(layers[-1]):
            modules = dict(layers[-1].named_modules())
            for part in (modules[name] for name in PARTS if name in modules):
                stack.enter_context(forward_replaced(part, _at(part.forward, batch.distinct_sources)))
            if batch.layout == "line":
                stack.enter_context(layers[-1].register_forward_pre_hook(_mask_replaced(batch), with_kwargs=True))
        yield


def _at(original: Forward, positions: Tensor) -> Forward:
    """Return a forward that computes `original` at some of the flattened positions, and is 0 at the others."""

    def partial(states: Tensor) -> Tensor:
        rows = original(states.flatten(0, -2).index_select(0, positions)[None])[0]
        whole = rows.new_zeros(states.shape[:-1].numel(), rows.shape[-1])
        return whole.index_copy(0, positions, rows).view(*states.shape[:-1], -1)

    return partial


def _mask_replaced(batch: Batch) -> Callable[..., Any]:
    """Return a pre-forward hook that gives the layer a mask with queries at source positions only."""

    def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("attention_mask")
        return args, kwargs | ({"attention_mask": batch.mask_at_sources} if isinstance(mask, PairMask) else {})

    return hook
