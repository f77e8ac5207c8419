"""What is laid down once: a prompt with all responses to it that a batch asks about, however many pairs they make."""

__all__ = ["Block", "BlockSizes", "blocks_of"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from gpo_full.data.pairs import Pair, common_prefix


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """Tokens of `[prefix | tail | tail ...]`; the first `prompt` of the prefix are no response's."""

    prompt: int
    prefix: int
    tails: tuple[int, ...]

    @property
    def size(self) -> int:
        """Tokens in all."""
        return self.prefix + sum(self.tails)


@dataclass(frozen=True, slots=True)
class Block:
    """Distinct responses to one prompt, as token ids: `prefix` is what prompt and responses begin with."""

    prompt_length: int
    prefix: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]
    owners: tuple[tuple[int, ...], ...]  # per tail: 2 * pair of each pair that it is chosen in, + 1 where rejected

    @property
    def sizes(self) -> BlockSizes:
        """The numbers of tokens, by part."""
        return BlockSizes(self.prompt_length, len(self.prefix), tuple(map(len, self.tails)))


def blocks_of(pairs: Sequence[Pair]) -> list[Block]:
    """Return the blocks of `pairs`: those with one prompt together, a response that they share once.

    Blocks are in the order of their first pairs, tails in that of their first owners.

    >>> one, two = Pair((5, 6), (7, 2), (8, 2), 2), Pair((5, 6), (7, 2), (9, 2), 2)
    >>> blocks_of([one, two])
    [Block(prompt_length=2, prefix=(5, 6), tails=((7, 2), (8, 2), (9, 2)), owners=((0, 2), (1,), (3,)))]
    """
    owners: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for i, pair in enumerate(pairs):
        responses = owners.setdefault(pair.prompt, {})
        for side, response in enumerate(pair.responses):
            responses.setdefault(response, []).append(2 * i + side)
    return [_block(prompt, responses) for prompt, responses in owners.items()]


def _block(prompt: tuple[int, ...], responses: dict[tuple[int, ...], list[int]]) -> Block:
    shared = reduce(lambda known, each: known[: common_prefix(known, each)], responses)
    return Block(len(prompt), prompt + shared, tuple(each[len(shared) :] for each in responses),
                 tuple(map(tuple, responses.values())))  # fmt: skip
