"""P8: cDPO and robust DPO are the logistic loss plus a straight line."""

__all__ = ["noisy_losses", "noisy_links", "noisy_strengths"]

from fractions import Fraction
from math import exp, inf, log, log1p

from gpo_theory.catalogue import LOSSES
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import link_at, strength_at_zero, value
from gpo_theory.transforms import robust, soft_label


def noisy_losses(flip: Fraction, x: Fraction) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return cDPO and robust DPO at x by their definitions, and logistic + e x and logistic - e x/(1-2e).

    Hypothesis: flip rate 0 <= e < 1/2.

    >>> noisy_losses(Fraction(1, 4), Fraction(0))[0] == noisy_losses(Fraction(0), Fraction(0))[0]
    True
    """
    e, point = float(flip), float(x)
    logistic = max(-point, 0.0) + log1p(exp(-abs(point)))
    numeric = tuple(float(value(loss, x).mid()) for loss in _pair(flip))
    return (numeric[0], numeric[1]), (logistic + e * point, logistic - e * point / (1 - 2 * e))


def noisy_strengths(flip: Fraction) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return R of cDPO and of robust DPO by difference quotients, and 1/(2 (1-2e)) and (1-2e)/2.

    >>> noisy_strengths(Fraction(1, 10))
    ((0.625, 0.4), (0.625, 0.4))
    """
    e, (conservative, unbiased) = float(flip), _pair(flip)
    return (strength_at_zero(conservative), strength_at_zero(unbiased)), (1 / (2 * (1 - 2 * e)), (1 - 2 * e) / 2)


def noisy_links(flip: Fraction, p: Fraction) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return x*(p) of cDPO and of robust DPO, and logit(p (1-e) + (1-p) e) and logit((p-e)/(1-2e)); 1/2 < p < 1.

    Both are infinite where the logit is: for robust DPO at every p >= 1 - e.
    """
    believed = (p * (1 - flip) + (1 - p) * flip, (p - flip) / (1 - 2 * flip))
    theory = tuple(log(q / (1 - q)) if q < 1 else inf for q in believed)
    numeric = tuple(_link(loss, p) for loss in _pair(flip))
    return (numeric[0], numeric[1]), (theory[0], theory[1])


def _link(loss: Loss, p: Fraction) -> float:
    """Return x*(p), infinite where no finite minimiser is found."""
    try:
        return link_at(loss, p)
    except InputError:
        return inf


def _pair(flip: Fraction) -> tuple[Loss, Loss]:
    return soft_label(LOSSES["logistic"], flip), robust(LOSSES["logistic"], flip)
