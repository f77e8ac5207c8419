"""P4: the losses that are Bradley-Terry exact with c = 1 are those of Bregman preference optimisation."""

__all__ = ["bregman_form"]

from fractions import Fraction
from math import exp, log

from scipy.integrate import quad

from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import slope, value
from gpo_theory.propositions.p03_bradley_terry import exactness


def bregman_form(loss: Loss, x: Fraction) -> tuple[float, float]:
    """Return f(x) - f(0), and h'(t) t - h(t) - h'(1/t) less its value at t = 1, at t = exp(-x).

    Here h''(t) = -f'(-log t)/(2 t^2) > 0, so h is convex. Hypotheses: f' < 0 and f'(-x) = exp(x) f'(x). Source of the
    form: Bregman preference optimisation, arXiv 2505.19601.

    >>> from gpo_theory.catalogue import LOSSES
    >>> numeric, theory = bregman_form(LOSSES["logistic"], Fraction(1))
    >>> abs(numeric - theory) < 1e-9
    True
    """
    if exactness(loss) != 1.0:
        raise InputError(f"P4 is about c = 1; {loss.name} has c = {exactness(loss)}")

    def h2(t: float) -> float:
        return -float(slope(loss, Fraction(-log(t))).mid()) / (2 * t * t)

    t = exp(-float(x))
    theory = quad(lambda u: u * h2(u), 1, t)[0] - quad(h2, 1, 1 / t)[0]
    return float((value(loss, x) - value(loss, Fraction(0))).mid()), float(theory)
