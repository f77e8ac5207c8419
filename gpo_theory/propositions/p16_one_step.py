"""P16: one small gradient step on one pair never lowers its margin where f' <= 0."""

__all__ = ["one_step"]

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import STEP, slope

Vector = NDArray[np.float64]
CLOSE = 2.0**-60  # relative and absolute, of slopes a few STEPs apart where f' exists


def one_step(loss: Loss, margin: Callable[[Vector], float], gradient: Callable[[Vector], Vector], theta: Vector,
             beta: float, rate: float) -> tuple[float, float]:  # fmt: skip
    """Return the change of rho, in nats, by one step on f(beta rho), and -rate beta f'(beta rho) |grad rho|^2.

    `margin` is rho (theta), `gradient` its gradient, both at parameters theta (n,). Hypotheses: f' exists at beta rho,
    rate > 0; equal to first order in the rate, so rho does not fall where f' <= 0, and rises where f' < 0 and the
    gradient is not 0. Of other pairs nothing is said. Raises InputError at a kink.

    >>> from gpo_theory.catalogue import LOSSES
    >>> rho = lambda theta: float(theta[0] - theta[1])
    >>> one_step(LOSSES["squared"], rho, lambda theta: np.array([1.0, -1.0]), np.zeros(2), 0.5, 0.25)
    (0.5, 0.5)
    """
    if not (rate > 0 and beta > 0):
        raise InputError(f"P16 needs beta > 0 and a rate > 0; got beta = {beta}, rate = {rate}")
    x = Fraction(beta * margin(theta))
    push, sides = slope(loss, x), [slope(loss, x + side * 2 * STEP) for side in (-1, 1)]
    if not abs(sides[1] - sides[0]) <= abs(push) * CLOSE + CLOSE:
        raise InputError(f"P16 needs f' of {loss.name} at x = {float(x)}, where its one-sided slopes differ")
    step, ahead = beta * float(push.mid()), gradient(theta)
    return margin(theta - rate * step * ahead) - margin(theta), -rate * step * float(ahead @ ahead)
