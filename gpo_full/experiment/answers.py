"""Responses drawn in several processes, and the reference's answers to the test prompts, drawn and judged once."""

__all__ = ["Answers", "drawn_answers", "read_answers", "sampled"]

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gpo_full.evaluation.compare import policy_uniforms
from gpo_full.evaluation.prompts import read_prompts
from gpo_full.evaluation.sampling import Sample, batches_of, continue_prompts, uniform_numbers
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.inputs.workload import Workload
from gpo_full.experiment.processes import mapped
from gpo_full.output import progress

_ROWS = 64  # responses drawn together


@dataclass(frozen=True)
class Answers:
    """The reference's three `samples` for each prompt, and their `rewards`.

    The last is drawn with the uniform numbers that decide the tokens of every policy, the two others with their own.
    """

    samples: list[tuple[Sample, ...]]
    rewards: list[tuple[float, ...]]


def sampled(
    model: Any, tokenizer: Any, prompts: Sequence[str], uniforms: torch.Tensor, *, workers: int, label: str
) -> list[tuple[Sample, ...]]:
    """Return the n responses of `model` to each of B prompts that `uniforms` [B, n, longest response] decide.

    The batches are the same for any number of `workers`.
    """
    tokens = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    # The longest first, so that no process is left alone with them at the end.
    batches = batches_of(tokens, max(1, _ROWS // uniforms.shape[1]))[::-1]

    def draw(batch: list[int]) -> list[tuple[Sample, ...]]:
        return continue_prompts(model, tokenizer, read_prompts(model, [tokens[i] for i in batch]), uniforms[batch])

    found: dict[int, tuple[Sample, ...]] = {}
    for batch, drawn in zip(batches, progress(mapped(draw, batches, workers), label, len(batches)), strict=True):
        found.update(zip(batch, drawn, strict=True))
    return [found[i] for i in range(len(prompts))]


def drawn_answers(folder: Path, workload: Workload, scale: Scale, reference: Any, workers: int) -> dict[str, Any]:
    """Draw and judge the reference's answers to the test prompts, and write `folder/answers.json` for `read_answers`.

    Returns their mean reward.
    """
    tasks, length = workload.tasks["test"][: scale.test_prompts], scale.longest_response
    uniforms = torch.cat([uniform_numbers(len(tasks), 2, length, scale.seed + 2),
                          policy_uniforms(range(len(tasks)), length, scale.seed)], 1)  # fmt: skip
    drawn = sampled(reference, workload.tokenizer, [task["prompt"] for task in tasks], uniforms, workers=workers,
                    label="answers of the reference")  # fmt: skip
    columns = [workload.rewards([several[place].text for several in drawn], tasks) for place in range(3)]
    rewards = [[float(value) for value in row] for row in zip(*columns, strict=True)]
    saved = {"samples": [[asdict(one) for one in several] for several in drawn], "rewards": rewards}
    (folder / "answers.json").write_text(json.dumps(saved, allow_nan=False), encoding="utf-8")
    return {"prompts": len(tasks), "reward": sum(map(sum, rewards)) / (3 * len(tasks))}


def read_answers(folder: Path) -> Answers:
    """Return the answers that `drawn_answers` wrote into `folder`."""
    saved = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    samples = [tuple(Sample(one["text"], tuple(one["tokens"]), one["ended"]) for one in several)
               for several in saved["samples"]]  # fmt: skip
    return Answers(samples, [tuple(row) for row in saved["rewards"]])
