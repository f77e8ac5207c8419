"""The runs of a scale: betas by closed forms, and as many of each as the scale says."""

import math
from collections import Counter

import pytest

from gpo_full.experiment.grid import all_runs
from gpo_full.experiment.inputs.scales import LOSS_NAMES, SCALES


def test_betas_are_matched_by_strength_and_the_hinge_by_its_target() -> None:
    scale = SCALES["cpu"]
    by_name = {one.name: one for one in all_runs(scale)}
    # R of the six losses, by hand: f''(0)/|f'(0)|.
    strengths = {"logistic": 0.5, "squared": 1, "exponential": 1, "truncated_squared": 1, "savage": 0.5}
    for loss, r in strengths.items():
        one = by_name[f"{loss}-matched"]
        assert one.beta * r == pytest.approx(scale.beta * 0.5)
        assert one.strength == pytest.approx(r)
    # Targets x*(0.9): logit(0.9) of the logistic, 1 of the hinge.
    hinge = by_name["hinge-matched"]
    assert hinge.beta == pytest.approx(scale.beta / math.log(9), rel=1e-12)
    assert (hinge.strength, hinge.matching) == (None, "target margin at p = 0.9")
    assert scale.beta == 0.1
    assert {name: one.beta for name, one in by_name.items() if not one.matched} == {
        "logistic-x0.5": pytest.approx(0.05), "logistic-x4": pytest.approx(0.4)}  # fmt: skip


def test_scale_cpu_and_smoke_have_the_six_losses_first_and_then_the_extra_betas_of_one() -> None:
    for name in ("cpu", "smoke"):
        names = [one.name for one in all_runs(SCALES[name])]
        assert names == [*(f"{loss}-matched" for loss in LOSS_NAMES), "logistic-x0.5", "logistic-x4"]


def test_scale_full_has_each_loss_at_five_betas_and_three_seeds_at_the_matched_one() -> None:
    found = all_runs(SCALES["full"])
    assert len({one.name for one in found}) == len(found) == 9 * 5 + 9 * 2
    assert Counter((one.factor, one.seed) for one in found) == {
        **{(factor, 0): 9 for factor in (0.25, 0.5, 1.0, 2.0, 4.0)}, (1.0, 1): 9, (1.0, 2): 9}  # fmt: skip
    assert {one.loss for one in found} > set(LOSS_NAMES)
    base = next(one for one in found if one.name == "probit-matched")
    # R of the probit loss is sqrt(2/pi): beta R = 0.2 / 2 as for the logistic.
    assert base.beta * math.sqrt(2 / math.pi) == pytest.approx(0.1)
    for one in found:
        if one.loss == "probit":
            assert one.beta == pytest.approx(base.beta * one.factor)


def test_a_run_s_seed_is_in_its_name_but_for_the_first() -> None:
    names = [one.name for one in all_runs(SCALES["full"]) if one.loss == "cdpo"]
    assert names == ["cdpo-x0.25", "cdpo-x0.5", "cdpo-matched", "cdpo-x2", "cdpo-x4", "cdpo-matched-seed1", "cdpo-matched-seed2"]
