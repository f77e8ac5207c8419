"""P9: on-policy, the offline regulariser's gradient is twice that of the KL, if the behaviour policy is held fixed."""

__all__ = ["on_policy_identity", "differentiated_sampler"]

import torch
from torch import Tensor

from toy_models.bandit import Bandit
from toy_models.descent import measure
from toy_models.objectives import variance


def on_policy_identity(reference: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of E_{pi x pi}[rho^2 / 2], sampler fixed, and 2 grad KL(pi||pi_ref), both (..., K).

    Theory: d KL / d theta_i = pi_i (s_i - KL).

    >>> numeric, theory = on_policy_identity(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    >>> torch.testing.assert_close(numeric, theory)
    """
    bandit = Bandit(reference, behaviour="policy")
    theta = logits.detach().to(torch.float64).requires_grad_()
    measured = measure(bandit, theta)
    (numeric,) = torch.autograd.grad(measured.regularizer.sum(), theta)
    log_policy = bandit.log_policy(theta.detach())
    s = log_policy - bandit.log_reference
    return numeric, 2 * log_policy.exp() * (s - measured.kl.detach()[..., None])


def differentiated_sampler(reference: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of E_{pi x pi}[rho^2 / 2] through the sampler too, and grad Var_pi(s), both (..., K).

    Theory: d Var_pi(s) / d theta_i = pi_i ((s_i - m)^2 - Var_pi(s) + 2 (s_i - m)), m = KL(pi||pi_ref), which is no
    multiple of grad KL.

    >>> numeric, theory = differentiated_sampler(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    >>> torch.testing.assert_close(numeric, theory)
    """
    bandit = Bandit(reference, behaviour="policy")
    theta = logits.detach().to(torch.float64).requires_grad_()
    log_policy = bandit.log_policy(theta)
    first, second, weight = bandit.draws(log_policy.exp())
    s = log_policy - bandit.log_reference
    (numeric,) = torch.autograd.grad((weight * (s[..., first] - s[..., second]).square()).sum() / 2, theta)
    pi, s = log_policy.detach().exp(), s.detach()
    centred = s - (pi * s).sum(-1, keepdim=True)
    return numeric, pi * (centred.square() - variance(s, pi)[..., None] + 2 * centred)
