"""Rows of several pairs: each pair is `[prefix | chosen | rejected]`, its tokens laid down and computed once."""

__all__ = ["LAYOUTS", "Batch", "pack"]

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from gpo_full.pair_mask import PairMask
from gpo_full.pair_sizes import PairSizes
from gpo_full.pairs import Pair
from gpo_theory.errors import InputError

# How pairs lie in rows: all in one row without padding, attention going pair by pair; several in a row no longer than
# the largest pair, under a dense mask; or each response apart behind its own copy of the prefix.
LAYOUTS = ("line", "rows", "apart")

# Which part of a pair a token belongs to; the numbers are what `Batch.branch` holds.
PREFIX, CHOSEN, REJECTED = 0, 1, 2


@dataclass(frozen=True)
class Batch:
    """Packed pairs: R rows of L tokens, T predictions of response tokens, P pairs.

    Prediction t reads the hidden state at `source[t]` (an index into the R*L flattened positions) and asks for the
    log-probability of token `target[t]`. Entry e adds prediction `entry[e]` to response `owner[e]`, which is
    2 * pair for chosen and 2 * pair + 1 for rejected: a token that both responses begin with is predicted once and
    entered twice. The last prompt position is the source of both first response tokens.
    """

    input_ids: Tensor  # [R, L] int64; padding is 0 and never read
    position_ids: Tensor  # [R, L] int64, restarting at the end of the prefix for each response
    block: Tensor  # [R, L] int64: the pair (from 1) a token belongs to, 0 for padding
    branch: Tensor  # [R, L] int64: PREFIX, CHOSEN or REJECTED
    source: Tensor  # [T] int64
    read: Tensor  # [U] int64: the distinct sources, in order
    target: Tensor  # [T] int64
    entry: Tensor  # [E] int64
    owner: Tensor  # [E] int64
    lengths: Tensor  # [P, 2] int64: tokens of each response
    sizes: tuple[PairSizes, ...]  # P, in the order of the pairs; they stay on the host
    layout: str = "rows"  # one of LAYOUTS

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("sizes", "layout")}

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on `device`."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved)

    @cached_property
    def mask(self) -> Tensor:
        """Who sees whom, [R, 1, L, L] bool: earlier tokens of the same pair, in the prefix or the same response."""
        if self.layout != "line":
            return self._dense_mask()
        return PairMask(self.sizes, self.block.device, self._dense_mask)

    @cached_property
    def mask_where_read(self) -> Tensor:
        """A "line" batch's mask for a layer of whose output only the positions in `read` matter."""
        return PairMask(self.sizes, self.block.device, self._dense_mask, read=True)

    def _dense_mask(self) -> Tensor:
        block, branch = self.block, self.branch
        same = block[:, :, None] == block[:, None, :]
        open_branch = (branch[:, None, :] == PREFIX) | (branch[:, :, None] == branch[:, None, :])
        return (same & open_branch).tril_()[:, None]

    def sums(self, per_token: Tensor) -> Tensor:
        """Add `per_token` [T] up by owner: [P, 2], chosen first."""
        total = per_token.new_zeros(self.lengths.numel())
        return total.index_add(0, self.owner, per_token[self.entry]).view_as(self.lengths)


def pack(pairs: Sequence[Pair], layout: str = "rows") -> Batch:
    """Pack `pairs`, each pair's prefix laid down once, in one of the LAYOUTS.

    "apart" repeats the prefix for each response and needs no mask of its own: it is for models whose layers cannot
    hide one response from the other.

    >>> batch = pack([Pair((5, 6), (7, 2), (8, 2), prompt_length=2)])
    >>> batch.input_ids.tolist(), batch.position_ids.tolist()
    ([[5, 6, 7, 2, 8, 2]], [[0, 1, 2, 3, 2, 3]])
    >>> batch.source.tolist(), batch.target.tolist(), batch.owner.tolist()
    ([1, 2, 1, 4], [7, 2, 8, 2], [0, 0, 1, 1])
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout={layout!r}; allowed: {', '.join(LAYOUTS)}")
    if not pairs:
        raise ValueError("pack needs at least one pair")
    rows = _Rows()
    if layout == "apart":
        for i, pair in enumerate(pairs):
            for owner, tail in enumerate((pair.chosen, pair.rejected), 2 * i):
                rows.start()
                rows.add(i, pair, (tail,), (owner,))
    else:
        whole = [pair.size for pair in pairs]
        for row in [range(len(pairs))] if layout == "line" else _first_fit(whole):
            rows.start()
            for i in row:
                rows.add(i, pairs[i], (pairs[i].chosen, pairs[i].rejected), (2 * i, 2 * i + 1))
    return rows.batch(tuple(pair.sizes for pair in pairs), layout)


class _Rows:
    """Rows under construction."""

    def __init__(self) -> None:
        self.rows: list[tuple[list[int], list[int], list[int], list[int]]] = []
        self.predictions: list[tuple[int, int, int]] = []  # row, position in it, target
        self.entries: list[tuple[int, int]] = []  # prediction, owner

    def start(self) -> None:
        self.rows.append(([], [], [], []))

    def add(self, index: int, pair: Pair, tails: Sequence[Sequence[int]], owners: Sequence[int]) -> None:
        """Append the pair's prefix and the given tails to the last row."""
        start, shared = len(self.rows[-1][0]), len(pair.prefix)
        self._append(index, PREFIX, pair.prefix, 0)
        for k in range(pair.prompt_length, shared):
            self._predict(start + k - 1, pair.prefix[k], owners)
        for branch, (tail, owner) in enumerate(zip(tails, owners, strict=True), 1):
            first = len(self.rows[-1][0])
            self._append(index, branch, tail, shared)
            for k, token in enumerate(tail):
                self._predict(first + k - 1 if k else start + shared - 1, token, (owner,))

    def _append(self, index: int, branch: int, tokens: Sequence[int], position: int) -> None:
        ids, positions, block, branches = self.rows[-1]
        ids += tokens
        positions += range(position, position + len(tokens))
        block += [index + 1] * len(tokens)
        branches += [branch] * len(tokens)

    def _predict(self, position: int, target: int, owners: Sequence[int]) -> None:
        self.entries += [(len(self.predictions), owner) for owner in owners]
        self.predictions.append((len(self.rows) - 1, position, target))

    def batch(self, sizes: tuple[PairSizes, ...], layout: str) -> Batch:
        width = max(len(ids) for ids, *_ in self.rows)
        # [R, 4, L]: ids, positions, block, branch
        padded = torch.tensor([[values + [0] * (width - len(values)) for values in row] for row in self.rows])
        ids, positions, block, branch = padded.unbind(1)
        row, position, target = torch.tensor(self.predictions).unbind(1)
        entry, owner = torch.tensor(self.entries).unbind(1)
        source = row * width + position
        lengths = torch.tensor([each.lengths for each in sizes])
        return Batch(ids, positions, block, branch, source, torch.unique(source), target, entry, owner, lengths, sizes,
                     layout)  # fmt: skip


def _first_fit(sizes: Sequence[int]) -> list[list[int]]:
    """First-fit decreasing: which items share a bin whose capacity is the largest item."""
    capacity, bins, room = max(sizes), list[list[int]](), list[int]()
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        place = next((b for b, left in enumerate(room) if left >= sizes[item]), None)
        if place is None:
            bins.append([])
            room.append(capacity)
            place = len(bins) - 1
        bins[place].append(item)
        room[place] -= sizes[item]
    return bins
