"""A scale is one line of numbers; what does not fit together is found here and not after hours."""

from dataclasses import asdict

import pytest

from gpo_full.experiment.inputs.scales import LOSS_NAMES, SCALES, Scale, find_scale
from gpo_full.experiment.result import published_result
from gpo_theory import LOSSES
from gpo_theory.errors import InputError


@pytest.fixture(params=SCALES)
def scale(request: pytest.FixtureRequest) -> Scale:
    return SCALES[request.param]


def test_each_scale_can_be_run(scale: Scale) -> None:
    assert find_scale(scale.name) is scale
    assert scale.losses[0] == "logistic"  # whose beta is the scale's, and which the pilot trains
    assert set(LOSS_NAMES) <= set(scale.losses) <= set(LOSSES)
    assert 1.0 in scale.factors
    assert list(scale.factors) == sorted(scale.factors)
    assert scale.pairs <= scale.pair_prompts
    assert scale.repeats >= 1
    assert scale.steps * scale.pairs_per_step >= scale.pairs  # every pair is seen


def test_scale_full_differs_from_cpu_in_size_precision_and_rates_alone() -> None:
    cpu, full = asdict(SCALES["cpu"]), asdict(SCALES["full"])
    assert {name for name in cpu if cpu[name] != full[name]} == {
        "name", "pair_prompts", "pairs", "steps", "pilot_prompts", "test_prompts", "budget_seconds", "losses", "factors",
        "repeats", "beta", "extra", "learning_rates"}  # fmt: skip
    # 1,204 texts of the training packages fit (measured); pairs must not be of texts that were trained on.
    assert full["sft_steps"] * full["sft_batch"] + full["pair_prompts"] <= 1204


def test_the_plan_of_scale_cpu() -> None:
    """256 pairs twice, 160 prompts, and the learning rate of the published run without a pilot."""
    cpu = SCALES["cpu"]
    assert (cpu.pairs, cpu.steps * cpu.pairs_per_step, cpu.test_prompts) == (256, 512, 160)
    assert cpu.learning_rates == (published_result().pilot["learning_rate"],)


def test_an_unknown_scale_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"unknown scale 'smok'; allowed: smoke, cpu, full; did you mean 'smoke'"):
        find_scale("smok")
