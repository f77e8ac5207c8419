"""The runs of a scale: betas by closed forms, and as many of each as the scale says."""

import math
from collections import Counter
from typing import Any

import mpmath
import pytest

from gpo_full.experiment.grid import all_runs, target_margin
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
    assert hinge.beta == pytest.approx(scale.beta / math.log(9), rel=1e-6)
    assert (hinge.strength, hinge.matching) == (None, "target margin at p = 0.9")
    for loss in LOSS_NAMES:
        assert by_name[f"{loss}-x4"].beta == pytest.approx(4 * by_name[f"{loss}-matched"].beta)


@pytest.mark.parametrize(
    ("loss", "closed_form"),
    [
        ("logistic", lambda p: mpmath.log(p / (1 - p))), ("exponential", lambda p: mpmath.log(p / (1 - p)) / 2),
        ("squared", lambda p: 2 * p - 1), ("truncated_squared", lambda p: 2 * p - 1),
        ("savage", lambda p: mpmath.log(p / (1 - p))), ("hinge", lambda p: 1),
    ],
)
@pytest.mark.parametrize("p", [0.6, 0.9, 0.99])
def test_target_margin_is_the_minimiser_of_the_pointwise_risk(loss: str, closed_form: Any, p: float) -> None:
    """Each form solves p f'(x) = (1-p) f'(-x) by hand."""
    assert target_margin(loss, p) == pytest.approx(float(closed_form(p)), abs=1e-6)


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
