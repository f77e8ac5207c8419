"""One run of the experiment: a policy trained from the SFT policy at one loss, beta and seed, and its evaluation."""

__all__ = ["Start", "answered", "scored", "store_references", "tail_mean", "train", "trained_and_evaluated"]

import copy
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpo_full.data.pairs import Pair
from gpo_full.evaluation.compare import ReferenceAnswers, reference_answers, score_prompts
from gpo_full.evaluation.sampling import Sample
from gpo_full.evaluation.scores import PromptScore, bootstrap_interval, summarize, win_scores, write_scores
from gpo_full.experiment.frozen_layers import cached_frozen_layers
from gpo_full.experiment.grid import PlannedRun
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.inputs.workload import Workload
from gpo_full.run_files import METRICS_FILE


@dataclass(frozen=True)
class Start:
    """What all runs start from: the SFT policy, which is their `reference`, and the labelled `pairs`.

    `folder` holds the reference's log-probabilities of the pairs. `frozen_outputs` keeps the outputs of
    the frozen layers for each batch, by seed; another seed has other batches, so only one seed's are kept.
    """

    workload: Workload
    scale: Scale
    reference: Any
    pairs: list[Pair]
    folder: Path
    frozen_outputs: dict[int, dict[bytes, torch.Tensor]] = field(default_factory=dict)

    @property
    def frozen_layers(self) -> int:
        """The number of lower layers that no run trains."""
        return len(self.reference.get_decoder().layers) - self.scale.trained_layers


def trained_and_evaluated(
    folder: Path, start: Start, against: list[ReferenceAnswers], rewards: Sequence[Sequence[float]], one: PlannedRun,
    rate: float,
) -> dict[str, Any]:  # fmt: skip
    """Train and evaluate one policy, write `folder/scores.jsonl`, and return its evaluation, width and curves.

    `rewards` are those of the reference's three answers to each prompt (`gpo_full.experiment.answers`). A training that
    was interrupted goes on from its checkpoint in `folder`. The scores are those against the first answer.
    """
    policy, curves = train(start, one, rate, start.scale.steps, folder / "training")
    # All policies draw with the same uniform numbers, those of the reference's last answer.
    scores = scored(start, policy, against, one.name, start.scale.seed)
    write_scores(folder / "scores.jsonl", scores)
    # The largest |s(y) - s(y')| seen between two samples of the reference, s = log pi/pi_ref in nats.
    width = max(math.sqrt(2 * row.half_square) for row in scores)
    shutil.rmtree(folder / "training")
    return {**asdict(summarize(scores, one.seed)), **_against_all(scores, rewards, one.seed), "width": width, **curves}


def _against_all(scores: Sequence[PromptScore], rewards: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    """Return what depends on all of the reference's answers: see `gpo_full.experiment.result.Run`."""
    mine, theirs = np.array([row.reward for row in scores]), np.array(rewards)
    compared = win_scores(mine[:, None], theirs[:, :2])
    wins = compared.mean(1)
    low, high = bootstrap_interval(wins, seed=seed)
    difference = mine - theirs[:, 2]
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return {"win_rate": float(wins.mean()), "win_low": low, "win_high": high, "ties": int((compared == 0.5).sum()),
            "reference_reward": float(theirs.mean()), "reward_difference": float(difference.mean()),
            "reward_difference_se": error, "wins": wins.tolist()}  # fmt: skip


def answered(
    start: Start, tasks: Sequence[Mapping[str, str]], drawn: Sequence[tuple[Sample, ...]] | None = None
) -> list[ReferenceAnswers]:
    """Return the reference's answers to `tasks`; its reading of them by the frozen layers serves every policy.

    Of answers already `drawn` the first two are taken.
    """
    known = None if drawn is None else {place: several[:2] for place, several in enumerate(drawn)}
    return list(reference_answers(
        start.reference, start.workload.tokenizer, [task["prompt"] for task in tasks],
        start.workload.judged_against(tasks), seed=start.scale.seed + 2, shared=start.frozen_layers,
        max_new_tokens=start.scale.longest_response, drawn=known))  # fmt: skip


def scored(start: Start, policy: Any, against: list[ReferenceAnswers], name: str, seed: int) -> list[PromptScore]:
    """Return the scores of `policy` against the reference's answers."""
    return score_prompts(policy, start.reference, start.workload.tokenizer, against, start.workload.reward, seed=seed,
                         max_new_tokens=start.scale.longest_response, label=f"evaluating {name}",
                         total=len(against))  # fmt: skip


def train(start: Start, one: PlannedRun, rate: float, steps: int, output: Path) -> tuple[Any, dict[str, Any]]:
    """Return the policy trained from the reference with learning rate `rate`, and its curves.

    Checkpoints and log are in `output`, from which a training that was interrupted goes on.
    """
    trainer = _trainer(start, one, rate, steps, output)
    if one.seed not in start.frozen_outputs:
        start.frozen_outputs.clear()
    with cached_frozen_layers(trainer.model, start.frozen_layers, start.frozen_outputs.setdefault(one.seed, {})):
        trainer.train(resume_from_checkpoint=(output / METRICS_FILE).is_file())
    lines = [json.loads(line) for line in (output / METRICS_FILE).read_text("utf-8").splitlines()]
    means = {key: tail_mean([line[key] for line in lines])
             for key in ("accuracy", "log_ratio_chosen", "log_ratio_rejected")}  # fmt: skip
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval(), {
        **means,
        "scaled_margin": [one.beta * line["margin"] for line in lines],
        "objective": [line["loss"] for line in lines],
    }


def store_references(start: Start, one: PlannedRun, rate: float) -> None:
    """Write the reference's log-probabilities of the pairs, which every run reads, unless they are there."""
    with tempfile.TemporaryDirectory(dir=start.folder, prefix=".references-") as output:
        _trainer(start, one, rate, start.scale.steps, Path(output))


def _trainer(start: Start, one: PlannedRun, rate: float, steps: int, output: Path) -> Any:
    from transformers import PrinterCallback

    from gpo_full.config import GPOConfig
    from gpo_full.training.callbacks import ProgressLines
    from gpo_full.training.trainer import GPOTrainer

    scale = start.scale
    # AdamW is scale-free: dividing the loss by beta |f'(0)| matters through its epsilon and to clipping, which is
    # off because f'(0) runs from -1/4 to -2.
    args = GPOConfig(
        output_dir=str(output), loss=one.loss, beta=one.beta, scale_gradient=True, max_grad_norm=0.0,
        learning_rate=rate, lr_scheduler_type="constant_with_warmup", warmup_steps=max(1, steps // 10),
        weight_decay=0.0, max_steps=steps, per_device_train_batch_size=scale.pairs_per_step, seed=one.seed,
        train_last_layers=scale.trained_layers, reference_store=str(start.folder / "references"), report_to=[],
        save_strategy="steps", save_steps=max(1, steps // 2), save_total_limit=1, disable_tqdm=True,
        bf16=scale.precision == "bfloat16",
    )  # fmt: skip
    trainer = GPOTrainer(copy.deepcopy(start.reference), args, start.pairs, processing_class=start.workload.tokenizer,
                         callbacks=[ProgressLines()])  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def tail_mean(values: Sequence[float]) -> float:
    """Return the mean over the last fifth of the steps."""
    tail = values[-max(1, len(values) // 5) :]
    return sum(tail) / len(tail)
