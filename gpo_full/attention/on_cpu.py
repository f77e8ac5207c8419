"""Exact attention of a row of pairs on a CPU, as one large matrix product for each chunk of queries."""

__all__ = ["RowAttention", "copies"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpo_full.attention.prompt_blocks import BlockSizes

# Queries per chunk: fewer make small products, more compute scores of keys that a causal query does not see (measured).
QUERIES = 64
# With more keys than this, backward recomputes the probabilities: kept, they would be more than about a quarter of what
# a layer keeps (heads of 64).
LONGEST = 768
# A tail's hidden keys are either computed and masked, or the keys that it sees copied together: copying one costs as
# much as masking this many (measured).
COPIED = 20


class RowAttention:
    """Attention over a row of blocks `[prefix | tail | tail ...]`; one object serves all layers and heads."""

    def __init__(self, sizes: Sequence[BlockSizes], device: torch.device, *, sources_only: bool) -> None:
        """`sizes` are those of the blocks, in order; with `sources_only`, only queries at sources are computed."""
        self.parts: list[_Part] = []
        place = 0
        for each in sizes:
            self.parts += _parts(each, place, each.prompt - 1 if sources_only else 0, device)
            place += each.size
        self.complete = place == sum(chunk.size for part in self.parts for chunk in part.chunks)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
        """Return softmax(scale q k') v over the keys that each query sees, [1, heads, L, width] like the arguments.

        Queries that are not computed give 0. `scale` is 1 / sqrt(width of a query) by default.

        >>> row = RowAttention([BlockSizes(prompt=1, prefix=1, tails=(1, 1))], torch.device("cpu"), sources_only=False)
        >>> same = torch.zeros(1, 1, 3, 1)  # the second tail does not see the first
        >>> row(same, same, torch.tensor([2.0, 4.0, 8.0]).view_as(same)).flatten()
        tensor([2., 3., 5.])
        """
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        # Not `[0]`: its backward fills a tensor with zeros first.
        tensors = [each.squeeze(0) for each in (query, key, value)]
        values: Tensor = _Attention.apply(*tensors, self, scale)  # type: ignore[no-untyped-call]
        return values[None]

    @property
    def kept(self) -> int:
        """How many numbers per head are kept for backward, apart from queries, keys and values.

        >>> RowAttention([BlockSizes(prompt=1, prefix=80, tails=(20, 0))], torch.device("cpu"), sources_only=False).kept
        7500
        """
        return sum(chunk.size * chunk.keys for part in self.parts for chunk in part.chunks if chunk.is_kept)


def copies(prefix: int, start: int, size: int) -> bool:
    """Return whether it is faster to copy a tail's keys next to its prefix's than to mask the keys between them.

    >>> copies(300, 335, 35), copies(150, 300, 150)
    (False, True)
    """
    return size * (start - prefix) > COPIED * (prefix + size)


class _Chunk(NamedTuple):
    """The queries of a row from `start` to `end`, which see some of the first `keys` keys of their part."""

    start: int
    end: int
    keys: int
    masked: int  # keys from here on may be hidden
    hidden: Tensor  # [end - start, keys - masked]

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def is_kept(self) -> bool:
        """Whether its probabilities are kept for backward."""
        return self.keys <= LONGEST


class _Part(NamedTuple):
    """Chunks of queries with common keys: those of a row that lie in `spans`, [start, end)."""

    spans: tuple[tuple[int, int], ...]
    chunks: tuple[_Chunk, ...]

    def gathered(self, rows: Tensor) -> Tensor:
        """Return the keys' rows of `rows`, [heads, L, width]."""
        found = [rows[:, start:end] for start, end in self.spans]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    @contextmanager
    def adding(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield a tensor like `gathered(rows)`; what is added to it is added to those rows of `rows`."""
        if len(self.spans) == 1:
            yield self.gathered(rows)
            return
        sizes = [end - start for start, end in self.spans]
        room = _rows_first(rows[:, : sum(sizes)], rows.shape[-1]).zero_()
        yield room
        for (start, end), piece in zip(self.spans, torch.split(room, sizes, 1), strict=True):
            rows[:, start:end] += piece


def _parts(sizes: BlockSizes, place: int, first: int, device: torch.device) -> Iterator[_Part]:
    prefix, end = sizes.prefix, sizes.prefix + sizes.tails[0]
    masked: list[int] = []
    copied: list[tuple[int, int]] = []
    for tail in sizes.tails[1:]:
        if copied or copies(prefix, end, tail):
            copied.append((end, end + tail))
        else:
            masked.append(end)
        end += tail
    last = copied[0][0] if copied else end
    yield _Part(((place, place + last),), tuple(_chunks(place, first, last, prefix, masked, device)))
    for start, end in copied:
        spans = (place, place + prefix), (place + start, place + end)
        yield _Part(spans, tuple(_chunks(place + start - prefix, prefix, prefix + end - start, prefix, [], device)))


def _chunks(
    place: int, first: int, last: int, prefix: int, tails: Sequence[int], device: torch.device
) -> Iterator[_Chunk]:
    """Divide queries `first` to `last` evenly; masked tails begin at `tails`, each hidden from the later ones."""
    count = -(-(last - first) // QUERIES)
    for i in range(count):
        start, end = (first + (last - first) * j // count for j in (i, i + 1))
        later = [tail for tail in tails if tail < end]
        masked = min(start, prefix) if later else start
        hidden = torch.ones(end - start, end - masked, dtype=torch.bool, device=device).triu_(1 + start - masked)
        for tail in later:
            hidden[max(tail - start, 0) :, prefix - masked : tail - masked] = True
        yield _Chunk(place + start, place + end, end, masked, hidden)


class _Attention(torch.autograd.Function):
    """o = p v with p = softmax(s q k'), p = 0 at hidden keys.

    With g the incoming gradient: dv = p' g, and with e = p (g v' - rowsum(p g v')), dq = s e k, dk = s e' q.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, row: RowAttention, scale: float) -> Tensor:
        answer, room, kept = _answers(query, value.shape[-1], row), _Room(query, row), []
        trained = any(ctx.needs_input_grad)
        for part in row.parts:
            keys, values = part.gathered(key), part.gathered(value)
            for chunk in part.chunks:
                p = _probabilities(query, keys, chunk, scale, room)
                answer[:, chunk.start : chunk.end] = torch.bmm(p, values[:, : chunk.keys])
                if chunk.is_kept and trained:
                    kept.append(p)
        ctx.row, ctx.scale = row, scale
        ctx.save_for_backward(query, key, value, *kept)
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        to_query = _answers(query, query.shape[-1], ctx.row)
        to_key, to_value = (_rows_first(each, each.shape[-1]).zero_() for each in (key, value))
        room, known = _Room(query, ctx.row), iter(kept)
        for part in ctx.row.parts:
            keys, values = part.gathered(key), part.gathered(value)
            with part.adding(to_key) as to_keys, part.adding(to_value) as to_values:
                for chunk in part.chunks:
                    p = next(known) if chunk.is_kept else _probabilities(query, keys, chunk, ctx.scale, room)
                    asked, pulled = query[:, chunk.start : chunk.end], incoming[:, chunk.start : chunk.end]
                    to_values[:, : chunk.keys].baddbmm_(p.mT, pulled)
                    slope = torch.bmm(pulled, values[:, : chunk.keys].mT, out=room.of(chunk))
                    slope = torch._softmax_backward_data(slope, p, -1, p.dtype)
                    to_query[:, chunk.start : chunk.end] = torch.bmm(slope, keys[:, : chunk.keys])
                    to_keys[:, : chunk.keys].baddbmm_(slope.mT, asked, alpha=ctx.scale)
        return to_query.mul_(ctx.scale), to_key, to_value, None, None


def _probabilities(query: Tensor, keys: Tensor, chunk: _Chunk, scale: float, room: "_Room") -> Tensor:
    scores, asked = room.of(chunk), query[:, chunk.start : chunk.end]
    torch.baddbmm(scores, asked, keys[:, : chunk.keys].mT, beta=0, alpha=scale, out=scores)
    scores[:, :, chunk.masked :].masked_fill_(chunk.hidden, -torch.inf)
    return scores.softmax(-1)


class _Room:
    """Memory for the scores of one chunk, reused for the next."""

    def __init__(self, query: Tensor, row: RowAttention) -> None:
        self.heads = len(query)
        most = max(chunk.size * chunk.keys for part in row.parts for chunk in part.chunks)
        self.numbers = query.new_empty(self.heads * most)

    def of(self, chunk: _Chunk) -> Tensor:
        return self.numbers[: self.heads * chunk.size * chunk.keys].view(self.heads, chunk.size, chunk.keys)


def _answers(like: Tensor, width: int, row: RowAttention) -> Tensor:
    """Return memory for the output of each query, 0 where queries are left out."""
    answer = _rows_first(like, width)
    return answer if row.complete else answer.zero_()


def _rows_first(like: Tensor, width: int) -> Tensor:
    """Return memory for [heads, rows, width] in which a row's heads are adjacent, as in the layers around attention."""
    return like.new_empty(like.shape[1], len(like), width).transpose(0, 1)
