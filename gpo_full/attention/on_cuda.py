"""Attention of a row of pairs in one call of a variable-length kernel: one segment of queries for each response."""

__all__ = ["Segments", "kernel_agrees", "one_call"]

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor

from gpo_full.attention.prompt_blocks import BlockSizes
from gpo_full.kernels.autocast import autocast_dtype

HALF = (torch.bfloat16, torch.float16)
# The largest allowed difference of attention over unit normal numbers in half precision: some four roundings of the
# largest; a kernel that sees other tokens, or scales otherwise, differs by about 1.
SAME = 0.05
# Limits of torch's flash kernels: the largest head, the step of its size, and the compute capability (Ampere on).
WIDEST, STEP, CAPABILITY = 256, 8, (8, 0)


@dataclass(frozen=True)
class Segments:
    """S segments of a row: `[prefix | first tail]` with itself as keys, each other tail with keys `[prefix | tail]`.

    Segment s has queries `query_ends[s]` to `query_ends[s + 1]` and keys `key_ends[s]` to `key_ends[s + 1]`. Its mask
    is causal, the last query aligned with the last key.
    """

    queries: Tensor  # [Q] int64: positions in the row
    keys: Tensor  # [K] int64: positions in the row; those of a prefix come once for each tail
    query_ends: Tensor  # [S + 1] int32, from 0
    key_ends: Tensor  # [S + 1] int32, from 0
    longest: tuple[int, int]  # the largest numbers of queries and of keys of a segment

    @classmethod
    def of(cls, sizes: Sequence[BlockSizes], device: torch.device, *, sources_only: bool) -> Self:
        """Return the segments of blocks in the order of the row; with `sources_only`, of queries at sources only.

        >>> two = Segments.of([BlockSizes(prompt=2, prefix=3, tails=(1, 2))], torch.device("cpu"), sources_only=False)
        >>> two.queries.tolist(), two.keys.tolist()
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 0, 1, 2, 4, 5])
        >>> two.query_ends.tolist(), two.key_ends.tolist()
        ([0, 4, 6], [0, 4, 9])
        """
        queries: list[range] = []
        keys: list[tuple[range, ...]] = []
        start = 0
        for each in sizes:
            prefix, end = start + each.prefix, start + each.prefix + each.tails[0]
            queries.append(range(start + (each.prompt - 1 if sources_only else 0), end))
            keys.append((range(start, end),))
            for tail in filter(None, each.tails[1:]):
                queries.append(range(end, end + tail))
                keys.append((range(start, prefix), queries[-1]))
                end += tail
            start = end
        counts = [len(each) for each in queries], [sum(map(len, each)) for each in keys]
        places = [i for each in queries for i in each], [i for parts in keys for each in parts for i in each]
        at = [torch.tensor(each).to(device, non_blocking=True) for each in places]
        ends = [torch.tensor([0, *accumulate(each)], dtype=torch.int32) for each in counts]
        after = [each.to(device, non_blocking=True) for each in ends]
        return cls(at[0], at[1], after[0], after[1], (max(counts[0]), max(counts[1])))

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, enable_gqa: bool = False
    ) -> Tensor:
        """Return attention, [1, heads, L, width] like the arguments; 0 at queries in no segment."""
        kernel, understood = _kernel()
        dtype = autocast_dtype(query)
        q, k, v = (each[0].transpose(0, 1).to(dtype) for each in (query, key, value))
        options: dict[str, Any] = {"scale": scale, "window_size": (-1, 0)}
        if enable_gqa and "enable_gqa" in understood:
            options["enable_gqa"] = True
        elif enable_gqa:
            k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
        whole = len(self.queries) == len(q)
        asked = q.contiguous() if whole else q.index_select(0, self.queries)
        k, v = (each.index_select(0, self.keys) for each in (k, v))
        found = kernel(asked, k, v, self.query_ends, self.key_ends, *self.longest, **options)
        rows: Tensor = found if whole else found.new_zeros(q.shape).index_copy(0, self.queries, found)
        return rows.transpose(0, 1)[None]


def one_call(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Return whether the kernel takes heads of `width` numbers of `dtype` on `device`."""
    fits = device.type == "cuda" and dtype in HALF and width <= WIDEST and width % STEP == 0
    return fits and torch.cuda.get_device_capability(device) >= CAPABILITY and "window_size" in _kernel()[1]


@cache
@torch.no_grad()
def kernel_agrees(device: torch.device, dtype: torch.dtype, width: int, heads: int, key_heads: int) -> bool:
    """Return whether the kernel computes the attention of a row of pairs, tried on unit normal numbers.

    A model that is not trained yet gives nearly the same log-probabilities whatever its attention sees; this does not.
    """
    sizes = [BlockSizes(3, 5, (4, 7, 2)), BlockSizes(1, 1, (3, 3))]
    length, random = sum(each.size for each in sizes), torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, n, length, width, generator=random) for n in (heads, key_heads, key_heads)]
    query, key, value = (each.to(device, dtype) for each in drawn)
    scale = 0.5 * width**-0.5  # not the one that a kernel takes by itself
    found = Segments.of(sizes, device, sources_only=False).attention(
        query, key, value, scale, enable_gqa=heads != key_heads)  # fmt: skip
    q, k, v = (each.float() for each in (query, key, value))
    k, v = (each.repeat_interleave(heads // key_heads, 1) for each in (k, v))
    hidden = ~torch.tensor(_seen(sizes), device=device)
    expected = (q @ k.mT * scale).masked_fill(hidden, -torch.inf).softmax(-1) @ v
    return bool((found.float() - expected).abs().max() <= SAME)


def _seen(sizes: Sequence[BlockSizes]) -> list[list[bool]]:
    """Return which token (a row) sees which: earlier ones of its block that are in the prefix or in its own tail."""
    places = [(block, tail) for block, each in enumerate(sizes)
              for tail, size in enumerate((each.prefix, *each.tails)) for _ in range(size)]  # fmt: skip
    return [[j <= i and block == other and before in (0, tail) for j, (other, before) in enumerate(places)]
            for i, (block, tail) in enumerate(places)]  # fmt: skip


@cache
def _kernel() -> tuple[Any, frozenset[str]]:
    """Return torch's kernel and the names of its arguments, which differ between versions; None if there is none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None, frozenset()
    return varlen_attn, frozenset(inspect.signature(varlen_attn).parameters)
