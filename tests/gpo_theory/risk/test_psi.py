"""The psi-transform: closed forms derived by hand, exhaustive minimisation in mpmath, and the laws of psi."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_theory import LOSSES, InputError, analyze, parse
from gpo_theory.certificate import Verdict
from gpo_theory.risk.psi import Psi, psi_at, psi_transform
from tests.support.oracle import TRUTHS, evaluate, least, real
from tests.support.session import analysis

NAMES = list(TRUTHS)
THETAS = [Fraction(1, 10), Fraction(1, 3), Fraction(1, 2), Fraction(4, 5), Fraction(99, 100)]


@cache
def of(text: str) -> Psi:
    if text in LOSSES:
        return psi_transform(LOSSES[text], analysis(text).claims)
    return psi_transform(parse(text), analyze(parse(text)).claims)


def xlogx(x: mp.mpf) -> mp.mpf:
    return x * mp.log(x)


# By hand, f(0) - H with H(p) = C_p at the stationary point; entropies: logistic at x* = logit p has H = -p log p - q log q.
BY_HAND: dict[str, Callable[[mp.mpf], mp.mpf]] = {
    "max(0, 1-x)": lambda t: t,
    "(x-1)**2": lambda t: t**2,
    "exp(-x)": lambda t: 1 - mp.sqrt(1 - t**2),
    "max(0, 1-x)**2": lambda t: t**2,
    "log(1+exp(-x))": lambda t: mp.log(2) + xlogx((1 + t) / 2) + xlogx((1 - t) / 2),
    "1/(1+exp(x))**2": lambda t: t**2 / 4,
    "1/(1+exp(x))": lambda t: t / 2,
    "1/2 - atan(x)/pi": lambda t: t / 2,
    "min(2, max(0, 1-x))": lambda t: t,
    "max(0, -x)": lambda t: 0 * t,
    "max(1-x, (x-1)/4)": lambda t: t,
    # H = 2 sqrt(pq): x*/sqrt(1+x*^2) = theta, so sqrt(1+x*^2) - theta x* = sqrt(1-theta^2).
    "sqrt(1+x**2)-x": lambda t: 1 - mp.sqrt(1 - t**2),
    # With r = q/p: 1 - x* = r, H = q r/2 + q (1/2 + 1 - r) = q (3 - r)/2.
    "where(x <= 0, 1/2 - x, max(0, 1-x)**2/2)": lambda t: mp.mpf(1) / 2 - (1 - t) * (3 - (1 - t) / (1 + t)) / 4,
    # x* = (a-b)/(a+b) with a = sqrt p, b = sqrt q: H = 8 p q (a+b)/(a+b)^3.
    "max(0, 1-x)**3": lambda t: 1 - 2 * (1 - t**2) / (1 + mp.sqrt(1 - t**2)),
    # x* = logit p: H = 2 p q/p + q log(p/q) - ... = p (q/p) + q + q log(p/q).
    "where(x < 0, 1-x, exp(-x))": lambda t: 1 - (1 - t) / 2 * (2 + mp.log((1 + t) / (1 - t))),
    # Two kinks, at 1 and 3: C at 1 is p + 4 q, at 3 it is 9 q, so the second wins from p = 5/6.
    "max(0, max(3/2-x/2, 2-x))": lambda t: 2 - min(mp.mpf(2), (1 + t) / 2 + 3 * (1 - t) / 2, 5 * (1 - t) / 2),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("text", BY_HAND)
def test_closed_forms(text: str) -> None:
    formula, half = of(text).formula, of(text).at_half
    assert half == pytest.approx(float(BY_HAND[text](mp.mpf(1) / 2)), rel=1e-14, abs=1e-15)
    for theta in THETAS:
        with mp.workdps(40):
            t = real(theta)
            wanted = BY_HAND[text](t)
            if formula is not None:
                assert abs(evaluate(formula, mp.nan, {"theta": t}) - wanted) < mp.mpf(10) ** -35, formula
        low, high = psi_at(parse(text), theta)
        assert low - 1e-14 <= wanted <= high + 1e-14
        assert high - low < 1e-11


def test_the_easy_ones_are_short() -> None:
    expected = {"hinge": "theta", "squared": "theta**2", "exponential": "1 - (1 - theta**2)**(1/2)",
                "savage": "theta**2/4", "sigmoid": "theta/2", "truncated_squared": "theta**2"}  # fmt: skip
    assert {name: of(name).formula for name in expected} == expected


@cache
def risks(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """x >= 0 and f there and at -x, in floats rounded from 40 digits; far points only where both stay moderate."""
    f = TRUTHS[name].f
    points = [*np.linspace(0, 12, 601), *np.geomspace(12, 1e12, 60)[1:]]
    with mp.workdps(40):
        rows = [(x, f(mp.mpf(x)), f(-mp.mpf(x))) for x in points]
    kept = [(x, float(a), float(b)) for x, a, b in rows if abs(a) < 1e15 and abs(b) < 1e15]
    return tuple(np.array(column) for column in zip(*kept, strict=True))


def gap(name: str, theta: float) -> float:
    """H^- - H by exhaustive minimisation: a grid, then golden sections around its best point."""
    f = TRUTHS[name].f
    x, ahead, behind = risks(name)
    lows = []
    for weight in ((1 + theta) / 2, (1 - theta) / 2):  # right side, wrong side
        values = weight * ahead + (1 - weight) * behind
        best = int(np.argmin(values))

        def c(u: mp.mpf, w: float = weight) -> mp.mpf:
            return w * f(u) + (1 - w) * f(-u)

        at = least(c, [mp.mpf(u) for u in x[max(best - 1, 0) : best + 2]], 45)
        lows.append(min(float(values[best]), float(c(at)), float(c(mp.mpf(0)))))
    return lows[1] - min(lows)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_half_against_exhaustive_minimisation(name: str) -> None:
    """The value is also that of the convex hull of H^- - H on a grid of theta, so convexifying it changes nothing."""
    half = of(name).at_half
    low_high = psi_at(LOSSES[name], Fraction(1, 2))
    direct = gap(name, 0.5)
    assert (half == "inf") == (low_high == (mp.inf, mp.inf))
    if low_high is not None and low_high[0] != mp.inf:
        assert low_high[0] <= direct + 1e-9
    if half in (None, "inf"):
        return
    assert half == pytest.approx(direct, abs=1e-9)
    _x, ahead, behind = risks(name)
    thetas = np.linspace(0, 0.98, 50)
    coarse = [((1 + t) / 2 * behind + (1 - t) / 2 * ahead).min() for t in thetas]
    lowest = [((1 + t) / 2 * ahead + (1 - t) / 2 * behind).min() for t in thetas]
    rough = np.array(coarse) - np.minimum(coarse, lowest)
    chords = [rough[i] + (rough[j] - rough[i]) * (0.5 - thetas[i]) / (thetas[j] - thetas[i])
              for i in range(25) for j in range(26, 50)]  # fmt: skip
    assert min(chords) > half - 1e-3 * (1 + abs(half))


@pytest.mark.parametrize("name", NAMES)
def test_a_formula_agrees_with_the_enclosure_and_is_convex(name: str) -> None:
    formula = of(name).formula
    if formula is None:
        return
    values = []
    for theta in THETAS[:-1]:
        with mp.workdps(40):
            value = evaluate(formula, mp.nan, {"theta": real(theta)})
        low, high = psi_at(LOSSES[name], theta)
        assert low - 1e-13 <= value <= high + 1e-13, f"{name}: {formula} at {theta}"
        values.append(value)
    steps = [(b - a) / (float(t) - float(s)) for (s, t), (a, b) in
             zip(pairwise(THETAS[:-1]), pairwise(values), strict=True)]  # fmt: skip
    assert all(a <= b + 1e-12 for a, b in pairwise(steps))


@pytest.mark.parametrize("name", NAMES)
def test_psi_is_positive_exactly_for_calibrated_losses(name: str) -> None:
    half, claim = of(name).at_half, analysis(name).claims["bayes_consistent"]
    if half is not None and claim.verdict is not Verdict.UNKNOWN:
        assert (float(half) > 1e-6) == (claim.verdict is Verdict.PROVED), f"{name}: psi(1/2) = {half}"


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["logistic", "hinge", "exponential", "savage", "probit", "tangent", "smooth_hinge"]),
       st.fractions(Fraction(1, 8), 8, max_denominator=12), st.fractions(-2, 2, max_denominator=7))  # fmt: skip
def test_scaling_and_shifting_the_values(name: str, c: Fraction, shift: Fraction) -> None:
    """psi(c f + b) = c psi(f) for c > 0."""
    loss = parse(f"({c})*({LOSSES[name].formula}) + ({shift})")
    low, high = psi_at(loss, Fraction(1, 2))
    below, above = psi_at(LOSSES[name], Fraction(1, 2))
    assert low <= float(c) * above + 1e-12
    assert high >= float(c) * below - 1e-12


def test_infinite_and_undecided() -> None:
    """C_p(x) = 1 - (2p-1) x has no lower bound; of DiscoPOP an enclosure is known that is too wide to be a value."""
    assert psi_at(parse("1-x"), Fraction(1, 2)) == (mp.inf, mp.inf)
    assert of("unhinged") == Psi(None, "inf")
    assert of("discopop") == Psi(None, None)
    low, high = psi_at(LOSSES["discopop"], Fraction(1, 2))
    assert 1e-6 < high - low < mp.inf
    with pytest.raises(InputError, match="theta = 3/2"):
        psi_at(LOSSES["hinge"], Fraction(3, 2))


@pytest.mark.parametrize("text", ["focal_po", "perceptron", "exp(-x**2)"])
def test_a_psi_that_is_zero_is_exactly_zero(text: str) -> None:
    """By hand: f tends to its infimum 0 at both ends, or, of the perceptron, C_p is least at 0: H^- = H = 0."""
    assert of(text).at_half == 0.0
    low, high = psi_at(LOSSES[text] if text in LOSSES else parse(text), Fraction(1, 2))
    assert low == 0.0 == high
