"""One run of the experiment: a policy trained from the SFT policy at one loss, beta and seed, and its evaluation."""

__all__ = ["Start", "answered", "scored", "tail_mean", "train", "trained_and_evaluated"]

import copy
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gpo_full.data.pairs import Pair
from gpo_full.evaluation.compare import ReferenceAnswers, reference_answers, score_prompts
from gpo_full.evaluation.scores import PromptScore, summarize, write_scores
from gpo_full.experiment.frozen_layers import cached_frozen_layers
from gpo_full.experiment.grid import PlannedRun
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.inputs.workload import Workload
from gpo_full.run_files import METRICS_FILE


@dataclass(frozen=True)
class Start:
    """What all runs start from: the SFT policy, which is their `reference`, and the labelled `pairs`.

    `folder` holds the reference's log-probabilities and files while a run trains. `frozen_outputs` keeps the outputs of
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
    folder: Path, start: Start, against: list[ReferenceAnswers], one: PlannedRun, rate: float, steps: int
) -> dict[str, Any]:
    """Train and evaluate one policy, write `folder/scores.jsonl`, and return its evaluation, width and curves."""
    policy, curves = train(start, one, rate, steps)
    scores = scored(start, policy, against, one.name, one.seed)
    write_scores(folder / "scores.jsonl", scores)
    # The largest |s(y) - s(y')| seen between two samples of the reference, s = log pi/pi_ref in nats.
    width = max(math.sqrt(2 * row.half_square) for row in scores)
    return {**asdict(summarize(scores, one.seed)), "width": width, **curves}


def answered(start: Start, tasks: Sequence[Mapping[str, str]]) -> list[ReferenceAnswers]:
    """Return the reference's answers to `tasks`; its reading of them by the frozen layers serves every policy."""
    return list(reference_answers(
        start.reference, start.workload.tokenizer, [task["prompt"] for task in tasks],
        start.workload.judged_against(tasks), seed=start.scale.seed + 2, shared=start.frozen_layers,
        max_new_tokens=start.scale.longest_response))  # fmt: skip


def scored(start: Start, policy: Any, against: list[ReferenceAnswers], name: str, seed: int) -> list[PromptScore]:
    """Return the scores of `policy` against the reference's answers."""
    return score_prompts(policy, start.reference, start.workload.tokenizer, against, start.workload.reward, seed=seed,
                         max_new_tokens=start.scale.longest_response, label=f"evaluating {name}",
                         total=len(against))  # fmt: skip


def train(start: Start, one: PlannedRun, rate: float, steps: int) -> tuple[Any, dict[str, Any]]:
    """Return the policy trained from the reference with learning rate `rate`, and its curves."""
    from transformers import PrinterCallback

    from gpo_full.config import GPOConfig
    from gpo_full.training.callbacks import ProgressLines
    from gpo_full.training.trainer import GPOTrainer

    scale = start.scale
    with tempfile.TemporaryDirectory(dir=start.folder, prefix=".training-") as output:
        # AdamW is scale-free: dividing the loss by beta |f'(0)| matters through its epsilon and to clipping, which is
        # off because f'(0) runs from -1/4 to -2.
        args = GPOConfig(
            output_dir=output, loss=one.loss, beta=one.beta, scale_gradient=True, max_grad_norm=0.0,
            learning_rate=rate, lr_scheduler_type="constant_with_warmup", warmup_steps=max(1, steps // 10),
            weight_decay=0.0, max_steps=steps, per_device_train_batch_size=scale.pairs_per_step, seed=one.seed,
            train_last_layers=scale.trained_layers, reference_store=str(start.folder / "references"),
            save_strategy="no", report_to=[], disable_tqdm=True, bf16=scale.precision == "bfloat16",
        )  # fmt: skip
        trainer = GPOTrainer(copy.deepcopy(start.reference), args, start.pairs,
                             processing_class=start.workload.tokenizer, callbacks=[ProgressLines()])  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        if one.seed not in start.frozen_outputs:
            start.frozen_outputs.clear()
        with cached_frozen_layers(trainer.model, start.frozen_layers, start.frozen_outputs.setdefault(one.seed, {})):
            trainer.train()
        lines = [json.loads(line) for line in (Path(output) / METRICS_FILE).read_text("utf-8").splitlines()]
    means = {key: tail_mean([line[key] for line in lines])
             for key in ("accuracy", "log_ratio_chosen", "log_ratio_rejected")}  # fmt: skip
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval(), {
        **means,
        "scaled_margin": [one.beta * line["margin"] for line in lines],
        "objective": [line["loss"] for line in lines],
    }


def tail_mean(values: Sequence[float]) -> float:
    """Return the mean over the last fifth of the steps."""
    tail = values[-max(1, len(values) // 5) :]
    return sum(tail) / len(tail)
