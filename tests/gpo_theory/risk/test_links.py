"""The link x*(p) = argmin C_p: slope at 1/2 (P1), target of a certain preference, and the formula where one is printed."""

import math
from fractions import Fraction
from typing import Any

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_theory import LOSSES, InputError, analyze, parse
from gpo_theory.risk.links import link_at
from tests.support.oracle import TRUTHS, check_link, evaluate, number, real
from tests.support.session import analysis, payload

NAMES = list(TRUTHS)


@pytest.mark.parametrize(("text", "equation"), [
    # f'(x) = 0, which mpmath solves: the one minimiser of a strictly convex f.
    ("log(1+exp(-x))+x**2/20", lambda x: x / 10 - 1 / (1 + mp.exp(x))),
    ("exp(-x)+x**2", lambda x: 2 * x - mp.exp(-x)),
    ("exp(-x)-x+x**4", lambda x: 4 * x**3 - 1 - mp.exp(-x)),
])  # fmt: skip
def test_a_target_without_an_exact_form_is_certified_in_digits(text: str, equation: Any) -> None:
    expected = mp.findroot(equation, 1.0)
    assert float(analyze(parse(text)).link.target_at_one or "nan") == pytest.approx(float(expected), rel=1e-12)


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
        on_grid = [f(mp.mpf(k) / 4) for k in range(-80, 81)]
        for p in (mp.mpf(1) / 10, mp.mpf(2) / 5, mp.mpf(7) / 10, mp.mpf(19) / 20):
            x = evaluate(formula, mp.nan, {"p": p})

            def c(u: mp.mpf, p: mp.mpf = p) -> mp.mpf:
                return p * f(u) + (1 - p) * f(-u)

            assert c(x) < min(c(x + mp.mpf(10) ** -6), c(x - mp.mpf(10) ** -6)), f"{name}: x*({p}) is not {formula}"
            grid = [p * here + (1 - p) * there for here, there in zip(on_grid, on_grid[::-1], strict=True)]
            assert c(x) <= min(grid), f"{name}: {formula} is no global minimiser"


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
    [("(x-3)**2", 6, "3"), ("log(1+exp(-4*x))", 1, "inf"), ("exp(-x)+exp(x)/9", None, None), ("(x-1)**2/7+5", 2, "1"), ("max(0,2-x)**2", 4, "2")],
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "slope"),
    [
        ("where(x < 0, -14*exp(2*x) + 5*exp(4*x) + 11, 2*max(0, 1 - x)**4)", 2 / 3),  # f' = -8, f'' = 24 at 0
        ("where(x < 0, 3/(1 - x) + 5*log(1 - x) - 1, 2*max(0, 1 - x/2)**2)", 4),  # -2 and 1: 5 log(3) on both sides at 2
        ("where(x < 0, -8*max(0, 1+x)**3 + 5*max(0, 1+x)**4 + 4, max(0, 1-x)**4)", 2 / 3),  # -4 and 12, flat beyond 1
        ("where(x < 0, -28*max(0, 1+x)**3 + 15*max(0, 1+x)**4 + 37, 24*max(0, 1-x/2)**2)", None),  # C is 24 at 0, 18.5 at 2
        ("x**2*(x**2-1)**2 - x", None),  # C is 0 at 0 and at 1
    ],
)  # fmt: skip
def test_the_slope_is_given_where_zero_alone_is_least_for_split_raters(text: str, slope: float | None) -> None:
    """R from f'(0) and f''(0) by hand; C_(1/2) by its values on a grid, in mpmath."""
    assert analyze(parse(text)).link.slope_at_half == (None if slope is None else pytest.approx(slope, rel=1e-12))
    with mp.workdps(40):
        f = [evaluate(text, mp.mpf(k) / 8, {}) for k in range(-80, 81)]
        assert all(a + b > 2 * f[80] for a, b in zip(f[:80], f[:80:-1], strict=True)) == (slope is not None)


# By hand, for p > 1/2: the stationary point of C_p on the piece that holds it.
FORMULAS = {
    "max(0, 1-x)": lambda p: mp.mpf(1),
    "max(0, -x)": lambda p: mp.mpf(0),
    "max(1-x, (x-1)/4)": lambda p: mp.mpf(1),
    "(x-3)**2": lambda p: 3 * (2 * p - 1),
    "max(0, 1-x)**2": lambda p: 2 * p - 1,
    "exp(-x)": lambda p: mp.log(p / (1 - p)) / 2,
    "log(1+exp(-4*x))": lambda p: mp.log(p / (1 - p)) / 4,
    "where(x < 0, 1-x, exp(-x))": lambda p: mp.log(p / (1 - p)),
    # sqrt(p)(1-x) = sqrt(1-p)(1+x)
    "max(0, 1-x)**3": lambda p: (mp.sqrt(p) - mp.sqrt(1 - p)) / (mp.sqrt(p) + mp.sqrt(1 - p)),
    # p (1-x) = 1-p
    "where(x <= 0, 1/2 - x, max(0, 1-x)**2/2)": lambda p: 2 - 1 / p,
    # u/sqrt(1+u^2) = 2p-1
    "sqrt(1+x**2)-x": lambda p: (2 * p - 1) / mp.sqrt(4 * p * (1 - p)),
    # t(t+2)/(1+2t) = r with t = exp(x), r = p/(1-p)
    "log(1+exp(-x)) + 1/(1+exp(x))": lambda p: mp.log(p / (1 - p) - 1 + mp.sqrt((p / (1 - p) - 1) ** 2 + p / (1 - p))),
    # p (e/t - 1) = (1-p)(e t - 1)
    "exp(1-x)+x-2": lambda p: mp.log((1 - 2 * p + mp.sqrt((2 * p - 1) ** 2 + 4 * p * (1 - p) * mp.e**2))
                                     / (2 * (1 - p) * mp.e)),
    # soft labels: (1/10 + 4p/5) in place of p
    "9/10*log(1+exp(-x)) + 1/10*log(1+exp(x))": lambda p: mp.log((1 + 8 * p) / (9 - 8 * p)),
    # slopes -1, -1/2, 0 with kinks at 1 and 3: the odds f'(-x)/f'(x) are 1, then 2, then infinite, so 3 from p = 2/3
    "max(0, max(3/2-x/2, 2-x))": lambda p: mp.mpf(1) if p < mp.mpf(2) / 3 else mp.mpf(3),
}  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_closed_forms(text: str) -> None:
    formula = analyze(parse(text)).link.formula
    assert formula is not None
    for p in (Fraction(11, 20), Fraction(3, 4), Fraction(97, 100)):
        with mp.workdps(40):
            value = real(p)
            found = evaluate(formula, mp.nan, {"p": value})
            assert abs(found - FORMULAS[text](value)) < mp.mpf(10) ** -35, f"{formula} at {p}"
            mirrored = evaluate(formula, mp.nan, {"p": 1 - value})
            assert abs(mirrored + found) < mp.mpf(10) ** -35, f"{formula}: x*(1-p) is not -x*(p) at {p}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_enclosure_against_exhaustive_minimisation(name: str) -> None:
    """Nothing on a grid is lower than C_p at a point of the enclosure, and the far left is no better."""
    f = TRUTHS[name].f
    grid = [mp.mpf(k) / 16 for k in range(-160, 161)]
    with mp.workdps(30):
        on_grid = [f(x) for x in grid]
    for p in (Fraction(7, 10), Fraction(1, 4)):
        found = link_at(LOSSES[name], p)
        assert found is not None, f"{name} at {p}"
        low, high = found
        w = real(p)
        with mp.workdps(30):
            values = [w * here + (1 - w) * there for here, there in zip(on_grid, on_grid[::-1], strict=True)]
            best = min(values)
            at = [x for x, v in zip(grid, values, strict=True) if v < best + mp.mpf(10) ** -25]
            if math.isinf(low) or math.isinf(high):
                ends = [x for x in (low, high) if math.isinf(x)]
                assert all(w * f(mp.mpf(s)) + (1 - w) * f(-mp.mpf(s)) <= best + mp.mpf(10) ** -12
                           for s in (math.copysign(1e13, x) for x in ends))  # fmt: skip
                continue
            middle = (mp.mpf(low) + mp.mpf(high)) / 2
            assert w * f(middle) + (1 - w) * f(-middle) <= best + mp.mpf(10) ** -9
            assert all(low - 1 / 8 <= x <= high + 1 / 8 for x in at)
            if analysis(name).claims["strictly_convex"].verdict.value == "proved":
                assert high - low < 1e-9 * (1 + abs(low))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*FORMULAS, "-log_ndtr(x)", "1/(1+exp(x))", "abs(1-x)+abs(2+x)/3"]),
       st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=40))  # fmt: skip
def test_the_enclosure_is_odd(text: str, p: Fraction) -> None:
    """x*(1-p) = -x*(p), as sets."""
    low, high = link_at(parse(text), p)
    mirrored = link_at(parse(text), 1 - p)
    assert mirrored == pytest.approx((-high, -low), rel=1e-9, abs=1e-9)


def test_sets_of_minimisers() -> None:
    assert link_at(parse("max(0, 1-x)"), Fraction(1, 2)) == pytest.approx((-1, 1), abs=1e-12)
    assert link_at(parse("max(0, 1-x)"), Fraction(1)) == (pytest.approx(1), math.inf)
    assert link_at(parse("1-x"), Fraction(3, 4)) == (math.inf, math.inf)
    assert link_at(parse("1/(1+exp(x))"), Fraction(1, 3)) == (-math.inf, -math.inf)
    with pytest.raises(InputError, match="p = 2 "):
        link_at(parse("1-x"), Fraction(2))
