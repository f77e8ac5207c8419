"""Gradient flow on one clean pair: closed forms by hand, and integration by scipy, which knows nothing of them."""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import reduce

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from gpo_theory import LOSSES, parse
from gpo_theory.dynamics.flow import Flow, gradient_flow
from tests.support.oracle import TRUTHS, evaluate, number, real

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


NOWHERE = Flow()
# By hand. A zero of f' without a change of sign: f' = -(1-x)^2/(1+x^2)^2, -u (1-2u)^2 with u = exp(-x), and powers.
# A corner, and what leaves a zero of f' of order below 1, as sqrt does: it is left at once, or stays: not unique.
RESTS = {
    "-atan(x)-1/(1+x**2)": ("1", "inf"), "exp(-x)-2*exp(-2*x)+4/3*exp(-3*x)": ("log(2)", "inf"), "-(x-1)**3": ("1", "inf"),
    "(x+1)**3": ("-1", "inf"), "x**3": ("0", "0"), "-x**2": ("0", "0"), "exp(-x)*(x**2+1)": ("1", "inf"), "-(x-2)**5-(x-2)**3": ("2", "inf"),
    "abs(x)": ("0", "0"), "max(0, x)": ("0", "0"), "max(-x, x**3)": ("0", "0"), "where(x < 0, -3*x, x/7)": ("0", "0"), "max(x**2, -x)": ("0", "0"),
    "-abs(x)": None, "where(x < 0, x/3, -2*x)": None, "1-abs(x)**(3/2)": None, "where(x < 0, x, -x**(3/2))": None,
    "min(0, x)": ("-inf", "inf"), "where(x < 0, -x**2, -x)": ("inf", "inf"), "where(x < 0, -(-x)**(3/2), -x)": None,
    "where(x < 0, x**2, -x**(3/2))": None, "where(x < 1, -x, -1-(x-1)**3)": ("1", "1"), "where(x < 1, -x, -1-(x-1)**(3/2))": None,
    "where(x < 1, (1-x)**3, 1-x)": ("1", "inf"), "max(0, 1-x)**(3/2) - max(0, x-1)": ("inf", "inf"), "-x**3 - x": None,
    "max(0, 1-x)**(3/2) - max(0, x-1)**(3/2)": None, "max(0, 1-x)**(3/2) - max(0, x-1)**3": ("1", "4/3"),
}  # fmt: skip


@pytest.mark.parametrize("text", RESTS)
def test_where_it_comes_to_rest(text: str) -> None:
    found, wanted = gradient_flow(parse(text)), RESTS[text]
    if wanted is None:
        assert found == NOWHERE
        return
    assert found.limit is not None
    assert found.stops == wanted[1]
    assert number(found.limit) == number(wanted[0]) or abs(number(found.limit) - number(wanted[0])) < 1e-15


ROOTS = st.dictionaries(st.fractions(Fraction(-3), Fraction(3), max_denominator=7).filter(bool), st.integers(1, 3), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@given(ROOTS, st.sampled_from(["1/1000000", "1", "1000000"]))
def test_it_nears_the_first_zero_of_any_order(roots: dict[Fraction, int], scale: str) -> None:
    """f' = -prod (x - r)^m or its negative, f by exact integration: the first root in the way is only neared."""
    slope = reduce(np.polynomial.Polynomial.__mul__, [np.polynomial.Polynomial([-r, Fraction(1)]) ** m for r, m in roots.items()])
    way = 1 if slope.coef[0] < 0 else -1  # -f' at 0
    f = "+".join(f"({c}/{k + 1})*x**{k + 1}" for k, c in enumerate(slope.coef))
    found = gradient_flow(parse(f"{scale}*({f})"))
    ahead = [r for r in roots if r * way > 0]
    if ahead:
        assert (found.limit, found.stops) == (str(min(ahead, key=abs)), "inf")
    else:
        assert found.limit == (("inf" if way > 0 else "-inf") if sum(roots.values()) == 1 else None)


@settings(max_examples=30, deadline=None)
@given(*[st.fractions(Fraction(-2), Fraction(2), max_denominator=5)] * 2, st.sampled_from([0, Fraction(1, 3), 2]))
def test_corners(left: Fraction, right: Fraction, place: Fraction) -> None:
    """Two half-lines: a corner on the way is passed, is rested in, or is where the flow begins."""
    found = gradient_flow(parse(f"where(x < {place}, ({left})*(x-({place})), ({right})*(x-({place})))"))
    if place and left == 0:
        wanted = ("0", "0")
    elif place and left > 0:
        wanted = ("-inf", "inf")
    elif left <= 0 <= right:
        wanted = (str(place), str(-place / left) if place else "0")
    elif place or left <= 0:
        wanted = ("inf", "inf")
    else:
        wanted = (None, None) if right < 0 else ("-inf", "inf")
    assert (found.limit, found.stops) == wanted


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([Fraction(n, 12) for n in range(14, 44) if n % 12]), st.fractions(Fraction(1, 4), Fraction(4), max_denominator=6))
def test_a_zero_of_order_below_one_is_reached(q: Fraction, place: Fraction) -> None:
    """f = max(0, 1-x/z)^q: the time is z^2/q times the integral of (1-s)^(1-q) from 0 to 1, infinite for q >= 2."""
    found = gradient_flow(parse(f"max(0, 1-x/({place}))**({q})"))
    assert found.limit == str(place)
    if q >= 2:
        assert found.stops == "inf"
        return
    assert found.stops is not None
    assert found.formula is not None
    with mp.workdps(30):
        z, n = real(place), real(q)
        time = z**2 / n * mp.quad(lambda s: 12 * s**11 / (s**12) ** (n - 1), [0, 1])  # 1 - x/z = s^12
        assert abs(evaluate(found.stops, mp.nan) / time - 1) < mp.mpf(10) ** -20
        for share in ("0.3", "0.9"):
            x = evaluate(found.formula, mp.nan, {"t": mp.mpf(share) * time})
            passed = z**2 / n * mp.quad(lambda s: (1 - s) ** (1 - n), [0, x / z])
            assert abs(passed / time - mp.mpf(share)) < mp.mpf(10) ** -15
        assert evaluate(found.formula, mp.nan, {"t": time + 1}) == z


@pytest.mark.parametrize("text", [*sorted(BY_HAND.keys() - {"-log_ndtr(x)"}), "-atan(x)-1/(1+x**2)", "exp(-x)-2*exp(-2*x)+4/3*exp(-3*x)", "max(0,1-x)**(3/2)", "abs(x)"])
@pytest.mark.parametrize(("c", "k"), [("1/1000000000000", "1000"), ("1000000000000", "1/1000"), ("3/7", "-5/3")])
def test_the_flow_scales(text: str, c: str, k: str) -> None:
    """The flow of c f(kx) is x(c k^2 t)/k, where x(t) is that of f."""
    one, other = gradient_flow(parse(text)), gradient_flow(parse(re.sub(r"\bx\b", f"({k}*x)", f"{c}*({text})")))
    factor, k_ = number(c) * number(k) ** 2, number(k)
    assert (one.formula is None, one.rate is None) == (other.formula is None, other.rate is None)
    assert one.limit is not None
    assert other.limit is not None
    assert number(other.limit) == pytest.approx(number(one.limit) / k_, rel=1e-14)
    assert number(str(other.stops)) * factor == pytest.approx(number(str(one.stops)), rel=1e-14)
    if one.formula is not None and other.formula is not None:
        for t in ("0.4", "2.5"):
            values = [evaluate(f, mp.nan, {"t": mp.mpf(t) / s}) * w for f, s, w in ((one.formula, 1, 1), (other.formula, factor, k_))]
            assert values[0] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.parametrize("text", ["-x*log(2+x**2)-x", "-log(2+x**2)**2/2-x/(1+x**2)**3", "-x/log(2+x**2)**2-x", "-(1+x**2)**(3/4)-x"])
def test_a_rate_with_a_logarithm(text: str) -> None:
    """t(x), the integral of 1/(-f'), in y = log(x) up to exp(2000): the rate there, over x, comes near 1."""
    rate = gradient_flow(parse(text)).rate
    assert rate is not None
    off = []
    with mp.workdps(20):
        for far in (200, 2000):
            far_out = mp.quad(lambda y: -mp.exp(y) / slope_by_hand(text, mp.exp(y)), [far - 60, far - 20, far], maxdegree=5)
            off.append(abs(evaluate(rate, mp.nan, {"t": far_out}) / mp.exp(far) - 1))
    assert off[1] < 0.02
    assert off[1] < off[0] or off[0] < 1e-9


def slope_by_hand(text: str, x: mp.mpf) -> mp.mpf:
    """f' of the losses above by the product rule, in 20 digits (x**2 alone decides log(2+x**2) far out)."""
    log = mp.log(2 + x**2)
    share = 2 * x**2 / (2 + x**2)
    return {
        "-x*log(2+x**2)-x": -log - share - 1, "-log(2+x**2)**2/2-x/(1+x**2)**3": -log * share / x - (1 - 5 * x**2) / (1 + x**2) ** 4,
        "-x/log(2+x**2)**2-x": -1 / log**2 + 2 * share / log**3 - 1, "-(1+x**2)**(3/4)-x": -1.5 * x / (1 + x**2) ** mp.mpf(0.25) - 1,
    }[text]  # fmt: skip


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


# Losses with a kink at an irrational x: where the flow is at each time and when it stops, by hand (None: not stated).
AT_KINKS = {
    "max(0, log(9)-x)": (lambda t: min(t, mp.log(9)), "log(9)", "log(9)"), "abs(x-log(2))": (lambda t: min(t, mp.log(2)), "log(2)", "log(2)"),
    "abs(x+sqrt(3))": (lambda t: -min(t, mp.sqrt(3)), "-sqrt(3)", "sqrt(3)"),
    "max(exp(-x), 1/10)": (lambda t: mp.log(1 + min(t, 9)), "log(10)", "9"), "max(0, sqrt(2)-x)**2": (None, "sqrt(2)", "inf"),
    "max(exp(-x), 4*x)": (None, mp.lambertw(mp.mpf(1) / 4), None), "max((x-2)**2, 2)": (None, 2 - mp.sqrt(2), None),
}  # fmt: skip


@pytest.mark.parametrize("formula", AT_KINKS)
def test_the_flow_to_an_irrational_kink(formula: str) -> None:
    course, limit, stops = AT_KINKS[formula]
    found = gradient_flow(parse(formula))
    assert found.limit is not None
    assert abs(number(found.limit) - (number(limit) if isinstance(limit, str) else limit)) < 1e-14
    assert (found.stops is None) == (stops is None)
    if stops is not None:
        assert found.stops == stops if stops == "inf" else abs(number(found.stops) - number(stops)) < 1e-14
    for t in (0, mp.mpf(1) / 3, mp.mpf(2), mp.mpf(20)) if course is not None else ():
        assert found.formula is not None
        assert abs(evaluate(found.formula, 0, {"t": t}) - course(t)) < 1e-14
