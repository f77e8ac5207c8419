"""The beta at which a loss weighs the pairs of a run as another loss does, in the mean over their margins."""

__all__ = ["crossings", "mean_weight"]

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpo_theory.loss import Loss
from gpo_theory.lowering.knees import find_knees
from gpo_theory.lowering.lower import to_numpy

# The betas that are tried, as multiples of a known one: a factor 2^(1/8) apart. At round multiples a slope may vanish
# exactly, so they begin beside one.
MULTIPLES = 1013 / 1024 * 2.0 ** (np.arange(-320, 321) / 8)


def mean_weight(loss: Loss, margins: NDArray[np.float64]) -> Callable[[float], float]:
    """Return beta -> (1/n) sum_i f'(beta rho_i)/f'(0) for margins rho_i in nats, from the right where f' jumps.

    NaN where a beta rho_i lies beyond a knee, from which on f is continued by its tangent (`TorchLoss`).

    >>> from gpo_theory.catalogue import LOSSES
    >>> mean_weight(LOSSES["squared"], np.array([1.0, 3.0]))(0.1)  # 1 - beta rho in the mean
    0.8
    """
    slope = to_numpy(loss, 1)
    start = float(slope(np.zeros(1))[0])
    left, right = find_knees(loss.f.primitive())
    low, high = -np.inf if left is None else left.x, np.inf if right is None else right.x

    def weight(beta: float) -> float:
        x = beta * margins
        return float(np.mean(slope(x) / start)) if low <= x.min() and x.max() <= high else np.nan

    return weight


def crossings(weight: Callable[[float], float], level: float, near: float) -> list[tuple[float, float]]:
    """Return narrow brackets of the betas at which a weight passes through a level, between near 2^-40 and near 2^40.

    Two of them closer than a factor 2^(1/8) are not told apart, and may be missed.

    >>> crossings(lambda beta: 1 - beta, 0.75, near=1.0)[0][0]
    0.25
    """
    betas = near * MULTIPLES
    above = [weight(beta) - level for beta in betas]
    found = []
    for low, high, before, after in zip(betas, betas[1:], above, above[1:], strict=False):
        if before * after < 0:
            found.append(_narrowed(lambda beta: weight(beta) - level, float(low), float(high), before))
    return found


def _narrowed(above: Callable[[float], float], low: float, high: float, before: float) -> tuple[float, float]:
    while low < (middle := (low + high) / 2) < high:
        here = above(middle)
        if here == 0:
            return middle, middle
        low, high = (middle, high) if here * before > 0 else (low, middle)
    return low, high
