"""The mask of a row of many pairs, as a tensor that knows its blocks: attention is computed pair by pair."""

__all__ = ["PairMask"]

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class PairMask(Tensor):
    """A [1, 1, L, L] boolean attention mask of blocks `[prefix | chosen | rejected]`, never laid out as a whole.

    `scaled_dot_product_attention` with this mask costs one causal call per prefix and one per pair of responses, so
    nothing is spent on other pairs or on padding. With `read` given, what no prediction reads is left 0: the prefix
    costs nothing but its end. Any other operation sees the ordinary tensor. torch's own
    `torch.nn.attention.bias.CausalBias` is built the same way.
    """

    starts: list[int]  # per block: how many of its tokens go the causal way, the others being its tail
    tails: list[Tensor]  # per block [tail, block] bool: what each token of the tail sees of its block
    whole: bool  # whether the tokens before the tail are computed
    dense: Callable[[], Tensor]

    @staticmethod
    def __new__(
        cls, block: Tensor, branch: Tensor, dense: Callable[[], Tensor], read: Tensor | None = None
    ) -> "PairMask":
        """`block` and `branch` are those of a `Batch` with one row and no padding; `dense` makes the ordinary mask."""
        length = block.shape[1]
        blank = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=block.device).expand(1, 1, length, length)
        mask: PairMask = torch.Tensor._make_subclass(cls, blank)
        sizes = torch.bincount(block[0])[1:].tolist()
        before = branch[0] == 0
        if read is not None:
            # The sources of a block lie at the end of its prefix and in its responses.
            before[read] = False
        mask.starts = torch.bincount(block[0][before], minlength=len(sizes) + 1)[1:].tolist()
        kinds = torch.split(branch[0], sizes)
        mask.tails = [_tail(of_block, start) for of_block, start in zip(kinds, mask.starts, strict=True)]
        mask.whole = read is None
        mask.dense = dense
        return mask

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


def _tail(kinds: Tensor, start: int) -> Tensor:
    order = torch.arange(len(kinds), device=kinds.device)
    visible = (kinds == 0) | (kinds[start:, None] == kinds)
    return visible & (order <= order[start:, None])


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: PairMask,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    """Attend block by block; each of query, key and value is [1, heads, L, width]."""
    sizes = [tail.shape[1] for tail in attn_mask.tails]
    # One split each: its backward is one concatenation, where slices would each cost a tensor of the full length.
    blocks = zip(*(torch.split(tensor, sizes, 2) for tensor in (query, key, value)), strict=True)
    parts = []
    for (q, k, v), start, tail in zip(blocks, attn_mask.starts, attn_mask.tails, strict=True):
        common, rest = q.split([start, len(tail)], 2)
        if attn_mask.whole:
            parts.append(F.scaled_dot_product_attention(common, k[:, :, :start], v[:, :, :start], None, dropout_p, True,
                                                        **options))  # fmt: skip
        else:
            parts.append(torch.zeros_like(common[..., : v.shape[-1]]))
        parts.append(F.scaled_dot_product_attention(rest, k, v, tail, dropout_p, False, **options))
    return torch.cat(parts, 2)
