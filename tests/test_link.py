"""The link x*(p) = argmin C_p: slope at 1/2 (P1), target of a certain preference, and the formula where one is printed."""

import math

import mpmath as mp
import pytest
from oracle import TRUTHS, check_link, evaluate, number
from session import payload

from gpo_theory import LOSSES, analyze, parse

NAMES = [name for name in LOSSES if name in TRUTHS]


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue(name: str) -> None:
    check_link(name, payload(name)["link"])


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_formula_is_stationary(name: str) -> None:
    """p f'(x*) = (1-p) f'(-x*) at x* = x*(p), and C_p is larger on both sides of it."""
    formula = payload(name)["link"]["formula"]
    if formula is None:
        return
    f = TRUTHS[name].f
    with mp.workdps(50):
        for p in (mp.mpf(1) / 10, mp.mpf(2) / 5, mp.mpf(7) / 10, mp.mpf(19) / 20):
            x = evaluate(formula, mp.nan, {"p": p})

            def c(u: mp.mpf, p: mp.mpf = p) -> mp.mpf:
                return p * f(u) + (1 - p) * f(-u)

            assert c(x) < min(c(x + mp.mpf(10) ** -6), c(x - mp.mpf(10) ** -6)), f"{name}: x*({p}) is not {formula}"
            assert all(c(x) <= c(mp.mpf(u) / 4) for u in range(-80, 81)), f"{name}: {formula} is no global minimiser"


@pytest.mark.parametrize("name", NAMES)
def test_slope_times_strength_is_two(name: str) -> None:
    """P1: dx*/dp = 2/R, R the mean of its sides; wherever both are printed and finite."""
    slope, r = payload(name)["link"]["slope_at_half"], payload(name)["strength"]["value"]
    if slope is not None and r and not math.isinf(float(slope)):
        assert float(slope) * r == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if TRUTHS[name].holds("bradley_terry_exact")])
def test_no_exact_loss_has_a_finite_target(name: str) -> None:
    """P6: recovering the RLHF optimum and a bounded margin on certain preferences exclude each other."""
    assert payload(name)["link"]["target_at_one"] == "inf"


@pytest.mark.parametrize(
    ("text", "slope", "target"),
    [
        ("(x-3)**2", 6, "3"),
        ("log(1+exp(-4*x))", 1, "inf"),
        ("exp(-x)+exp(x)/9", None, None),
        ("(x-1)**2/7+5", 2, "1"),
        ("max(0,2-x)**2", 4, "2"),
    ],
)
def test_by_hand(text: str, slope: float | None, target: str | None) -> None:
    """f'(x-3)^2: R = 1/3; logistic(4x): R = 2; max(0,2-x)^2: R = 1/2."""
    link = analyze(parse(text)).as_dict()["link"]
    if slope is not None and link["slope_at_half"] is not None:
        assert float(link["slope_at_half"]) == pytest.approx(slope, rel=1e-12)
    if target is not None and link["target_at_one"] is not None:
        assert number(link["target_at_one"]) == number(target)


def test_the_indifferent_minimiser_must_be_zero() -> None:
    """C_1/2 of LRML and FocalPO is not least at 0: 2/R would be a wrong answer, and must not be printed."""
    for name in ("discopop", "focal_po", "perceptron"):
        assert payload(name)["link"]["slope_at_half"] is None, name
