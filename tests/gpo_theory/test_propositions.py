"""P16 to P19, each by a route of its own: numpy's descent, the chord of a convex function, mpmath, exhaustive search."""

import itertools
from fractions import Fraction as F

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gpo_theory import LOSSES, InputError, Verdict, analyze, parse
from gpo_theory.propositions.p16_one_step import one_step
from gpo_theory.propositions.p17_no_forgetting import wrong_side_push
from gpo_theory.propositions.p18_cone import mixed_link, mixed_strength, mixture
from gpo_theory.propositions.p19_offsets import offset_policy, offset_strength
from tests.support.oracle import TRUTHS, least

SMOOTH = sorted(name for name in TRUTHS if not TRUTHS[name].kinks)
FALLING = sorted(name for name in SMOOTH if TRUTHS[name].holds("monotone_decreasing"))
CONVEX = sorted(name for name in TRUTHS if TRUTHS[name].holds("convex") and TRUTHS[name].holds("bayes_consistent"))
SAME_C = sorted(name for name in TRUTHS if TRUTHS[name].c == "1")
assert {"savage", "dpd", "basu"} <= {*SAME_C}


def margin(theta: np.ndarray) -> float:
    """The log-ratio of two outcomes of a softmax of tanh features: curved in the parameters."""
    return float(np.tanh(theta[0]) - np.sin(theta[1]) + theta[0] * theta[2])


def gradient(theta: np.ndarray) -> np.ndarray:
    return np.array([1 / np.cosh(theta[0]) ** 2 + theta[2], -np.cos(theta[1]), theta[0]])


@given(st.sampled_from(SMOOTH), st.lists(st.integers(-300, 300), min_size=3, max_size=3), st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_p16_the_step_of_plain_descent_to_first_order(name: str, cents: list[int], beta: float) -> None:
    """The change of the margin and half of it: their errors fall like the square of the rate."""
    theta, errors = np.array(cents) / 100, []
    slope = float(mp.diff(TRUTHS[name].f, mp.mpf(beta) * margin(theta)))
    for rate in (1e-4, 5e-5):
        numeric, theory = one_step(LOSSES[name], margin, gradient, theta, beta, rate)
        by_hand = margin(theta - rate * beta * slope * gradient(theta)) - margin(theta)
        assert_allclose(numeric, by_hand, rtol=1e-8, atol=1e-14)
        assert_allclose(theory, -rate * beta * slope * (gradient(theta) ** 2).sum(), rtol=1e-9, atol=1e-20)
        errors.append(abs(numeric - theory))
    assert errors[1] <= errors[0] / 3.5 + 1e-13


@pytest.mark.parametrize("name", FALLING)
def test_p16_the_margin_of_the_pair_does_not_fall(name: str) -> None:
    for theta in (np.zeros(3), np.array([-0.5, 1.0, 0.25]), np.array([0.4, -0.2, 0.1])):
        assert one_step(LOSSES[name], margin, gradient, theta, 0.5, 1e-6)[0] > 0
    assert one_step(LOSSES["squared"], margin, gradient, np.array([1.5, -1.5, 1.0]), 1.0, 1e-6)[0] < 0  # beyond the target


def test_p16_says_nothing_of_another_pair_and_refuses_a_kink() -> None:
    theta, ahead = np.zeros(3), gradient(np.zeros(3))
    other = lambda t: float(-2 * t[0] + t[1])  # noqa: E731
    step = -0.1 * float(mp.diff(TRUTHS["logistic"].f, 0)) * ahead
    assert other(theta + step) < other(theta)
    with pytest.raises(InputError, match="P16 needs f' of hinge at x = 1"):
        one_step(LOSSES["hinge"], lambda t: float(t[0]), lambda t: np.ones(1), np.ones(1), 1.0, 0.1)
    with pytest.raises(InputError, match="rate"):
        one_step(LOSSES["squared"], margin, gradient, theta, 1.0, 0.0)


@pytest.mark.slow
@given(st.sampled_from(CONVEX), st.fractions(-30, 0, max_denominator=7))
@settings(max_examples=60, deadline=None)
def test_p17_the_push_on_the_wrong_side_is_at_least_that_at_zero(name: str, x: F) -> None:
    """The chord of a convex f over [x, x+h] is at most as steep as that over [-h, 0]: no derivative is taken."""
    push, bound = wrong_side_push(LOSSES[name], x)
    assert push >= bound * (1 - 1e-12) > 0
    with mp.workdps(60):
        f, h, u = TRUTHS[name].f, mp.mpf(10) ** -20, mp.mpf(x.numerator) / x.denominator
        chords = [(f(a - h) - f(a + h)) / (2 * h) for a in (u, mp.mpf(0))]
    assert_allclose([push, bound], [float(chord) for chord in chords], rtol=1e-9)


@pytest.mark.parametrize("name", ["savage", "sigmoid", "dpd", "cauchit", "welsch"])
def test_p17_a_push_that_fades_is_not_convex(name: str) -> None:
    with mp.workdps(30):
        far, start = (-mp.diff(TRUTHS[name].f, x) for x in (-8, 0))
    assert 0 < far < start / 3
    assert analyze(name).claims["convex"].verdict is Verdict.REFUTED
    with pytest.raises(InputError, match="P17 needs"):
        wrong_side_push(LOSSES[name], F(-1))


@given(st.lists(st.sampled_from(SAME_C), min_size=2, max_size=2, unique=True), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=12, deadline=None)
def test_p18_mixtures_keep_c_the_link_and_the_strength(names: list[str], a: int, b: int) -> None:
    losses, weights = [LOSSES[name] for name in names], [F(a, 8), F(b, 8)]
    f = lambda x: sum(float(w) * TRUTHS[name].f(x) for w, name in zip(weights, names, strict=True))  # noqa: E731
    with mp.workdps(30):
        for x in (mp.mpf("0.7"), mp.mpf(3)):
            assert abs(mp.log(mp.diff(f, -x) / mp.diff(f, x)) - x) < 1e-15  # P3 with c = 1
    p = F(4, 5)
    assert_allclose(mixed_link(losses, weights, p), [float(mp.log(4))] * 2, rtol=1e-9)
    assert_allclose(mixed_strength(losses, weights), [0.5, 0.5], rtol=1e-9)
    with mp.workdps(20):
        best = least(lambda x: 4 * f(x) + f(-x), [mp.mpf(k) / 10 for k in range(-60, 61)], 60)
    assert_allclose(float(best), float(mp.log(4)), rtol=1e-6)


def test_p18_is_refused_elsewhere_and_the_same_c_is_not_necessary() -> None:
    for names, weights in ((("logistic", "exponential"), (1, 1)), (("logistic", "savage"), (1, -1)), (("logistic", "savage"), (1,))):
        with pytest.raises(InputError, match="P18 needs"):
            mixture([LOSSES[name] for name in names], [F(w) for w in weights])
    with pytest.raises(InputError, match="not proved"):
        mixture([LOSSES["logistic"], LOSSES["squared"]], [F(1), F(1)])
    # -2 f' = e^(-x/2) + e^(-3x/2), and that at -x is e^(2x) times it.
    exact = analyze(parse("exp(-x/2) + exp(-3*x/2)/3")).claims["bradley_terry_exact"]
    assert exact.verdict is Verdict.PROVED
    assert exact.value["exact"] == "1/2"
    # Convexity is lost: the push of 9 savage + huberised_exponential on the left falls to 1 from 1 + 9/4.
    loss, _ = mixture([LOSSES["savage"], LOSSES["huberised_exponential"]], [F(9), F(1)])
    assert analyze(loss).claims["convex"].verdict is Verdict.REFUTED


@pytest.mark.parametrize("name", ["logistic", "squared", "exponential", "kliep", "cell"])
def test_p19_a_difference_of_scores_is_a_change_of_reference(name: str) -> None:
    """From the optimum found by hand in numpy: theta by descent on E[f(beta rho - delta)] over all pairs."""
    rng = np.random.default_rng(3)
    g, mu, beta = rng.normal(size=3), np.array([0.2, 0.5, 0.3]), 0.5
    delta, p = g[:, None] - g[None, :], np.full((3, 3), 0.5)
    for i, j in itertools.combinations(range(3), 2):
        p[i, j] = rng.uniform(0.3, 0.7)
        p[j, i] = 1 - p[i, j]
    with_offset, moved = offset_policy(LOSSES[name], p, list(mu), beta, delta)
    assert_allclose(with_offset, moved, atol=1e-8)
    f = TRUTHS[name].f

    def risk(s: np.ndarray) -> float:
        return float(sum(mu[i] * mu[j] * p[i, j] * f(mp.mpf(beta * (s[i] - s[j]) - delta[i, j])) for i in range(3) for j in range(3)))

    here = risk(with_offset)
    assert all(risk(with_offset + 0.01 * step) > here for step in [*np.eye(3)[1:], *-np.eye(3)[1:]])


def test_p19_is_refused_around_a_cycle_and_for_a_constant() -> None:
    cycle = np.array([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])  # antisymmetric, and no difference
    for delta in (cycle, np.ones((3, 3)), np.ones((3, 3)) - np.eye(3)):
        with pytest.raises(InputError, match="P19 needs"):
            offset_policy(LOSSES["logistic"], np.full((3, 3), 0.5), [0.2, 0.5, 0.3], 1.0, delta)


@pytest.mark.parametrize("delta", [F(-3), F(-1, 2), F(1), F(5, 2)])
def test_p19_a_constant_offset_knows_the_label(delta: F) -> None:
    assert_allclose(offset_strength(delta), [1 / (1 + np.exp(float(delta)))] * 2, rtol=1e-9)
    shifted = parse("log(1+exp(d-x))", {"d": delta})
    assert analyze(shifted).claims["bradley_terry_exact"].verdict is Verdict.REFUTED
    with mp.workdps(30):  # the exponential: a factor; the squared loss at delta > -1: beta / (1 + delta)
        d, x = mp.mpf(delta.numerator) / delta.denominator, mp.mpf("0.3")
        assert abs(TRUTHS["exponential"].f(x - d) - mp.exp(d) * TRUTHS["exponential"].f(x)) < 1e-20
        if d > -1:
            for name, n in (("squared", 2), ("hinge", 1), ("truncated_squared", 2)):
                assert abs(TRUTHS[name].f(x - d) - (1 + d) ** n * TRUTHS[name].f(x / (1 + d))) < 1e-20
