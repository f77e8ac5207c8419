"""Preference pairs out of a policy's own samples, labelled by the golden reward with Bradley-Terry noise."""

__all__ = ["LabelledPairs", "label_pairs", "read_pairs", "sampled_and_labelled"]

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpo_full.data.exchanges import common_prefix
from gpo_full.data.pairs import Pair
from gpo_full.evaluation.sampling import Sample, uniform_numbers
from gpo_full.experiment.answers import sampled
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.inputs.workload import Workload
from gpo_theory.errors import InputError


@dataclass(frozen=True)
class LabelledPairs:
    """Labelled pairs, the number dropped because both texts were equal, and how far the labels follow the reward.

    `agreement` is the share of pairs whose chosen text has the larger reward; `expected_agreement` its expectation
    under the label probabilities.
    """

    pairs: tuple[Pair, ...]
    equal_dropped: int
    agreement: float
    expected_agreement: float


def sampled_and_labelled(
    folder: Path, workload: Workload, scale: Scale, reference: Any, workers: int = 1
) -> dict[str, Any]:
    """Sample two responses of `reference` to each prompt, label them, and write `folder/pairs.json` for `read_pairs`.

    The prompts are the last ones of the training split. Returns `k`, the slope of the labelling sigmoid (a larger one
    flips fewer labels), and the numbers of `LabelledPairs`.
    """
    chosen = workload.tasks["train"][-scale.pair_prompts :]
    prompts = [task["prompt"] for task in chosen]
    uniforms = uniform_numbers(len(prompts), 2, scale.longest_response, scale.seed + 1)
    drawn = sampled(reference, workload.tokenizer, prompts, uniforms, workers=workers, label="sampling pairs")
    rewards = [workload.rewards([several[j].text for several in drawn], chosen) for j in range(2)]
    slope = _slope(*rewards) if scale.label_slope is None else scale.label_slope
    ids = [workload.tokenizer(prompt)["input_ids"] for prompt in prompts]
    found = label_pairs(ids, drawn, list(zip(*rewards, strict=True)), slope=slope, seed=scale.seed, limit=scale.pairs)
    rows = [asdict(pair) for pair in found.pairs]
    (folder / "pairs.json").write_text(json.dumps(rows), encoding="utf-8")
    return {"k": slope, "pairs": len(rows), "equal_dropped": found.equal_dropped,
            "agreement": found.agreement, "expected_agreement": found.expected_agreement}  # fmt: skip


def read_pairs(folder: Path) -> list[Pair]:
    """Return the pairs that `sampled_and_labelled` wrote into `folder`."""
    rows = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    return [Pair(tuple(r["prefix"]), tuple(r["chosen"]), tuple(r["rejected"]), r["prompt_length"]) for r in rows]


def label_pairs(
    prompts: Sequence[Sequence[int]], samples: Sequence[tuple[Sample, ...]], rewards: Sequence[tuple[float, float]], *,
    slope: float, seed: int, limit: int | None = None,
) -> LabelledPairs:  # fmt: skip
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
    return LabelledPairs(tuple(pairs), dropped, agreeing / count, expected / count)


def _slope(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the k at which two answers that differ by the mean difference are told apart with probability 0.98."""
    mean = sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)
    if not mean:
        raise InputError("the reward is the same for every two answers to a prompt: nothing can be labelled")
    return 4 / mean  # sigmoid(4) = 0.98


def _sigmoid(z: float) -> float:
    return math.exp(min(z, 0.0)) / (1 + math.exp(-abs(z)))


def _pair(prompt: tuple[int, ...], chosen: tuple[int, ...], rejected: tuple[int, ...]) -> Pair:
    """Return the pair of the sampled tokens themselves, not of their text tokenised again."""
    shared = common_prefix(chosen, rejected)
    return Pair(prompt + chosen[:shared], chosen[shared:], rejected[shared:], len(prompt))
