"""The pilot, which fixes the learning rate of all runs."""

__all__ = ["try_learning_rates"]

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from gpo_full.evaluation.scores import summarize
from gpo_full.experiment.grid import PlannedRun
from gpo_full.experiment.trained_run import Start, answered, scored, tail_mean, train


def try_learning_rates(folder: Path, start: Start, base: PlannedRun) -> dict[str, Any]:
    """Return the first learning rate at which `base` reaches the scale's mean beta rho, or the last, and what each did.

    Each is evaluated on prompts of the pilot split.
    """
    scale = start.scale
    tasks = start.workload.tasks["pilot"][: scale.pilot_prompts]
    against = answered(start, tasks)
    tried: list[dict[str, Any]] = []
    for rate in scale.learning_rates:
        began = time.monotonic()
        policy, curves = train(start, base, rate, scale.steps, folder / f"training-{rate:g}")
        trained = time.monotonic()
        found = summarize(scored(start, policy, against, "pilot", scale.seed), scale.seed)
        seconds = {"train_seconds": trained - began, "evaluate_seconds": time.monotonic() - trained}
        reached = tail_mean(curves["scaled_margin"])
        kept = {key: getattr(found, key) for key in ("kl", "win_rate", "win_low", "win_high")}
        tried.append({"learning_rate": rate, "mean_scaled_margin": reached, **kept, **seconds})
        print(f"pilot: learning rate {rate:g} reaches a mean beta rho of {reached:.2f}; KL {found.kl:.2f}, "
              f"win rate {found.win_rate:.3f}", file=sys.stderr, flush=True)  # fmt: skip
        if reached >= scale.reached:
            break
    for training in folder.glob("training-*"):
        shutil.rmtree(training)
    return {"tried": tried, "learning_rate": tried[-1]["learning_rate"], "prompts": len(tasks),
            "frozen_layers": start.frozen_layers, "reached": tried[-1]["mean_scaled_margin"]}  # fmt: skip
