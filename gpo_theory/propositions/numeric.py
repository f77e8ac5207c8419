"""Plain numbers from a formula: values, difference quotients, the minimiser of the risk on one pair or on all."""

__all__ = ["link_at", "log_ratios", "slope", "strength_at_zero", "value"]

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from flint import arb, ctx
from numpy.typing import NDArray
from scipy.optimize import root

from gpo_theory.calculus.balls import ball, bisected, enclose, sign_at
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.loss import Loss

BITS = 512  # of the balls: a second difference at STEP cancels 160 of them
STEP = Fraction(1, 2**80)  # of the difference quotients, whose error is about its square, 2^-160
FARTHEST = 2**11  # the largest x at which a minimiser is looked for


def value(loss: Loss, x: Fraction) -> arb:
    """Return f(x) in ball arithmetic."""
    return enclose(loss.f.primitive(), x, BITS)


def slope(loss: Loss, x: Fraction) -> arb:
    """Return the central difference quotient for f'(x), good to about 40 digits where f is smooth."""
    with ctx.workprec(BITS):
        return (value(loss, x + STEP) - value(loss, x - STEP)) / ball(2 * STEP)


def strength_at_zero(loss: Loss) -> float:
    """Return |f''(0)/f'(0)| by difference quotients; the mean of the one-sided values where f'' jumps."""
    zero = Fraction(0)
    with ctx.workprec(BITS):
        second = (value(loss, STEP) + value(loss, -STEP) - 2 * value(loss, zero)) / ball(STEP**2)
        return abs(float((second / slope(loss, zero)).mid()))


def link_at(loss: Loss, p: Fraction) -> float:
    """Return the least x > 0 at which the slope of C_p(x) = p f(x) + (1-p) f(-x) stops being negative, 1/2 < p < 1.

    That is x*(p) where C_p falls and then rises on the right of 0. Raises InputError where it falls up to x = FARTHEST,
    or until its slope is too small to have a sign, and for other p.

    >>> from gpo_theory.catalogue import LOSSES
    >>> link_at(LOSSES["squared"], Fraction(3, 4))
    0.5
    """
    if not Fraction(1, 2) < p < 1:
        raise InputError(f"p = {p} is not between 1/2 and 1")
    step = _step_of_risk(loss, p)
    low, high = Fraction(0), Fraction(1, 2**20)
    while (sign := sign_at(step, high)) == -1 and high < FARTHEST:
        low, high = high, 2 * high
    if sign in (-1, None):
        raise InputError(f"the risk of {loss.name} at p = {p} still falls at x = {float(low):g}: "
                         "no finite minimiser is found")  # fmt: skip
    width = (high - low) / 2**60
    return float(bisected(lambda x: -1 if sign_at(step, x) == -1 else 1, -1, low, high, lambda _: width)[1])


def _step_of_risk(loss: Loss, p: Fraction) -> Expr:
    """C_p(x + STEP) - C_p(x - STEP), which has the sign of the slope."""
    f, x = loss.f.primitive(), Expr.x()
    risk = p * f + (1 - p) * substitute(f, {x: -x})
    return substitute(risk, {x: x + STEP}) - substitute(risk, {x: x - STEP})


def log_ratios(loss: Loss, preference: NDArray[np.float64], mu: Sequence[float], beta: float,
               delta: NDArray[np.float64] | None = None) -> NDArray[np.float64]:  # fmt: skip
    """Return s_i - s_1, (K,), in nats, stationary for E_{i,j~mu}[p_ij f(beta (s_i - s_j) - delta_ij)].

    s = log pi/pi_ref; `preference` p (K, K) has p_ij + p_ji = 1; `mu` (K,) is the behaviour policy; `delta` (K, K) is 0
    where it is None. The search starts at pi_ref; raises InputError where it reaches no stationary point.
    """
    size, weight = len(mu), np.outer(mu, mu) * beta
    offset = np.zeros((size, size)) if delta is None else delta

    def gradient(free: NDArray[np.float64]) -> NDArray[np.float64]:
        s = np.concatenate(([0.0], free))
        x = beta * (s[:, None] - s[None, :]) - offset
        push = np.array([[float(slope(loss, Fraction(each)).mid()) for each in row] for row in x.tolist()])
        pull = weight * preference * push
        return np.asarray((pull.sum(1) - pull.sum(0))[1:])

    found = root(gradient, np.zeros(size - 1), tol=1e-13)
    if not np.abs(gradient(found.x)).max() < 1e-9:
        raise InputError(f"no stationary policy of {loss.name} was reached from pi_ref")
    return np.concatenate(([0.0], found.x))
