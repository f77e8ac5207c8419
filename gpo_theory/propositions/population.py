"""The population optimum over K responses: the log-ratios at which the GPO loss of all pairs is stationary."""

__all__ = ["log_ratios"]

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root

from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import slope


def log_ratios(loss: Loss, preference: NDArray[np.float64], mu: Sequence[float], beta: float) -> NDArray[np.float64]:
    """Return s_i - s_1, shape (K,), s = log pi/pi_ref in nats, stationary for E_{i,j~mu}[p_ij f(beta (s_i - s_j))].

    `preference` p (K, K) has p_ij + p_ji = 1; `mu` (K,) is the sampler's law. Starts at pi_ref; InputError where no
    stationary point is reached.
    """
    size, weight = len(mu), np.outer(mu, mu) * beta

    def gradient(free: NDArray[np.float64]) -> NDArray[np.float64]:
        s = np.concatenate(([0.0], free))
        push = np.array([[float(slope(loss, Fraction(beta * (a - b))).mid()) for b in s] for a in s])
        pull = weight * preference * push
        return np.asarray((pull.sum(1) - pull.sum(0))[1:])

    found = root(gradient, np.zeros(size - 1), tol=1e-13)
    if not np.abs(gradient(found.x)).max() < 1e-9:
        raise InputError(f"no stationary policy of {loss.name} was reached from pi_ref")
    return np.concatenate(([0.0], found.x))
