"""Preference pairs of random tokens for the tiny models, and the gradients by which two routes are compared."""

__all__ = ["PAD", "ROWS", "alike", "distance", "gradients", "ranked_pairs", "some_pairs", "values_and_gradient"]

import itertools
import random
from collections.abc import Sequence

import torch
from torch import nn

from gpo_full.data.pairs import Pair
from gpo_full.engine.log_probabilities import token_log_probabilities
from gpo_full.engine.packing import Batch
from tests.support.tiny_models import VOCABULARY

PAD = 2  # also the end of every response below
# Pairs as texts, which a tiny model learns by heart.
ROWS = [{"prompt": f"the cat {word}", "chosen": " sat on the mat", "rejected": " ran after the dog"}
        for word in ("and", "in", "on", "the", "list", "of", "values")]  # fmt: skip


def alike(*several: Sequence[int]) -> int:
    """How many tokens all begin with."""
    return len([*itertools.takewhile(lambda tokens: len({*tokens}) == 1, zip(*several, strict=False))])


def some_pairs(count: int = 4, seed: int = 0, scale: int = 1) -> list[Pair]:
    """Prompts and responses of uneven length; one pair shares response tokens, one response ends at once."""
    draw = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(10, VOCABULARY) for _ in range(n))

    made = [Pair(tokens(scale * draw.randint(1, 9)), (3, *tokens(scale * draw.randint(1, 7)), PAD),
                 (4, *tokens(scale * draw.randint(1, 7)), PAD), 1) for _ in range(count - 1)]  # fmt: skip
    return [Pair(pair.prefix, pair.chosen, pair.rejected, len(pair.prefix)) for pair in made[:-1]] + [
        made[-1], Pair((PAD, 9, 8), (PAD,), (PAD + 1, 6, PAD), 3)]  # fmt: skip


def ranked_pairs(responses: int = 4, prompts: int = 2, seed: int = 0, scale: int = 1) -> list[Pair]:
    """All pairs of several responses to each prompt; two of the responses begin alike."""
    draw = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(10, VOCABULARY) for _ in range(scale * n))

    made = []
    for _ in range(prompts):
        prompt, begin = tokens(draw.randint(2, 9)), tokens(1)
        tails = [(3 + max(which - 1, 0), *(begin if which < 2 else ()), which + 3, *tokens(draw.randint(1, 6)), PAD)
                 for which in range(responses)]  # fmt: skip
        made += [Pair(prompt + one[:shared], one[shared:], two[shared:], len(prompt))
                 for one, two in itertools.combinations(tails, 2) for shared in [alike(one, two)]]  # fmt: skip
    return made


def gradients(model: nn.Module, sums: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    weights = torch.linspace(-1, 2, sums.numel(), dtype=sums.dtype).view_as(sums)
    (sums * weights).sum().backward()
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    model.zero_grad()
    return found


def values_and_gradient(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the tokens of a batch, and the gradient of their sum."""
    model.zero_grad()
    values = token_log_probabilities(model, batch)
    values.sum().backward()
    return values.detach(), torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
