"""The population optimum in closed form, where the theory gives one."""

__all__ = ["kl_to_optimum", "optimum"]

import torch
from torch import Tensor

from gpo_theory import Verdict, analyze, strength, taylor
from gpo_theory.loss import Loss
from toy_models.bandit import Bandit
from toy_models.inputs import positive
from toy_models.mixture import GaussianMixture
from toy_models.objectives import kl
from toy_models.preferences import Preferences


def optimum(model: Bandit | GaussianMixture, loss: Loss | None = None, *, beta: float = 1.0,
            preferences: Preferences | None = None) -> Tensor | None:  # fmt: skip
    """Return log pi*, shape (K,), of the policy that minimises the population objective; None without a closed form.

    Without a loss the regulariser's optimum is pi_ref. For a Bradley-Terry-exact loss with constant c and
    Bradley-Terry preferences, pi* is proportional to pi_ref exp(c r / beta), for every sampler (proposition P3). For a
    quadratic loss, independent draws from a fixed mu and any preferences, it is proportional to
    pi_ref exp((2 P_i - 1) / (beta R)), P_i = E_{j~mu} p_ij (proposition P2, exact for quadratic f).
    None too where the pairs of the data do not connect all responses, since pi* is then not unique. Raises InputError
    for beta <= 0, and for preferences between another number of responses.

    >>> from gpo_theory import LOSSES
    >>> best = optimum(Bandit([0.5, 0.5]), LOSSES["logistic"], preferences=Preferences.from_rewards([0.0, 1.0]))
    >>> best.exp().tolist()
    [0.268..., 0.731...]
    """
    positive("beta", beta)
    if preferences is not None:
        preferences.require_size(len(model.log_reference))
    if not model.connected():
        return None
    if loss is None:
        return torch.log_softmax(model.log_reference, dim=-1)
    if preferences is None:
        return None
    tilt = _bradley_terry_tilt(loss, preferences)
    if tilt is None:
        tilt = _quadratic_tilt(loss, preferences, model)
    return None if tilt is None else torch.log_softmax(model.log_reference + tilt / beta, dim=-1)


def kl_to_optimum(model: Bandit | GaussianMixture, parameters: Tensor, best: Tensor | None) -> Tensor | None:
    """Return KL(pi_theta || pi*) in nats for parameters (..., P), or None where no optimum is known."""
    return None if best is None else kl(model.log_policy(parameters), best)


def _bradley_terry_tilt(loss: Loss, preferences: Preferences) -> Tensor | None:
    """Return c r for Bradley-Terry rewards r and a loss that is proved exact with constant c, else None."""
    exact = analyze(loss).claims["bradley_terry_exact"]
    if preferences.rewards is None or exact.verdict is not Verdict.PROVED or exact.value is None:
        return None
    return float(exact.value["float"]) * preferences.rewards


def _quadratic_tilt(loss: Loss, preferences: Preferences, model: Bandit | GaussianMixture) -> Tensor | None:
    """Return (2 P_i - 1) / R of a quadratic loss with f'(0) < 0 < f''(0) and a fixed mu, else None."""
    if model.mu is None or not _is_quadratic(loss):
        return None
    coefficients = taylor(loss, 2)
    R = strength(loss).value
    slope, curvature = (c.value if c else None for c in coefficients[1:])
    if not R or slope is None or curvature is None or slope >= 0 or curvature <= 0:
        return None
    borda: Tensor = preferences.matrix @ model.mu
    return (2 * borda - 1) / R


def _is_quadratic(loss: Loss) -> bool:
    """Whether f is written as a polynomial whose third derivative is 0."""
    arithmetic = {"number", "x", "+", "*", "**"}
    return all(node.head in arithmetic for node in loss.f.walk()) and loss.f.diff().diff().diff().number == 0
