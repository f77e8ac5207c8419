"""The weight of a pair in the gradient of a run, relative to a pair at margin 0."""

__all__ = ["weights"]

from collections.abc import Sequence
from fractions import Fraction

import flint

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.constants import sign
from gpo_theory.calculus.pieces import UnsplitError, beside, split
from gpo_theory.calculus.series import taylor
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss

BITS = 192


def weights(loss: Loss, beta: Fraction | float, margins: Sequence[Fraction | float]) -> tuple[float, ...]:
    """Return w(rho) = f'(beta rho)/f'(0) at each margin rho, in nats; from the right where f' jumps.

    With the loss divided by beta |f'(0)|, two runs on the same data differ through w alone. To first order w is
    1 - beta R rho where f''(0) > 0. Raises InputError for beta <= 0, and where f'(0) < 0 fails or is not shown.

    >>> from gpo_theory.catalogue import LOSSES
    >>> weights(LOSSES["squared"], 0.5, [0, 1, 4])
    (1.0, 0.5, -1.0)
    """
    if not 0 < beta < float("inf"):
        raise InputError(f"beta = {beta} is not a positive number")
    first = taylor(loss, 1)[1]
    if first is None or sign(first.exact) != -1:
        raise InputError(f"{loss.name} has no weight at a margin: it needs f'(0) < 0")
    try:
        pieces = split(loss.f.primitive())
    except UnsplitError as error:
        raise InputError(f"the pieces of {loss.name} are not known exactly: {error}") from None
    points = [Fraction(0), *(Fraction(beta) * Fraction(rho) for rho in margins)]
    start, *slopes = (enclose(beside(pieces, x, 1).f.diff(), x, BITS) for x in points)
    with flint.ctx.workprec(BITS):
        return tuple(float((slope / start).mid()) for slope in slopes)
