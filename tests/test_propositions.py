"""P9 to P14, each by a route of its own: finite differences, enumeration, high precision, or the stated behaviour."""

import math
from collections.abc import Callable

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

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


def test_p13b_starts_upwards() -> None:
    bandit = Bandit(B_REFERENCE)
    numeric, theory = kl_velocity(bandit, bandit.start(B_START))
    assert_allclose(numeric, theory, rtol=1e-12)
    assert numeric > 0


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
