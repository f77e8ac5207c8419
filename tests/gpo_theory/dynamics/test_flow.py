"""Gradient flow on one clean pair: closed forms by hand, and integration by scipy, which knows nothing of them."""

from collections.abc import Callable

import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gpo_theory import LOSSES, parse
from gpo_theory.dynamics.flow import Flow, gradient_flow
from tests.support.oracle import TRUTHS, evaluate, number

NAMES = [name for name in TRUTHS if name != "focal_po"]  # focal_po: minutes of boxes

# By hand: separate the variables.
BY_HAND = {
    "exp(-x)": Flow("log(1 + t)", "log(t)", "inf", "inf"), "max(0, 1-x)": Flow("where(t < 1, t, 1)", None, "1", "1"),
    "(x-1)**2": Flow("1 - exp(-2*t)", None, "1", "inf"), "1-x": Flow("t", "t", "inf", "inf"),
    "max(0, 1-x)**3": Flow("1 - 1/(1 + 3*t)", None, "1", "inf"), "max(0, -x)": Flow("0", None, "0", "0"), "x**2": Flow("0", None, "0", "0"),
    "exp(-x/2)": Flow("2*log(1 + t/4)", "2*log(t/4)", "inf", "inf"),
    "max(0, max(3/2-x/2, 2-x))": Flow("where(t < 1, t, where(t < 5, 1/2 + t/2, 3))", None, "3", "5"),
    "(x+1)**2": Flow("-(1 - exp(-2*t))", None, "-1", "inf"), "log(1+exp(-x))": Flow(None, "log(t)", "inf", "inf"),
    "-log_ndtr(x)": Flow(None, "(2*log(t))**(1/2)", "inf", "inf"),
}


@pytest.mark.parametrize("text", BY_HAND)
def test_by_hand(text: str) -> None:
    found, wanted = gradient_flow(parse(text)), BY_HAND[text]
    assert (found.rate, found.limit, found.stops) == (wanted.rate, wanted.limit, wanted.stops)
    assert (found.formula is None) == (wanted.formula is None)
    for t in (mp.mpf(0), mp.mpf("0.3"), mp.mpf("1.7"), mp.mpf(40)):
        if wanted.formula is not None:
            values = [evaluate(one.formula, mp.nan, {"t": t}) for one in (found, wanted)]
            assert abs(values[0] - values[1]) < 1e-14


@pytest.mark.parametrize("name", NAMES)
def test_formula_solves_the_equation(name: str) -> None:
    """x(0) = 0 and x' = -f'(x), by differences of f in 40 digits, at times on every leg."""
    formula = gradient_flow(LOSSES[name]).formula
    if formula is None:
        return
    f = TRUTHS[name].f
    with mp.workdps(40):
        assert evaluate(formula, mp.nan, {"t": mp.mpf(0)}) == 0
        for t in (mp.mpf("0.123"), mp.mpf("0.77"), mp.mpf("3.1"), mp.mpf(11)):
            h = mp.mpf(10) ** -12
            x = evaluate(formula, mp.nan, {"t": t})
            speed = (evaluate(formula, mp.nan, {"t": t + h}) - evaluate(formula, mp.nan, {"t": t - h})) / (2 * h)
            sides = [-(f(x + s * h) - f(x)) / (s * h) for s in (-1, 1)]
            # At rest in a kink the slopes on both sides hold 0 between them.
            low, high = min(sides), max(sides)
            assert low - 1e-8 <= speed <= high + 1e-8, f"{name}: {formula} at t = {t}"


def push(name: str, x: mp.mpf) -> mp.mpf:
    """-f'(x) by a difference in 60 digits."""
    f = TRUTHS[name].f
    with mp.workdps(60):
        h = mp.mpf(10) ** -20
        return (f(x - h) - f(x + h)) / (2 * h)


@pytest.mark.parametrize("name", NAMES)
def test_the_limit(name: str) -> None:
    """-f' pushes towards the limit all the way from 0, and not away from it beyond."""
    found = gradient_flow(LOSSES[name])
    if found.limit is None:
        assert name == "lsif"  # it leaves for infinity in finite time
        return
    end = number(found.limit)
    side = -1 if end < 0 else 1
    far = min(abs(end), mp.mpf(60))
    assert all(push(name, side * far * (2 * k + 1) / 40) * side > 0 for k in range(20 if far else 0))
    if abs(end) < mp.inf:
        assert push(name, end + mp.mpf(10) ** -6) <= 0 <= push(name, end - mp.mpf(10) ** -6)


@pytest.mark.parametrize(
    ("text", "slope"),
    [
        ("log(1+exp(-x))", lambda x: -1 / (1 + np.exp(x))),
        ("sqrt(1+x**2)-x", lambda x: x / np.sqrt(1 + x**2) - 1),
        ("1/(1+exp(x))**2", lambda x: -2 * np.exp(x) / (1 + np.exp(x)) ** 3),
        ("max(0, 1/2-x)**2 + max(0, 2-x)", lambda x: -2 * max(0, 0.5 - x) - (x < 2)),
    ],
)
def test_against_integration(text: str, slope: Callable[[float], float]) -> None:
    """scipy's integrator, with f' by hand: near the formula, else near the rate at a very late time."""
    found, end = gradient_flow(parse(text)), 1e6
    if found.formula is not None:
        end = 1.2
    run = solve_ivp(lambda _, x: [-slope(x[0])], (0, end), [0.0], rtol=1e-9, atol=1e-10, method="LSODA")
    shown = found.formula or found.rate
    assert shown is not None
    wanted = float(evaluate(shown, mp.nan, {"t": mp.mpf(end)}))
    assert run.y[0, -1] == pytest.approx(wanted, rel=1e-6 if found.formula else 0.06)


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_is_measured(name: str) -> None:
    """t(x), the integral of 1/(-f'), at far x: the rate at that time comes near x as x grows."""
    rate = gradient_flow(LOSSES[name]).rate
    if rate is None:
        return
    quotients = []
    for x in (10, 30) if "log" in rate else (100, 3000):
        ends = [mp.mpf(end) for end in (0, "0.4", "0.5", 1, *(x * k / 8 for k in range(1, 9)))]
        time = mp.quad(lambda u: 1 / push(name, u), sorted(ends), maxdegree=3)
        quotients.append(evaluate(rate, mp.nan, {"t": time}) / x)
    assert abs(quotients[1] - 1) < 0.12, f"{name}: {rate} gives {[mp.nstr(q, 5) for q in quotients]}"
    assert abs(quotients[1] - 1) <= abs(quotients[0] - 1) + 1e-6
