"""Exact expectations over K responses and their pairs: KL, offline regulariser and population GPO loss."""

__all__ = ["Draws", "all_pairs", "gpo", "kl", "regularizer", "variance"]

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Draws(NamedTuple):
    """The M pairs of the data: `first` and `second`, indices of shape (M,), and `weight`, probabilities (..., M)."""

    first: Tensor
    second: Tensor
    weight: Tensor


def all_pairs(mu: Tensor) -> Draws:
    """Return the unordered pairs of two independent draws from mu (..., K), equal ones included.

    >>> all_pairs(torch.tensor([0.5, 0.5])).weight.tolist()
    [0.25, 0.5, 0.25]
    """
    first, second = torch.triu_indices(mu.shape[-1], mu.shape[-1])
    return Draws(first, second, mu[..., first] * mu[..., second] * torch.where(first == second, 1.0, 2.0))


def kl(log_policy: Tensor, log_reference: Tensor) -> Tensor:
    """Return KL(pi || pi_ref) = sum_i pi_i (log pi_i - log pi_ref,i), in nats.

    Shapes: (..., K) and (K,) to (...).

    >>> half = torch.tensor([0.5, 0.5]).log()
    >>> kl(torch.tensor([0.25, 0.75]).log(), half).item()
    0.130...
    """
    # Clamped, because a KL of 0 may be rounded to -1e-17.
    return (log_policy.exp() * (log_policy - log_reference)).sum(-1).clamp_min(0)


def variance(log_ratio: Tensor, mu: Tensor) -> Tensor:
    """Return Var_mu(s) in nats^2, equal to E[rho^2 / 2] when both responses are drawn independently from mu.

    `log_ratio` s = log pi - log pi_ref and `mu` have shape (..., K); the result (...). The cost is linear in K, that of
    `regularizer` over all pairs quadratic.

    >>> variance(torch.tensor([0.0, 2.0]), torch.tensor([0.5, 0.5])).item()
    1.0
    """
    mean = (mu * log_ratio).sum(-1, keepdim=True)
    return (mu * (log_ratio - mean).square()).sum(-1)


def regularizer(margin: Tensor, weight: Tensor) -> Tensor:
    """Return E[rho^2 / 2] in nats^2, the mu-weighted squared loss, over M pairs with margins rho and probabilities.

    Shapes: (..., M) and (M,) or (..., M) to (...). Source: Tang et al. 2024 (arXiv 2402.05749), the second-order
    term of the Taylor expansion of GPO.

    >>> regularizer(torch.tensor([2.0]), torch.tensor([1.0])).item()
    2.0
    """
    return (weight * margin.square()).sum(-1) / 2


def gpo(f: Callable[[Tensor], Tensor], margin: Tensor, preference: Tensor, weight: Tensor, beta: Tensor) -> Tensor:
    """Return the population GPO loss E[p f(beta rho) + (1 - p) f(-beta rho)] over M pairs.

    `margin` rho (..., M) in nats is that of the first response over the second, `preference` p (M,) the probability
    that the first is preferred, `weight` the pairs' probabilities, `beta` of shape (...); the result (...).
    Source: Tang et al. 2024 (arXiv 2402.05749), the GPO objective.

    >>> x = torch.zeros(1)
    >>> gpo(torch.exp, x, torch.tensor([0.7]), torch.ones(1), torch.tensor(1.0)).item()
    1.0
    """
    x = beta[..., None] * margin
    won, lost = f(torch.stack((x, -x))).unbind()
    risk: Tensor = preference * won + (1 - preference) * lost
    return (weight * risk).sum(-1)
