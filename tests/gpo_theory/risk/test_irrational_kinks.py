"""Link, psi and conjugate of losses whose kink is an irrational number k, from their closed forms in k."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath as mp
import pytest

from gpo_theory import analyze, parse
from gpo_theory.risk.conjugate import conjugate_at
from gpo_theory.risk.links import link_at
from gpo_theory.risk.psi import psi_at
from tests.support.oracle import number

Of = Callable[[Any], Any]
HALF = Fraction(1, 2)


def entropy(p: Any) -> Any:
    return -p * mp.log(p) - (1 - p) * mp.log(1 - p)


# The target, x*(p) for p > 1/2, psi(theta), and f*(s) at some s: by hand.
KINKS: dict[str, tuple[str, Of, Of, Of, tuple[Fraction, ...]]] = {
    "max(0, log(9)-x)": ("log(9)", lambda p: mp.log(9), lambda t: t * mp.log(9), lambda s: s * mp.log(9), (Fraction(-1, 3), Fraction(-1))),
    "abs(x-log(2))": ("log(2)", lambda p: mp.log(2), lambda t: t * mp.log(2), lambda s: s * mp.log(2), (Fraction(-1, 3), Fraction(3, 4))),
    "max(0, sqrt(2)-x)**2": ("sqrt(2)", lambda p: mp.sqrt(2) * (2 * p - 1), lambda t: 2 * t**2, lambda s: mp.sqrt(2) * s + s**2 / 4,
                             (Fraction(-1, 3), Fraction(-7))),
    "max(exp(-x), 1/10)": ("log(10)", lambda p: min(mp.log(p / (1 - p)) / 2, mp.log(10)), lambda t: 1 - mp.sqrt(1 - t**2),
                           lambda s: s - s * mp.log(-s), (Fraction(-1, 3), Fraction(-2))),
    "max(0, pi-2*x)": ("pi/2", lambda p: mp.pi / 2, lambda t: t * mp.pi, lambda s: s * mp.pi / 2, (Fraction(-1, 3), Fraction(-2))),
}  # fmt: skip


@pytest.mark.parametrize("formula", KINKS)
def test_a_loss_with_an_irrational_kink(formula: str) -> None:
    target, best, psi, conjugate, slopes = KINKS[formula]
    loss, found = parse(formula), analyze(formula)
    assert found.link.target_at_one is not None
    assert abs(number(found.link.target_at_one) - number(target)) < 1e-11
    for p in (Fraction(3, 4), Fraction(9, 10)):
        ends, theta = link_at(loss, p), 2 * p - 1
        assert ends is not None
        assert ends[0] - 1e-9 <= best(mp.mpf(p.numerator) / p.denominator) <= ends[1] + 1e-9
        low, high = psi_at(loss, theta) or (1, 0)
        true = psi(mp.mpf(theta.numerator) / theta.denominator)
        assert low - 1e-15 <= true <= high + 1e-15
        assert high - low < 1e-9
    assert found.psi.at_half == pytest.approx(float(psi(mp.mpf(1) / 2)), rel=1e-9)
    for s in slopes:
        ends = conjugate_at(loss, s)
        assert ends is not None
        true = conjugate(mp.mpf(s.numerator) / s.denominator)
        assert ends[0] - 1e-14 <= true <= ends[1] + 1e-14
