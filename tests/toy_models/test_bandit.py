"""The softmax bandit: exact KL, regulariser, GPO objective and optimum against enumeration by plain loops."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from gpo_theory import find_loss
from gpo_theory.errors import InputError
from toy_models import Bandit, Preferences
from toy_models.descent import measure
from toy_models.objectives import kl, regularizer, variance
from toy_models.optima import kl_to_optimum, optimum

FUNCTIONS: dict[str, Callable[[float], float]] = {  # written here a second time, on purpose: they are the oracle
    "logistic": lambda x: math.log1p(math.exp(-x)),
    "hinge": lambda x: max(0.0, 1 - x),
    "squared": lambda x: (x - 1) ** 2,
    "exponential": lambda x: math.exp(-x),
    "savage": lambda x: 1 / (1 + math.exp(x)) ** 2,
    "ipo-tau": lambda x: (x - 0.5) ** 2,
}
RNG = np.random.default_rng(0)


def simplex(size: int) -> np.ndarray:
    return RNG.dirichlet(np.ones(size) * 2)


def ordered_pairs(mu: np.ndarray | None, pairs: list[tuple[int, int]] | None) -> list[tuple[int, int, float]]:
    """Every ordered pair and its probability, the order of a listed pair being a fair coin."""
    if pairs is not None:
        return [(i, j, 0.5 / len(pairs)) for a, b in pairs for i, j in ((a, b), (b, a))]
    assert mu is not None
    return [(i, j, mu[i] * mu[j]) for i, j in itertools.product(range(len(mu)), repeat=2)]


def by_hand(log_ratio, draws, p, f, beta) -> tuple[float, float]:
    """The regulariser and the GPO objective, one ordered pair at a time."""
    rho = {(i, j): log_ratio[i] - log_ratio[j] for i, j, _ in draws}
    return (sum(w * rho[i, j] ** 2 / 2 for i, j, w in draws),
            sum(w * (p[i, j] * f(beta * x) + (1 - p[i, j]) * f(-beta * x))
                for (i, j, w), x in zip(draws, rho.values(), strict=True)))  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("behaviour", ["reference", "policy", "uniform", "mu", "pairs"])
def test_objectives_agree_with_enumeration(name: str, behaviour: str) -> None:
    reference, policy, mu, beta = simplex(4), simplex(4), simplex(4), 0.7
    raw = RNG.uniform(0, 1, (4, 4))
    p = np.triu(raw, 1) + np.tril(1 - raw.T, -1) + np.eye(4) / 2
    pairs = [(0, 1), (2, 1), (3, 0)] if behaviour == "pairs" else None
    bandit = Bandit(reference, mu if behaviour == "mu" else None if pairs else behaviour, pairs)
    samplers = {"reference": reference, "policy": policy, "uniform": np.full(4, 0.25), "mu": mu, "pairs": None}
    expected = by_hand(np.log(policy / reference), ordered_pairs(samplers[behaviour], pairs), p, FUNCTIONS[name], beta)
    measured = measure(bandit, bandit.start(policy), find_loss(name), beta=beta, preferences=Preferences(p))
    assert_allclose([measured.regularizer, measured.objective], expected, rtol=1e-12)
    assert_allclose(measured.kl, np.sum(policy * np.log(policy / reference)), rtol=1e-12)


def test_variance_is_the_regulariser_of_independent_draws() -> None:
    mu, s = torch.tensor(simplex(5)), torch.randn(7, 5, dtype=torch.float64)
    margin = (s[:, :, None] - s[:, None, :]).flatten(1)
    torch.testing.assert_close(variance(s, mu), regularizer(margin, (mu[:, None] * mu).flatten()))


def test_kl_is_never_negative() -> None:
    log_policy = torch.log_softmax(torch.randn(2000, 5, dtype=torch.float64), dim=-1)
    for row in log_policy:
        assert kl(row, row + 1e-17) >= 0


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_gradient_agrees_with_finite_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, policy = rng.dirichlet(np.ones(3), size=2) * 0.9 + 0.1 / 3
    r = rng.normal(size=3)
    bandit, preferences = Bandit(reference), Preferences.from_rewards(r)
    theta = bandit.start(policy).requires_grad_()
    (gradient,) = torch.autograd.grad(measure(bandit, theta, find_loss("dpo"), beta=0.5, preferences=preferences).objective, theta)
    p = 1 / (1 + np.exp(r[None, :] - r[:, None]))

    def objective(logits: np.ndarray) -> float:
        s = logits - np.log(np.exp(logits).sum()) - np.log(reference)
        return by_hand(s, ordered_pairs(reference, None), p, FUNCTIONS["logistic"], 0.5)[1]

    base, h = theta.detach().numpy(), 1e-5
    numeric = [(objective(base + h * e) - objective(base - h * e)) / (2 * h) for e in np.eye(3)]
    assert_allclose(gradient, numeric, atol=1e-9)


# --- the population optimum -------------------------------------------------------------------------------------


def best_by_search(reference, draws, p, f, beta) -> np.ndarray:
    """Minimise the enumerated objective over the log-ratios of all responses but the first."""
    found = minimize(lambda s: by_hand([0.0, *s], draws, p, f, beta)[1], np.zeros(len(reference) - 1), tol=1e-13)
    policy = reference * np.exp([0.0, *found.x])
    return policy / policy.sum()


@pytest.mark.parametrize(("name", "c"), [("logistic", 1.0), ("exponential", 0.5)])
@pytest.mark.parametrize("behaviour", ["reference", "uniform", "pairs", "policy"])
def test_bradley_terry_exact_losses_recover_the_rlhf_optimum(name: str, c: float, behaviour: str) -> None:
    reference, r, beta = simplex(3), np.array([0.3, -0.5, 1.1]), 0.8
    pairs = [(0, 1), (1, 2)] if behaviour == "pairs" else None
    best = optimum(Bandit(reference, None if pairs else behaviour, pairs), find_loss(name), beta=beta, preferences=Preferences.from_rewards(r))
    assert best is not None
    expected = reference * np.exp(c * r / beta)  # proposition P3
    assert_allclose(best.exp(), expected / expected.sum(), rtol=1e-9)
    if behaviour != "policy":
        p = 1 / (1 + np.exp(r[None, :] - r[:, None]))
        mu = reference if behaviour == "reference" else np.full(3, 1 / 3)
        searched = best_by_search(reference, ordered_pairs(None if pairs else mu, pairs), p, FUNCTIONS[name], beta)
        assert_allclose(best.exp(), searched, atol=1e-5)


@pytest.mark.parametrize("name", ["squared", "ipo-tau"])
@pytest.mark.parametrize("behaviour", [[0.2, 0.5, 0.3], "reference", "uniform"])
def test_quadratic_losses_reach_borda_scores_for_cyclic_preferences(name: str, behaviour: list[float] | str) -> None:
    reference, beta = np.array([0.5, 0.3, 0.2]), 0.6
    p = np.array([[0.5, 0.9, 0.3], [0.1, 0.5, 0.8], [0.7, 0.2, 0.5]])
    best = optimum(Bandit(reference, behaviour), find_loss(name), beta=beta, preferences=Preferences(p))
    named = {"reference": reference, "uniform": np.full(3, 1 / 3)}
    mu = named[behaviour] if isinstance(behaviour, str) else behaviour
    assert best is not None
    searched = best_by_search(reference, ordered_pairs(np.array(mu), None), p, FUNCTIONS[name], beta)
    assert_allclose(best.exp(), searched, atol=1e-6)


@pytest.mark.parametrize(("name", "R"), [("logistic", 0.5), ("exponential", 1.0)])
def test_other_losses_approach_the_borda_optimum_near_indifference(name: str, R: float) -> None:
    """P2 holds to second order: halving all p - 1/2 divides the error of the log-ratios by at least 4."""
    reference, beta, errors = np.array([0.5, 0.3, 0.2]), 0.6, []
    for size in (0.2, 0.1):
        p = 0.5 + size * np.array([[0, 1, -0.5], [-1, 0, 0.8], [0.5, -0.8, 0]])
        searched = best_by_search(reference, ordered_pairs(reference, None), p, FUNCTIONS[name], beta)
        s = (2 * p @ reference - 1) / (beta * R)
        errors.append(np.ptp(np.log(searched / reference) - s))
    assert errors[0] > 1e-4  # the optimum differs, else nothing was tested
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize(("name", "options"), [
    ("hinge", {}),  # neither quadratic nor Bradley-Terry exact
    ("squared", {"behaviour": "policy"}),  # Borda scores against the policy itself
    ("squared", {"pairs": [(0, 1), (1, 2), (0, 2)]}),  # not independent draws
    ("logistic", {"pairs": [(0, 1)]}),  # response 3 is never seen
    ("logistic", {"behaviour": [0.5, 0.5, 0]}),
    ("(x+1)**2", {}),  # f'(0) > 0
    ("1-x", {}),  # no curvature
])  # fmt: skip
def test_no_optimum_is_claimed_where_none_is_known(name: str, options: dict) -> None:
    bandit = Bandit([0.5, 0.3, 0.2], **options)
    best = optimum(bandit, find_loss(name), preferences=Preferences.from_rewards([0, 1, 2]))
    assert best is None
    assert kl_to_optimum(bandit, bandit.log_reference, best) is None


def test_exact_losses_have_no_optimum_in_closed_form_beyond_bradley_terry() -> None:
    cycle = Preferences([[0.5, 0.9, 0.2], [0.1, 0.5, 0.9], [0.8, 0.1, 0.5]])
    assert optimum(Bandit([0.5, 0.3, 0.2]), find_loss("dpo"), preferences=cycle) is None


@pytest.mark.parametrize(("options", "known"), [
    ({}, True), ({"behaviour": "policy"}, True), ({"pairs": [(0, 1), (1, 2)]}, True), ({"pairs": [(0, 1)]}, False),
    ({"behaviour": [1, 0, 0]}, False),
])  # fmt: skip
def test_the_regulariser_is_least_at_the_reference_where_the_data_link_all(options: dict, known: bool) -> None:
    bandit = Bandit([0.5, 0.3, 0.2], **options)
    best = optimum(bandit)
    assert (best is not None) is known
    if best is not None:
        assert_allclose(best.exp(), [0.5, 0.3, 0.2])


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"reference": [0.5, 0.6]}, "reference probabilities .* sum to 1.1, not 1"),
    ({"reference": [1.0, 0.0]}, "must all be positive"),
    ({"reference": [1.0]}, "at least 2"),
    ({"reference": [1.5, -0.5]}, "at least 0"),
    ({"reference": [0.5, float("nan")]}, "at least 0"),
    ({"behaviour": "polcy"}, "did you mean 'policy'"),
    ({"behaviour": [0.5, 0.25, 0.25]}, "behaviour has 3 probabilities; needed: 2"),
    ({"behaviour": [0.5, 0.4]}, "behaviour probabilities .* sum to 0.9"),
    ({"pairs": []}, "empty"),
    ({"pairs": [(0, 2)]}, "pair 1-3 names a response beyond the 2"),
    ({"pairs": [(1, 1)]}, "pair 2-2 compares a response with itself"),
    ({"pairs": [(0, 1), (1, 0)]}, "listed twice"),
    ({"pairs": [(0, 1)], "behaviour": "policy"}, "not both"),
])  # fmt: skip
def test_bad_bandits_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Bandit(**{"reference": [0.5, 0.5], **options})


def test_start_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="initial has 3 probabilities; needed: 2"):
        Bandit([0.5, 0.5]).start([0.2, 0.3, 0.5])
