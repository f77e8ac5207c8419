"""P11: how far the KL can be from the offline regulariser at pi_ref, given the width of the log-ratios."""

__all__ = ["kappa", "sandwich"]

import torch
from torch import Tensor

from toy_models.objectives import kl, variance


def kappa(a: Tensor) -> Tensor:
    """Return (e^a (a - 1) + 1) / a^2, equal to the integral of t e^(a t) over [0, 1]; kappa(0) = 1/2.

    >>> kappa(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    [0.5, 1.0]
    """
    near = a.abs() < 1e-2
    safe = torch.where(near, torch.ones_like(a), a)
    # Near 0 the closed form cancels; the series sum a^n / (n! (n+2)) does not.
    series = 1 / 2 + a / 3 + a**2 / 8 + a**3 / 30 + a**4 / 144 + a**5 / 840
    return torch.where(near, series, (torch.exp(safe) * (safe - 1) + 1) / safe**2)


def sandwich(log_reference: Tensor, log_policy: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return KL(pi||pi_ref) and its bounds kappa(-2B) L, kappa(2B) L, where L = Var_{pi_ref}(s), 2B = max s - min s.

    Log-probabilities (..., K); results (...), in nats.

    >>> half, policy = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.6, 0.4]).log()
    >>> numeric, (low, high) = sandwich(half, policy)
    >>> bool(low <= numeric <= high)
    True
    """
    s = log_policy - log_reference
    width = s.amax(-1) - s.amin(-1)
    L = variance(s, log_reference.exp())
    return kl(log_policy, log_reference), (kappa(-width) * L, kappa(width) * L)
