"""The controlled experiment from start to end: every stage in order, its progress lines, and the result."""

__all__ = ["default_folder", "run_experiment"]

import hashlib
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.checkpoints.atomic import sole_writer
from gpo_full.experiment.grid import PlannedRun, all_runs, base_of
from gpo_full.experiment.inputs.scales import Scale, find_scale
from gpo_full.experiment.pool import finished
from gpo_full.experiment.predictions import checks
from gpo_full.experiment.result import ExperimentResult, Run
from gpo_full.experiment.stages import Stage
from gpo_full.files import cache_root
from gpo_full.versions import versions_of
from gpo_theory import LOSSES

if TYPE_CHECKING:
    from gpo_full.experiment.protocol import Protocol


def default_folder(scale: str, policy: str | None = None, reward: str | None = None) -> Path:
    """Return where `gpo reproduce` keeps the experiment of `scale`, apart for a policy or reward of the user's own."""
    models = policy, reward
    own = "" if models == (None, None) else f"-{hashlib.sha256(repr(models).encode()).hexdigest()[:12]}"
    return cache_root() / "experiment" / f"{find_scale(scale).name}{own}"


def run_experiment(
    scale: str | Scale, folder: Path, budget_seconds: float | None = None, *, policy: str | None = None,
    reward: str | None = None, workers: int = 1,
) -> ExperimentResult:  # fmt: skip
    """Run the experiment at `scale`, or what is missing of it in `folder`; write `folder/result.json` and return it.

    Stages, each cached under all that it depends on: supervised fine-tuning; sampling and labelling; the pilot, which
    fixes the learning rate; the plan, which shortens every run alike if, judging by the pilot's time, the experiment
    would exceed `budget_seconds` (default: the scale's); and one stage per run, trained and evaluated. A scale without
    a budget first prints a forecast of its cost. `policy` and `reward` replace the scale's own
    (`gpo_full.experiment.inputs.workload`). `workers` runs are done at a time, each on its share of the cores. Raises
    FolderInUse while another process works in `folder`.
    """
    # Here, so that who only reads a result loads no transformers.
    from transformers.utils import logging

    from gpo_full.experiment.protocol import Protocol

    settings = scale if isinstance(scale, Scale) else find_scale(scale)
    if budget_seconds is not None:
        settings = replace(settings, budget_seconds=budget_seconds)
    if reward is not None:
        settings = replace(settings, label_slope=None)
    logging.disable_progress_bar()
    with sole_writer(folder):
        # Left unfinished by a process that was killed.
        for path in folder.glob(".*/"):
            shutil.rmtree(path)
        found = _run_all(Protocol(settings, folder, policy, reward), workers)
        replace(found, checks=checks(found)).save(folder / "result.json")
    # Read back, so that the result is the same value whether it was computed or loaded.
    return ExperimentResult.load(folder / "result.json")


def _run_all(protocol: "Protocol", workers: int) -> ExperimentResult:
    settings, runs, clock = protocol.scale, all_runs(protocol.scale), _Clock(workers)
    forecast = None if settings.budget_seconds is not None else _forecast(protocol)
    sft = clock.done(protocol.sft())
    labels = clock.done(protocol.pairs())
    pilot = clock.done(protocol.pilot(base_of(runs)))
    plan = protocol.plan(elapsed=clock.elapsed(), runs=len(runs))
    if plan.payload["shortened"]:
        print(f"shortened: {plan.payload['shortened']['because']}", file=sys.stderr, flush=True)
    ends = enumerate(finished(protocol, runs, workers), 1)
    by_name = {one.name: clock.done(stage, number, len(runs)) for number, (one, stage) in ends}
    done = [by_name[one.name] for one in runs]
    return ExperimentResult(
        scale=settings.name, seed=settings.seed, versions=versions_of(("gpo-toolkit", "torch", "transformers")),
        policy=protocol.workload.policy_name, reward=protocol.workload.reward_name, data=protocol.data(),
        settings={k: v for k, v in asdict(settings).items() if k not in ("name", "budget_seconds")},
        sft=sft.payload, labels=labels.payload, pilot=pilot.payload, shortened=plan.payload["shortened"],
        forecast=forecast, runs=tuple(_run(one, stage) for one, stage in zip(runs, done, strict=True)),
        stages=tuple({"name": stage.name, "cpu_seconds": stage.cpu_seconds, "seconds": stage.seconds}
                     for stage in (sft, labels, pilot, *done)),
        checks=(),
    )  # fmt: skip


def _forecast(protocol: "Protocol") -> dict[str, Any]:
    from gpo_full.experiment.forecast import forecast_cost

    scale = protocol.scale
    found = forecast_cost(scale, protocol.folder, protocol.workload).payload
    print(f"experiment at scale {scale.name}: {found['runs']} runs ({len(scale.losses)} losses, "
          f"{len(scale.factors)} betas, {scale.repeats} seeds at the matched one), each of {scale.steps} "
          f"steps and {scale.test_prompts} test prompts: about {found['cpu_hours']:.2g} CPU-hours, "
          f"{found['hours']:.2g} hours on this machine, one run at a time; runs that are finished are not repeated",
          file=sys.stderr, flush=True)  # fmt: skip
    return found


def _run(one: PlannedRun, stage: Stage) -> Run:
    return Run(name=one.name, loss=one.loss, formula=LOSSES[one.loss].formula, beta=one.beta, matched=one.matched,
               factor=one.factor, strength=one.strength, beta_R=None if not one.strength else one.beta * one.strength,
               matching=one.matching, cpu_seconds=stage.cpu_seconds, **stage.payload)  # fmt: skip


class _Clock:
    """Prints a line after each stage: its outcome and, among the runs, about how long is left."""

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
        if "win_rate" in stage.payload:
            how += "; win rate {win_rate:.3f} [{win_low:.3f}, {win_high:.3f}], KL {kl:.3f}".format_map(stage.payload)
        print(f"experiment{place} {stage.name}: {how}{left}", file=sys.stderr, flush=True)
        return stage
