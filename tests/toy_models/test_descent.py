"""Descent: the recorded trace against a plain loop, batches against single runs, flow against a closed form."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from gpo_theory import find_loss
from gpo_theory.errors import InputError
from toy_models import Bandit, GaussianMixture, Preferences, Trace, descend
from toy_models.descent import flow, measure
from toy_models.optima import optimum

torch.set_num_threads(1)
REFERENCE, START = [0.7, 0.29, 0.01], [0.01, 0.5, 0.49]
REWARDS = Preferences.from_rewards([0.0, 1.0, -0.5])


@pytest.mark.parametrize("behaviour", ["reference", "policy"])
def test_regulariser_descent_is_the_loop_written_by_hand(behaviour: str) -> None:
    """d/d theta_i of Var_mu(s), mu fixed, is 2 mu_i (s_i - E_mu s): the partition function cancels."""
    bandit = Bandit(REFERENCE, behaviour=behaviour)
    trace = descend(bandit, bandit.start(START), lr=0.05, steps=50)
    theta, reference = np.log(START), np.array(REFERENCE)
    for step in range(51):
        policy = np.exp(theta) / np.exp(theta).sum()
        s, mu = np.log(policy / reference), reference if behaviour == "reference" else policy
        centred = s - mu @ s
        assert_allclose(trace.kl[step], policy @ s, rtol=1e-11)
        assert_allclose(trace.regularizer[step], mu @ centred**2, rtol=1e-10)
        assert_allclose(trace.objective[step], trace.regularizer[step])
        theta = theta - 0.05 * 2 * mu * centred
    assert trace.step.tolist() == list(range(51))


def test_gpo_descent_on_a_listed_pair_is_the_loop_written_by_hand() -> None:
    """Pair {1, 2} under the logistic loss: d/d theta_1 = beta (sigmoid(beta rho) - p)."""
    bandit = Bandit(REFERENCE, pairs=[(0, 1)])
    trace = descend(bandit, bandit.start(START), find_loss("dpo"), beta=0.5, preferences=REWARDS, lr=0.3, steps=20)
    theta, p = np.log(START), 1 / (1 + math.exp(1.0))
    for _ in range(20):
        rho = theta[0] - theta[1] - math.log(REFERENCE[0] / REFERENCE[1])
        gradient = 0.5 * (1 / (1 + math.exp(-0.5 * rho)) - p)
        theta = theta - 0.3 * gradient * np.array([1, -1, 0])
    assert_allclose(trace.parameters[-1], theta, rtol=1e-11)


def test_one_tensor_program_equals_single_runs() -> None:
    """f x beta x start: each slice of the batch is the run of its own configuration, to rounding."""
    bandit = Bandit(REFERENCE, behaviour="policy")
    losses = [find_loss(name) for name in ("logistic", "hinge", "squared", "exponential", "savage")]
    betas, starts = torch.tensor([0.3, 1.0]), torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    batch = descend(bandit, starts[None, None], losses, beta=betas[None, :, None], preferences=REWARDS, steps=30)
    assert batch.kl.shape == (31, 5, 2, 3)
    assert batch.parameters.shape == (31, 5, 2, 3, 3)
    for i, loss in enumerate(losses):
        for j, beta in enumerate(betas.tolist()):
            for k, start in enumerate(starts):
                one = descend(bandit, start, loss, beta=beta, preferences=REWARDS, steps=30)
                for name in ("kl", "regularizer", "objective", "parameters"):
                    assert_allclose(getattr(batch, name)[:, i, j, k], getattr(one, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("losses", [1, 3])
def test_losses_are_the_first_dimension(losses: int) -> None:
    bandit = Bandit(REFERENCE)
    trace = descend(bandit, bandit.start(START), [find_loss("dpo")] * losses, preferences=REWARDS, steps=2)
    assert trace.kl.shape == (3, losses)


@pytest.mark.parametrize(("name", "behaviour"), [("dpo", "policy"), ("ipo", "uniform"), ("exponential", "reference")])
def test_descent_reaches_the_closed_form_optimum(name: str, behaviour: str) -> None:
    bandit = Bandit([0.4, 0.35, 0.25], behaviour=behaviour)
    start = bandit.start([0.2, 0.2, 0.6])
    trace = descend(bandit, start, find_loss(name), beta=0.7, preferences=REWARDS, lr=1.5, steps=1200)
    best = optimum(bandit, find_loss(name), beta=0.7, preferences=REWARDS)
    assert best is not None
    assert_allclose(bandit.log_policy(trace.parameters[-1]).exp(), best.exp(), atol=1e-9)


def test_mixture_descent_reaches_a_linear_rewards_optimum() -> None:
    """For reward a y, pi_ref exp(a y / beta) is a mixture of variance 1 again: means move by a / beta, and
    weights are multiplied by exp(a m / beta)."""
    mixture = GaussianMixture((-1.0, 1.0), step=0.5, low=-10, high=10)
    preferences = Preferences.from_rewards(0.3 * mixture.grid)
    start = mixture.start([-1, 1], [0, 0])
    trace = descend(mixture, start, find_loss("dpo"), preferences=preferences, lr=1.0, steps=2000)
    means, logits = trace.parameters[-1].chunk(2)
    assert_allclose(means, [-0.7, 1.3], atol=1e-3)
    assert_allclose(logits[1] - logits[0], 0.6, atol=1e-2)


def test_flow_of_one_pair_is_an_exponential() -> None:
    """On one pair d rho / dt = -2 rho, so the regulariser rho^2 / 2 falls like exp(-4 t)."""
    bandit = Bandit([0.5, 0.3, 0.2], pairs=[(0, 1)])
    trace = flow(bandit, bandit.start([0.1, 0.6, 0.3]), time=2.0, points=21)
    assert_allclose(trace.regularizer, trace.regularizer[0] * torch.exp(-4 * trace.step), rtol=1e-5, atol=1e-9)
    assert isinstance(trace, Trace)


def test_small_steps_approach_the_flow() -> None:
    bandit = Bandit(REFERENCE)
    path = flow(bandit, bandit.start(START), time=2.0, points=2).parameters[-1]
    errors = [(descend(bandit, bandit.start(START), lr=2 / n, steps=n).parameters[-1] - path).abs().max().item()
              for n in (100, 200)]  # fmt: skip
    assert_allclose(errors[0] / errors[1], 2, rtol=0.1)  # Euler's method has order 1


def test_flow_takes_batches() -> None:
    bandit = Bandit(REFERENCE)
    losses = [find_loss("dpo"), find_loss("ipo")]
    batch = flow(bandit, bandit.start(START), losses, preferences=REWARDS, time=1.0, points=3)
    for i, name in enumerate(("dpo", "ipo")):
        one = flow(bandit, bandit.start(START), find_loss(name), preferences=REWARDS, time=1.0, points=3)
        assert_allclose(batch.kl[:, i], one.kl, rtol=1e-6)


def test_the_start_is_not_changed_and_progress_is_told() -> None:
    bandit, seen = Bandit(REFERENCE), []

    def watch(items: Iterable[int]) -> Iterable[int]:
        for item in items:
            seen.append(item)
            yield item

    start = bandit.start(START)
    kept = start.clone()
    descend(bandit, start, steps=3, watch=watch)
    torch.testing.assert_close(start, kept, rtol=0, atol=0)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(("options", "message"), [
    ({"lr": 0.0}, "lr must be positive, not 0.0"),
    ({"lr": -0.1}, "lr must be positive"),
    ({"lr": float("nan")}, "lr must be positive"),
    ({"steps": -1}, "steps must be at least 0"),
    ({"preferences": REWARDS}, "preferences need a loss"),
    ({"loss": find_loss("dpo")}, "a loss needs preferences"),
    ({"loss": find_loss("dpo"), "preferences": REWARDS, "beta": 0.0}, "beta must be positive"),
    ({"loss": find_loss("dpo"), "preferences": Preferences.from_rewards([0, 1])}, "between 2 responses .* with 3"),
    ({"loss": [], "preferences": REWARDS}, "list of losses is empty"),
    ({"loss": [find_loss("dpo")] * 3, "preferences": REWARDS, "beta": torch.ones(2)}, "must be 1 or 3, not 2"),
    ({"lr": 1e4, "steps": 200}, "left the finite numbers at step"),
])  # fmt: skip
def test_bad_options_are_refused(options: dict, message: str) -> None:
    bandit = Bandit(REFERENCE)
    with pytest.raises(InputError, match=message):
        descend(bandit, bandit.start(START), **options)


def test_measure_takes_any_batch() -> None:
    bandit = Bandit(REFERENCE)
    theta = torch.randn(4, 2, 3, dtype=torch.float64)
    whole = measure(bandit, theta)
    torch.testing.assert_close(whole.kl[3, 1], measure(bandit, theta[3, 1]).kl)
    assert whole.regularizer.shape == (4, 2)
