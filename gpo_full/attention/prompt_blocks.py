"""Pairs grouped by prompt: a row of a batch holds a prompt once, with each distinct response to it once."""

__all__ = ["BlockSizes", "PromptBlock", "blocks_by_prompt"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from gpo_full.data.exchanges import common_prefix
from gpo_full.data.pairs import Pair


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """Numbers of tokens of a block `[prefix | tail | tail ...]`; the first `prompt` of the prefix are the prompt."""

    prompt: int
    prefix: int
    tails: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of tokens of the block."""
        return self.prefix + sum(self.tails)


@dataclass(frozen=True, slots=True)
class PromptBlock:
    """A prompt and the distinct responses to it, as token ids.

    `prefix` is the prompt and what all responses begin with; `tails` are the rest of each response. `response_indices`
    has, for each tail, its places among the responses of the batch: 2 * pair where it is chosen, 2 * pair + 1 where it
    is rejected.
    """

    prompt_length: int
    prefix: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]
    response_indices: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> BlockSizes:
        """The numbers of tokens of prompt, prefix and tails."""
        return BlockSizes(self.prompt_length, len(self.prefix), tuple(map(len, self.tails)))


def blocks_by_prompt(pairs: Sequence[Pair]) -> list[PromptBlock]:
    """Return one block for each distinct prompt of `pairs`, in the order in which prompts and responses first appear.

    >>> one, two = Pair((5, 6), (7, 2), (8, 2), 2), Pair((5, 6), (7, 2), (9, 2), 2)
    >>> (block,) = blocks_by_prompt([one, two])
    >>> block.prefix, block.tails, block.response_indices
    ((5, 6), ((7, 2), (8, 2), (9, 2)), ((0, 2), (1,), (3,)))
    """
    by_prompt: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for i, pair in enumerate(pairs):
        responses = by_prompt.setdefault(pair.prompt, {})
        for side, response in enumerate(pair.responses):
            responses.setdefault(response, []).append(2 * i + side)
    return [_block(prompt, responses) for prompt, responses in by_prompt.items()]


def _block(prompt: tuple[int, ...], responses: dict[tuple[int, ...], list[int]]) -> PromptBlock:
    shared = reduce(lambda known, each: known[: common_prefix(known, each)], responses)
    return PromptBlock(len(prompt), prompt + shared, tuple(each[len(shared) :] for each in responses),
                       tuple(map(tuple, responses.values())))  # fmt: skip
