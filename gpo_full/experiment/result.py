"""The controlled experiment: one policy, one set of pairs, several losses and betas, and what became of each."""

__all__ = ["ExperimentResult", "Run", "default_folder", "run"]

import hashlib
import json
import lzma
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from gpo_full.checkpoints.atomic import sole_writer
from gpo_full.experiment.grid import Experiment, base_of, grid
from gpo_full.experiment.pool import finished
from gpo_full.experiment.predictions import checks
from gpo_full.experiment.scales import Scale, find_scale
from gpo_full.experiment.stages import Stage
from gpo_full.files import atomic_file, cache_root


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


def default_folder(scale: str, policy: str | None = None, reward: str | None = None) -> Path:
    """Return where `gpo reproduce` keeps the experiment of `scale`, apart for a policy or reward of the user's own."""
    own = "" if policy is reward is None else f"-{hashlib.sha256(repr((policy, reward)).encode()).hexdigest()[:12]}"
    return cache_root() / "experiment" / f"{find_scale(scale).name}{own}"


def run(
    scale: str | Scale, folder: Path, budget_seconds: float | None = None, *, policy: str | None = None,
    reward: str | None = None, workers: int = 1,
) -> ExperimentResult:  # fmt: skip
    """Run the experiment at `scale`, or what is missing of it in `folder`; write `folder/result.json` and return it.

    Stages, each cached under all that it depends on: supervised fine-tuning; sampling and labelling; the pilot, which
    fixes the learning rate; the plan, which shortens every run alike if the pilot's time says that the experiment
    would outlast `budget_seconds` (default: the scale's); and one stage per run, trained and evaluated. A scale without
    a budget says first, from a few steps of each kind of work, what it will take. `policy` and `reward` take the place
    of the scale's own (`gpo_full.experiment.inputs.materials`). `workers` runs are done at a time, each on its share of the cores.
    FolderInUse while another process works in `folder`.
    """
    settings = scale if isinstance(scale, Scale) else find_scale(scale)
    if budget_seconds is not None:
        settings = replace(settings, budget_seconds=budget_seconds)
    if reward is not None:
        settings = replace(settings, label_slope=None)
    _quiet()
    with sole_writer(folder):
        # Half done by a process that was killed.
        for path in folder.glob(".*/"):
            shutil.rmtree(path)
        found = _run_all(settings, folder, policy, reward, workers)
        replace(found, checks=checks(found)).save(folder / "result.json")
    # Read back, so that the result is the same value whether it was computed or loaded.
    return ExperimentResult.load(folder / "result.json")


def _run_all(
    settings: Scale, folder: Path, policy: str | None, reward: str | None, workers: int
) -> ExperimentResult:
    from gpo_full.experiment.protocol import Protocol

    clock, runs = _Clock(workers), grid(settings)
    ahead = None if settings.budget_seconds is not None else _forecast(settings, folder, policy, reward)
    protocol = Protocol(settings, folder, policy, reward)
    sft = clock.done(protocol.sft())
    labels = clock.done(protocol.pairs())
    pilot = clock.done(protocol.pilot(base_of(runs)))
    plan = protocol.plan(elapsed=clock.elapsed(), runs=len(runs))
    if plan.payload["shortened"]:
        print(f"shortened: {plan.payload['shortened']['because']}", file=sys.stderr, flush=True)
    ends = enumerate(finished(protocol, runs, workers), 1)
    by_name = {one.name: clock.done(stage, number, len(runs)) for number, (one, stage) in ends}
    done = [by_name[one.name] for one in runs]
    stages = (sft, labels, pilot, *done)
    return ExperimentResult(
        settings.name, settings.seed, _versions(), protocol.material.policy_name, protocol.material.reward_name,
        protocol.data(), {k: v for k, v in asdict(settings).items() if k not in ("name", "budget_seconds")},
        sft.payload, labels.payload, pilot.payload, plan.payload["shortened"], ahead,
        tuple(_run(one, s) for one, s in zip(runs, done, strict=True)),
        tuple({"name": s.name, "cpu_seconds": s.cpu_seconds, "seconds": s.seconds} for s in stages),
        (),
    )  # fmt: skip


def _forecast(settings: Scale, folder: Path, policy: str | None, reward: str | None) -> dict[str, Any]:
    from gpo_full.experiment.forecast import forecast

    found = forecast(settings, folder, policy, reward).payload
    print(f"experiment at scale {settings.name}: {found['runs']} runs ({len(settings.losses)} losses, "
          f"{len(settings.factors)} betas, {settings.repeats} seeds at the matched one), each of {settings.steps} "
          f"steps and {settings.test_prompts} test prompts: about {found['cpu_hours']:.2g} CPU-hours, "
          f"{found['hours']:.2g} hours on this machine, one run at a time; runs that are finished are not repeated",
          file=sys.stderr, flush=True)  # fmt: skip
    return found


def _run(one: Experiment, stage: Stage) -> Run:
    from gpo_theory import LOSSES

    beta_r = None if not one.strength else one.beta * one.strength
    return Run(one.name, one.loss, LOSSES[one.loss].formula, one.beta, one.matched, one.factor, one.strength, beta_r,
               one.matching, cpu_seconds=stage.cpu_seconds, **_frozen(stage.payload))  # fmt: skip


def _frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _versions() -> dict[str, str]:
    names = ("gpo-toolkit", "torch", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _quiet() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()


class _Clock:
    """Says after each stage what came of it and, among the runs, about how long is left."""

    def __init__(self, workers: int) -> None:
        self._start, self._workers = time.monotonic(), workers
        self._runs: list[float] = []

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def done(self, stage: Stage, number: int = 0, total: int = 0) -> Stage:
        left = ""
        if not stage.cached and number:
            self._runs.append(stage.seconds)
            seconds = sum(self._runs) / len(self._runs) * (total - number) / self._workers
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
