"""R and f'(0) as formulas in the parameters, at random rational parameters against difference quotients in mpmath."""

from fractions import Fraction
from functools import cache

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_theory import LOSSES, InputError, Verdict, analyze, find_loss, parse, taylor
from gpo_theory.report.symbolic import slope_in, strength_in, validity_in, zero_slope_at
from tests.support.oracle import evaluate, real

# Where each parameter keeps f'(0) < 0, the sign of f''(0) and every breakpoint on its side of 0.
RANGES = {
    "gamma_hinge": {"gamma": ("1/10", "9/10")}, "huberised_hinge": {"h": ("1/10", "9/10")}, "dwd": {"q": ("1/4", "4")},
    "lum": {"a": ("1/4", "4")}, "linex": {"a": ("1/4", "4")}, "alpha_loss": {"alpha": ("11/10", "5")},
    "focal": {"gamma": ("1/4", "4")}, "poly1": {"eps": ("-1", "4")}, "huber": {"delta": ("11/10", "4")},
    "pinball": {"tau": ("1/10", "2")}, "cdpo": {"eps": ("0", "2/5")}, "robust_dpo": {"eps": ("0", "2/5")},
    "exo": {"eps": ("1/1000", "2/5")}, "discopop": {"tau": ("1/50", "1/11")}, "offset_dpo": {"delta": ("-2", "3")},
    "focal_po": {"gamma": ("1/100", "1/3")}, "basu": {"lam": ("-9/10", "-1/10")}, "dpd": {"g": ("1/10", "3")},
    "hinge_power": {"k": ("11/10", "4")},
}


@cache
def printed(name: str) -> tuple[str, str | None, tuple[tuple[str, str], ...]]:
    """f'(0), R and the conditions under which they hold."""
    return slope_in(LOSSES[name]), strength_in(LOSSES[name]), validity_in(LOSSES[name])


def test_every_loss_with_parameters_is_in_the_table() -> None:
    assert {name: set(loss.parameters) - {"c"} for name, loss in LOSSES.items() if loss.parameters} == {
        name: set(values) for name, values in RANGES.items()
    }


def drawn(name: str, share: Fraction, ranges: dict[str, dict[str, tuple[str, str]]] = RANGES) -> dict[str, Fraction]:
    """Parameters at this share of the way through their ranges, others at their defaults."""
    ends = {key: [Fraction(end) for end in pair] for key, pair in ranges[name].items()}
    return {**LOSSES[name].parameters, **{key: low + share * (high - low) for key, (low, high) in ends.items()}}


# Wider: where f is smooth near 0 and defined, whatever the sign of f'(0) and f''(0).
DEFINED = {
    **RANGES, "gamma_hinge": {"gamma": ("1/10", "3")}, "huberised_hinge": {"h": ("1/10", "3")}, "lum": {"a": ("1/4", "4"), "c": ("-1/2", "2")},
    "focal": {"gamma": ("-4", "4")}, "poly1": {"eps": ("-6", "4")}, "huber": {"delta": ("1/10", "4")}, "pinball": {"tau": ("-3", "2")},
    "exo": {"eps": ("1/1000", "999/1000")}, "discopop": {"tau": ("1/50", "2")}, "focal_po": {"gamma": ("-3", "4")},
    "cdpo": {"eps": ("0", "1")}, "robust_dpo": {"eps": ("0", "1")},
}
HOLDS = {"<": lambda v: v < 0, ">": lambda v: v > 0, ">=": lambda v: v >= 0, "=": lambda v: v == 0}


@pytest.mark.parametrize("everywhere", [True, False])
@given(st.sampled_from(sorted(RANGES)), st.fractions(0, 1, max_denominator=40))
@settings(max_examples=150, deadline=None)
def test_the_formulas_hold_at_random_parameters(everywhere: bool, name: str, share: Fraction) -> None:
    """Everywhere in the ranges; beyond them, where the printed conditions hold."""
    values = drawn(name, share, RANGES if everywhere else DEFINED)
    f = lambda x: evaluate(LOSSES[name].formula, x, values)  # noqa: E731
    with mp.workdps(80):
        h, zero = mp.mpf(10) ** -20, mp.mpf(0)
        try:
            held = everywhere or all(HOLDS[relation](evaluate(formula, zero, values)) for formula, relation in printed(name)[2])
            slopes = [(f(h) - f(zero)) / h, (f(zero) - f(-h)) / h]
        except ZeroDivisionError:  # R has a pole where f'(0) = 0
            assert not everywhere
            return
        if not held:
            return
        second = (f(h) + f(-h) - 2 * f(zero)) / h**2
        slope, r = (evaluate(text, zero, values) for text in printed(name)[:2])
        assert all(abs(slope - found) < 1e-15 for found in slopes)
        assert abs(r - abs(second / slope)) < 1e-15


def test_the_known_conditions() -> None:
    """By hand: the breakpoint 1 - gamma passes 0 at gamma = 1; lum's c/(1+c) is at 0 for c = 0."""
    assert validity_in(LOSSES["gamma_hinge"]) == (("1 - gamma", ">"),)
    assert validity_in(LOSSES["huber"]) == (("delta - 1", ">"),)
    assert validity_in(LOSSES["pinball"]) == (("tau + 1", ">"),)
    assert validity_in(LOSSES["lum"]) == (("c", "="), ("1 + 1/a", ">="))
    assert validity_in(LOSSES["cdpo"])[0] == ("eps - 1/2", "<")
    assert validity_in(LOSSES["discopop"])[0][1] == ">", "at its default the slope at 0 has the wrong sign"
    assert validity_in(LOSSES["logistic"]) == ()


@pytest.mark.parametrize(
    ("name", "formula"),
    [("alpha_loss", "1/(2*alpha)"), ("cdpo", "1/(2*(1-2*eps))"), ("robust_dpo", "(1-2*eps)/2"),
     ("poly1", "1/(2+eps)"), ("offset_dpo", "1/(1+exp(delta))"), ("lum", "(1+1/a)/2"), ("gamma_hinge", "0"),
     ("linex", "a/(1-exp(-a))")],
)  # fmt: skip
def test_the_known_formulas(name: str, formula: str) -> None:
    """By hand: P8, and for the alpha-loss the logarithmic slope of sigma(x)^(1-1/alpha) sigma(-x) at 0."""
    for share in (Fraction(1, 7), Fraction(2, 3)):
        values = drawn(name, share)
        shown = strength_in(LOSSES[name])
        assert shown is not None
        with mp.workdps(30):
            assert abs(evaluate(shown, mp.nan, values) - evaluate(formula, mp.nan, values)) < 1e-25


def test_curvatures_of_either_sign_at_zero() -> None:
    """By hand: f'(0) = -1, f'' is a and -b beside 0: R = |a-b|/2, while a - b keeps its sign."""
    text = "where(x < 0, -x+a*x**2/2, -x-b*x**2/2)"
    for a, b, formula in ((3, 1, "(a-b)/2"), (1, 3, "(b-a)/2")):
        loss = parse(text, {"a": a, "b": b})
        shown, (condition, relation) = strength_in(loss), validity_in(loss)[-1]
        assert shown is not None
        assert relation == ">="
        for values in ({"a": Fraction(7), "b": Fraction(2)}, {"a": Fraction(1, 3), "b": Fraction(5)}):
            wanted = evaluate(formula, mp.nan, values)
            assert abs(evaluate(shown, mp.nan, values) - wanted) < 1e-15
            assert (evaluate(condition, mp.nan, values) > 0) == (wanted > 0)


def test_discopop_starts_the_right_way_above_its_threshold_only() -> None:
    """f'(0) = -3/4 + (1 - log 2)/(4 tau), by hand from the product rule at 0."""
    text = zero_slope_at(LOSSES["discopop"], "tau")
    with mp.workdps(30):
        assert abs(evaluate(text, mp.nan) - (1 - mp.log(2)) / 3) < 1e-25
        for tau in ("0.05", "0.09", "0.11", "1"):
            q = Fraction(tau)
            by_hand = -mp.mpf(3) / 4 + (1 - mp.log(2)) / (4 * real(q))
            assert abs(evaluate(slope_in(LOSSES["discopop"]), mp.nan, {"tau": q}) - by_hand) < 1e-25
            assert (by_hand > 0) == (q < Fraction(102285, 10**6))
    assert taylor(find_loss("discopop", {"tau": "0.1022"}), 1)[1].value > 0
    assert taylor(find_loss("discopop", {"tau": "0.1023"}), 1)[1].value < 0


@pytest.mark.slow
def test_poly1_is_convex_exactly_for_eps_between_minus_one_and_one() -> None:
    """f'' = s (1-s) (1 + eps (2s - 1)), s = sigma(x) in (0, 1)."""
    for eps, right in (("-1", True), ("1", True), ("-1.01", False), ("1.01", False), ("0", True)):
        verdict = analyze(find_loss("poly1", {"eps": eps})).claims["convex"].verdict
        assert verdict is (Verdict.PROVED if right else Verdict.REFUTED)


def test_where_there_is_no_strength() -> None:
    assert strength_in(LOSSES["perceptron"]) is None
    assert strength_in(parse("x**2*a", {"a": 2})) is None
    assert strength_in(LOSSES["smooth_hinge"]) == "1/2"
    with pytest.raises(InputError, match="no parameter 'tua'"):
        zero_slope_at(LOSSES["discopop"], "tua")
    with pytest.raises(InputError, match="not linear"):
        zero_slope_at(LOSSES["linex"], "a")
