"""The Fenchel conjugate: by hand, by exhaustive maximisation in mpmath, and the laws of Fenchel and Young."""

from fractions import Fraction
from functools import cache

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_theory import LOSSES, analyze, parse
from gpo_theory.risk.conjugate import Conjugate, conjugate_at, fenchel_conjugate
from tests.support.oracle import TRUTHS, evaluate, least, number, real
from tests.support.session import analysis

CONVEX = [name for name in TRUTHS if TRUTHS[name].holds("convex")]

# By hand, with the domain: s = f'(x) solved for x.
BY_HAND = {
    "log(1+exp(-x))": (lambda s: -s * mp.log(-s) + (1 + s) * mp.log(1 + s), "-1", "0"),
    "max(0, 1-x)": (lambda s: s, "-1", "0"),
    "(x-1)**2": (lambda s: s + s**2 / 4, "-inf", "inf"),
    "exp(-x)": (lambda s: s - s * mp.log(-s), "-inf", "0"),
    "max(0, 1-x)**2": (lambda s: s + s**2 / 4, "-inf", "0"),
    "max(0, 1-x)**3": (lambda s: s + 2 * (-s / 3) ** mp.mpf("1.5"), "-inf", "0"),
    "exp(-x)-x": (lambda s: 1 + s - (1 + s) * mp.log(-1 - s), "-inf", "-1"),
    "abs(x-1)": (lambda s: s, "-1", "1"),
    "max(0, max(3/2-x/2, 2-x))": (lambda s: s - 1 if s < -0.5 else 3 * s, "-1", "0"),
    "where(x < -1, -4*x, max(0, 1-x)**2)": (lambda s: s + s**2 / 4, "-4", "0"),
    "sqrt(1+x**2)": (lambda s: -mp.sqrt(1 - s**2), "-1", "1"),
    # f' = -e^{1-x} + 1: x = 1 - log(1-s), f = -s + log(1-s), s x - f = 2 s + (1-s) log(1-s).
    "exp(1-x)+x-2": (lambda s: 2 * s + (1 - s) * mp.log(1 - s), "-inf", "1"),
}  # fmt: skip


@cache
def of(name: str) -> Conjugate:
    return fenchel_conjugate(LOSSES[name], analysis(name).claims)


def inside(conjugate: Conjugate) -> list[Fraction]:
    """Rational points of the open domain, also away from its ends."""
    low, high = (None if end in ("inf", "-inf") else float(number(end)) for end in (conjugate.low, conjugate.high))
    if low is None:
        low = -4.0 if high is None else high - 8
    high = low + 8 if high is None else high
    return [Fraction(low + (high - low) * k / 10).limit_denominator(997) for k in (1, 3, 6, 9)]


@pytest.mark.parametrize("text", BY_HAND)
def test_closed_forms(text: str) -> None:
    truth, low, high = BY_HAND[text]
    loss = parse(text)
    found = fenchel_conjugate(loss, analyze(loss).claims)
    assert (found.low, found.high) == (low, high)
    assert found.formula is not None
    for s in inside(found):
        with mp.workdps(40):
            value = real(s)
            wanted = truth(value)
            assert abs(evaluate(found.formula, mp.nan, {"s": value}) - wanted) < mp.mpf(10) ** -34, found.formula
        below, above = conjugate_at(loss, s)
        assert below - 1e-13 <= wanted <= above + 1e-13
        assert above - below < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVEX)
def test_against_exhaustive_maximisation(name: str) -> None:
    """sup of s x - f(x) over a grid, refined by golden sections: a concave function, so its best neighbours hold it."""
    found, f = of(name), TRUTHS[name].f
    assert found.low is not None
    if found.low == found.high:
        return
    for s in inside(found):
        value = real(s)
        with mp.workdps(30):
            at = least(lambda x, s=value: f(x) - s * x, [mp.mpf(k) / 8 for k in range(-400, 401)], 70)
            wanted = value * at - f(at)
        low, high = conjugate_at(LOSSES[name], s)
        assert low - 1e-9 <= wanted <= high + 1e-9, f"{name} at {s}"
        if found.formula is not None:
            assert abs(evaluate(found.formula, mp.nan, {"s": value}) - wanted) < 1e-9, f"{name}: {found.formula} at {s}"


@pytest.mark.parametrize("name", CONVEX)
def test_fenchel_young_and_biconjugate(name: str) -> None:
    """f(x) + f*(s) >= s x, with equality at s = f'(x): so f(x) is the supremum of s x - f*(s), attained there."""
    found, f = of(name), TRUTHS[name].f
    if found.formula is None:
        return
    for x in (mp.mpf("-2.3"), mp.mpf("0.4"), mp.mpf("0.85")):
        with mp.workdps(30):
            slope = mp.diff(f, x)
            if not number(found.low) + 1e-9 < slope < number(found.high) - 1e-9:
                continue
            at = evaluate(found.formula, mp.nan, {"s": slope})
            assert abs(f(x) + at - slope * x) < 1e-15, f"{name} at x = {x}"
            for s in inside(found):
                value = real(s)
                assert f(x) + evaluate(found.formula, mp.nan, {"s": value}) >= value * x - mp.mpf(10) ** -25


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["log(1+exp(-x))", "max(0,1-x)**2", "exp(-x)", "-log_ndtr(x)", "(2*atan(x)-1)**2"]),
       st.fractions(Fraction(1, 6), 6, max_denominator=9), st.fractions(-2, 2, max_denominator=9),
       st.fractions(Fraction(-9, 10), Fraction(-1, 10), max_denominator=30))  # fmt: skip
def test_scaling_and_shifting(text: str, c: Fraction, b: Fraction, s: Fraction) -> None:
    """(c f + b)*(c s) = c f*(s) - b for c > 0."""
    low, high = conjugate_at(parse(f"({c})*({text}) + ({b})"), c * s)
    below, above = conjugate_at(parse(text), s)
    if below == mp.inf:
        assert low == mp.inf
    else:
        slack = 1e-11 * (1 + abs(below)) * float(1 + c)
        assert low <= float(c) * above - float(b) + slack
        assert high >= float(c) * below - float(b) - slack


def test_outside_the_domain() -> None:
    assert conjugate_at(parse("log(1+exp(-x))"), Fraction(1, 3)) == (mp.inf, mp.inf)
    assert conjugate_at(parse("1-x"), Fraction(-1)) == pytest.approx((-1, -1), abs=1e-12)
    assert of("unhinged") == Conjugate(None, "-1", "-1")
    assert fenchel_conjugate(LOSSES["savage"], analysis("savage").claims) == Conjugate()
