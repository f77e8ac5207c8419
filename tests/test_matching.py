"""Beta matching by strength: beta_1 R_1 = beta_2 R_2, its conventions, and where it must be refused."""

import json

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import TRUTHS, number

from gpo_theory import LOSSES, InputError, match_beta

KEYS = {"from", "to", "beta_from", "beta_to", "by", "matched", "order", "convention", "refusal"}


def hypotheses_hold(name: str) -> bool:
    """P1: f'(0) < 0 < f''(0), and 0 the unique minimiser of C_1/2 (where the oracle's link has a finite slope)."""
    truth = TRUTHS[name]
    return truth.slope is not None and truth.slope != "inf" and number(truth.taylor[1]) < 0


def mean_strength(name: str) -> mp.mpf:
    sides = [number(text) for text in TRUTHS[name].strength]
    return sum(sides) / len(sides)


# Where f is convex or Bradley-Terry exact, 0 is at once the only minimiser of C_1/2; elsewhere a refusal may be honest.
MATCHABLE = [name for name in LOSSES if name in TRUTHS and hypotheses_hold(name)
             and (TRUTHS[name].holds("convex") or TRUTHS[name].holds("bradley_terry_exact"))]  # fmt: skip
HARD = [name for name in LOSSES if name in TRUTHS and hypotheses_hold(name) and name not in MATCHABLE]
REFUSED = [name for name in LOSSES if name in TRUTHS and not hypotheses_hold(name)]


def check_match(source: str, target: str, beta: float, result: dict) -> None:
    """The defining equation, with R from the oracle; a refusal is not a match."""
    assert set(result) == KEYS
    assert result["refusal"] is None, result["refusal"]
    wanted = beta * mean_strength(source) / mean_strength(target)
    assert abs(result["beta_to"] / wanted - 1) < 1e-12, (
        f"{source} to {target}: {result['beta_to']}, expected {mp.nstr(wanted)}"
    )
    assert result["beta_from"] == beta
    assert result["by"] == "strength"


@pytest.mark.parametrize(
    ("source", "target", "beta_to"),
    [("dpo", "ipo", 0.05), ("dpo", "ipo-tau", 0.025), ("ipo", "dpo", 0.2), ("dpo", "savage", 0.1), ("dpo", "exponential", 0.05),
     ("dpo", "truncated_squared", 0.05), ("exponential", "savage", 0.2), ("ipo", "ipo-tau", 0.05), ("dpo", "dpo", 0.1),
     ("dpo", "exp(-x/2)", 0.1), ("log(1+exp(-x))", "(x-1)**2", 0.05), ("dpo", "probit", 0.05 / (2 / 3.141592653589793) ** 0.5)],
)  # fmt: skip
def test_by_hand(source: str, target: str, beta_to: float) -> None:
    """R: logistic 1/2, squared 1, (x-1/2)^2 2, exponential 1, truncated squared 1, Savage 1/2, probit sqrt(2/pi)."""
    assert match_beta(source, target, beta=0.1).beta_to == pytest.approx(beta_to, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MATCHABLE), st.sampled_from(MATCHABLE), st.floats(1e-3, 10))
def test_strengths_are_equal_on_both_sides(source: str, target: str, beta: float) -> None:
    check_match(source, target, beta, match_beta(source, target, beta=beta).as_dict())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(MATCHABLE), st.sampled_from(MATCHABLE), st.floats(1e-3, 10))
def test_there_and_back(source: str, target: str, beta: float) -> None:
    there = match_beta(source, target, beta=beta).beta_to
    assert there is not None
    assert match_beta(target, source, beta=there).beta_to == pytest.approx(beta, rel=1e-12)


@pytest.mark.parametrize("name", HARD)
def test_a_loss_that_is_neither_convex_nor_exact_is_matched_or_refused(name: str) -> None:
    """Its C_1/2 is least at 0 alone, by the oracle: a match must be the right one, a refusal must say what is missing."""
    result = match_beta("dpo", name, beta=0.1)
    if result.refusal is None:
        check_match("logistic", name, 0.1, result.as_dict())
    else:
        assert "minimises" in result.refusal


def test_the_two_forms_of_ipo_are_one_loss() -> None:
    """(rho - 1/(2 tau))^2 = ((2 tau) rho - 1)^2 / (4 tau^2): beta = 2 tau."""
    assert match_beta("ipo-tau", "ipo", beta=0.3).beta_to == pytest.approx(0.6, rel=1e-15)


def test_the_convention_of_ipo_is_always_stated() -> None:
    for pair in (("dpo", "ipo"), ("ipo", "dpo"), ("dpo", "ipo-tau"), ("ipo-tau", "hinge")):
        stated = match_beta(*pair, beta=0.1).convention
        assert "(x-1" in stated
        assert "tau" in stated


@pytest.mark.parametrize("target", REFUSED)
def test_refusals(target: str) -> None:
    """R = 0, f''(0) < 0, f'(0) >= 0, a kink at 0, or a C_1/2 that is not least at 0: no beta is offered, a way out is."""
    for pair in ((target, "dpo"), ("dpo", target)):
        result = match_beta(*pair, beta=0.1)
        assert result.beta_to is None, f"{pair}: {result}"
        assert result.refusal
        assert target in result.refusal
        assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["beta_to"] is None


def test_the_reasons_of_refusal() -> None:
    assert "R = 0" in str(match_beta("dpo", "hinge", beta=0.1).refusal)
    assert "kink" in str(match_beta("dpo", "perceptron", beta=0.1).refusal)
    assert "f'(0)" in str(match_beta("dpo", "discopop", beta=0.1).refusal)
    assert "f''(0)" in str(match_beta("dpo", "log(1+(2-x)**2)", beta=0.1).refusal)
    assert match_beta("dpo", "x**2", beta=0.1).refusal
    assert match_beta("dpo", "-x", beta=0.1).refusal


def test_a_loss_whose_indifferent_minimiser_is_elsewhere_is_refused() -> None:
    """P1 needs 0 to minimise C_1/2: f'(0) < 0 < f''(0) is not enough. Here C_1/2(8) is about 64/20 - 5, C_1/2(0) = -10/65."""
    text = "x**2/20-x-10/(1+(x-8)**2)"
    with mp.workdps(30):

        def half(x: float) -> mp.mpf:
            return sum(mp.mpf(u) ** 2 / 20 - u - 10 / (1 + (mp.mpf(u) - 8) ** 2) for u in (x, -x)) / 2

        assert half(8) < half(0) - 1
    assert match_beta("dpo", text, beta=0.1).beta_to is None


@pytest.mark.parametrize(
    ("source", "target", "order"),
    [("dpo", "savage", "exact"), ("dpo", "exponential", "exact"), ("dpo", "ipo", "second")],
)
def test_how_far_the_match_holds(source: str, target: str, order: str) -> None:
    """Exact between Bradley-Terry exact losses (c logit p on both sides), to second order otherwise."""
    assert match_beta(source, target, beta=0.1).order == order


def test_an_averaged_margin_needs_the_length() -> None:
    """x = beta rho / N: for the same x near 0, beta is N times larger on the averaged margin."""
    refused = match_beta("dpo", "trl-ipo", beta=0.1)
    assert refused.beta_to is None
    assert "mean-length" in str(refused.refusal)
    assert match_beta("dpo", "trl-ipo", beta=0.1, mean_length=40).beta_to == pytest.approx(0.025 * 40, rel=1e-12)
    assert match_beta("trl-ipo", "dpo", beta=1.0, mean_length=40).beta_to == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan"), float("inf"), float("-inf")])
def test_a_beta_that_is_not_positive_is_bad_input(beta: float) -> None:
    with pytest.raises(InputError):
        match_beta("dpo", "ipo", beta=beta)


def test_unknown_losses_are_bad_input() -> None:
    with pytest.raises(InputError, match="logistic"):
        match_beta("logstic", "ipo", beta=0.1)
