"""Exact attention on a CPU as large products, a block of queries with the keys that they see."""

__all__ = ["attend", "is_faster", "kept_scores"]

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpo_full.autocast import autocast_dtype

# Queries of a block: fewer make small products, more compute scores of keys that a causal query does not see.
QUERIES = 64
# Keys beyond which the probabilities, which are kept for backward, would be more than about a quarter of what a layer
# keeps (heads of 64).
LONGEST = 768
DTYPES = (torch.float32, torch.float64)


def is_faster(query: Tensor, key: Tensor) -> bool:
    """Return whether `attend` is to be used, and not torch's kernel: in full precision, on a CPU, for few keys.

    torch's kernel for the CPU computes the scores of up to 512 keys at once, hidden ones too.
    """
    few = key.shape[-2] <= LONGEST and query.shape[1] == key.shape[1]
    return few and query.device.type == "cpu" and query.dtype in DTYPES and autocast_dtype(query) == query.dtype


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scale: float | None = None) -> Tensor:
    """Return softmax(scale q k') v over the keys that each query sees, [1, heads, Q, width] like the query.

    `visible` is boolean, [Q, K], each row with at least one key; None is causal, with as many keys as queries.
    `scale` is 1 / sqrt(width of a query) unless given.

    >>> one = torch.zeros(1, 1, 2, 1)
    >>> attend(one, one, torch.tensor([2.0, 4.0]).view_as(one), None).flatten().tolist()
    [2.0, 3.0]
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    values: Tensor = _Attention.apply(query[0], key[0], value[0], visible, scale)  # type: ignore[no-untyped-call]
    return values[None]


def kept_scores(queries: int, keys: int, *, causal: bool) -> int:
    """Return how many numbers per head are kept for backward; 0 where `attend` is not used.

    >>> kept_scores(2, 3, causal=False), kept_scores(100, 100, causal=True)  # 2 * 3; 64 * 64 + 36 * 100
    (6, 7696)
    """
    return sum((each.end - each.start) * each.keys for each in _blocks(queries, keys, causal)) if keys <= LONGEST else 0


class _Block(NamedTuple):
    """Queries from `start` to `end`, the first `keys` keys, of which those from `masked` on may be hidden."""

    start: int
    end: int
    keys: int
    masked: int


def _blocks(queries: int, keys: int, causal: bool) -> Iterator[_Block]:
    for start in range(0, queries, QUERIES):
        end = min(start + QUERIES, queries)
        yield _Block(start, end, end, start) if causal else _Block(start, end, keys, 0)


class _Attention(torch.autograd.Function):
    """o = p v with p = softmax(s q k'), rows of hidden keys 0.

    With g the incoming gradient: dv = p' g, and with e = p (g v' - rowsum(p g v')), dq = s e k, dk = s e' q.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scale: float) -> Tensor:
        ctx.scale, ctx.blocks = scale, [*_blocks(query.shape[1], key.shape[1], visible is None)]
        hidden = _above(query) if visible is None else ~visible
        answer, kept, room = _rows_first(query, value.shape[-1]), [], _Room(query, key)
        for start, end, keys, masked in ctx.blocks:
            scores = room.of(end - start, keys)
            torch.baddbmm(scores, query[:, start:end], key[:, :keys].mT, beta=0, alpha=scale, out=scores)
            unseen = hidden[: end - start, : end - start] if visible is None else hidden[start:end]
            scores[:, :, masked:].masked_fill_(unseen, -torch.inf)
            kept.append(scores.softmax(-1))
            answer[:, start:end] = torch.bmm(kept[-1], value[:, :keys])
        ctx.save_for_backward(query, key, value, *kept)
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        to_query = _rows_first(query, query.shape[-1])
        to_key, to_value = (_rows_first(each, each.shape[-1]).zero_() for each in (key, value))
        room = _Room(query, key)
        for (start, end, keys, _), p in zip(ctx.blocks, kept, strict=True):
            asked, pulled = query[:, start:end], incoming[:, start:end]
            to_value[:, :keys].baddbmm_(p.mT, pulled)
            slope = torch.bmm(pulled, value[:, :keys].mT, out=room.of(end - start, keys))
            slope = torch._softmax_backward_data(slope, p, -1, p.dtype)
            to_query[:, start:end] = torch.bmm(slope, key[:, :keys])
            to_key[:, :keys].baddbmm_(slope.mT, asked, alpha=ctx.scale)
        return to_query.mul_(ctx.scale), to_key, to_value, None, None


class _Room:
    """Memory for the scores of one block, used again for the next."""

    def __init__(self, query: Tensor, key: Tensor) -> None:
        self.heads = len(query)
        self.numbers = query.new_empty(self.heads * min(QUERIES, query.shape[1]) * key.shape[1])

    def of(self, queries: int, keys: int) -> Tensor:
        return self.numbers[: self.heads * queries * keys].view(self.heads, queries, keys)


def _rows_first(like: Tensor, width: int) -> Tensor:
    """Room for [heads, rows, width] as the layers around attention have it: the heads of a row beside one another."""
    return like.new_empty(like.shape[1], len(like), width).transpose(0, 1)


def _above(query: Tensor) -> Tensor:
    """What queries of a block do not see of the block's own keys."""
    return torch.ones(QUERIES, QUERIES, dtype=torch.bool, device=query.device).triu_(1)
