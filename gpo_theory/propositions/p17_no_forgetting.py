"""P17: no convex loss forgets: its push on pairs on the wrong side never falls below that at 0."""

__all__ = ["wrong_side_push"]

from fractions import Fraction

from gpo_theory.analysis import analyze
from gpo_theory.certificate import Verdict
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import slope


def wrong_side_push(loss: Loss, x: Fraction) -> tuple[float, float]:
    """Return -f'(x) at x <= 0, and |f'(0)|, its lower bound.

    Hypotheses: f convex, f'(0) < 0. So a loss whose push fades as x -> -inf (Savage, sigmoid, dpd, cauchit, Welsch) is
    not convex. It may be Bradley-Terry exact and calibrated, as Savage and dpd are.

    >>> from gpo_theory.catalogue import LOSSES
    >>> push, bound = wrong_side_push(LOSSES["logistic"], Fraction(-3))
    >>> push > bound == 0.5
    True
    """
    claims, start = analyze(loss).claims, slope(loss, Fraction(0))
    shown = all(claims[name].verdict is Verdict.PROVED for name in ("convex", "differentiable_at_zero"))
    if x > 0 or not shown or not start < 0:
        raise InputError(f"P17 needs x <= 0 and a convex loss with f'(0) < 0; got x = {x}, {loss.name}")
    return -float(slope(loss, x).mid()), -float(start.mid())
