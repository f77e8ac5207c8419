"""Rows of several pairs: a pair is `[prefix | chosen | rejected]`, and pairs with one prompt share what they can."""

__all__ = ["LAYOUTS", "Batch", "pack"]

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from gpo_full.attention.blocks import Block, BlockSizes, blocks_of
from gpo_full.attention.mask import PairMask
from gpo_full.data.pairs import Pair
from gpo_theory.errors import InputError

# How blocks (a prompt and its responses) lie in rows: all in one row without padding, attention going block by block;
# several in a row no longer than the largest, under a dense mask; or each response apart behind its own prefix.
LAYOUTS = ("line", "rows", "apart")

# What `Batch.branch` holds in the prefix; in the tails that follow it, 1, 2, and so on.
PREFIX = 0


@dataclass(frozen=True)
class Batch:
    """Packed pairs: R rows of L tokens, T predictions of response tokens, P pairs.

    Prediction t reads the hidden state at `source[t]` (an index into the R*L flattened positions) and asks for the
    log-probability of token `target[t]`. Entry e adds prediction `entry[e]` to response `owner[e]`, which is
    2 * pair for chosen and 2 * pair + 1 for rejected: a token that two responses begin with, or of a response that is
    in two pairs, is predicted once and entered twice. The last prompt position is the source of all first response
    tokens.
    """

    input_ids: Tensor  # [R, L] int64; padding is 0 and never read
    position_ids: Tensor  # [R, L] int64, restarting at the end of the prefix for each response
    block: Tensor  # [R, L] int64: the block (from 1) a token belongs to, 0 for padding
    branch: Tensor  # [R, L] int64: PREFIX, or which of the tails
    pair: Tensor  # [R, L] int64: the first pair (from 1) that a token is there for, 0 for padding
    source: Tensor  # [T] int64
    read: Tensor  # [U] int64: the distinct sources, in order
    target: Tensor  # [T] int64
    entry: Tensor  # [E] int64
    owner: Tensor  # [E] int64
    lengths: Tensor  # [P, 2] int64: tokens of each response
    sizes: tuple[BlockSizes, ...]  # of the blocks; they stay on the host
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
        """Who sees whom, [R, 1, L, L] bool: earlier tokens of the same block, in the prefix or the same tail."""
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
    """Pack `pairs` in one of the LAYOUTS, a prompt that several have, and a response to it, laid down once.

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
    blocks = blocks_of(pairs)
    if layout == "apart":
        blocks = [replace(each, tails=(tail,), owners=(owners,)) for each in blocks
                  for tail, owners in zip(each.tails, each.owners, strict=True)]  # fmt: skip
    rows = _Rows()
    for row in _arranged([block.sizes.size for block in blocks], layout):
        rows.start()
        for i in row:
            rows.add(i, blocks[i])
    lengths = [[len(response) for response in pair.responses] for pair in pairs]
    return rows.batch(torch.tensor(lengths), tuple(block.sizes for block in blocks), layout)


class _Rows:
    """Rows under construction."""

    def __init__(self) -> None:
        self.rows: list[tuple[list[int], ...]] = []  # ids, positions, block, branch, pair
        self.predictions: list[tuple[int, int, int]] = []  # row, position in it, target
        self.entries: list[tuple[int, int]] = []  # prediction, owner

    def start(self) -> None:
        self.rows.append(([], [], [], [], []))

    def add(self, index: int, block: Block) -> None:
        """Append the block to the last row."""
        start, shared = len(self.rows[-1][0]), len(block.prefix)
        everyone = [owner for owners in block.owners for owner in owners]
        self._append(block.prefix, 0, index, PREFIX, everyone)
        for k in range(block.prompt_length, shared):
            self._predict(start + k - 1, block.prefix[k], everyone)
        for branch, (tail, owners) in enumerate(zip(block.tails, block.owners, strict=True), 1):
            first = len(self.rows[-1][0])
            self._append(tail, shared, index, branch, owners)
            for k, token in enumerate(tail):
                self._predict(first + k - 1 if k else start + shared - 1, token, owners)

    def _append(self, tokens: Sequence[int], position: int, index: int, branch: int, owners: Sequence[int]) -> None:
        ids, positions, *others = self.rows[-1]
        ids += tokens
        positions += range(position, position + len(tokens))
        for values, value in zip(others, (index + 1, branch, min(owners) // 2 + 1), strict=True):
            values += [value] * len(tokens)

    def _predict(self, position: int, target: int, owners: Sequence[int]) -> None:
        self.entries += [(len(self.predictions), owner) for owner in owners]
        self.predictions.append((len(self.rows) - 1, position, target))

    def batch(self, lengths: Tensor, sizes: tuple[BlockSizes, ...], layout: str) -> Batch:
        width = max(len(ids) for ids, *_ in self.rows)
        # [R, 5, L]
        padded = torch.tensor([[values + [0] * (width - len(values)) for values in row] for row in self.rows])
        ids, positions, block, branch, pair = padded.unbind(1)
        row, position, target = torch.tensor(self.predictions).unbind(1)
        entry, owner = torch.tensor(self.entries).unbind(1)
        source = row * width + position
        return Batch(ids, positions, block, branch, pair, source, torch.unique(source), target, entry, owner, lengths,
                     sizes, layout)  # fmt: skip


def _arranged(sizes: Sequence[int], layout: str) -> Sequence[Sequence[int]]:
    """Which blocks lie in each row."""
    if layout == "rows":
        return _first_fit(sizes)
    return [range(len(sizes))] if layout == "line" else [[i] for i in range(len(sizes))]


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
