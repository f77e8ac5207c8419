"""Logs with a known truth: descent of pairs under f(beta rho), written as another trainer writes them."""

__all__ = ["Truth", "rows_of", "simulate"]

from dataclasses import dataclass, field
from typing import Any

import numpy as np

F = {"logistic": (lambda x: np.logaddexp(0, -x), lambda x: -1 / (1 + np.exp(x))),
     "squared": (lambda x: (x - 1) ** 2, lambda x: 2 * (x - 1)),
     "exponential": (lambda x: np.exp(-x), lambda x: -np.exp(-x)),
     "hinge": (lambda x: np.maximum(0, 1 - x), lambda x: -1.0 * (x < 1)),
     # Label smoothing 1/10 of the logistic loss.
     "cdpo": (lambda x: np.logaddexp(0, -x) + x / 10, lambda x: 0.1 - 1 / (1 + np.exp(x)))}  # fmt: skip
PAIRS = 64


@dataclass(frozen=True)
class Truth:
    """What a simulated run did: `rate` in x per step and unit of slope, 0 for a frozen one; `shift` of the reference."""

    loss: str = "logistic"
    beta: float = 0.1
    logs: int = 20
    every: int = 10
    rate: float = 0.02
    accumulation: int = 1
    shift: float = 0.0  # in x, of every pair's margin at the start
    drag: float = 0.0  # of the margin's rise, by which both log-ratios fall as well
    first_step: bool = True  # whether step 1 is logged
    warmup: int = 0  # steps
    seed: int = 0
    batch: int = PAIRS // 2
    extra: dict[str, float] = field(default_factory=dict)


def simulate(truth: Truth) -> list[dict[str, Any]]:
    """Descend, and return TRL's log history, each log over a batch of the pairs."""
    rng = np.random.default_rng(truth.seed)
    f, slope = F[truth.loss]
    speed, start = rng.uniform(0.5, 1.5, PAIRS), truth.shift * rng.uniform(0.8, 1.2, PAIRS)
    x, fallen = start.copy(), np.zeros(PAIRS)
    rows = []
    for step in range(1, truth.logs * truth.every + 1):
        if step % truth.every == 0 or (step == 1 and truth.first_step):
            batch = rng.permutation(PAIRS)[: truth.batch]
            chosen, rejected = x[batch] / 2 - fallen[batch], -x[batch] / 2 - fallen[batch]
            rows.append({
                "step": step, "epoch": step / 100, "loss": float(truth.accumulation * f(x[batch]).mean()),
                "grad_norm": float(np.abs(slope(x[batch])).mean() * truth.accumulation), "learning_rate": 1e-6,
                "rewards/margins": float(x[batch].mean()), "rewards/chosen": float(chosen.mean()),
                "rewards/rejected": float(rejected.mean()), "rewards/accuracies": float((x[batch] > 0).mean()),
                "logps/chosen": float(-80 + chosen.mean() / truth.beta), "logps/rejected": float(-85 + rejected.mean() / truth.beta),
                **truth.extra})  # fmt: skip
        move = -truth.rate * min(1.0, step / max(1, truth.warmup)) * speed * slope(x)
        x, fallen = x + move, fallen + truth.drag * np.abs(move)
    return rows


def rows_of(rows: list[dict[str, Any]], trainer: str) -> list[dict[str, Any]]:
    """The same logs in the keys and the texts of another trainer, among rows of its evaluations."""
    last = rows[-1]["step"]
    if trainer == "ms-swift":
        kept = [{key: f"{value:.8g}" for key, value in row.items() if key not in ("step", "rewards/accuracies")}
                | {"global_step/max_steps": f"{row['step']}/{last}", "percentage": f"{100 * row['step'] / last:.2f}%",
                   "rewards/accuracies": f"{100 * row['rewards/accuracies']:.4f}%", "memory(GiB)": 14.3} for row in rows]  # fmt: skip
        return [*kept, {"eval_loss": "0.6", "global_step/max_steps": f"{last}/{last}"}]
    if trainer == "openrlhf":
        names = {"loss": "loss", "rewards/chosen": "chosen_reward", "rewards/rejected": "reject_reward",
                 "rewards/accuracies": "acc", "step": "global_step", "learning_rate": "lr"}  # fmt: skip
        kept = [{f"train/{name}": row[key] for key, name in names.items()} for row in rows]
        return [*kept, {"eval/eval_loss": 0.6, "eval/global_step": last}]
    if trainer == "nemo-rl":  # log-ratios without beta, and a loss of two parts
        kept = [{"step": row["step"], "preference_loss": row["loss"], "sft_loss": 2.0, "loss": 0.2 + row["loss"],
                 "accuracy": row["rewards/accuracies"], "rewards_chosen_mean": row["logps/chosen"] + 80,
                 "rewards_rejected_mean": row["logps/rejected"] + 85, "grad_norm": row["grad_norm"],
                 "num_valid_samples": 64} for row in rows]  # fmt: skip
        return [*kept, {"step": last, "val_loss": 0.6}]
    if trainer == "llama-factory":
        kept = [{"current_steps": row["step"], "total_steps": last, "loss": round(row["loss"], 4), "lr": 1e-6,
                 "accuracy": row["rewards/accuracies"], "epoch": row["epoch"], "percentage": 50.0,
                 "elapsed_time": "0:00:27"} for row in rows]  # fmt: skip
        return [*kept, {"current_steps": last, "total_steps": last, "eval_loss": 0.6, "epoch": 1.0}]
    assert trainer == "trl"
    return [*rows, {"step": last, "eval_loss": 0.6, "epoch": 1.0}, {"step": last, "train_loss": 0.6, "epoch": 1.0}]

