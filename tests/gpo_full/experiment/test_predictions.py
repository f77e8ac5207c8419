"""The predictions' outcomes on results made up by hand, each on both sides of its bound."""

import math
from dataclasses import replace
from typing import Any

import pytest

from gpo_full.experiment.inputs.scales import LOSS_NAMES
from gpo_full.experiment.predictions import checks, p11_bounds
from tests.support.made_up_results import made_up


def outcome(name: str, factors: tuple[float, ...] = (1.0, 4.0), seeds: int = 1, **changes: Any) -> Any:
    result = made_up(factors, seeds)
    runs = tuple(replace(one, **{key: change(one) for key, change in changes.items()}) for one in result.runs)
    return next(check["passed"] for check in checks(replace(result, runs=runs)) if check["id"] == name)


def test_two_betas_are_asked_five_things_and_more_betas_and_seeds_eight() -> None:
    five = ["overlay", "beta", "half", "scatter", "better"]
    assert [check["id"] for check in checks(made_up())] == five
    assert [check["id"] for check in checks(made_up((0.5, 1.0, 2.0)))] == [*five, "tails", "sandwich"]
    assert [check["id"] for check in checks(made_up((0.5, 1.0, 2.0), 2))] == [*five, "tails", "sandwich", "seeds"]


def test_losses_with_a_beta_of_their_own_are_not_asked_about_all() -> None:
    """As at scale cpu: one loss has two more betas, and "tails" and "seeds" would compare nothing."""
    result = made_up((0.5, 1.0, 4.0))
    few = replace(result, runs=tuple(one for one in result.runs if one.matched or one.loss == "logistic"))
    found = {check["id"]: check for check in checks(few)}
    assert list(found) == ["overlay", "beta", "half", "scatter", "better"]
    assert found["beta"]["claim"] == "for every loss with several betas, 8 times the beta ends at a smaller KL"
    assert found["beta"]["bound"] == 1
    alone = replace(result, runs=tuple(one for one in result.runs if one.matched))
    assert next(check["passed"] for check in checks(alone) if check["id"] == "beta") is None


def wins(rates: dict[str, float], prompts: int = 100, **changes: Any) -> dict[str, Any]:
    """The checks of six losses that each win on their first prompts, by name."""
    result = made_up()
    runs = tuple(replace(one, wins=tuple(float(i < rates.get(one.loss, 0.5) * prompts) for i in range(prompts)), **changes)
                 for one in result.runs)  # fmt: skip
    return {check["id"]: check for check in checks(replace(result, runs=runs))}


def test_the_pooled_interval_is_that_of_prompts_and_not_of_answers() -> None:
    """Six losses that win on the same 57 of 100 prompts are one loss seen six times: 0.57 -+ 0.097 holds 1/2.

    Six times as many answers, taken for independent, would give 0.57 -+ 0.040, which does not.
    """
    found = wins(dict.fromkeys(LOSS_NAMES, 0.57))["pooled"]
    assert found["value"] == pytest.approx(0.57 - 1.96 * math.sqrt(0.57 * 0.43 / 100), abs=0.011)
    assert found["passed"] is False
    assert wins(dict.fromkeys(LOSS_NAMES, 0.62))["pooled"]["passed"] is True


def test_four_counts_the_losses_at_their_matched_betas() -> None:
    assert wins({}, win_low=0.51)["four"]["value"] == 6
    result = made_up()
    for above, passed in ((3, False), (4, True)):
        runs = tuple(replace(one, wins=(1.0, 0.0), win_low=0.51 if one.loss in LOSS_NAMES[:above] or not one.matched else 0.5)
                     for one in result.runs)  # fmt: skip
        found = next(check for check in checks(replace(result, runs=runs)) if check["id"] == "four")
        assert (found["value"], found["passed"]) == (above, passed)


def test_overlay_compares_the_smooth_losses_at_the_matched_beta() -> None:
    assert outcome("overlay", kl=lambda one: 1.4 if one.loss == "squared" else 1.0)
    assert not outcome("overlay", kl=lambda one: 1.6 if one.loss == "squared" else 1.0)
    assert outcome("overlay", kl=lambda one: 9.0 if one.loss == "hinge" else 1.0)  # the hinge has R = 0
    # The mean over seeds counts: (1 + 1.8) / 2 = 1.4.
    uneven = {"kl": lambda one: 1.8 if one.loss == "squared" and one.seed else 1.0}
    assert outcome("overlay", (0.5, 1.0, 2.0), 2, **uneven)


def test_beta_compares_the_ends_for_every_loss() -> None:
    assert outcome("beta", kl=lambda one: 1.0 if one.matched else 0.5)
    assert not outcome("beta", kl=lambda one: 1.0 if one.matched or one.loss == "savage" else 0.5)
    assert outcome("beta", (0.5, 1.0, 2.0), kl=lambda one: {0.5: 2.0, 1.0: 3.0, 2.0: 1.0}[one.factor])


def test_half_scatter_and_better() -> None:
    assert outcome("half", kl=lambda one: 1.0, regularizer=lambda one: 2.0)
    assert not outcome("half", kl=lambda one: 1.0, regularizer=lambda one: 5.0)
    assert outcome("half", kl=lambda one: 0.0, regularizer=lambda one: 0.0) is None
    assert outcome("scatter", kl=lambda one: one.beta, regularizer=lambda one: one.beta**3)
    assert not outcome("scatter", kl=lambda one: one.beta, regularizer=lambda one: -one.beta)
    assert outcome("better", win_low=lambda one: 0.51 if one.loss == "hinge" else 0.4)
    assert not outcome("better", win_low=lambda one: 0.5)


def test_tails_compares_the_spread_at_both_ends() -> None:
    three = (0.5, 1.0, 2.0)
    assert outcome("tails", three, kl=lambda one: 3.0 if one.loss == "squared" and one.factor == 0.5 else 1.0)
    assert not outcome("tails", three, kl=lambda one: 3.0 if one.loss == "squared" and one.factor == 2 else 1.0)
    assert not outcome("tails", three, kl=lambda one: 3.0 if one.loss == "hinge" and one.factor == 0.5 else 1.0)


def test_seeds_compares_losses_with_seeds() -> None:
    three = (0.5, 1.0, 2.0)
    assert outcome("seeds", three, 2, kl=lambda one: 1.0 + 0.2 * one.seed)
    assert not outcome("seeds", three, 2, kl=lambda one: 1.0 + 0.3 * (one.loss == "squared") + 0.2 * one.seed)


def test_the_bounds_are_those_of_p11() -> None:
    """kappa(1) = 1 and kappa(-1) = 1 - 2/e, by hand; kappa(0) = 1/2."""
    one = replace(made_up().runs[0], regularizer=3.0, width=1.0)
    assert p11_bounds(one) == pytest.approx((3 * (1 - 2 / math.e), 3.0))
    assert p11_bounds(replace(one, width=0.0)) == pytest.approx((1.5, 1.5))
    assert math.isfinite(p11_bounds(replace(one, width=1e6))[1])


def test_the_sandwich_allows_for_the_error_of_the_kl() -> None:
    three, fixed = (0.5, 1.0, 2.0), {"regularizer": lambda one: 1.0, "width": lambda one: 1.0}
    assert outcome("sandwich", three, kl=lambda one: 0.9, kl_se=lambda one: 0.0, **fixed)
    assert not outcome("sandwich", three, kl=lambda one: 1.1, kl_se=lambda one: 0.0, **fixed)
    assert outcome("sandwich", three, kl=lambda one: 1.1, kl_se=lambda one: 0.1, **fixed)
    assert not outcome("sandwich", three, kl=lambda one: 0.2, kl_se=lambda one: 0.0, **fixed)  # 1 - 2/e = 0.264
