"""The implied probability against exhaustive minimisation, closed forms by hand, and its refusals."""

from fractions import Fraction as F

import mpmath as mp
import pytest

from gpo_theory import LOSSES, InputError, Verdict, implied_probability
from tests.support.oracle import TRUTHS, evaluate, number, real
from tests.support.session import analysis

POINTS = [F(n, 10) for n in (-31, -20, -13, -10, -7, -2, 0, 3, 9, 10, 14, 27)]
MEANT = sorted(n for n, t in TRUTHS.items() if (t.holds("convex") or t.c is not None) and t.holds("bayes_consistent"))


def sigma(x: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-x))


@pytest.mark.parametrize("name", MEANT)
def test_x_minimises_the_risk_at_p_and_at_no_p_where_it_is_refused(name: str) -> None:
    f = TRUTHS[name].f
    for x in POINTS:
        u = real(x)
        around = [u + step for k in range(-2, 4) for step in (-(mp.mpf(2) ** -k), mp.mpf(2) ** -k)]
        try:
            low, high = implied_probability(name, x)
        except InputError:
            risks = ((p, p * f(u) + (1 - p) * f(-u)) for p in (mp.mpf(k) / 200 for k in range(201)))
            assert all(any(p * f(v) + (1 - p) * f(-v) < here for v in [*around, mp.mpf(0)]) for p, here in risks), (name, x)
            continue
        assert 0 <= low <= high <= 1
        for p in (mp.mpf(low), mp.mpf(high), (mp.mpf(low) + mp.mpf(high)) / 2):
            assert all(p * f(v) + (1 - p) * f(-v) >= (p * f(u) + (1 - p) * f(-u)) * (1 - mp.mpf(10) ** -14) - mp.mpf(10) ** -14 for v in around), (name, x)


@pytest.mark.parametrize("name", MEANT)
def test_the_formula_is_the_probability_and_it_never_falls(name: str) -> None:
    found, before = analysis(name).implied, 0.0
    assert found.refusal is None
    for x in POINTS:
        if not number(found.low or "-inf") <= real(x) <= number(found.high or "inf"):
            with pytest.raises(InputError, match="no probability makes"):
                implied_probability(name, x)
            continue
        low, high = implied_probability(name, x)
        assert high >= low >= before - 1e-12
        before = high
        if found.formula is not None:
            assert low - 1e-12 <= evaluate(found.formula, real(x)) <= high + 1e-12


@pytest.mark.parametrize(("name", "p"), [
    *((name, lambda x, c=TRUTHS[name].c: sigma(x * {"1": 1, "1/2": 2}[c])) for name in MEANT if TRUTHS[name].c is not None),
    ("squared", lambda x: (1 + x) / 2 if abs(x) <= 1 else None),
    ("truncated_squared", lambda x: min(max((1 + x) / 2, 0), 1)),
    ("hinge_power", lambda x: (1 + x) ** 0.5 / ((1 + x) ** 0.5 + (1 - x) ** 0.5) if abs(x) < 1 else float(x > 0)),
    ("unhinged", lambda x: mp.mpf(1) / 2),
])
def test_closed_forms_by_hand(name, p) -> None:
    for x in POINTS:
        expected = p(real(x))
        if expected is None:
            with pytest.raises(InputError, match="beyond its target"):
                implied_probability(name, x)
        else:
            assert implied_probability(name, x) == pytest.approx([float(expected)] * 2, abs=1e-14)


def test_the_hinge_is_set_valued() -> None:
    told = [implied_probability("hinge", F(x)) for x in ("-2", "-1", "-1/2", "0", "1", "3")]
    assert told == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]


def test_the_formulas_that_are_printed() -> None:
    told = {name: analysis(name).implied for name in ("squared", "exponential", "logistic", "alpha_loss", "hinge", "pinball", "cdpo")}
    assert [told[n].formula for n in ("squared", "exponential", "logistic", "alpha_loss")] == ["(1 + x)/2", "sigmoid(2*x)", "sigmoid(x)", "sigmoid(x/2)"]
    assert (told["squared"].low, told["squared"].high) == ("-1", "1")
    assert told["hinge"].formula == "where(x < -1, 0, where(x < 1, 1/2, 1))"
    assert told["pinball"].formula == "1/2"  # flat inside [-1, 1], and nothing beyond
    assert float(told["cdpo"].high) == pytest.approx(float(mp.log(9)), rel=1e-12)


@pytest.mark.parametrize("name", ["sigmoid", "cauchy", "welsch", "ramp", "cauchit", "focal_po", "perceptron", "discopop"])
def test_refused_where_a_stationary_margin_is_not_shown_to_be_the_best(name: str) -> None:
    claims = analysis(name).claims
    assert Verdict.PROVED not in (claims["bradley_terry_exact"].verdict, claims["convex"].verdict) or claims["bayes_consistent"].verdict is Verdict.REFUTED
    with pytest.raises(InputError, match=r"convex or Bradley-Terry exact|Bayes consistent"):
        implied_probability(name, F(1, 2))
    assert analysis(name).implied.formula is None
    assert analysis(name).implied.refusal


def test_every_entry_of_the_catalogue_has_a_formula_an_interval_or_a_reason() -> None:
    without = {name for name in LOSSES if (said := analysis(name).implied).formula is None and said.refusal is None}
    assert without <= {"probit"}  # a quotient of two Mills ratios
