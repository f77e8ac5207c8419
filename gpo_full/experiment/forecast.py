"""What an experiment will cost on this machine, from a few steps of each kind of work that it does."""

__all__ = ["forecast_cost"]

import copy
import sys
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
from gpo_full.experiment.inputs.materials import Material
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.labels import label_pairs
from gpo_full.experiment.protocol import Protocol
from gpo_full.experiment.sft import fine_tune, tokenize_tasks
from gpo_full.experiment.stages import Stage, stage

_FEW, _MORE = 2, 6  # steps of a run
_PAIRS, _TESTS, _SFT = 16, 32, 2  # prompts for pairs, test prompts (one batch), steps of fine-tuning


def forecast_cost(scale: Scale, folder: Path, policy: str | None = None, reward: str | None = None) -> Stage:
    """Return the stage that measured, on the policy before any training, what `scale` will take.

    Its payload: `runs`, `cpu_hours` and `hours` of the whole experiment, and `seconds` (CPU, wall) of each part: a step
    of a run (with and without what runs share), a prompt of an evaluation, and so on. Measured once for a folder; the
    pilot is taken to try all rates.
    """
    few = replace(scale, pair_prompts=_PAIRS, pairs=_PAIRS, test_prompts=_TESTS, sft_steps=_SFT)
    protocol = Protocol(few, folder, policy, reward)
    inputs = {"material": protocol.material.fingerprint, "scale": repr(scale)}

    def measure(place: Path) -> dict[str, Any]:
        seconds = _measured(protocol)
        cpu, wall = (_total(scale, {name: both[i] for name, both in seconds.items()}) for i in (0, 1))
        return {"runs": len(all_runs(scale)), "cpu_hours": cpu / 3600, "hours": wall / 3600, "seconds": seconds}

    return stage(folder, "forecast", inputs, measure)


def _total(scale: Scale, of: dict[str, float]) -> float:
    """Return the seconds of everything; the first run of a seed, and the pilot, compute each batch's frozen layers."""
    runs, tries = len(all_runs(scale)), len(scale.learning_rates)
    training = (runs + tries) * (of["run"] + scale.steps * of["step"])
    firsts = (scale.repeats + 1) * scale.steps * (of["first_step"] - of["step"])
    prompts = runs * scale.test_prompts + tries * scale.pilot_prompts
    answered = (scale.test_prompts + scale.pilot_prompts) * of["answered_prompt"]  # by the reference, once for all runs
    return (training + firsts + answered + prompts * of["evaluated_prompt"] + scale.sft_steps * of["sft_step"]
            + scale.pair_prompts * of["sampled_prompt"] + scale.pairs * of["reference_pair"])  # fmt: skip


def _measured(protocol: Protocol) -> dict[str, tuple[float, float]]:
    s, m = protocol.scale, protocol.material
    print("forecast: a few steps of each kind of work are measured", file=sys.stderr, flush=True)
    protocol.reference = copy.deepcopy(m.model).eval()
    tasks = m.tasks["train"]
    pairs, sampling = _timed(lambda: _made_pairs(protocol, tasks[: s.pair_prompts]))
    protocol._pairs = pairs
    trained = [_timed(partial(_train, protocol, steps)) for steps in (_FEW, _FEW, _MORE)]
    policy = trained[-1][0]
    with_references, few, more = (np.array(seconds) for _, seconds in trained)
    first = np.maximum(more - few, 0) / (_MORE - _FEW)
    against, answering = _timed(lambda: list(protocol._read(m.tasks["test"][: s.test_prompts])))
    _, evaluating = _timed(lambda: protocol._scores(policy, against, "the forecast", s.seed))
    _, tuning = _timed(lambda: _fine_tune(m, s, tasks[: _SFT * s.sft_batch]))
    layers = 3 * s.trained_layers
    each = {"sampled_prompt": sampling / s.pair_prompts, "answered_prompt": answering / s.test_prompts,
            "evaluated_prompt": evaluating / s.test_prompts, "sft_step": tuning / _SFT,
            "first_step": first, "step": first * layers / (layers + protocol.frozen_layers),
            "reference_pair": np.maximum(with_references - few, 0) / len(pairs),
            "run": np.maximum(few - _FEW * first, 0)}  # fmt: skip
    return {name: (float(cpu), float(wall)) for name, (cpu, wall) in each.items()}


def _timed(work: Callable[[], Any]) -> tuple[Any, NDArray[np.float64]]:
    """Return what `work` returns, and its seconds: CPU and wall."""
    before = np.array([time.process_time(), time.monotonic()])
    done = work()
    return done, np.array([time.process_time(), time.monotonic()]) - before


def _made_pairs(protocol: Protocol, tasks: Sequence[Mapping[str, str]]) -> list[Pair]:
    s, m = protocol.scale, protocol.material
    drawn = sample(protocol.reference, m.tokenizer, [t["prompt"] for t in tasks], per_prompt=2, seed=s.seed,
                   max_new_tokens=s.longest_response)  # fmt: skip
    m.rewards([several[0].text for several in drawn], tasks)
    ids = [m.tokenizer(t["prompt"])["input_ids"] for t in tasks]
    return list(label_pairs(ids, drawn, [(0.0, 0.0)] * len(ids), slope=1.0, seed=s.seed).pairs)


def _train(protocol: Protocol, steps: int) -> Any:
    protocol._trunk.clear()
    return protocol._train(all_runs(protocol.scale)[0], protocol.scale.learning_rates[0], steps)[0]


def _fine_tune(m: Material, s: Scale, tasks: Sequence[Mapping[str, str]]) -> None:
    tokens = tokenize_tasks(m.tokenizer, [t["prompt"] for t in tasks], [t["target"] for t in tasks])
    fine_tune(m.model, tokens, steps=_SFT, batch_size=s.sft_batch, seed=s.seed, learning_rate=0.0,
              last_layers=s.sft_layers, label="forecast")  # fmt: skip
