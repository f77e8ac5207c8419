"""The mixture of Gaussians: quadrature against adaptive integration, and its error against the truth."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm

from gpo_theory import find_loss
from gpo_theory.errors import InputError
from toy_models import GaussianMixture, Preferences
from toy_models.descent import measure
from toy_models.quadrature import quadrature_error

torch.set_num_threads(1)
MEANS, LOGITS = [-1.5, 2.5], [1.0, 0.0]
WEIGHTS = np.exp(LOGITS) / np.exp(LOGITS).sum()


def reference_density(y: float) -> float:
    return 0.5 * norm.pdf(y, -2) + 0.5 * norm.pdf(y, 2)


def policy_density(y: float) -> float:
    return WEIGHTS[0] * norm.pdf(y, MEANS[0]) + WEIGHTS[1] * norm.pdf(y, MEANS[1])


def log_ratio(y: float) -> float:
    return math.log(policy_density(y) / reference_density(y))


def integral(function) -> float:
    return quad(function, -14, 14, points=[-2, 2], epsabs=1e-13, epsrel=1e-13, limit=500)[0]


@pytest.mark.parametrize(("behaviour", "density"), [
    ((2.0, 1.0), lambda y: norm.pdf(y, 2, 1)),
    ((2.0, 0.5), lambda y: norm.pdf(y, 2, math.sqrt(0.5))),
    ("reference", reference_density),
    ("policy", policy_density),
])  # fmt: skip
def test_kl_and_regulariser_agree_with_adaptive_integration(behaviour, density) -> None:
    mixture = GaussianMixture(behaviour=behaviour)
    measured = measure(mixture, mixture.start(MEANS, LOGITS))
    mean = integral(lambda y: density(y) * log_ratio(y))
    assert_allclose(measured.kl, integral(lambda y: policy_density(y) * log_ratio(y)), rtol=1e-10)
    assert_allclose(measured.regularizer, integral(lambda y: density(y) * (log_ratio(y) - mean) ** 2), rtol=1e-10)


def test_gpo_objective_agrees_with_adaptive_integration() -> None:
    mixture = GaussianMixture(behaviour=(0.5, 1.0), step=0.2)
    preferences = Preferences.from_rewards(torch.tanh(mixture.grid))
    measured = measure(mixture, mixture.start(MEANS, LOGITS), find_loss("dpo"), beta=0.7, preferences=preferences)

    nodes, w = np.polynomial.hermite_e.hermegauss(80)  # weight exp(-y^2 / 2), so y - 1/2 is standard normal
    y, w = nodes + 0.5, w / w.sum()
    s, r = np.array([log_ratio(one) for one in y]), np.tanh(y)
    x = 0.7 * np.subtract.outer(s, s)
    p = 1 / (1 + np.exp(-np.subtract.outer(r, r)))
    expected = w @ (p * np.log1p(np.exp(-x)) + (1 - p) * np.log1p(np.exp(x))) @ w
    assert_allclose(measured.objective, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["dpo", "hinge"])
def test_error_estimate_covers_the_error(name: str) -> None:
    """Against a grid eight times as fine; a kink makes the error large enough to be seen."""
    mixture, fine = GaussianMixture(step=0.4, low=-10, high=10), GaussianMixture(step=0.05, low=-10, high=10)
    values = [measure(model, model.start(MEANS, LOGITS), find_loss(name), beta=0.7,
                      preferences=Preferences.from_rewards(model.grid)) for model in (mixture, fine)]  # fmt: skip
    error = (torch.stack(values[0]) - torch.stack(values[1])).abs().max().item()
    estimate = quadrature_error(mixture, mixture.start(MEANS, LOGITS), find_loss(name), beta=0.7,
                                preferences=Preferences.from_rewards(mixture.grid)).item()  # fmt: skip
    assert error <= estimate
    assert estimate < 0.05
    if name == "hinge":
        assert error > 1e-6


def test_error_estimate_sees_a_policy_that_leaves_the_grid() -> None:
    mixture = GaussianMixture()
    assert quadrature_error(mixture, mixture.start([-2, 14], [0, 0])).item() > 0.2
    assert quadrature_error(mixture, mixture.start([-2, 2], [0, 0])).item() < 1e-12


def test_a_grid_that_cannot_be_halved_has_no_error_estimate() -> None:
    mixture = GaussianMixture(step=28 / 35)
    with pytest.raises(InputError, match=r"no error estimate at step 0.8, since at twice that the grid"):
        quadrature_error(mixture, mixture.start([-2, 2], [0, 0]))


def test_densities_are_normalised_and_batched() -> None:
    mixture = GaussianMixture()
    parameters = torch.randn(3, 4, 4, dtype=torch.float64)
    mass = mixture.log_policy(parameters).exp().sum(-1)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-12)
    assert_allclose(mixture.log_reference.exp() / mixture.step, [reference_density(y) for y in mixture.grid], rtol=1e-9)


def test_gradient_agrees_with_finite_differences() -> None:
    mixture = GaussianMixture(behaviour=(2.0, 1.0))
    theta = mixture.start(MEANS, LOGITS).requires_grad_()
    assert torch.autograd.gradcheck(lambda parameters: measure(mixture, parameters)[:2], theta)


@pytest.mark.parametrize(("options", "message"), [
    ({"step": 0.0}, "step > 0"),
    ({"low": 3.0, "high": -3.0}, "low < high"),
    ({"step": 0.03}, "has 933.333 intervals; needed: a whole number"),
    ({"step": 1e-9}, "from 2 to 100000"),
    ({"step": 28.0}, "from 2 to 100000"),
    ({"step": 4.0}, "misses"),
    ({"low": float("nan")}, "low < high"),
    ({"behaviour": "uniform"}, "allowed: reference, policy or mean,variance"),
    ({"behaviour": "polic"}, "did you mean 'policy'"),
    ({"behaviour": (2.0, 0.0)}, "positive variance"),
    ({"behaviour": (2.0,)}, "positive variance"),
    ({"behaviour": (13.0, 1.0)}, "misses 0.2"),
    ({"behaviour": (0.0, 1e-8)}, "widen or refine"),
    ({"reference_means": (1.0,)}, "1 reference means but 2 weights"),
    ({"reference_weights": (0.5, 0.6)}, "sum to 1.1"),
    ({"reference_means": (0.0, 20.0)}, "misses 0.5"),
])  # fmt: skip
def test_bad_mixtures_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GaussianMixture(**options)


def test_bad_starts_are_refused() -> None:
    with pytest.raises(InputError, match="must be equally many"):
        GaussianMixture().start([0, 1, 2], [0, 0])
    with pytest.raises(InputError, match="must be finite"):
        GaussianMixture().start([0, math.inf], [0, 0])
