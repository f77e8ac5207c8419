"""The last layer where it is read: nobody reads its output at prompt tokens, so only keys and values are made there."""

__all__ = ["only_where_read"]

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from gpo_full.attention.mask import PairMask
from gpo_full.engine.packing import Batch
from gpo_full.kernels.layers import checkpointed, forward_replaced, layer_stack

# Parts of a layer that treat each position alone, and whose output at a position is of use to that position only.
PARTS = ("mlp", "feed_forward", "self_attn.q_proj", "self_attn.o_proj")


@contextmanager
def only_where_read(model: Any, batch: Batch) -> Iterator[None]:
    """Let the last layer of `model` compute queries, attention and what follows at `batch.read` alone, 0 elsewhere.

    With checkpointed activations nothing changes: the layer is computed once more when this is over.
    """
    layer = None if batch.layout == "apart" else _last_layer(model)
    with ExitStack() as stack:
        if layer is not None:
            for part in _parts(layer):
                stack.enter_context(forward_replaced(part, _at(part.forward, batch.read)))
            if batch.layout == "line":
                stack.callback(layer.register_forward_pre_hook(_mask_replaced(batch), with_kwargs=True).remove)
        yield


def _last_layer(model: Any) -> nn.Module | None:
    layers = layer_stack(model)
    return layers[-1] if layers and not checkpointed(layers[-1]) else None


def _parts(layer: nn.Module) -> list[nn.Module]:
    modules = dict(layer.named_modules())
    return [modules[name] for name in PARTS if name in modules]


def _at(original: Callable[[Tensor], Tensor], read: Tensor) -> Callable[[Tensor], Tensor]:
    def partly(states: Tensor) -> Tensor:
        rows = original(states.flatten(0, -2).index_select(0, read)[None])[0]
        whole = rows.new_zeros(states.shape[:-1].numel(), rows.shape[-1])
        return whole.index_copy(0, read, rows).view(*states.shape[:-1], -1)

    return partly


def _mask_replaced(batch: Batch) -> Callable[..., Any]:
    def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("attention_mask")
        return args, kwargs | ({"attention_mask": batch.mask_where_read} if isinstance(mask, PairMask) else {})

    return hook
