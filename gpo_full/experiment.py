"""The controlled experiment: one policy, one set of pairs, six losses at two betas each, and what became of each."""

__all__ = ["Experiment", "ExperimentResult", "Run", "default_folder", "run"]

import json
import math
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from gpo_full.files import atomic_file, cache_root
from gpo_full.scales import LOSS_NAMES, Scale, find_scale
from gpo_full.stages import Stage


@dataclass(frozen=True)
class Run:
    """One trained policy: a loss at one beta, its evaluation (`gpo_full.evaluation.Evaluation`) and its curves.

    `scaled_margin` and `objective` are beta rho and f(beta rho), means over the pairs of each step; `accuracy` and the
    log-ratios (nats) are means over the last fifth of the steps. `strength` and `beta_R` are null where R = 0.
    """

    name: str
    loss: str
    formula: str
    beta: float
    matched: bool
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
    runs: tuple[Run, ...]
    stages: tuple[dict[str, Any], ...]
    checks: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, `"schema": 1` included."""
        return {"schema": 1, **asdict(self)}

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `run` wrote."""
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        if saved.pop("schema") != 1:
            raise ValueError(f"{str(path)!r} is not a result of schema 1")
        runs = tuple(Run(**_frozen(one)) for one in saved.pop("runs"))
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


@dataclass(frozen=True)
class Experiment:
    """One loss at one beta, and how that beta was chosen."""

    loss: str
    beta: float
    matched: bool
    strength: float | None
    matching: str

    @property
    def name(self) -> str:
        """The run's name, `logistic-matched`."""
        return f"{self.loss}-{'matched' if self.matched else 'unmatched'}"


def default_folder(scale: str) -> Path:
    """Return where `gpo reproduce` keeps the experiment of `scale`."""
    return cache_root() / "experiment" / find_scale(scale).name


def run(scale: str, folder: Path, budget_seconds: float | None = None) -> ExperimentResult:
    """Run the experiment at `scale`, or what is missing of it in `folder`; write `folder/result.json` and return it.

    Stages, each cached under all that it depends on: supervised fine-tuning; sampling and labelling; the pilot, which
    fixes the learning rate; the plan, which shortens every run alike if the pilot's time says that the experiment
    would outlast `budget_seconds` (default: the scale's); and one stage per run, trained and evaluated.
    """
    from gpo_full.protocol import Protocol

    settings = find_scale(scale)
    if budget_seconds is not None:
        settings = replace(settings, budget_seconds=budget_seconds)
    _quiet()
    clock = _Clock()
    protocol = Protocol(settings, folder)
    sft = clock.done(protocol.sft())
    labels = clock.done(protocol.pairs())
    pilot = clock.done(protocol.pilot(grid(settings)[0]))
    plan = protocol.plan(elapsed=clock.elapsed(), runs=2 * len(LOSS_NAMES))
    if plan.payload["shortened"]:
        print(f"shortened: {plan.payload['shortened']['because']}", file=sys.stderr, flush=True)
    done = []
    for number, one in enumerate(grid(settings), 1):
        finished = protocol.train_and_evaluate(one)
        done.append(clock.done(finished, number, 2 * len(LOSS_NAMES)))
    stages = [sft, labels, pilot, *done]
    runs = tuple(_run(one, s) for one, s in zip(grid(settings), done, strict=True))
    result = ExperimentResult(
        settings.name, settings.seed, _versions(), protocol.material.policy_name, protocol.material.reward_name,
        protocol.data(), {k: v for k, v in asdict(settings).items() if k not in ("name", "budget_seconds")},
        sft.payload, labels.payload, pilot.payload, plan.payload["shortened"], runs,
        tuple({"name": s.name, "cpu_seconds": s.cpu_seconds, "seconds": s.seconds} for s in stages),
        (),
    )  # fmt: skip
    replace(result, checks=checks(result)).save(folder / "result.json")
    # Read back, so that the result is the same value whether it was computed or loaded.
    return ExperimentResult.load(folder / "result.json")


def grid(scale: Scale) -> list[Experiment]:
    """Return every run: each loss at the beta matched to the logistic's, and at `scale.unmatched` times that.

    Matched by strength, beta R = beta_logistic R_logistic (proposition P1'); a loss with R = 0 has no such beta and
    shares the logistic's target margin x*(p) / beta at p = `scale.certainty` instead.
    """
    found = []
    for loss in LOSS_NAMES:
        beta, r, matching = _matched(loss, scale)
        found.append(Experiment(loss, beta, True, r, matching))
        found.append(Experiment(loss, beta * scale.unmatched, False, r, f"{scale.unmatched:g} times the matched beta"))
    return found


def _matched(loss: str, scale: Scale) -> tuple[float, float | None, str]:
    from gpo_theory import LOSSES, match_beta, strength

    found = match_beta("logistic", loss, scale.beta)
    if found.beta_to is not None:
        return found.beta_to, strength(LOSSES[loss]).value, "strength"
    p = scale.certainty
    ratio = target_margin(loss, p) / target_margin("logistic", p)
    return scale.beta * ratio, None, f"target margin at p = {p:g}"


def target_margin(loss: str, p: float) -> float:
    """Return the smallest x >= 0 that minimises p f(x) + (1-p) f(-x), numerically, for p in (1/2, 1).

    >>> round(target_margin("hinge", 0.9), 6)
    1.0
    """
    import torch

    from gpo_theory import find_loss, to_torch

    f = to_torch(find_loss(loss))
    low, high = 0.0, 50.0
    for _ in range(12):
        x = torch.linspace(low, high, 1001, dtype=torch.float64)
        values = p * f(x) + (1 - p) * f(-x)
        best = int(torch.nonzero(values <= values.min() * (1 + 1e-15) + 1e-300)[0])
        low, high = float(x[max(0, best - 1)]), float(x[min(1000, best + 1)])
    return (low + high) / 2


def _run(one: Experiment, stage: Stage) -> Run:
    from gpo_theory import LOSSES

    beta_r = None if not one.strength else one.beta * one.strength
    return Run(one.name, one.loss, LOSSES[one.loss].formula, one.beta, one.matched, one.strength, beta_r, one.matching,
               cpu_seconds=stage.cpu_seconds, **_frozen(stage.payload))  # fmt: skip


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def checks(result: ExperimentResult) -> tuple[dict[str, Any], ...]:
    """Return the theory's predictions, their bounds fixed before any run was looked at, and what came of each."""
    matched = [one for one in result.runs if one.matched and one.beta_R]
    by_name = {one.name: one for one in result.runs}
    spread = max(one.kl for one in matched) / max(min(one.kl for one in matched), 1e-9)
    closer = sum(by_name[f"{loss}-unmatched"].kl < by_name[f"{loss}-matched"].kl for loss in LOSS_NAMES)
    nearest = min(result.runs, key=lambda one: one.kl)
    ratio = nearest.kl / nearest.regularizer if nearest.regularizer > 0 else math.nan
    rank = _rank_correlation([one.kl for one in result.runs], [one.regularizer for one in result.runs])
    best = max(one.win_low for one in result.runs)
    return (
        _check("overlay", "at the matched betas the smooth losses end within a factor 1.5 of each other in KL",
               spread, 1.5, spread <= 1.5),
        _check("beta", "for every loss, four times the beta ends at a smaller KL", closer, len(LOSS_NAMES),
               closer == len(LOSS_NAMES)),
        _check("half", "in the run nearest to the reference, KL is half the regulariser, within a factor 2",
               None if math.isnan(ratio) else ratio, 0.5, None if math.isnan(ratio) else 0.25 <= ratio <= 1.0),
        _check("scatter", "over the runs, KL and the regulariser have rank correlation of at least 0.8", rank, 0.8,
               None if rank is None else rank >= 0.8),
        _check("better", "at least one run's win rate is above 1/2 with an interval that excludes it", best, 0.5,
               best > 0.5),
    )  # fmt: skip


def _check(name: str, claim: str, value: float | None, bound: float, passed: bool | None) -> dict[str, Any]:
    return {"id": name, "claim": claim, "passed": passed, "value": value, "bound": bound}


def _rank_correlation(a: list[float], b: list[float]) -> float | None:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic) if len(set(a)) > 1 and len(set(b)) > 1 else None


def _versions() -> dict[str, str]:
    names = ("gpo-toolkit", "torch", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _quiet() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()


class _Clock:
    """Says after each stage what came of it and, among the runs, about how long is left."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._runs: list[float] = []

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def done(self, stage: Stage, number: int = 0, total: int = 0) -> Stage:
        left = ""
        if not stage.cached and number:
            self._runs.append(stage.seconds)
            seconds = sum(self._runs) / len(self._runs) * (total - number)
            left = f"; about {seconds / 60:.0f} min left" if seconds >= 60 else f"; about {seconds:.0f} s left"
        place = f" {number}/{total}" if number else ""
        how = "from the cache" if stage.cached else f"{stage.seconds:.0f} s"
        print(f"experiment{place} {stage.name}: {how}{_outcome(stage.payload)}{left}", file=sys.stderr, flush=True)
        return stage


def _outcome(payload: Mapping[str, Any]) -> str:
    if "win_rate" in payload:
        interval = f"[{payload['win_low']:.3f}, {payload['win_high']:.3f}]"
        return f"; win rate {payload['win_rate']:.3f} {interval}, KL {payload['kl']:.3f}"
    return ""
