"""Losses clipped at the top, and jumps: calibration with f flat around 0, by the risks on both sides; monotone with steps."""

from fractions import Fraction
from itertools import pairwise

import mpmath as mp
import pytest

from gpo_theory import analyze
from gpo_theory.kernel.certificates import verify
from gpo_theory.report.certificate_file import certificate_document
from tests.support.oracle import number, value_of

# A loss that never rises, a level below f(0) or equal to it, and its infimum.
CLIPPED = {
    ("log(1+exp(-x))", "1/2"): "0", ("log(1+exp(-x))", "log(3/2)"): "0", ("exp(-x)", "1/2"): "0", ("exp(-x)", "1"): "0",
    ("1/(1+exp(x))**2", "1/9"): "0", ("max(0,1-x)", "1/2"): "0", ("1/2-atan(x)/pi", "1/3"): "0", ("max(1/9, exp(-x))", "1/3"): "1/9",
    ("erfc(x)", "2/3"): "0", ("max(0, 2-x)**2", "1"): "0", ("log(1+exp(-x))", "log(2)"): "0", ("2+exp(-x)", "5/2"): "2",
}  # fmt: skip


@pytest.mark.parametrize(("loss", "level"), CLIPPED)
def test_a_loss_clipped_below_its_value_at_0_is_calibrated(loss: str, level: str) -> None:
    """For x <= 0, f = M; with m = inf f, H = p m + (1-p) M and H^- = p M + (1-p) m, as a grid of C_p shows."""
    f, top, bottom = f"min({loss}, {level})", number(level), number(CLIPPED[loss, level])
    for p in (mp.mpf(5) / 9, mp.mpf(9) / 10, mp.mpf(1)):
        risks = {x: p * value_of(f, x) + (1 - p) * value_of(f, -x) for x in (mp.mpf(k) / 4 for k in range(-160, 161))}
        right, wrong = min(risks.values()), min(risk for x, risk in risks.items() if x <= 0)
        assert abs(right - (p * bottom + (1 - p) * top)) < 0.01
        assert abs(wrong - (p * top + (1 - p) * bottom)) < 0.01
        assert right < wrong
    found = analyze(f).claims["bayes_consistent"]
    assert found.verdict.value == "proved", found.because


@pytest.mark.parametrize(("formula", "decreasing", "consistent"), [
    ("where(x<1, 2, exp(-x))", "proved", "proved"), ("where(x<=0, 2, 1)", "proved", "proved"), ("where(x<0, 2, 1)", "proved", "refuted"),
    ("where(x<-1, 2, 1)", "proved", "refuted"), ("where(x<log(2), 2, 1+exp(-x))", "proved", "proved"), ("where(x<-1, 5+exp(-x), exp(-x))", "proved", "proved"),
    ("where(x<log(2), 1/2, 1+exp(-x))", "refuted", "refuted"), ("min(1-x, 1/2)", "proved", "refuted"),
    ("where(x<-2, exp(x), where(x<=-2, 1, 1/9))", "refuted", "refuted"),
])  # fmt: skip
def test_steps(formula: str, decreasing: str, consistent: str) -> None:
    """By hand: a step down keeps f decreasing, one up does not; at theta = 1, C_p is f."""
    found = analyze(formula)
    assert verify(certificate_document(found)) == {name: one.verdict.value for name, one in found.claims.items()}
    assert found.claims["monotone_decreasing"].verdict.value == decreasing
    assert found.claims["bayes_consistent"].verdict.value == consistent
    x = [Fraction(k, 64) for k in range(-320, 321)]
    rises = any(value_of(formula, b) > value_of(formula, a) for a, b in pairwise(x))
    assert rises == (decreasing == "refuted")
