"""P3: which losses recover pi_ref exp(c r/beta) from Bradley-Terry preferences, for every reward and every mu."""

__all__ = ["exactness", "optimal_policy"]

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpo_theory.analysis import analyze
from gpo_theory.certificate import Verdict
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import log_ratios


def exactness(loss: Loss) -> float:
    """Return c of a loss that is proved Bradley-Terry exact, f'(-x) = exp(x/c) f'(x); InputError for any other."""
    exact = analyze(loss).claims["bradley_terry_exact"]
    if exact.verdict is not Verdict.PROVED or exact.value is None:
        raise InputError(f"{loss.name} is not proved Bradley-Terry exact")
    return float(exact.value["float"])


def optimal_policy(loss: Loss, rewards: Sequence[float], mu: Sequence[float],
                   beta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Return the optimal s_i - s_1 for p_ij = sigma(r_i - r_j), and c (r_i - r_1)/beta, both (K,), in nats.

    Hypotheses: f differentiable with f' < 0 and f'(-x) = exp(x/c) f'(x); mu of full support.

    >>> from gpo_theory.catalogue import LOSSES
    >>> numeric, theory = optimal_policy(LOSSES["savage"], [0.0, 1.0, 0.5], [0.2, 0.3, 0.5], 2.0)
    >>> np.testing.assert_allclose(numeric, theory, atol=1e-9)
    """
    c, r = exactness(loss), np.asarray(rewards)
    preference = 1 / (1 + np.exp(r[None, :] - r[:, None]))
    return log_ratios(loss, preference, mu, beta), c * (r - r[0]) / beta
