"""The pilot, which fixes the learning rate of all runs, and the plan, which shortens them to fit the budget."""

__all__ = ["decide_plan", "try_learning_rates"]

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpo_full.evaluation.scores import summarize
from gpo_full.experiment.grid import PlannedRun
from gpo_full.experiment.inputs.scales import Scale
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
        policy, curves = train(start, base, rate, scale.steps)
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
    return {"tried": tried, "learning_rate": tried[-1]["learning_rate"], "prompts": len(tasks),
            "frozen_layers": start.frozen_layers, "reached": tried[-1]["mean_scaled_margin"]}  # fmt: skip


def decide_plan(folder: Path, scale: Scale, pilot: Mapping[str, Any], elapsed: float, runs: int) -> dict[str, Any]:
    """Return the steps and test prompts of every run, fewer than the scale's if `runs` of them would exceed its budget.

    `pilot` is the payload of `try_learning_rates`, `elapsed` the seconds already used.
    """
    last = pilot["tried"][-1]
    # The pilot also computed the frozen layers' outputs of each batch, one forward pass; a later run costs the trained
    # layers alone, a forward pass and a backward pass of twice its cost.
    work = 3 * scale.trained_layers / (3 * scale.trained_layers + pilot["frozen_layers"])
    one = work * last["train_seconds"] + last["evaluate_seconds"] * scale.test_prompts / pilot["prompts"]
    left = math.inf if scale.budget_seconds is None else scale.budget_seconds - elapsed
    if runs * one <= left:
        return {"steps": scale.steps, "test_prompts": scale.test_prompts, "shortened": None}
    factor = max(0.2, left / (runs * one))
    steps, prompts = max(2, int(scale.steps * factor)), max(10, int(scale.test_prompts * factor))
    because = (f"{runs} runs at {one:.0f} s each would not fit into the {left:.0f} s that are left of "
               f"{scale.budget_seconds:.0f} s: every run has {steps} steps instead of {scale.steps} and {prompts} test "
               f"prompts instead of {scale.test_prompts}")  # fmt: skip
    return {"steps": steps, "test_prompts": prompts, "shortened": {"factor": factor, "because": because}}
