"""The cost of an experiment on this machine, extrapolated from a few steps of each kind of work that it does."""

__all__ = ["forecast_cost"]

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpo_full.data.pairs import Pair
from gpo_full.evaluation.sampling import sample
from gpo_full.experiment.grid import all_runs
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.inputs.workload import Workload
from gpo_full.experiment.labels import label_pairs
from gpo_full.experiment.sft import fine_tune, tokenize_tasks
from gpo_full.experiment.stages import Stage, stage
from gpo_full.experiment.trained_run import Start, answered, scored, train

# As few as give a step's cost by a difference: the forecast is to take minutes where the experiment takes hours.
_FEW, _MORE = 2, 6  # steps of a run
_PAIRS, _TESTS, _SFT = 16, 32, 2  # prompts for pairs, test prompts (one batch), steps of fine-tuning


def forecast_cost(scale: Scale, folder: Path, workload: Workload) -> Stage:
    """Return the stage that measured, on the policy before any training, what `scale` will cost.

    Its payload: `runs`, `cpu_hours` and `hours` of the whole experiment, and `seconds` (CPU, wall) of each part: a step
    of a run (with and without what runs share), a prompt of an evaluation, and so on. The pilot is assumed to try all
    rates.
    """
    inputs = {"workload": workload.fingerprint, "scale": repr(scale)}
    return stage(folder, "forecast", inputs, _forecast, lambda: (scale, workload, folder))


def _forecast(stage_folder: Path, scale: Scale, workload: Workload, folder: Path) -> dict[str, Any]:
    seconds = _measured(scale, workload, folder)
    cpu, wall = (_total(scale, {name: both[i] for name, both in seconds.items()}) for i in (0, 1))
    return {"runs": len(all_runs(scale)), "cpu_hours": cpu / 3600, "hours": wall / 3600, "seconds": seconds}


def _total(scale: Scale, of: dict[str, float]) -> float:
    """Return the seconds of everything; the first run of a seed, and the pilot, compute each batch's frozen layers."""
    runs, pilot = len(all_runs(scale)), len(scale.learning_rates) > 1
    tries = len(scale.learning_rates) if pilot else 0
    training = (runs + tries) * (of["run"] + scale.steps * of["step"])
    firsts = (scale.repeats + pilot) * scale.steps * (of["first_step"] - of["step"])
    prompts = runs * scale.test_prompts + tries * scale.pilot_prompts
    # By the reference, once for all runs.
    answered = (scale.test_prompts + pilot * scale.pilot_prompts) * of["answered_prompt"]
    return (training + firsts + answered + prompts * of["evaluated_prompt"] + scale.sft_steps * of["sft_step"]
            + scale.pair_prompts * of["sampled_prompt"] + scale.pairs * of["reference_pair"])  # fmt: skip


def _measured(scale: Scale, workload: Workload, folder: Path) -> dict[str, tuple[float, float]]:
    """Return the seconds, CPU and wall, of one unit of each kind of work."""
    print("forecast: measuring a few steps of each kind of work", file=sys.stderr, flush=True)
    few = replace(scale, pair_prompts=_PAIRS, pairs=_PAIRS, test_prompts=_TESTS, sft_steps=_SFT)
    reference = copy.deepcopy(workload.model).eval()
    tasks, tests = workload.tasks["train"], workload.tasks["test"][:_TESTS]
    pairs, sampling = _timed(lambda: _made_pairs(workload, few, reference, tasks[:_PAIRS]))
    start = Start(workload, few, reference, pairs, folder)
    trained = [_timed(partial(_train, start, steps)) for steps in (_FEW, _FEW, _MORE)]
    policy = trained[-1][0]
    with_references, short, long = (np.array(seconds) for _, seconds in trained)
    first = np.maximum(long - short, 0) / (_MORE - _FEW)
    against, answering = _timed(lambda: answered(start, tests))
    _, evaluating = _timed(lambda: scored(start, policy, against, "the forecast", few.seed))
    _, tuning = _timed(lambda: fine_tune(
        workload.model, tokenize_tasks(workload.tokenizer, tasks[: _SFT * few.sft_batch]), steps=_SFT, seed=few.seed,
        batch_size=few.sft_batch, learning_rate=0.0, last_layers=few.sft_layers, label="forecast"))  # fmt: skip
    layers = 3 * few.trained_layers
    each = {"sampled_prompt": sampling / _PAIRS, "answered_prompt": answering / _TESTS,
            "evaluated_prompt": evaluating / _TESTS, "sft_step": tuning / _SFT,
            "first_step": first, "step": first * layers / (layers + start.frozen_layers),
            "reference_pair": np.maximum(with_references - short, 0) / len(pairs),
            "run": np.maximum(short - _FEW * first, 0)}  # fmt: skip
    return {name: (float(cpu), float(wall)) for name, (cpu, wall) in each.items()}


def _timed(work: Callable[[], Any]) -> tuple[Any, NDArray[np.float64]]:
    """Return what `work` returns, and its seconds: CPU and wall."""
    before = np.array([time.process_time(), time.monotonic()])
    done = work()
    return done, np.array([time.process_time(), time.monotonic()]) - before


def _made_pairs(workload: Workload, scale: Scale, reference: Any, tasks: Sequence[Mapping[str, str]]) -> list[Pair]:
    drawn = sample(reference, workload.tokenizer, [task["prompt"] for task in tasks], per_prompt=2, seed=scale.seed,
                   max_new_tokens=scale.longest_response)  # fmt: skip
    workload.rewards([several[0].text for several in drawn], tasks)
    ids = [workload.tokenizer(task["prompt"])["input_ids"] for task in tasks]
    return list(label_pairs(ids, drawn, [(0.0, 0.0)] * len(ids), slope=1.0, seed=scale.seed).pairs)


def _train(start: Start, steps: int) -> Any:
    """Train the first run, its frozen layers not yet cached."""
    start.frozen_outputs.clear()
    with tempfile.TemporaryDirectory(dir=start.folder, prefix=".forecast-") as output:
        return train(start, all_runs(start.scale)[0], start.scale.learning_rates[0], steps, Path(output))[0]
