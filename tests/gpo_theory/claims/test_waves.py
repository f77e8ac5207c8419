"""Losses that oscillate: refuted where their amplitude grows, with constants where it is bounded, never refuted wrongly."""

from fractions import Fraction
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpo_theory import analyze
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.kernel.certificates import verify
from gpo_theory.kernel.waves import along
from gpo_theory.report.certificate_file import certificate_document
from tests.support.kinked import values
from tests.support.oracle import CLAIMS, number, value_of


def verdicts(formula: str) -> dict[str, Any]:
    """The claims on a formula, whose certificate was replayed."""
    found = analyze(formula)
    assert verify(certificate_document(found)) == {name: one.verdict.value for name, one in found.claims.items()}
    return dict(found.claims)


RATES = st.sampled_from(["1", "3", "1/2", "5/3", "pi", "sqrt(2)", "7*pi/3"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["exp(-x)", "exp(-x/3)", "x", "x**2", "-x**3", "cosh(x)", "x*exp(-x/2)", "(1+x**2)", "max(1, -x)"]),
       st.sampled_from(["sin({a}*x+1)", "cos({a}*x)", "sin({a}*x)*cos(2*({a})*x+1)", "(sin({a}*x+2)-1/3)", "sin({a}*x-1)**3"]), RATES)  # fmt: skip
def test_a_wave_of_growing_amplitude_has_no_bound_and_no_order(amplitude: str, wave: str, rate: str) -> None:
    """By hand: f and its derivatives take values of both signs beyond every bound on the left, where C_1 = f tends to -infinity.

    Of a product of waves the sign far out is not decided from every point, so that some claims stay unknown.
    """
    formula = f"{amplitude}*{wave.format(a=f'({rate})')} + x/7"
    found = verdicts(formula)
    assert found.pop("total").verdict.value == "proved"
    slope = found.pop("differentiable_at_zero").value["float"]
    with mp.workdps(40):
        assert abs(slope - mp.diff(lambda x: value_of(formula, x), 0, h=mp.mpf(10) ** -12, relative=False)) < 1e-9
    seen = {one.verdict.value for one in found.values()}
    assert seen == {"refuted"} or (")*cos" in formula and seen == {"refuted", "unknown"}), found


# Verdicts in the order of CLAIMS, with the least constants of Lipschitz and smooth: by hand, or the largest |f'| and
# |f''| of a fine grid (None: refuted).
BOUNDED: dict[str, tuple[str, str | None, str | None]] = {
    "sin(x)": ("PRRRPPPRPRR", "1", "1"),
    "x+2*sin(x)": ("PRRRPPRRPRR", "3", "2"),
    "x**2+sin(3*x)": ("PRRRRPPRPRR", None, "11"),
    "2*x**2+sin(x)": ("PPPPRPPRPRR", None, "5"),
    "sin(pi*x)": ("PRRRPPPRPRR", "pi", "pi**2"),
    "sin(x)*exp(-x**2)": ("PRRRPPPRPRR", "1", "grid"),
    "sin(x)/(1+x**2)": ("PRRRPPPRPRR", "1", "grid"),
    "exp(-x)*(2+sin(x))": ("PPPRRRPPPPR", None, None),
}  # fmt: skip


@pytest.mark.parametrize("formula", BOUNDED)
def test_a_wave_of_bounded_amplitude(formula: str) -> None:
    found, (expected, *constants) = verdicts(formula), BOUNDED[formula]
    assert "".join(found[name].verdict.value[0].upper() for name in CLAIMS) == expected
    x = np.linspace(-20, 20, 40_001)
    f = values(formula, x)
    for order, (name, said) in enumerate(zip(("lipschitz", "smooth"), constants, strict=True), 1):
        if said is not None:
            stated = found[name].value["float"]
            largest = float(np.abs(np.diff(f, order)).max()) / (x[1] - x[0]) ** order
            assert stated == pytest.approx(largest, rel=1e-5)
            assert said == "grid" or stated == pytest.approx(float(number(said)), rel=1e-12)


# Amplitudes or waves that die out, and a wave whose argument is no line: bounded below, by hand.
NOT_REFUTED = ("exp(-x**2)*cos(x)", "x**2*(1/4-sin(exp(-x**2/1000000)))", "x**2*(1-sin(1/(1+x**2)))", "x**2+10*x*sin(x)", "exp(-x)*(1+sin(x**2))")


@pytest.mark.parametrize("formula", NOT_REFUTED)
def test_what_is_bounded_below_is_not_refuted(formula: str) -> None:
    assert verdicts(formula)["bounded_below"].verdict.value != "refuted"


@pytest.mark.parametrize(("formula", "start"), [("exp(-x)*cos(x/2+1)+sin(3*x)", "7/3"), ("x*sin(pi*x)-cos(2*pi*x/3)", "-1/5"), ("log(2+sin(x+sin(2*x)))*x", "4")])
def test_a_formula_along_its_periods(formula: str, start: str) -> None:
    """At start + n P, with P = 12 pi or 6, the values are those of the formula with its waves fixed."""
    node, begin = parse_formula(formula), Fraction(start)
    fixed = str(along(node, begin))
    with mp.workdps(50):
        period = mp.mpf(6) if "pi" in formula else 12 * mp.pi
        for n in (-3, 1, 4):
            x = mp.mpf(begin.numerator) / begin.denominator + n * period
            assert abs(value_of(fixed, x) / value_of(formula, x) - 1) < mp.mpf(10) ** -30


@pytest.mark.parametrize("formula", ["x*(sin(x)+sin(sqrt(2)*x))", "x*sin(x**2)", "x*sin(x)*cos(pi*x)", "x*sin(exp(-x))"])
def test_waves_without_a_common_period_are_left(formula: str) -> None:
    assert along(parse_formula(formula), Fraction(3)) == parse_formula(formula)
