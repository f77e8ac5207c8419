"""P12 and P13 (B): how fast the KL moves under gradient flow of the offline regulariser."""

__all__ = ["kl_velocity", "two_actions"]

import torch
from torch import Tensor

from toy_models.bandit import Bandit
from toy_models.descent import measure


def kl_velocity(bandit: Bandit, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return dKL(pi||pi_ref)/dt along the flow of E_mu[rho^2 / 2] at logits (..., K), by autograd and in closed form.

    Theory, for a fixed product mu: -2 sum_i mu_i pi_i (s_i - KL)(s_i - E_mu s). It is at most 0 for two actions and
    for mu = pi, and may be positive for three (P13): with mu = pi_ref = (0.70, 0.29, 0.01) it is at
    pi = (0.01, 0.50, 0.49).

    >>> bandit = Bandit([0.70, 0.29, 0.01])
    >>> bool(kl_velocity(bandit, bandit.start([0.01, 0.50, 0.49]))[0] > 0)
    True
    """
    theta = logits.detach().to(torch.float64).requires_grad_()
    measured = measure(bandit, theta)
    (up,) = torch.autograd.grad(measured.kl.sum(), theta, retain_graph=True)
    (down,) = torch.autograd.grad(measured.regularizer.sum(), theta)
    log_policy = bandit.log_policy(theta.detach())
    pi, s = log_policy.exp(), log_policy - bandit.log_reference
    mu = pi if bandit.mu is None else bandit.mu
    slopes = (s - measured.kl.detach()[..., None]) * (s - (mu * s).sum(-1, keepdim=True))
    return -(up * down).sum(-1), -2 * (mu * pi * slopes).sum(-1)


def two_actions(bandit: Bandit, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return dKL/dt under the flow for two actions and -4 mu_1 mu_2 pi_1 pi_2 rho^2, which is never positive (P12).

    >>> torch.testing.assert_close(*two_actions(Bandit([0.5, 0.5]), torch.tensor([1.0, 0.0])))
    """
    numeric, _ = kl_velocity(bandit, logits)
    log_policy = bandit.log_policy(logits.to(torch.float64))
    rho = (log_policy - bandit.log_reference).diff(dim=-1)[..., 0]
    mu = log_policy.exp() if bandit.mu is None else bandit.mu
    return numeric, -4 * mu.prod(-1) * log_policy.exp().prod(-1) * rho.square()
