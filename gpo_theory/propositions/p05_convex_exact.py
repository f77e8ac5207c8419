"""P5: bounds on the weight -f' of a convex Bradley-Terry exact loss."""

__all__ = ["push_and_bounds"]

from fractions import Fraction
from math import exp

from gpo_theory.analysis import analyze
from gpo_theory.certificate import Verdict
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import slope
from gpo_theory.propositions.p03_bradley_terry import exactness


def push_and_bounds(loss: Loss, x: Fraction) -> tuple[float, tuple[float, float]]:
    """Return -f'(x) and its bounds |f'(0)| exp(-x/c), |f'(0)|, at x > 0.

    Hypotheses: f convex and Bradley-Terry exact with c. The lower bound is attained by huberised_exponential, the upper
    by exponential_linear, which is unbounded below.

    >>> from gpo_theory.catalogue import LOSSES
    >>> numeric, (low, high) = push_and_bounds(LOSSES["logistic"], Fraction(1))
    >>> low < numeric < high
    True
    """
    if x <= 0 or analyze(loss).claims["convex"].verdict is not Verdict.PROVED:
        raise InputError(f"P5 needs x > 0 and a convex loss; got x = {x}, {loss.name}")
    start = -float(slope(loss, Fraction(0)).mid())
    return -float(slope(loss, x).mid()), (start * exp(-float(x) / exactness(loss)), start)
