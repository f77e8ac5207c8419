"""Pairs packed into rows of tokens, `[prefix | tail | tail ...]`: the prompt of several pairs once.

The prefix is the prompt with the tokens that all its responses begin with; a tail is the rest of one response.
"""

__all__ = ["LAYOUTS", "Batch", "pack"]

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from gpo_full.attention.mask import PairMask
from gpo_full.attention.prompt_blocks import BlockSizes, PromptBlock, blocks_by_prompt
from gpo_full.data.pairs import Pair
from gpo_theory.errors import InputError

# How blocks (a prompt and its responses) are placed in rows. "line": all in one row without padding, attention computed
# block by block. "rows": several in a row, no longer than the largest block, under a dense mask. "apart": each response
# in a row of its own, behind a copy of its prefix.
LAYOUTS = ("line", "rows", "apart")

# The value of `Batch.branch` at tokens of a prefix; the tails that follow it have 1, 2, and so on.
PREFIX = 0


@dataclass(frozen=True)
class Batch:
    """Packed pairs: R rows of L tokens, T predictions of response tokens, P pairs.

    Prediction t is log p(`target[t]`) given the hidden state at position `source[t]` of the R * L flattened ones. The
    log-probability of a response is a sum of predictions: `prediction_index[e]` is added to `response_index[e]`, which
    is 2 * pair for chosen and 2 * pair + 1 for rejected. A token that two responses begin with, or of a response that
    is in two pairs, is predicted once and added twice. The source of a response's first token is the last prompt token.
    """

    input_ids: Tensor  # [R, L] int64, 0 for padding
    position_ids: Tensor  # [R, L] int64, restarting at the end of the prefix for each response
    block: Tensor  # [R, L] int64: the block (from 1) of a token, 0 for padding
    branch: Tensor  # [R, L] int64: PREFIX, or the number of the tail (from 1)
    pair: Tensor  # [R, L] int64: the first pair (from 1) that has a token, 0 for padding
    source: Tensor  # [T] int64
    distinct_sources: Tensor  # [U] int64: the positions in `source`, each once, ascending
    target: Tensor  # [T] int64
    prediction_index: Tensor  # [E] int64
    response_index: Tensor  # [E] int64
    lengths: Tensor  # [P, 2] int64: numbers of tokens of the responses
    sizes: tuple[BlockSizes, ...]  # of the blocks, not tensors: they are used on the host
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
        """The attention mask, [R, 1, L, L] bool: a token sees earlier ones of its block's prefix and its own tail."""
        line = self.layout == "line"
        return PairMask(self.sizes, self.block.device, self._dense_mask) if line else self._dense_mask()

    @cached_property
    def mask_at_sources(self) -> Tensor:
        """The mask of a "line" batch for a layer of whose output only `distinct_sources` are used."""
        return PairMask(self.sizes, self.block.device, self._dense_mask, sources_only=True)

    def _dense_mask(self) -> Tensor:
        block, branch = self.block, self.branch
        same = block[:, :, None] == block[:, None, :]
        open_branch = (branch[:, None, :] == PREFIX) | (branch[:, :, None] == branch[:, None, :])
        return (same & open_branch).tril_()[:, None]

    def sums(self, per_token: Tensor) -> Tensor:
        """Return the sums over each response of `per_token` [T], [P, 2], chosen first."""
        total = per_token.new_zeros(self.lengths.numel())
        return total.index_add(0, self.response_index, per_token[self.prediction_index]).view_as(self.lengths)


def pack(pairs: Sequence[Pair], layout: str = "rows") -> Batch:
    """Pack `pairs` in one of the LAYOUTS; pairs with the same prompt share it, and each distinct response to it.

    "apart" repeats the prefix for each response and needs no mask beyond the causal one: it is for models whose layers
    cannot hide one response from another. Raises InputError if `layout` is unknown.

    >>> batch = pack([Pair((5, 6), (7, 2), (8, 2), prompt_length=2)])
    >>> batch.input_ids.tolist(), batch.position_ids.tolist()
    ([[5, 6, 7, 2, 8, 2]], [[0, 1, 2, 3, 2, 3]])
    >>> batch.source.tolist(), batch.target.tolist(), batch.response_index.tolist()
    ([1, 2, 1, 4], [7, 2, 8, 2], [0, 0, 1, 1])
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout={layout!r}; allowed: {', '.join(LAYOUTS)}")
    if not pairs:
        raise ValueError("pack needs at least one pair")
    blocks = blocks_by_prompt(pairs)
    if layout == "apart":
        blocks = [replace(each, tails=(tail,), response_indices=(indices,)) for each in blocks
                  for tail, indices in zip(each.tails, each.response_indices, strict=True)]  # fmt: skip
    rows = _Rows()
    for row in _arranged([block.sizes.size for block in blocks], layout):
        rows.start()
        for i in row:
            rows.add(i, blocks[i])
    lengths = [[len(response) for response in pair.responses] for pair in pairs]
    return rows.batch(torch.tensor(lengths), tuple(block.sizes for block in blocks), layout)


class _Rows:
    """The rows of a batch while blocks are added to them, as lists."""

    def __init__(self) -> None:
        self.rows: list[tuple[list[int], ...]] = []  # ids, positions, block, branch, pair
        self.predictions: list[tuple[int, int, int]] = []  # row, position in it, target
        self.entries: list[tuple[int, int]] = []  # prediction index, response index

    def start(self) -> None:
        self.rows.append(([], [], [], [], []))

    def add(self, index: int, block: PromptBlock) -> None:
        """Append block number `index` to the last row."""
        start, shared = len(self.rows[-1][0]), len(block.prefix)
        all_responses = [each for indices in block.response_indices for each in indices]
        self._append(block.prefix, 0, index, PREFIX, all_responses)
        for k in range(block.prompt_length, shared):
            self._predict(start + k - 1, block.prefix[k], all_responses)
        for branch, (tail, responses) in enumerate(zip(block.tails, block.response_indices, strict=True), 1):
            first = len(self.rows[-1][0])
            self._append(tail, shared, index, branch, responses)
            for k, token in enumerate(tail):
                self._predict(first + k - 1 if k else start + shared - 1, token, responses)

    def _append(self, tokens: Sequence[int], position: int, index: int, branch: int, responses: Sequence[int]) -> None:
        ids, positions, *others = self.rows[-1]
        ids += tokens
        positions += range(position, position + len(tokens))
        for values, value in zip(others, (index + 1, branch, min(responses) // 2 + 1), strict=True):
            values += [value] * len(tokens)

    def _predict(self, position: int, target: int, responses: Sequence[int]) -> None:
        self.entries += [(len(self.predictions), response) for response in responses]
        self.predictions.append((len(self.rows) - 1, position, target))

    def batch(self, lengths: Tensor, sizes: tuple[BlockSizes, ...], layout: str) -> Batch:
        width = max(len(ids) for ids, *_ in self.rows)
        # [R, 5, L]
        padded = torch.tensor([[values + [0] * (width - len(values)) for values in row] for row in self.rows])
        ids, positions, block, branch, pair = padded.unbind(1)
        row, position, target = torch.tensor(self.predictions).unbind(1)
        prediction, response = torch.tensor(self.entries).unbind(1)
        source = row * width + position
        return Batch(ids, positions, block, branch, pair, source, torch.unique(source), target, prediction, response,
                     lengths, sizes, layout)  # fmt: skip


def _arranged(sizes: Sequence[int], layout: str) -> Sequence[Sequence[int]]:
    """Return the indices of the blocks in each row."""
    if layout == "rows":
        return _first_fit(sizes)
    return [range(len(sizes))] if layout == "line" else [[i] for i in range(len(sizes))]


def _first_fit(sizes: Sequence[int]) -> list[list[int]]:
    """Return the indices of the items in each bin, by first-fit decreasing; the capacity is the largest item."""
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
