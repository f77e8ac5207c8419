"""P6: a loss that recovers the RLHF optimum has an infinite target margin where a preference is certain."""

__all__ = ["link_of_exact"]

from fractions import Fraction
from math import log

from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import link_at
from gpo_theory.propositions.p03_bradley_terry import exactness


def link_of_exact(loss: Loss, p: Fraction) -> tuple[float, float]:
    """Return x*(p) and c logit p, which grows without bound as p -> 1; 1/2 < p < 1.

    Hypotheses: f' < 0 everywhere and f'(-x) = exp(x/c) f'(x).

    >>> from gpo_theory.catalogue import LOSSES
    >>> [round(x, 9) for x in link_of_exact(LOSSES["exponential"], Fraction(9, 10))]
    [1.098612289, 1.098612289]
    """
    c = exactness(loss)
    return link_at(loss, p), c * log(p / (1 - p))
