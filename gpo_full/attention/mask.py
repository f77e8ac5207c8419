"""The mask of a row of many pairs, as a tensor that knows its blocks: attention is computed block by block."""

__all__ = ["PairMask", "kept_by_attention"]

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpo_full.attention.blocks import BlockSizes
from gpo_full.attention.on_cpu import RowAttention, copies
from gpo_full.attention.on_cuda import Segments, one_call
from gpo_full.kernels.autocast import autocast_dtype

# What is multiplied block by block on a CPU.
FULL = (torch.float32, torch.float64)


class PairMask(Tensor):
    """A [1, 1, L, L] boolean attention mask of blocks `[prefix | tail | tail ...]`, never laid out as a whole.

    `scaled_dot_product_attention` with this mask costs one causal call per prefix and first tail and one per other
    tail; one call in all where a kernel takes the segments; or, on a CPU, the products of `RowAttention`. Nothing is
    spent on other blocks or on padding. With `read`, what no prediction reads is left 0: the prefix costs nothing but
    its end. Any other operation sees the ordinary tensor. torch's own `torch.nn.attention.bias.CausalBias` is built the
    same way.
    """

    sizes: tuple[BlockSizes, ...]
    read: bool
    dense: Callable[[], Tensor]
    place: torch.device
    _blocks: list[list["_Part"]] | None
    _segments: Segments | None
    _row: RowAttention | None

    @staticmethod
    def __new__(
        cls, sizes: tuple[BlockSizes, ...], device: torch.device, dense: Callable[[], Tensor], *, read: bool = False
    ) -> "PairMask":
        """`sizes` are those of the blocks in the row, in order; `dense` makes the ordinary mask."""
        length = sum(each.size for each in sizes)
        blank = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=device).expand(1, 1, length, length)
        mask: PairMask = torch.Tensor._make_subclass(cls, blank)
        mask.sizes, mask.read, mask.dense, mask.place = sizes, read, dense, device
        mask._blocks = mask._segments = mask._row = None
        return mask

    @property
    def blocks(self) -> list[list["_Part"]]:
        """What block-by-block attention needs, made once."""
        if self._blocks is None:
            self._blocks = [_parts(each, self.place, read=self.read) for each in self.sizes]
        return self._blocks

    @property
    def segments(self) -> Segments:
        """What attention in one call needs, made once."""
        if self._segments is None:
            self._segments = Segments.of(self.sizes, self.place, read=self.read)
        return self._segments

    @property
    def row(self) -> RowAttention:
        """What attention as large products needs, made once."""
        if self._row is None:
            self._row = RowAttention(self.sizes, self.place, read=self.read)
        return self._row

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
    """Return how many numbers per head a layer keeps for backward beside queries, keys and values, on a CPU.

    >>> kept_by_attention([BlockSizes(prompt=1, prefix=1, tails=(1, 2))])  # four queries, four keys
    16
    """
    return RowAttention(sizes, torch.device("meta"), read=False).kept


class _Part(NamedTuple):
    """Queries of a block that one call answers: how many go before them unanswered, how many they are, their keys."""

    skipped: int
    size: int
    keys: int  # the block's first ones; 0 for those of the prefix and of tail `tail` (from 1)
    tail: int
    visible: Tensor | None  # [size, keys]; None is causal

    def among(self, whole: Tensor, pieces: Sequence[Tensor]) -> Tensor:
        """The keys' rows of a block, [1, heads, size, width], `pieces` being its prefix and tails."""
        return whole[:, :, : self.keys] if self.keys else torch.cat((pieces[0], pieces[self.tail]), 2)


def _parts(sizes: BlockSizes, device: torch.device, *, read: bool) -> list[_Part]:
    # What predictions read lies at the end of the prefix and in the tails.
    skipped, end = sizes.prompt - 1 if read else 0, sizes.prefix + sizes.tails[0]
    parts = [_Part(skipped, end - skipped, end, 1, _lower(end, skipped, device) if read else None)]
    for which, tail in enumerate(sizes.tails[1:], 2):
        if tail:
            parts.append(_of_tail(sizes.prefix, end, tail, which, device))
        end += tail
    return parts


def _of_tail(prefix: int, start: int, size: int, which: int, device: torch.device) -> _Part:
    """The part of a later tail, `size` tokens from `start` on."""
    if copies(prefix, start, size):
        return _Part(0, size, 0, which, _lower(prefix + size, prefix, device))
    visible = _lower(start + size, start, device)
    visible[:, prefix:start] = False
    return _Part(0, size, start + size, which, visible)


def _lower(keys: int, start: int, device: torch.device) -> Tensor:
    """The rows from `start` on of what each of `keys` tokens sees in causal order."""
    return torch.ones(keys - start, keys, dtype=torch.bool, device=device).tril_(start)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: PairMask,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    """Attend block by block, or in one call; each of query, key and value is [1, heads, L, width]."""
    if not dropout_p and one_call(query.device, autocast_dtype(query), value.shape[-1]):
        return attn_mask.segments.attention(query, key, value, **options)
    if not dropout_p and query.shape[1] == key.shape[1] and _is_multiplied(query):
        return attn_mask.row(query, key, value, options.get("scale"))
    sizes, whole = attn_mask.sizes, [each.size for each in attn_mask.sizes]
    # One split each: its backward is one concatenation, where slices would each cost a tensor of the full length.
    tensors = zip(*(torch.split(tensor, whole, 2) for tensor in (query, key, value)), strict=True)
    answers = []
    for (q, k, v), parts, each in zip(tensors, attn_mask.blocks, sizes, strict=True):
        asked = iter(q.split([size for part in parts for size in (part.skipped, part.size)], 2))
        in_k, in_v = (tensor.split([each.prefix, *each.tails], 2) for tensor in (k, v))
        for part, skipped, queries in zip(parts, asked, asked, strict=True):
            if part.skipped:
                answers.append(torch.zeros_like(skipped[..., : v.shape[-1]]))
            keys, values = part.among(k, in_k), part.among(v, in_v)
            answers.append(F.scaled_dot_product_attention(queries, keys, values, part.visible, dropout_p,
                                                          part.visible is None, **options))  # fmt: skip
    return torch.cat(answers, 2)


def _is_multiplied(query: Tensor) -> bool:
    """Whether attention is a sequence of large products: torch's kernel for a CPU computes hidden scores too."""
    return query.device.type == "cpu" and query.dtype in FULL and autocast_dtype(query) == query.dtype
