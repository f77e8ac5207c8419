"""The controlled experiment from start to end: every stage in order, its progress lines, and the result."""

__all__ = ["default_folder", "run_experiment"]

import hashlib
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
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

# CPU-seconds when the scales were planned: a step of fine-tuning and of a run, a policy's answer, a sample.
_SFT_STEP, _STEP, _ANSWER, _SAMPLE = 5.0, 1.05, 0.5, 0.35


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

    Stages, each cached under all that it depends on: supervised fine-tuning; sampling and labelling; the answers of the
    fine-tuned policy to the test prompts; a pilot, if there are several learning rates to choose from; and one stage
    per run, trained and evaluated. A stage that is interrupted goes on where it was. Runs of the scale's `extra` that
    would exceed `budget_seconds` (default: the scale's), judging by the runs before them, are left out, the last ones
    first, until the next call; every other run is done whole, however long it takes. A scale without a budget first
    prints a forecast of its cost. `policy` and `reward` replace the scale's own (see
    `gpo_full.experiment.inputs.workload`), and have a pilot. `workers` runs are done at a time, each on its share of
    the cores. Raises FolderInUse while another process works in `folder`.
    """
    # Here, so that who only reads a result loads no transformers.
    from transformers.utils import logging

    from gpo_full.experiment.protocol import Protocol

    settings = scale if isinstance(scale, Scale) else find_scale(scale)
    if budget_seconds is not None:
        settings = replace(settings, budget_seconds=budget_seconds)
    if reward is not None:
        settings = replace(settings, label_slope=None)
    if (policy, reward) != (None, None) and len(settings.learning_rates) == 1:
        rate = settings.learning_rates[0]
        settings = replace(settings, learning_rates=(rate / 2, rate, 2 * rate))
    logging.disable_progress_bar()
    with sole_writer(folder):
        # Left unfinished by a process that was killed.
        _remove(path for path in folder.glob(".*/") if not path.name.startswith(".part-"))
        found = _run_all(Protocol(settings, folder, policy, reward, workers), workers)
        _remove(folder.glob(".part-*/"))  # of stages that have another key by now
        replace(found, checks=checks(found)).save(folder / "result.json")
    # Read back, so that the result is the same value whether it was computed or loaded.
    return ExperimentResult.load(folder / "result.json")


def _remove(folders: Iterable[Path]) -> None:
    for path in folders:
        shutil.rmtree(path)


def _run_all(protocol: "Protocol", workers: int) -> ExperimentResult:
    settings, planned, clock = protocol.scale, all_runs(protocol.scale), _Clock(workers)
    budget = _Budget(settings, clock)
    forecast = None if settings.budget_seconds is not None else _forecast(protocol)
    before = [clock.done(protocol.sft())]
    _foretell(settings, before[0], len(planned))
    before += [clock.done(protocol.pairs()), clock.done(protocol.answers())]
    if len(settings.learning_rates) > 1:
        before.append(clock.done(protocol.pilot(base_of(planned))))
    ends = enumerate(finished(protocol, planned, workers, budget.fits), 1)
    by_name = {one.name: clock.done(stage, number, len(planned)) for number, (one, stage) in ends}
    done = [(one, by_name[one.name]) for one in planned if one.name in by_name]
    runs = tuple(_run(one, stage) for one, stage in done)
    sft, labels, answers = (stage.payload for stage in before[:3])
    pilot = before[3].payload if before[3:] else _without_pilot(protocol, runs)
    return ExperimentResult(
        scale=settings.name, seed=settings.seed, versions=versions_of(("gpo-toolkit", "torch", "transformers")),
        policy=protocol.workload.policy_name, reward=protocol.workload.reward_name, data=protocol.data(),
        settings={k: v for k, v in asdict(settings).items() if k not in ("name", "budget_seconds")},
        sft=sft, labels=labels, answers=answers, pilot=pilot, shortened=budget.shortened(len(done) / len(planned)),
        forecast=forecast, runs=runs, checks=(),
        stages=tuple({"name": stage.name, "cpu_seconds": stage.cpu_seconds, "seconds": stage.seconds}
                     for stage in (*before, *(stage for _, stage in done))),
    )  # fmt: skip


def _without_pilot(protocol: "Protocol", runs: Sequence[Run]) -> dict[str, Any]:
    """Return what a pilot would, of the run with its loss and beta."""
    base = next(one for one in runs if one.matched)
    margins = base.scaled_margin[-max(1, len(base.scaled_margin) // 5) :]
    layers = len(protocol.workload.model.get_decoder().layers)
    return {"tried": [], "learning_rate": protocol.rate(), "prompts": 0, "reached": mean(margins),
            "frozen_layers": layers - protocol.scale.trained_layers}  # fmt: skip


def _foretell(scale: Scale, sft: Stage, runs: int) -> None:
    """Print about how long the experiment will take, from the time that fine-tuning took on this machine."""
    if scale.budget_seconds is None or not scale.real:
        return
    one = _STEP * scale.steps + _ANSWER * scale.test_prompts
    rest = _SAMPLE * (2 * scale.pair_prompts + 3 * scale.test_prompts) + runs * one
    minutes = sft.seconds * (1 + rest / (_SFT_STEP * scale.sft_steps)) / 60
    print(f"experiment: about {minutes:.0f} min in all at this machine's pace; planned are "
          f"{scale.budget_seconds / 60:.0f}", file=sys.stderr, flush=True)  # fmt: skip


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


class _Budget:
    """Decides which runs of the scale's `extra` still fit into its time."""

    def __init__(self, scale: Scale, clock: "_Clock") -> None:
        self._scale, self._clock, self._dropped = scale, clock, list[str]()

    def fits(self, one: PlannedRun) -> bool:
        """Return whether there is time for `one`: always if it is not extra, and not once another was left out."""
        if (one.loss, one.factor) not in self._scale.extra or self._scale.budget_seconds is None:
            return True
        if not self._dropped and self._clock.elapsed() + self._clock.of_a_run() <= self._scale.budget_seconds:
            return True
        self._dropped.append(one.name)
        return False

    def shortened(self, factor: float) -> dict[str, Any] | None:
        """Return what was left out and why, with the share of runs that were done; None if all were."""
        if not self._dropped:
            return None
        because = (f"{' and '.join(self._dropped)} would not fit into the planned {self._scale.budget_seconds:.0f} s, "
                   f"a run taking {self._clock.of_a_run():.0f} s; every other run is whole, and the same command does "
                   "the rest")  # fmt: skip
        print(f"shortened: {because}", file=sys.stderr, flush=True)
        return {"factor": factor, "because": because, "dropped": self._dropped}


class _Clock:
    """Prints a line after each stage: its outcome and, among the runs, about how long is left."""

    def __init__(self, workers: int) -> None:
        self._start, self._workers = time.monotonic(), workers
        self._runs: list[float] = []

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def of_a_run(self) -> float:
        """Return the seconds of a run, a mean over those done in this call; 0 before the first."""
        return mean(self._runs or [0.0])

    def done(self, stage: Stage, number: int = 0, total: int = 0) -> Stage:
        left = ""
        if not stage.cached and number:
            self._runs.append(stage.seconds)
            seconds = self.of_a_run() * (total - number) / self._workers
            left = f"; about {seconds / 60:.0f} min left" if seconds >= 60 else f"; about {seconds:.0f} s left"
        place = f" {number}/{total}" if number else ""
        how = "from the cache" if stage.cached else f"{stage.seconds:.0f} s"
        if "win_rate" in stage.payload:
            how += "; win rate {win_rate:.3f} [{win_low:.3f}, {win_high:.3f}], KL {kl:.3f}".format_map(stage.payload)
        print(f"experiment{place} {stage.name}: {how}{left}", file=sys.stderr, flush=True)
        return stage
