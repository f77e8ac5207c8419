"""P1 to P15, each by a route of its own: finite differences, enumeration, high precision, or the stated behaviour."""

import math
from collections.abc import Callable
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gpo_theory import LOSSES, InputError, parse
from gpo_theory.propositions.numeric import link_at
from gpo_theory.propositions.p01_link_slope import link_slope, matched_beta
from gpo_theory.propositions.p02_second_order import second_order_policy
from gpo_theory.propositions.p03_bradley_terry import exactness, optimal_policy
from gpo_theory.propositions.p04_bregman import bregman_form
from gpo_theory.propositions.p05_convex_exact import push_and_bounds
from gpo_theory.propositions.p06_no_finite_target import link_of_exact
from gpo_theory.propositions.p07_common_mode import common_mode
from gpo_theory.propositions.p08_label_noise import noisy_links, noisy_losses, noisy_strengths
from gpo_theory.propositions.p15_symmetric import symmetric_strength
from gpo_theory.transforms import robust
from tests.support.oracle import TRUTHS, least, number, real
from toy_models import Bandit, GaussianMixture, descend
from toy_models.descent import flow
from toy_models.propositions.p09_on_policy import differentiated_sampler, on_policy_identity
from toy_models.propositions.p10_path import path_integral
from toy_models.propositions.p11_bounds import kappa, sandwich
from toy_models.propositions.p12_kl_velocity import kl_velocity, two_actions
from toy_models.propositions.p13_one_pair import one_pair
from toy_models.propositions.p14_mixture import mixture_drift

torch.set_num_threads(1)
logits = st.lists(st.floats(-3, 3), min_size=2, max_size=5)
seeds = st.integers(0, 10**6)


def softmax(theta: np.ndarray) -> np.ndarray:
    e = np.exp(theta - theta.max())
    return e / e.sum()


def differences(function: Callable[[np.ndarray], float], theta: np.ndarray, h: float = 1e-5) -> np.ndarray:
    return np.array([(function(theta + h * e) - function(theta - h * e)) / (2 * h) for e in np.eye(len(theta))])


def kl_at(theta: np.ndarray, reference: np.ndarray) -> float:
    policy = softmax(theta)
    return float(policy @ np.log(policy / reference))


def regulariser_at(theta: np.ndarray, reference: np.ndarray, mu: np.ndarray) -> float:
    """E_{mu x mu}[rho^2 / 2] over all ordered pairs."""
    s = np.log(softmax(theta) / reference)
    return float(sum(a * b * (s[i] - s[j]) ** 2 / 2 for i, a in enumerate(mu) for j, b in enumerate(mu)))


def random_bandit(seed: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return softmax(rng.normal(size=size)), softmax(rng.normal(size=size)), rng.normal(size=size) * 1.5


# --- P1 to P8 and P15: statements about f alone -----------------------------------------------------------------

F = Fraction
EXACT = {"logistic": "1", "exponential": "1/2", "savage": "1", "logitboost": "1/2", "half_exponential": "1",
         "huberised_exponential": "1", "kliep": "1", "lsif": "1"}  # fmt: skip
# Where P1 holds and the oracle's own derivation gives 2/R; LSIF, Savage and the tangent loss are not convex.
SLOPED = ["logistic", "squared", "exponential", "truncated_squared", "savage", "cubed_hinge", "smooth_hinge", "linex",
          "canonical_boosting", "cell", "kliep", "lsif", "offset_dpo", "cdpo", "ipo_tau", "huberised_exponential"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOPED)
def test_p1_the_link_rises_with_slope_two_over_r(name: str) -> None:
    numeric, theory = link_slope(LOSSES[name], F(1, 1000))
    sides = [number(text) for text in TRUTHS[name].strength]
    assert_allclose(theory, float(2 * len(sides) / sum(sides)), rtol=1e-12)
    closer, _ = link_slope(LOSSES[name], F(1, 100_000))
    assert abs(numeric - theory) < 0.02 * theory
    assert abs(closer - theory) < 2e-4 * theory
    with mp.workdps(30):
        f, p = TRUTHS[name].f, mp.mpf("0.51")
        best = least(lambda x: p * f(x) + (1 - p) * f(-x), [mp.mpf(k) / 20 for k in range(-400, 401)])
    assert_allclose(link_slope(LOSSES[name], F(1, 100))[0], float(100 * best), rtol=1e-4)


@pytest.mark.parametrize("name", ["hinge", "unhinged", "perceptron", "discopop", "psi_learning"])
def test_p1_is_refused_where_its_hypotheses_fail(name: str) -> None:
    """No slope at 0, f'(0) >= 0, or R = 0."""
    with pytest.raises(InputError, match="P1"):
        link_slope(LOSSES[name])


def test_p1_holds_for_spo() -> None:
    """f(x) + f(-x) = x tanh(x/2) is least at 0 alone; f = -x/2 + x^2/4 + ... there, so 2/R = 2."""
    numeric, theory = link_slope(LOSSES["spo"])
    assert theory == pytest.approx(2, rel=1e-12)
    assert abs(numeric - theory) < 1e-5


def test_p1_matched_betas() -> None:
    for p in (F(51, 100), F(7, 10), F(99, 100)):  # exact for two Bradley-Terry exact losses
        numeric, theory = matched_beta(LOSSES["logistic"], LOSSES["exponential"], 0.3, p)
        assert_allclose([numeric, theory], [0.15, 0.15], rtol=1e-12)
    numeric, theory = matched_beta(LOSSES["logistic"], LOSSES["squared"], 0.1)
    assert_allclose(theory, 0.05, rtol=1e-12)
    assert abs(numeric - theory) < 1e-6
    far, _ = matched_beta(LOSSES["logistic"], LOSSES["squared"], 0.1, F(9, 10))
    # By hand: x* is logit p = log 9 and 2p - 1 = 0.8.
    assert_allclose(far, 0.1 * 0.8 / math.log(9), rtol=1e-12)


@pytest.mark.parametrize("name", ["logistic", "exponential", "truncated_squared", "linex"])
def test_p2_the_error_is_of_second_order(name: str) -> None:
    """Halving the distance of p from 1/2 divides the error by at least about 4; p is not Bradley-Terry."""
    tilt = np.array([[0, 0.9, -0.4], [-0.9, 0, 0.6], [0.4, -0.6, 0]])
    errors = []
    for eps in (0.02, 0.01):
        numeric, theory = second_order_policy(LOSSES[name], 0.5 + eps * tilt, [0.2, 0.5, 0.3], 0.7)
        errors.append(np.abs(numeric - theory).max())
    R = float(number(TRUTHS[name].strength[0]))
    borda = tilt @ [0.2, 0.5, 0.3]
    assert_allclose(theory, 2 * 0.01 * (borda - borda[0]) / (0.7 * R), rtol=1e-10)
    assert errors[1] < errors[0] / 3.5 + 1e-12
    assert errors[1] < 0.02 * np.abs(theory).max()


def test_p2_is_exact_for_quadratic_losses_and_refuses_the_rest() -> None:
    p = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
    for name in ("squared", "ipo_tau"):
        assert_allclose(*second_order_policy(LOSSES[name], p, [0.2, 0.5, 0.3], 0.7), atol=1e-10)
    with pytest.raises(InputError, match="full support"):
        second_order_policy(LOSSES["squared"], p, [0.5, 0.5, 0.0], 1.0)
    with pytest.raises(InputError, match="P1"):
        second_order_policy(LOSSES["hinge"], p, [0.2, 0.5, 0.3], 1.0)


@pytest.mark.parametrize("name", EXACT)
def test_p3_recovers_the_optimum_for_every_sampler(name: str) -> None:
    """The theory by hand, and no other policy near it has a smaller population loss."""
    rewards, c, beta = np.array([0.3, -0.8, 1.1]), float(F(EXACT[name])), 0.5
    for mu in ([0.2, 0.5, 0.3], [0.05, 0.15, 0.8]):
        numeric, theory = optimal_policy(LOSSES[name], list(rewards), mu, beta)
        assert_allclose(theory, c * (rewards - rewards[0]) / beta, atol=1e-12)
        assert_allclose(numeric, theory, atol=1e-8)
    f = lambda x: float(TRUTHS[name].f(mp.mpf(x)))  # noqa: E731
    likely = 1 / (1 + np.exp(rewards[None, :] - rewards[:, None]))
    risk = lambda s: sum(likely[i, j] * f(beta * (s[i] - s[j])) for i in range(3) for j in range(3))  # noqa: E731
    for step in np.vstack((np.eye(3)[1:], -np.eye(3)[1:])) * 1e-3:
        assert risk(theory) < risk(theory + step)


def test_p3_only_exact_losses_have_a_constant() -> None:
    for name in ("squared", "hinge", "cell", "poly1"):
        with pytest.raises(InputError, match="not proved Bradley-Terry exact"):
            exactness(LOSSES[name])


@pytest.mark.parametrize("name", ["logistic", "savage", "kliep", "lsif", "half_exponential"])
@pytest.mark.parametrize("x", [F(-2), F(-1, 3), F(3, 2)])
def test_p4_is_the_bregman_form(name: str, x: Fraction) -> None:
    numeric, theory = bregman_form(LOSSES[name], x)
    f = TRUTHS[name].f
    assert_allclose(numeric, float(f(real(x)) - f(mp.mpf(0))), rtol=1e-12)
    assert_allclose(theory, numeric, rtol=1e-7)


def test_p4_is_refused_for_another_constant() -> None:
    with pytest.raises(InputError, match="c = 1"):
        bregman_form(LOSSES["exponential"], F(1))


def test_p5_the_push_lies_between_its_bounds_and_both_are_attained() -> None:
    points = [F(1, 10), F(1), F(5)]
    for name in ("logistic", "exponential", "logitboost", "half_exponential", "kliep", "huberised_exponential"):
        c, f = float(F(EXACT[name])), TRUTHS[name].f
        for x in points:
            push, (low, high) = push_and_bounds(LOSSES[name], x)
            true, start = (float(-mp.diff(f, real(y))) for y in (x, F(1, 10**9)))
            assert_allclose([push, low, high], [true, start * math.exp(-x / c), start], rtol=1e-6)
            assert low <= push * (1 + 1e-12)
            assert push <= high * (1 + 1e-12)
    for x in points:
        push, (low, high) = push_and_bounds(LOSSES["huberised_exponential"], x)
        assert_allclose(push, low, rtol=1e-12)
        push, (low, high) = push_and_bounds(LOSSES["exponential_linear"], x)
        assert_allclose(push, high, rtol=1e-12)
    with pytest.raises(InputError, match="convex"):
        push_and_bounds(LOSSES["savage"], F(1))


@pytest.mark.parametrize("name", EXACT)
def test_p6_the_margin_grows_without_bound(name: str) -> None:
    margins = []
    for k in (1, 3, 6):
        p = 1 - F(1, 10**k)
        numeric, theory = link_of_exact(LOSSES[name], p)
        assert_allclose(theory, float(F(EXACT[name])) * math.log(10**k - 1), rtol=1e-12)
        assert_allclose(numeric, theory, rtol=1e-9)
        margins.append(numeric)
    assert margins[2] - margins[1] > 0.9 * float(F(EXACT[name])) * math.log(1000)


@given(st.sampled_from(sorted(TRUTHS)), st.fractions(-5, 5), st.fractions(-5, 5), st.fractions(-500, 500))
@settings(max_examples=60, deadline=None)
def test_p7_a_common_shift_is_not_seen(name: str, won: Fraction, lost: Fraction, shift: Fraction) -> None:
    after, before = common_mode(LOSSES[name], (won, lost), shift, F(1, 2))
    assert after == before
    x = (won - lost) / 2
    with mp.workdps(40):
        by_hand = float(TRUTHS[name].f(real(x)))
    assert_allclose(before, by_hand, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("flip", [F(0), F(1, 10), F(2, 5)])
def test_p8_label_noise(flip: Fraction) -> None:
    e = real(flip)
    for x in (F(-7, 2), F(0), F(1, 3), F(9)):
        u = real(x)
        ahead, behind = mp.log1p(mp.exp(-u)), mp.log1p(mp.exp(u))
        stated = [(1 - e) * ahead + e * behind, ((1 - e) * ahead - e * behind) / (1 - 2 * e)]
        numeric, theory = noisy_losses(flip, x)
        assert_allclose(numeric, [float(v) for v in stated], rtol=1e-12)
        assert_allclose(theory, numeric, rtol=1e-12, atol=1e-14)
    numeric, theory = noisy_strengths(flip)
    # f'' = 1/4; f'(0) = -1/2 + e and -1/2 - e/(1-2e).
    assert_allclose(numeric, [float(0.25 / (0.5 - e)), float(0.25 / (0.5 + e / (1 - 2 * e)))], rtol=1e-12)
    assert_allclose(theory, numeric, rtol=1e-12)
    numeric, theory = noisy_links(flip, F(11, 20))
    assert_allclose(numeric, theory, rtol=1e-9)


def test_p8_the_robust_link_is_infinite_where_the_labels_are_cleaner_than_believed() -> None:
    numeric, theory = noisy_links(F(1, 10), F(19, 20))
    assert numeric[1] == theory[1] == math.inf
    assert_allclose(numeric[0], math.log(0.86 / 0.14), rtol=1e-9)  # p (1-e) + (1-p) e = 0.86


@pytest.mark.parametrize("flip", [F(1, 5), F(1, 10), F(1, 3), F(49, 100)])
def test_p8_the_robust_link_at_exactly_the_believed_rate(flip: Fraction) -> None:
    """At p = 1 - e the risk is log(1 + exp(-x)) itself, which falls for ever; a little below, its odds are finite."""
    assert [links[1] for links in noisy_links(flip, 1 - flip)] == [math.inf, math.inf]
    for k in (150, 200, 300):
        p = 1 - flip - F(1, 10**k)
        with mp.workdps(k + 20):
            odds = (real(p) - real(flip)) * mp.mpf(10) ** k
            assert_allclose(noisy_links(flip, p)[0][1], float(mp.log(odds)), rtol=1e-9)


def test_a_risk_whose_slope_is_too_small_to_have_a_sign_has_no_minimiser_made_up() -> None:
    """At p = 1 - e the risk of a loss made robust is the loss: -log Phi falls for ever, like exp(-x^2/2)."""
    with pytest.raises(InputError, match="still falls at x = "):
        link_at(robust(LOSSES["probit"], F(1, 5)), F(4, 5))
    assert link_at(LOSSES["squared"], F(4, 5)) == pytest.approx(0.6, abs=1e-15)  # 2p - 1, where the slope is exactly 0
    assert link_at(LOSSES["ramp"], F(4, 5)) == 1  # flat beyond


@pytest.mark.parametrize("name", ["sigmoid", "unhinged", "ramp", "arctan", "erf_loss"])
def test_p15_symmetric_losses_have_no_strength(name: str) -> None:
    numeric, theory = symmetric_strength(LOSSES[name])
    f = TRUTHS[name].f
    with mp.workdps(30):
        assert abs(f(mp.mpf("0.9")) + f(mp.mpf("-0.9")) - 2 * f(mp.mpf(0))) < 1e-25
    assert theory == 0
    assert numeric < 1e-20


def test_p15_is_refused_for_other_losses() -> None:
    for loss in (LOSSES["logistic"], LOSSES["hinge"], parse("1/(1+exp(x)) + x**2/1000000")):
        with pytest.raises(InputError, match="not constant"):
            symmetric_strength(loss)


# --- P9 ---------------------------------------------------------------------------------------------------------


@given(seeds, st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_p9_on_policy_the_constant_is_two(seed: int, size: int) -> None:
    reference, _, theta = random_bandit(seed, size)
    numeric, theory = on_policy_identity(torch.tensor(reference), torch.tensor(theta))
    fixed = differences(lambda t: regulariser_at(t, reference, softmax(theta)), theta)
    gradient = differences(lambda t: kl_at(t, reference), theta)
    assert_allclose(fixed, 2 * gradient, atol=1e-8)
    assert_allclose(numeric, fixed, atol=1e-8)
    assert_allclose(theory, 2 * gradient, atol=1e-8)


@given(seeds, st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_p9_through_the_sampler_it_is_the_gradient_of_the_variance(seed: int, size: int) -> None:
    reference, _, theta = random_bandit(seed, size)
    numeric, theory = differentiated_sampler(torch.tensor(reference), torch.tensor(theta))
    through = differences(lambda t: regulariser_at(t, reference, softmax(t)), theta)
    assert_allclose(numeric, through, atol=1e-8)
    assert_allclose(theory, through, atol=1e-8)


def test_p9_the_gradient_of_the_variance_is_no_multiple_of_that_of_the_kl() -> None:
    reference, _, theta = random_bandit(1, 3)
    variance, _ = differentiated_sampler(torch.tensor(reference), torch.tensor(theta))
    gradient = differences(lambda t: kl_at(t, reference), theta)
    cosine = variance.numpy() @ gradient / (np.linalg.norm(variance) * np.linalg.norm(gradient))
    assert abs(cosine) < 0.99


# --- P10, P11 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_p10_the_kl_is_an_integral_of_regularisers(seed: int) -> None:
    reference, policy, _ = random_bandit(seed, 4)
    numeric, theory = path_integral(torch.tensor(reference).log(), torch.tensor(policy).log())

    def along(t):  # Var_{pi_t}(s) at 30 digits
        weights = [mp.mpf(q) ** (1 - t) * mp.mpf(p) ** t for q, p in zip(reference, policy, strict=True)]
        total, s = mp.fsum(weights), [mp.log(p / q) for q, p in zip(reference, policy, strict=True)]
        mean = mp.fdot(weights, s) / total
        return mp.fdot(weights, [(one - mean) ** 2 for one in s]) / total

    with mp.workdps(30):
        weights = (lambda t: t, lambda t: 1 - t, lambda t: 1)
        integrals = [mp.quad(lambda t, w=w: w(t) * along(t), [0, 1]) for w in weights]
    forward, reverse = policy @ np.log(policy / reference), reference @ np.log(reference / policy)
    assert_allclose([float(value) for value in integrals], [forward, reverse, forward + reverse], rtol=1e-10)
    assert_allclose(numeric, [float(value) for value in integrals], rtol=1e-10)
    assert_allclose(theory, [forward, reverse, forward + reverse], rtol=1e-12)


@given(seeds, st.floats(1e-3, 4))
@settings(max_examples=100, deadline=None)
def test_p11_the_sandwich_holds(seed: int, scale: float) -> None:
    reference, _, theta = random_bandit(seed, 4)
    policy = softmax(np.log(reference) + scale * theta)
    numeric, (low, high) = sandwich(torch.tensor(reference).log(), torch.tensor(policy).log())
    slack = 1e-13
    assert low - slack <= numeric <= high + slack
    if scale < 0.01:  # tight near pi_ref: both bounds are Var/2 to first order in the width
        assert_allclose(low / high, 1, atol=0.1)


def test_p11_kappa_is_its_integral() -> None:
    at = [-30.0, -2.0, -0.011, -0.0099, -1e-6, 0.0, 1e-9, 0.005, 0.02, 1.0, 20.0]
    with mp.workdps(30):
        expected = [float(mp.quad(lambda t, a=a: t * mp.exp(mp.mpf(a) * t), [0, 0.5, 1])) for a in at]
    assert_allclose(kappa(torch.tensor(at, dtype=torch.float64)), expected, rtol=1e-10)


# --- P12 --------------------------------------------------------------------------------------------------------


@given(q=st.floats(0.01, 0.99), mu=st.one_of(st.floats(0.01, 0.99), st.just("policy")), start=st.floats(-5, 5))
@settings(max_examples=100, deadline=None)
def test_p12_two_actions_never_fail(q: float, mu: float | str, start: float) -> None:
    reference = np.array([q, 1 - q])
    bandit = Bandit([q, 1 - q], behaviour=mu if isinstance(mu, str) else [mu, 1 - mu])
    theta = np.array([start, 0.0])
    weights = softmax(theta) if isinstance(mu, str) else np.array([mu, 1 - mu])
    numeric, theory = two_actions(bandit, torch.tensor(theta))
    down = differences(lambda t: regulariser_at(t, reference, weights), theta)
    by_hand = -differences(lambda t: kl_at(t, reference), theta) @ down
    assert_allclose(numeric, by_hand, atol=1e-6)
    assert_allclose(theory, by_hand, atol=1e-6)
    assert theory <= 0
    assert numeric <= 1e-15


@given(q=st.floats(0.02, 0.98), mu=st.floats(0.05, 0.95), start=st.floats(-4, 4))
@settings(max_examples=10, deadline=None)
def test_p12_the_kl_falls_along_the_whole_flow(q: float, mu: float, start: float) -> None:
    bandit = Bandit([q, 1 - q], behaviour=[mu, 1 - mu])
    trace = flow(bandit, torch.tensor([start, 0.0], dtype=torch.float64), time=20.0, points=21)
    assert (trace.kl.diff() <= 1e-8).all()
    assert trace.kl[-1] <= trace.kl[0] + 1e-8


# --- P13 --------------------------------------------------------------------------------------------------------


def test_p13a_the_loss_of_a_pair_falls_to_zero_while_the_kl_rises_to_its_limit() -> None:
    trace, limit = one_pair([1 / 3, 1 / 3, 1 / 3], [0.10, 0.05, 0.85])
    with mp.workdps(30):  # KL = log 3 + (2 g log g + p3 log p3) / Z - log Z, Z = 2 g + p3, g = sqrt(p1 p2)
        g, p3 = mp.sqrt(mp.mpf("0.1") * mp.mpf("0.05")), mp.mpf("0.85")
        Z = 2 * g + p3
        closed = mp.log(3) + (2 * g * mp.log(g) + p3 * mp.log(p3)) / Z - mp.log(Z)
    assert_allclose(limit, float(closed), rtol=1e-12)
    assert_allclose(trace.kl[-1], float(closed), rtol=1e-9)
    assert trace.regularizer[-1] < 1e-15
    assert (trace.regularizer.diff() <= 0).all()
    assert (trace.kl[:100].diff() > 0).all()
    assert trace.kl[-1] > trace.kl[0] + 0.009
    assert_allclose(trace.regularizer[:50], np.log(2) ** 2 / 2 * 0.9 ** (2 * np.arange(50)), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_p13a_the_limit_holds_for_any_reference_and_size(seed: int) -> None:
    reference, policy, _ = random_bandit(seed, 4)
    trace, limit = one_pair(list(reference), list(policy), lr=0.2, steps=200)
    assert_allclose(trace.kl[-1], limit, rtol=1e-9)


B_REFERENCE, B_START = [0.70, 0.29, 0.01], [0.01, 0.50, 0.49]


def test_p13b_the_regulariser_falls_while_the_kl_first_rises() -> None:
    bandit = Bandit(B_REFERENCE)
    trace = descend(bandit, bandit.start(B_START), lr=0.05, steps=2000)
    assert (trace.regularizer.diff() < 0).all()
    peak = int(trace.kl.argmax())
    assert 0 < peak < 2000
    assert (trace.kl[: peak + 1].diff() > 0).all()
    assert (trace.kl[peak:].diff() < 0).all()
    assert trace.kl[peak] > 1.25 * trace.kl[0]
    assert trace.kl[-1] < 0.001
    smooth = flow(bandit, bandit.start(B_START), time=100.0, points=201)  # no artefact of the step
    assert smooth.kl.max() > 1.25 * smooth.kl[0]
    assert (smooth.regularizer.diff() < 1e-9).all()


def test_p13b_on_policy_descent_does_not() -> None:
    bandit = Bandit(B_REFERENCE, behaviour="policy")
    trace = descend(bandit, bandit.start(B_START), lr=0.05, steps=2000)
    assert (trace.kl.diff() < 0).all()


@given(seeds, st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_p13b_the_velocity_is_that_of_the_closed_form(seed: int, size: int) -> None:
    reference, mu, theta = random_bandit(seed, size)
    numeric, theory = kl_velocity(Bandit(reference, behaviour=mu), torch.tensor(theta))
    down = differences(lambda t: regulariser_at(t, reference, mu), theta)
    by_hand = -differences(lambda t: kl_at(t, reference), theta) @ down
    assert_allclose([numeric, theory], [by_hand, by_hand], atol=1e-7)


# --- P14 --------------------------------------------------------------------------------------------------------


def drift_by_hand(behaviour: tuple[float, float] | None, steps: int) -> np.ndarray:
    """(KL, L) along the descent with gradients written out: responsibilities times (y - m), and minus the weights."""
    y = np.linspace(-14, 14, 2801)
    normal = lambda mean, variance=1.0: np.exp(-((y - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)  # noqa: E731
    reference = (normal(-2) + normal(2)) / 2
    means, theta, rows = np.array([-2.0, 2.0]), np.array([3.0, 0.0]), []
    for _ in range(steps + 1):
        w = softmax(theta)
        parts = w[:, None] * np.stack([normal(m) for m in means])
        density = parts.sum(0)
        s = np.log(density / reference)
        mu = density if behaviour is None else normal(*behaviour)
        mu = mu / mu.sum()
        centred = s - mu @ s
        rows.append((density @ s * 0.01, mu @ centred**2))
        pull = 2 * mu * centred * parts / density
        means = means - 0.05 * (pull * (y - means[:, None])).sum(1)
        theta = theta - 0.05 * (pull.sum(1) - w * (2 * mu * centred).sum())
    return np.array(rows).T


@pytest.mark.parametrize(("behaviour", "start", "end"), [((2.0, 1.0), 0.4639, 0.7636), ((2.0, 0.5), 0.4639, 0.6584)])
def test_p14_the_kl_rises_while_the_regulariser_falls(behaviour, start, end) -> None:
    """The figures were measured with the loop of `drift_by_hand`, and are compared with it here too."""
    trace, measured, theory = mixture_drift(behaviour)
    assert measured == theory
    kl, regulariser = drift_by_hand(behaviour, 400)
    assert_allclose(trace.kl, kl, rtol=1e-8)
    assert_allclose(trace.regularizer, regulariser, rtol=1e-6)
    assert_allclose([trace.kl[0], trace.kl[-1]], [start, end], atol=5e-5)
    assert trace.regularizer[-1] < 0.02 * trace.regularizer[0]
    dip = int(trace.kl[:50].argmin())
    assert 1 <= dip <= 5  # brief
    assert (trace.kl[dip:300].diff() > 0).all()


@pytest.mark.slow
def test_p14_the_rise_is_transient() -> None:
    """With mu = N(2, 1) and far more than 400 steps the KL is back below its start, and falling."""
    mixture = GaussianMixture(behaviour=(2.0, 1.0), step=0.25)  # coarse, to be quick
    trace = descend(mixture, mixture.start([-2, 2], [3, 0]), lr=0.05, steps=8_000)
    fine = mixture_drift((2.0, 1.0))[0]
    assert_allclose(trace.kl[:401], fine.kl, atol=1e-6)
    peak = int(trace.kl.argmax())
    assert 300 < peak < 500
    assert (trace.kl[peak:].diff() < 0).all()
    assert trace.kl[-1] < 0.7 * trace.kl[0]


def test_p14_with_the_reference_as_sampler_the_kl_falls() -> None:
    trace, measured, theory = mixture_drift("reference")
    assert measured == theory
    assert (trace.kl.diff() <= 0).all()
    assert trace.kl[-1] < 1e-4


def test_p14_on_policy_the_kl_falls_though_the_regulariser_first_rises() -> None:
    trace, measured, theory = mixture_drift("policy")
    assert measured == theory
    assert_allclose(trace.kl, drift_by_hand(None, 400)[0], rtol=1e-6, atol=1e-12)
    assert (trace.kl.diff() <= 0).all()
    assert trace.kl[-1] < 1e-4
    peak = int(trace.regularizer.argmax())
    assert 10 < peak < 30
    assert (trace.regularizer[: peak + 1].diff() > 0).all()
    assert trace.regularizer[-1] < 1e-4


@pytest.mark.parametrize("behaviour", [(2.0, 1.0), (2.0, 0.5)])
def test_p14_the_one_sample_form_does_not_show_it(behaviour: tuple[float, float]) -> None:
    """E_mu[s^2 / 2] pins s itself, not its differences: the KL falls at every step."""
    mixture = GaussianMixture(behaviour=behaviour)
    theta, kl = mixture.start([-2, 2], [3, 0]), []
    for _ in range(401):
        theta = theta.detach().requires_grad_()
        log_policy = mixture.log_policy(theta)
        s = log_policy - mixture.log_reference
        kl.append((log_policy.exp() * s).sum().item())
        (gradient,) = torch.autograd.grad((mixture.mu * s.square()).sum() / 2, theta)
        theta = theta - 0.05 * gradient
    assert (np.diff(kl) < 0).all()
    assert kl[-1] < 0.01
