"""P10: the KL is an integral of offline regularisers along the geometric path from pi_ref to pi."""

__all__ = ["path_integral"]

import numpy as np
import torch
from torch import Tensor

from toy_models.objectives import kl, variance


def path_integral(log_reference: Tensor, log_policy: Tensor, nodes: int = 64) -> tuple[Tensor, Tensor]:
    """Return (numeric, theory), each (3,): forward KL(pi||pi_ref), reverse KL(pi_ref||pi) and their sum, in nats.

    Numeric: the integrals over t in [0, 1] of w(t) Var_{pi_t}(s) with weights t, 1 - t and 1, where pi_t is
    proportional to pi_ref^(1-t) pi^t, by Gauss-Legendre quadrature. Log-probabilities have shape (K,).

    >>> half, policy = torch.tensor([0.5, 0.5]).log().double(), torch.tensor([0.9, 0.1]).log().double()
    >>> torch.testing.assert_close(*path_integral(half, policy), rtol=1e-6, atol=0)
    """
    x, w = (torch.as_tensor(values) for values in np.polynomial.legendre.leggauss(nodes))
    t, w = (x + 1) / 2, w / 2
    path = torch.log_softmax((1 - t[:, None]) * log_reference + t[:, None] * log_policy, dim=-1)
    along = variance(log_policy - log_reference, path.exp())
    numeric = torch.stack([(w * weight * along).sum() for weight in (t, 1 - t, torch.ones_like(t))])
    forward, reverse = kl(log_policy, log_reference), kl(log_reference, log_policy)
    return numeric, torch.stack((forward, reverse, forward + reverse))
