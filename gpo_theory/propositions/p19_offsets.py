"""P19: an offset that is a difference of scores of the two responses is a change of reference and nothing else."""

__all__ = ["offset_policy", "offset_strength"]

from collections.abc import Sequence
from fractions import Fraction
from math import exp

import numpy as np
from numpy.typing import NDArray

from gpo_theory.catalogue import LOSSES
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import log_ratios, strength_at_zero
from gpo_theory.transforms import shifted


def offset_policy(loss: Loss, preference: NDArray[np.float64], mu: Sequence[float], beta: float,
                  delta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Return the s_i - s_1 optimal for f(beta rho - delta), and those for f(beta rho) plus (g_i - g_1)/beta, in nats.

    Both are (K,), s = log pi/pi_ref; the second is the optimum without an offset from the reference pi_ref exp(g/beta).
    Hypothesis: delta_ij = g_i - g_j (K, K), scaled margins that do not depend on the policy; InputError where delta is
    no such difference, as for a cycle or a constant that knows the label.

    >>> g = np.array([0.0, 0.5])
    >>> p = np.array([[0.5, 0.6], [0.4, 0.5]])
    >>> found = offset_policy(LOSSES["squared"], p, [0.5, 0.5], 0.5, g[:, None] - g[None, :])
    >>> [s.round(12).tolist() for s in found]
    [[0.0, 0.6], [0.0, 0.6]]
    """
    g = delta[:, 0]
    if not np.abs(delta - (g[:, None] - g[None, :])).max() <= 1e-12 * np.abs(delta).max():
        raise InputError("P19 needs an offset delta_ij = g_i - g_j: around a cycle of responses it adds up to 0")
    plain = log_ratios(loss, preference, mu, beta)
    return log_ratios(loss, preference, mu, beta, delta), plain + (g - g[0]) / beta


def offset_strength(delta: Fraction) -> tuple[float, float]:
    """Return R of the logistic loss of x - delta by difference quotients, and sigma(-delta).

    This constant offset knows which response was preferred, so it is no change of reference, and the loss is not
    Bradley-Terry exact for delta != 0.

    >>> offset_strength(Fraction(0))
    (0.5, 0.5)
    """
    return strength_at_zero(shifted(LOSSES["logistic"], delta)), 1 / (1 + exp(delta))
