"""The mask of a row of many pairs, as a tensor that knows its blocks: attention is computed pair by pair."""

__all__ = ["PairMask"]

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpo_full.autocast import autocast_dtype
from gpo_full.pair_sizes import PairSizes
from gpo_full.segments import Segments, one_call


class PairMask(Tensor):
    """A [1, 1, L, L] boolean attention mask of blocks `[prefix | chosen | rejected]`, never laid out as a whole.

    `scaled_dot_product_attention` with this mask costs one causal call per prefix and chosen response and one per
    rejected response, or one call in all where a kernel takes the segments; nothing is spent on other pairs or on
    padding. With `read`, what no prediction reads is left 0: the prefix costs nothing but its end. Any other operation
    sees the ordinary tensor. torch's own `torch.nn.attention.bias.CausalBias` is built the same way.
    """

    sizes: tuple[PairSizes, ...]
    read: bool
    dense: Callable[[], Tensor]
    place: torch.device
    _blocks: list["_Block"] | None
    _segments: Segments | None

    @staticmethod
    def __new__(
        cls, sizes: tuple[PairSizes, ...], device: torch.device, dense: Callable[[], Tensor], *, read: bool = False
    ) -> "PairMask":
        """`sizes` are those of the pairs in the row, in order; `dense` makes the ordinary mask."""
        length = sum(each.size for each in sizes)
        blank = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=device).expand(1, 1, length, length)
        mask: PairMask = torch.Tensor._make_subclass(cls, blank)
        mask.sizes, mask.read, mask.dense, mask.place = sizes, read, dense, device
        mask._blocks = mask._segments = None
        return mask

    @property
    def blocks(self) -> list["_Block"]:
        """What pair-by-pair attention needs, made once."""
        if self._blocks is None:
            self._blocks = [_block(each, self.place, read=self.read) for each in self.sizes]
        return self._blocks

    @property
    def segments(self) -> Segments:
        """What attention in one call needs, made once."""
        if self._segments is None:
            self._segments = Segments.of(self.sizes, self.place, read=self.read)
        return self._segments

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


class _Block(NamedTuple):
    """A pair: how many of its tokens go the causal way, its other tokens, and what each of these sees, [rest, size]."""

    start: int
    rest: int
    visible: Tensor


def _block(sizes: PairSizes, device: torch.device, *, read: bool) -> _Block:
    # What predictions read lies at the end of the prefix and in the responses.
    start = sizes.prompt - 1 if read else sizes.prefix + sizes.chosen
    kinds = torch.arange(3, device=device).repeat_interleave(
        torch.tensor([sizes.prefix, sizes.chosen, sizes.rejected], device=device), output_size=sizes.size)  # fmt: skip
    order = torch.arange(sizes.size, device=device)
    visible = (kinds == 0) | (kinds[start:, None] == kinds)
    return _Block(start, sizes.size - start, visible & (order <= order[start:, None]))


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
    blocks, sizes = attn_mask.blocks, [each.size for each in attn_mask.sizes]
    # One split each: its backward is one concatenation, where slices would each cost a tensor of the full length.
    tensors = zip(*(torch.split(tensor, sizes, 2) for tensor in (query, key, value)), strict=True)
    parts = []
    for (q, k, v), (start, rest, visible) in zip(tensors, blocks, strict=True):
        first, last = q.split([start, rest], 2)
        if attn_mask.read:
            parts.append(torch.zeros_like(first[..., : v.shape[-1]]))
        else:
            parts.append(F.scaled_dot_product_attention(first, k[:, :, :start], v[:, :, :start], None, dropout_p, True,
                                                        **options))  # fmt: skip
        if rest:
            parts.append(F.scaled_dot_product_attention(last, k, v, visible, dropout_p, False, **options))
    return torch.cat(parts, 2)
