"""The forecast's arithmetic on prices set by hand, and that what it measures is kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpo_full.experiment import forecast as module
from gpo_full.experiment.forecast import forecast_cost
from gpo_full.experiment.inputs.scales import SCALES
from gpo_full.experiment.inputs.workload import load_workload

SCALE = replace(SCALES["smoke"], losses=("logistic", "hinge"), factors=(0.5, 1.0, 2.0), extra=(), repeats=2, budget_seconds=None,
                learning_rates=(1e-3, 1e-2), steps=10, pairs=16, pair_prompts=24, pilot_prompts=6, test_prompts=12)  # fmt: skip
PRICES = ("sampled_prompt", "answered_prompt", "evaluated_prompt", "sft_step", "first_step", "step", "reference_pair", "run")


@pytest.mark.parametrize(
    ("price", "count"),
    [
        ("sampled_prompt", 24),
        ("answered_prompt", 12 + 6),  # once for all runs, and once for the pilot
        ("evaluated_prompt", 8 * 12 + 2 * 6),  # 2 losses x 3 betas, and 2 more with another seed; two tries of the pilot
        ("sft_step", 3),
        ("first_step", 3 * 10),  # the pilot, and the first run of each of two seeds
        ("step", (8 + 2) * 10 - 3 * 10),
        ("reference_pair", 16),
        ("run", 8 + 2),
    ],
)
def test_each_kind_of_work_is_counted(price: str, count: int) -> None:
    assert module._total(SCALE, {name: float(name == price) for name in PRICES}) == count


@pytest.mark.slow
def test_it_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = load_workload(SCALE).selected(SCALE.longest_prompt, SCALE.seed)
    found = forecast_cost(SCALE, tmp_path, workload).payload
    assert found["runs"] == 8
    assert 0 < found["cpu_hours"] < 1
    assert set(found["seconds"]) == set(PRICES)
    assert all(cpu >= 0 and wall >= 0 for cpu, wall in found["seconds"].values())

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "_measured", refuse)
    assert forecast_cost(SCALE, tmp_path, workload).payload == found
