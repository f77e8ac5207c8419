"""New losses from old: each variant of the field is a transform of f, so that no formula is written twice."""

__all__ = ["robust", "scaled", "shifted", "soft_label"]

from fractions import Fraction

from gpo_theory.errors import InputError
from gpo_theory.formula import Expr, substitute
from gpo_theory.loss import Loss

X = Expr.x()


def soft_label(loss: Loss, flip: Fraction | str, name: str | None = None) -> Loss:
    """Return (1 - e) f(x) + e f(-x), the loss under labels believed to be flipped at rate e, 0 <= e < 1/2.

    With the logistic loss this is cDPO, logistic + e x (proposition P8).

    >>> from gpo_theory.catalogue import LOSSES
    >>> soft_label(LOSSES["unhinged"], "1/4").formula
    '3*(1 - x)/4 + (1 + x)/4'
    """
    e = _rate(flip)
    return _made(loss, (1 - e) * loss.f + e * _at(loss, -X), name or f"soft_label({loss.name}, {e})")


def robust(loss: Loss, flip: Fraction | str, name: str | None = None) -> Loss:
    """Return ((1 - e) f(x) - e f(-x)) / (1 - 2e), unbiased for clean data under flip rate e, 0 <= e < 1/2.

    With the logistic loss this is robust DPO, logistic - e x / (1 - 2e) (proposition P8).
    """
    e = _rate(flip)
    return _made(loss, ((1 - e) * loss.f - e * _at(loss, -X)) / (1 - 2 * e), name or f"robust({loss.name}, {e})")


def shifted(loss: Loss, delta: Fraction | str, name: str | None = None) -> Loss:
    """Return f(x - delta): the same loss with a margin offset, as in offset DPO and SimPO."""
    return _made(loss, _at(loss, X - Fraction(delta)), name or f"shifted({loss.name}, {delta})")


def scaled(loss: Loss, factor: Fraction | str, name: str | None = None) -> Loss:
    """Return f(k x): the same loss at k times the beta."""
    return _made(loss, _at(loss, Fraction(factor) * X), name or f"scaled({loss.name}, {factor})")


def _at(loss: Loss, argument: Expr) -> Expr:
    return substitute(loss.f, {X: argument})


def _made(loss: Loss, body: Expr, name: str) -> Loss:
    return Loss(name, body, {}, loss.reference)


def _rate(flip: Fraction | str) -> Fraction:
    e = Fraction(flip)
    if not 0 <= e < Fraction(1, 2):
        raise InputError(f"flip rate {flip} is outside 0 <= e < 1/2")
    return e
