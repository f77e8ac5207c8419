"""P2: to second order every loss is IPO: the policy is pi_ref exp((2 P_i - 1)/(beta R))."""

__all__ = ["second_order_policy"]

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import log_ratios
from gpo_theory.propositions.p01_link_slope import link_slope


def second_order_policy(loss: Loss, preference: NDArray[np.float64], mu: Sequence[float],
                        beta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Return the optimal s_i - s_1 and 2 (P_i - P_1)/(beta R), both (K,), in nats; P_i = E_{j~mu} p_ij.

    Hypotheses: P1's, both responses drawn from one mu of full support, p_ii = 1/2. The difference is of second order in
    the distance of p from 1/2; there is none for quadratic f.

    >>> from gpo_theory.catalogue import LOSSES
    >>> p = np.array([[0.5, 0.6], [0.4, 0.5]])
    >>> [s.round(12).tolist() for s in second_order_policy(LOSSES["squared"], p, [0.5, 0.5], 1.0)]
    [[0.0, -0.2], [0.0, -0.2]]
    """
    if min(mu) <= 0 or not np.diagonal(preference).tolist() == [0.5] * len(mu):
        raise InputError("P2 needs a behaviour policy of full support and p_ii = 1/2")
    inverse = link_slope(loss)[1] / 2  # 1/R
    borda = preference @ np.asarray(mu)
    return log_ratios(loss, preference, mu, beta), 2 * (borda - borda[0]) * inverse / beta
