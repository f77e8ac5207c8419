"""What the controlled experiment found: the evaluation of the policy trained with each loss, beta and seed."""

__all__ = ["ExperimentResult", "Run", "published_result"]

import json
import lzma
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from gpo_full.evaluation.scores import Evaluation, bootstrap_interval
from gpo_full.files import write_whole

# Scale full, hours of work; without the samples.
FULL = Path(__file__).parent / "results" / "full.json.xz"


@dataclass(frozen=True, kw_only=True)
class Run(Evaluation):
    """The evaluation of one trained policy, with the loss and beta that trained it and its curves.

    `scaled_margin` and `objective` are beta rho and f(beta rho), means over the pairs of each step; `accuracy` and the
    log-ratios (nats) are means over the last fifth of the steps. `strength` and `beta_R` are null where R = 0; `factor`
    is beta over the matched one. `width` is the largest difference of s = log pi/pi_ref seen between two samples of the
    reference, in nats: at most the 2B of proposition P11.

    With `wins`, the policy was compared with two answers of the reference to each prompt: `wins` are the means over
    the two, `win_rate` their mean, `ties` are counted over both. `reward_difference` is the mean of the policy's reward
    less that of a third answer, drawn with the same uniform numbers, which makes its standard error small.
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
    width: float
    accuracy: float
    log_ratio_chosen: float
    log_ratio_rejected: float
    scaled_margin: tuple[float, ...]
    objective: tuple[float, ...]
    cpu_seconds: float
    wins: tuple[float, ...] = ()
    reward_difference: float | None = None
    reward_difference_se: float | None = None


@dataclass(frozen=True, kw_only=True)
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
    answers: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, `"schema": 1` included."""
        return {"schema": 1, **asdict(self)}

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote, or its compression by `xz`."""
        with lzma.open(path) if str(path).endswith(".xz") else open(path, "rb") as file:
            saved = json.load(file, object_hook=_with_tuples)
        if saved.pop("schema") != 1:
            raise ValueError(f"{str(path)!r} is not a result of schema 1")
        return cls(runs=tuple(Run(**one) for one in saved.pop("runs")), **saved)

    def save(self, path: Path) -> None:
        """Write the JSON form, whole or not at all."""
        write_whole(path, json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")

    def values(self, lesson: str = "09_language_model") -> list[dict[str, Any]]:
        """Return the published numbers; `tolerance` is null, because trained networks differ between machines."""
        def value(name: str, number: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
            return {"id": f"experiment.{name}", "value": number, "low": low, "high": high, "seed": self.seed,
                    "tolerance": None, "lesson": lesson}  # fmt: skip

        def interval(name: str, number: float, error: float) -> dict[str, Any]:
            return value(name, number, number - 1.96 * error, number + 1.96 * error)

        found = [value("sft.loss", self.sft["loss_after"]), value("sft.reward", self.sft["reward_after"]),
                 value("labels.agreement", self.labels["agreement"])]  # fmt: skip
        for one in self.runs:
            found += [value(f"{one.name}.win_rate", one.win_rate, one.win_low, one.win_high),
                      interval(f"{one.name}.kl", one.kl, one.kl_se),
                      interval(f"{one.name}.regularizer", one.regularizer, one.regularizer_se)]  # fmt: skip
            if one.reward_difference is not None and one.reward_difference_se is not None:
                found.append(interval(f"{one.name}.reward_difference", one.reward_difference, one.reward_difference_se))
        pooled = self.pooled_win_rate()
        return found if pooled is None else [*found, value("pooled.win_rate", *pooled)]

    def pooled_win_rate(self) -> tuple[float, float, float] | None:
        """Return the mean win rate of the losses at their matched betas with its 95% interval; None without `wins`.

        Prompts are resampled, each with the answers of all policies to it, because they are of one difficulty for all.
        """
        matched = [one.wins for one in self.runs if one.matched and one.seed == self.seed]
        if not all(matched):
            return None
        by_prompt = np.mean(matched, axis=0)
        return (float(by_prompt.mean()), *bootstrap_interval(by_prompt, seed=self.seed))


def published_result() -> ExperimentResult:
    """Return the result of `gpo reproduce --scale full` that is shipped, with the versions that computed it.

    >>> len(published_result().runs)
    63
    """
    return ExperimentResult.load(FULL)


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Return an object of JSON with tuples for its lists, as a frozen dataclass has them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
