"""P13 (A): data on one pair drive their loss to 0 while the KL rises to a limit above its start."""

__all__ = ["one_pair"]

from collections.abc import Sequence

import torch
from torch import Tensor

from toy_models.bandit import Bandit
from toy_models.descent import Trace, descend


def one_pair(reference: Sequence[float], initial: Sequence[float], *, lr: float = 0.05,
             steps: int = 400) -> tuple[Trace, Tensor]:  # fmt: skip
    """Return the descent on E[rho^2 / 2] with the pair (first, second) only, and the KL it tends to, in nats.

    Theory: each step moves theta_1 and theta_2 by opposite amounts, so theta_1 + theta_2 and all other logits stay
    while rho -> 0 (by the factor 1 - 2 lr a step). The limit is therefore proportional to
    (g sqrt(q_1/q_2), g sqrt(q_2/q_1), p_3, ...), g = sqrt(p_1 p_2), with q the reference and p the initial policy.
    For uniform q it is KL = log K + (2 g log g + sum_{i>2} p_i log p_i) / Z - log Z, Z = 2 g + sum_{i>2} p_i.

    >>> trace, limit = one_pair([1/3, 1/3, 1/3], [0.10, 0.05, 0.85])
    >>> [round(value.item(), 6) for value in (trace.kl[0], trace.kl[-1], limit)]
    [0.580426, 0.590002, 0.590002]
    """
    bandit = Bandit(reference, pairs=[(0, 1)])
    start = bandit.start(initial)
    q, p = bandit.log_reference.exp(), start.exp()
    g = (p[0] * p[1]).sqrt()
    limit = torch.cat((torch.stack((g * (q[0] / q[1]).sqrt(), g * (q[1] / q[0]).sqrt())), p[2:]))
    limit = limit / limit.sum()
    return descend(bandit, start, lr=lr, steps=steps), (limit * (limit / q).log()).sum()
