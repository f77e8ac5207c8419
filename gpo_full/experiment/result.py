"""What the controlled experiment found: for each loss and beta, what became of the policy."""

__all__ = ["ExperimentResult", "Run", "frozen"]

import json
import lzma
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from gpo_full.files import atomic_file


@dataclass(frozen=True)
class Run:
    """One trained policy: a loss at one beta, its evaluation (`gpo_full.evaluation.compare.Evaluation`) and its curves.

    `scaled_margin` and `objective` are beta rho and f(beta rho), means over the pairs of each step; `accuracy` and the
    log-ratios (nats) are means over the last fifth of the steps. `strength` and `beta_R` are null where R = 0; `factor`
    is beta over the matched one. `width` is the largest difference of s = log pi/pi_ref seen between two draws of the
    reference, in nats: at most the 2B of proposition P11.
    """

    name: str
    loss: str
    formula: str
    beta: float
    matched: bool
    factor: float
    strength: float | None
    beta_R: float | None
    matching: str
    kl: float
    kl_se: float
    kl_sequence: float
    kl_sequence_se: float
    win_rate: float
    win_low: float
    win_high: float
    ties: int
    length_ratio: float
    copied: float
    reward: float
    reference_reward: float
    regularizer: float
    regularizer_se: float
    width: float
    n: int
    seed: int
    examples: tuple[dict[str, str], ...]
    accuracy: float
    log_ratio_chosen: float
    log_ratio_rejected: float
    scaled_margin: tuple[float, ...]
    objective: tuple[float, ...]
    cpu_seconds: float


@dataclass(frozen=True)
class ExperimentResult:
    """Everything that the experiment found; `as_dict` is its JSON form."""

    scale: str
    seed: int
    versions: dict[str, str]
    policy: str
    reward: str
    data: dict[str, Any]
    settings: dict[str, Any]
    sft: dict[str, Any]
    labels: dict[str, Any]
    pilot: dict[str, Any]
    shortened: dict[str, Any] | None
    forecast: dict[str, Any] | None
    runs: tuple[Run, ...]
    stages: tuple[dict[str, Any], ...]
    checks: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, `"schema": 1` included."""
        return {"schema": 1, **asdict(self)}

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `run` wrote, which `xz` may have compressed."""
        with lzma.open(path) if str(path).endswith(".xz") else open(path, "rb") as file:
            saved = json.load(file)
        if saved.pop("schema") != 1:
            raise ValueError(f"{str(path)!r} is not a result of schema 1")
        runs = tuple(Run(**frozen(one)) for one in saved.pop("runs"))
        return cls(runs=runs, stages=tuple(saved.pop("stages")), checks=tuple(saved.pop("checks")), **saved)

    def save(self, path: Path) -> None:
        """Write the JSON form, whole or not at all."""
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def values(self, lesson: str = "09_language_model") -> list[dict[str, Any]]:
        """Return the published numbers; `tolerance` is null, because trained networks differ between machines."""
        def value(name: str, number: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
            return {"id": f"experiment.{name}", "value": number, "low": low, "high": high, "seed": self.seed,
                    "tolerance": None, "lesson": lesson}  # fmt: skip

        found = [value("sft.loss", self.sft["loss_after"]), value("sft.reward", self.sft["reward_after"]),
                 value("labels.agreement", self.labels["agreement"])]  # fmt: skip
        for one in self.runs:
            found += [
                value(f"{one.name}.win_rate", one.win_rate, one.win_low, one.win_high),
                value(f"{one.name}.kl", one.kl, one.kl - 1.96 * one.kl_se, one.kl + 1.96 * one.kl_se),
                value(f"{one.name}.regularizer", one.regularizer, one.regularizer - 1.96 * one.regularizer_se,
                      one.regularizer + 1.96 * one.regularizer_se),
            ]  # fmt: skip
        return found


def frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values read from JSON with tuples for its lists, as a frozen dataclass has them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
