"""A result of the controlled experiment made up by hand: numbers that are easy to tell apart."""

__all__ = ["made_up"]

from typing import Any

from gpo_full.experiment.inputs.scales import LOSS_NAMES
from gpo_full.experiment.result import ExperimentResult, Run


def made_up(
    factors: tuple[float, ...] = (1.0, 4.0), seeds: int = 1, losses: tuple[str, ...] = LOSS_NAMES
) -> ExperimentResult:
    """Every loss at `factors` times a matched beta of 0.1, and at that one `seeds` times."""
    runs = [_one(loss, factor, place, 0) for place, loss in enumerate(losses) for factor in factors]
    runs += [_one(loss, 1.0, place, seed) for seed in range(1, seeds) for place, loss in enumerate(losses)]
    empty: dict[str, Any] = {}
    return ExperimentResult(scale="smoke", seed=0, versions={}, policy="p", reward="r", data=empty, settings=empty,
                            sft=empty, labels=empty, pilot=empty, shortened=None, forecast=None, runs=tuple(runs),
                            stages=(), checks=())  # fmt: skip


def _one(loss: str, factor: float, place: int, seed: int) -> Run:
    r = None if loss == "hinge" else 0.5
    beta = 0.1 * factor
    return Run(
        name=f"{loss}-{factor:g}-{seed}", loss=loss, formula="f", beta=beta, matched=factor == 1, factor=factor,
        strength=r, beta_R=r and beta * r, matching="strength", kl=1.0 + place, kl_se=0.1, kl_sequence=1.0,
        kl_sequence_se=0.2, win_rate=0.5 + place / 100, win_low=0.4, win_high=0.7, ties=0, length_ratio=1.0, copied=0.1,
        reward=0.4, reference_reward=0.4, regularizer=2.0 + place, regularizer_se=0.3, width=2.0 + place / 10, n=100,
        seed=seed, examples=(), accuracy=0.6, log_ratio_chosen=-0.1 * place, log_ratio_rejected=-0.5 - 0.1 * place,
        scaled_margin=(0.0, 0.5, 1.0), objective=(1.0, 0.9, 0.8), cpu_seconds=1.0,
    )  # fmt: skip
