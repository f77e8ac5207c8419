"""Preference pairs out of a policy's own samples, labelled by the golden reward with Bradley-Terry noise."""

__all__ = ["Labelled", "label_pairs"]

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from gpo_full.data.pairs import Pair
from gpo_full.evaluation.sampling import Sample


@dataclass(frozen=True)
class Labelled:
    """Labelled pairs, how many were dropped because both texts were equal, and how far the labels follow the reward.

    `agreement` is the share of pairs whose chosen text has the larger reward; `expected_agreement` what the label
    probabilities say it should be.
    """

    pairs: tuple[Pair, ...]
    equal_dropped: int
    agreement: float
    expected_agreement: float


def label_pairs(
    prompts: Sequence[Sequence[int]],
    samples: Sequence[tuple[Sample, ...]],
    rewards: Sequence[tuple[float, float]],
    *,
    slope: float,
    seed: int,
    limit: int | None = None,
) -> Labelled:
    """Label the first two samples of each prompt: y1 is chosen with probability sigmoid(slope (r1 - r2)).

    The draw is seeded; pairs of equal texts are dropped; at most `limit` pairs are kept, in the order of `prompts`.
    """
    rng = random.Random(seed)
    pairs: list[Pair] = []
    dropped, agreeing, expected = 0, 0, 0.0
    for prompt, (first, second, *_), (r1, r2) in zip(prompts, samples, rewards, strict=True):
        if limit is not None and len(pairs) == limit:
            break
        if first.text == second.text or first.tokens == second.tokens:
            dropped += 1
            continue
        p = _sigmoid(slope * (r1 - r2))
        swapped = rng.random() >= p
        chosen, rejected = (second, first) if swapped else (first, second)
        pairs.append(_pair(tuple(prompt), chosen.tokens, rejected.tokens))
        agreeing += (r2 > r1) if swapped else (r1 > r2)
        expected += max(p, 1 - p)
    count = max(1, len(pairs))
    return Labelled(tuple(pairs), dropped, agreeing / count, expected / count)


def _sigmoid(z: float) -> float:
    return math.exp(min(z, 0.0)) / (1 + math.exp(-abs(z)))


def _pair(prompt: tuple[int, ...], chosen: tuple[int, ...], rejected: tuple[int, ...]) -> Pair:
    """Return the pair of the sampled tokens themselves, not of their text tokenised again."""
    both = zip(chosen, rejected, strict=False)
    shared = next((i for i, (a, b) in enumerate(both) if a != b), min(len(chosen), len(rejected)))
    return Pair(prompt + chosen[:shared], chosen[shared:], rejected[shared:], len(prompt))
