"""P7: a loss of the margin does not change when both log-probabilities move by the same amount."""

__all__ = ["common_mode"]

from fractions import Fraction

from gpo_theory.loss import Loss
from gpo_theory.propositions.numeric import value


def common_mode(loss: Loss, log_ratios: tuple[Fraction, Fraction], shift: Fraction,
                beta: Fraction) -> tuple[float, float]:  # fmt: skip
    """Return f(beta rho) after `shift` is added to both log-ratios (s_w, s_l), in nats, and before: they are equal.

    So f does not control absolute likelihood: the chosen response may become less likely at a constant loss.

    >>> from gpo_theory.catalogue import LOSSES
    >>> common_mode(LOSSES["squared"], (Fraction(1), Fraction(-1)), Fraction(-50), Fraction(1, 10))
    (0.64, 0.64)
    """
    won, lost = log_ratios
    after = beta * ((won + shift) - (lost + shift))
    return float(value(loss, after).mid()), float(value(loss, beta * (won - lost)).mid())
