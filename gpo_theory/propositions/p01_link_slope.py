"""P1 and P1': near indifference the margin is (2p - 1)/(beta R), so losses are matched by beta R."""

__all__ = ["link_slope", "matched_beta"]

from fractions import Fraction

from gpo_theory.analysis import analyze
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import link_at


def link_slope(loss: Loss, h: Fraction = Fraction(1, 1000)) -> tuple[float, float]:
    """Return (x*(1/2 + h) - x*(1/2 - h))/(2h) and its limit 2/R, R the mean of its one-sided values where f'' jumps.

    Hypotheses: f is C^2 on either side of 0, f'(0) < 0 < f''(0), and 0 alone minimises C_(1/2); InputError elsewhere.
    Since x*(1-p) = -x*(p), the quotient is x*(1/2 + h)/h.

    >>> from gpo_theory.catalogue import LOSSES
    >>> link_slope(LOSSES["squared"])
    (2.0, 2.0)
    """
    theory = analyze(loss).link.slope_at_half
    if not isinstance(theory, float):
        raise InputError(f"P1 does not apply to {loss.name}: it needs f'(0) < 0 < f''(0), 0 the least of C_(1/2)")
    return link_at(loss, Fraction(1, 2) + h) / float(h), theory


def matched_beta(source: Loss, target: Loss, beta: float, p: Fraction = Fraction(501, 1000)) -> tuple[float, float]:
    """Return the beta at which `target` has the same optimal margin as `source`, and beta R_source/R_target.

    Both margins are those of one pair preferred with probability p. Hypotheses: P1's for both. Equal for every p where
    both losses are Bradley-Terry exact; to first order in p - 1/2 otherwise.

    >>> from gpo_theory.catalogue import LOSSES
    >>> [round(b, 6) for b in matched_beta(LOSSES["logistic"], LOSSES["exponential"], 0.1, Fraction(9, 10))]
    [0.05, 0.05]
    """
    slopes = [link_slope(loss)[1] for loss in (source, target)]
    margins = [link_at(loss, p) for loss in (source, target)]
    return beta * margins[1] / margins[0], beta * slopes[1] / slopes[0]
