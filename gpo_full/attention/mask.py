"""The attention mask of a row of many pairs: a tensor that is never built whole; attention is computed by blocks."""

__all__ = ["PairMask", "kept_by_attention"]

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpo_full.attention.on_cpu import RowAttention, copies
from gpo_full.attention.on_cuda import Segments, one_call
from gpo_full.attention.prompt_blocks import BlockSizes
from gpo_full.kernels.autocast import autocast_dtype

# The types for which attention on a CPU is computed by `RowAttention`.
FULL = (torch.float32, torch.float64)


class PairMask(Tensor):
    """A [1, 1, L, L] boolean attention mask of blocks `[prefix | tail | tail ...]` that takes no memory of that size.

    `scaled_dot_product_attention` with it is computed by `RowAttention` on a CPU, in one call where a CUDA kernel takes
    the segments, and elsewhere in one causal call per prefix and first tail and one per other tail. No time is
    spent on pairs of tokens in different blocks. With `sources_only`, queries that are not the source of a prediction
    (all of a prompt but its last) give 0. Any other operation acts on the ordinary mask. `torch.nn.attention.bias` has
    CausalBias, of the same kind.
    """

    sizes: tuple[BlockSizes, ...]
    sources_only: bool
    dense: Callable[[], Tensor]
    place: torch.device

    @staticmethod
    def __new__(
        cls, sizes: tuple[BlockSizes, ...], device: torch.device, dense: Callable[[], Tensor], *,
        sources_only: bool = False,
    ) -> "PairMask":  # fmt: skip
        """Make the mask of blocks of these sizes, in the order of the row; `dense` returns the ordinary mask."""
        length = sum(each.size for each in sizes)
        blank = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=device).expand(1, 1, length, length)
        mask: PairMask = torch.Tensor._make_subclass(cls, blank)
        mask.sizes, mask.sources_only, mask.dense, mask.place = sizes, sources_only, dense, device
        return mask

    @cached_property
    def calls(self) -> list[list["_Call"]]:
        """The calls of block-by-block attention, for each block."""
        return [_calls(each, self.place, sources_only=self.sources_only) for each in self.sizes]

    @cached_property
    def segments(self) -> Segments:
        """The arguments of attention in one call."""
        return Segments.of(self.sizes, self.place, sources_only=self.sources_only)

    @cached_property
    def row(self) -> RowAttention:
        """Attention as large matrix products."""
        return RowAttention(self.sizes, self.place, sources_only=self.sources_only)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            if func.__name__ == "__get__":  # shape, dtype, device, ...
                return func(*args, **kwargs)
            if func is Tensor.__getitem__ and func(*args).shape == args[0].shape:
                return args[0]
            plain = [each.dense() if isinstance(each, PairMask) else each for each in args]
            return func(*plain, **{k: v.dense() if isinstance(v, PairMask) else v for k, v in kwargs.items()})


def kept_by_attention(sizes: Sequence[BlockSizes]) -> int:
    """Return how many numbers per head attention on a CPU keeps for backward, apart from queries, keys and values.

    >>> kept_by_attention([BlockSizes(prompt=1, prefix=1, tails=(1, 2))])  # four queries, four keys
    16
    """
    return RowAttention(sizes, torch.device("meta"), sources_only=False).kept


class _Call(NamedTuple):
    """One attention call of a block: `size` queries behind `skipped` ones whose output is 0, and their keys."""

    skipped: int
    size: int
    keys: int  # the number of keys from the block's start; 0: the keys of the prefix and of tail `tail` (from 1)
    tail: int
    visible: Tensor | None  # [size, keys]; None is causal

    def among(self, whole: Tensor, pieces: Sequence[Tensor]) -> Tensor:
        """Select the keys' rows from `whole`, [1, heads, block, width], or from `pieces`, its prefix and tails."""
        return whole[:, :, : self.keys] if self.keys else torch.cat((pieces[0], pieces[self.tail]), 2)


def _calls(sizes: BlockSizes, device: torch.device, *, sources_only: bool) -> list[_Call]:
    # Sources are the last token of the prompt and all that follow it.
    skipped, end = sizes.prompt - 1 if sources_only else 0, sizes.prefix + sizes.tails[0]
    calls = [_Call(skipped, end - skipped, end, 1, _lower(end, skipped, device) if sources_only else None)]
    for which, tail in enumerate(sizes.tails[1:], 2):
        if tail:
            calls.append(_call_of_tail(sizes.prefix, end, tail, which, device))
        end += tail
    return calls


def _call_of_tail(prefix: int, start: int, size: int, which: int, device: torch.device) -> _Call:
    """The call of a tail but the first, of `size` tokens from `start` on."""
    if copies(prefix, start, size):
        return _Call(0, size, 0, which, _lower(prefix + size, prefix, device))
    visible = _lower(start + size, start, device)
    visible[:, prefix:start] = False
    return _Call(0, size, start + size, which, visible)


def _lower(keys: int, start: int, device: torch.device) -> Tensor:
    """The rows from `start` on of a causal mask of `keys` tokens, [keys - start, keys]."""
    return torch.ones(keys - start, keys, dtype=torch.bool, device=device).tril_(start)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: PairMask, dropout_p: float = 0.0, is_causal: bool = False,
    **options: Any,
) -> Tensor:  # fmt: skip
    """Compute attention under `attn_mask`; query, key, value and the result are [1, heads, L, width]."""
    if not dropout_p and one_call(query.device, autocast_dtype(query), value.shape[-1]):
        return attn_mask.segments.attention(query, key, value, **options)
    if not dropout_p and query.shape[1] == key.shape[1] and _is_multiplied(query):
        return attn_mask.row(query, key, value, options.get("scale"))
    sizes, whole = attn_mask.sizes, [each.size for each in attn_mask.sizes]
    # One split each, for its backward is one concatenation; that of a slice is a tensor of the full length.
    tensors = zip(*(torch.split(tensor, whole, 2) for tensor in (query, key, value)), strict=True)
    outputs = []
    for (q, k, v), calls, each in zip(tensors, attn_mask.calls, sizes, strict=True):
        pieces = iter(q.split([size for call in calls for size in (call.skipped, call.size)], 2))
        in_k, in_v = (tensor.split([each.prefix, *each.tails], 2) for tensor in (k, v))
        for call, skipped, queries in zip(calls, pieces, pieces, strict=True):
            if call.skipped:
                outputs.append(torch.zeros_like(skipped[..., : v.shape[-1]]))
            keys, values = call.among(k, in_k), call.among(v, in_v)
            outputs.append(F.scaled_dot_product_attention(queries, keys, values, call.visible, dropout_p,
                                                          call.visible is None, **options))  # fmt: skip
    return torch.cat(outputs, 2)


def _is_multiplied(query: Tensor) -> bool:
    """Whether `RowAttention` computes it: on a CPU, in full precision. torch's kernel computes hidden scores too."""
    return query.device.type == "cpu" and query.dtype in FULL and autocast_dtype(query) == query.dtype
