"""P15: a symmetric loss does not regularise to second order."""

__all__ = ["symmetric_strength"]

from fractions import Fraction

from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import strength_at_zero, value

# Where the symmetry is tested; in sevenths, so that no breakpoint of the catalogue is among them.
PROBES = tuple(Fraction(k, 7) for k in (1, 3, 9, 20, 50))


def symmetric_strength(loss: Loss) -> tuple[float, float]:
    """Return |f''(0)/f'(0)| by difference quotients, and 0.

    Hypotheses: f(x) + f(-x) is constant, f is twice differentiable at 0 and f'(0) != 0. Raises InputError
    where the sum varies.

    >>> from gpo_theory.catalogue import LOSSES
    >>> symmetric_strength(LOSSES["unhinged"])
    (0.0, 0.0)
    """
    zero = value(loss, Fraction(0))
    if not all((value(loss, x) - zero).overlaps(zero - value(loss, -x)) for x in PROBES):
        raise InputError(f"f(x) + f(-x) is not constant for {loss.name}")
    return strength_at_zero(loss), 0.0
