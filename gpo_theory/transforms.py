"""Transforms of a loss: label smoothing, noise correction, offset, scale, rounded kinks, linear continuation."""

__all__ = ["continued", "robust", "scaled", "shifted", "smoothed", "soft_label"]

from fractions import Fraction

from gpo_theory.calculus.balls import constant_at, enclose
from gpo_theory.calculus.pieces import Piece, UnsplitError, beside, joints, split
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, call, substitute
from gpo_theory.loss import Loss

X = Expr.x()
Number = Fraction | int | str


def soft_label(loss: Loss, flip: Number, parameter: str | None = None) -> Loss:
    """Return (1 - e) f(x) + e f(-x), the loss under labels believed to be flipped at rate e, 0 <= e < 1/2.

    With the logistic loss this is cDPO, logistic + e x (proposition P8). `parameter` keeps e under that name.

    >>> from gpo_theory.catalogue import LOSSES
    >>> soft_label(LOSSES["unhinged"], "1/4").formula
    '3*(1 - x)/4 + (1 + x)/4'
    """
    e, values = _number_of(_rate(flip), parameter, loss)
    return _made("soft_label", loss, flip, (1 - e) * loss.body + e * _at(loss, -X), values)


def robust(loss: Loss, flip: Number, parameter: str | None = None) -> Loss:
    """Return ((1 - e) f(x) - e f(-x)) / (1 - 2e), unbiased for clean data under flip rate e, 0 <= e < 1/2.

    With the logistic loss this is robust DPO, logistic - e x / (1 - 2e) (proposition P8). It undoes the flips: its
    soft label at the same e is f itself.

    >>> from gpo_theory.catalogue import LOSSES
    >>> robust(LOSSES["unhinged"], "1/4").formula
    '2*(3*(1 - x)/4 - (1 + x)/4)'
    """
    e, values = _number_of(_rate(flip), parameter, loss)
    return _made("robust", loss, flip, ((1 - e) * loss.body - e * _at(loss, -X)) / (1 - 2 * e), values)


def shifted(loss: Loss, delta: Number, parameter: str | None = None) -> Loss:
    """Return f(x - delta): the loss with an offset of the scaled margin, as in offset DPO and SimPO.

    >>> from gpo_theory.catalogue import LOSSES
    >>> shifted(LOSSES["hinge"], 1, "delta").formula
    'max(0, 1 - x + delta)'
    """
    d, values = _number_of(Fraction(delta), parameter, loss)
    return _made("shifted", loss, delta, _at(loss, X - d), values)


def scaled(loss: Loss, factor: Number, parameter: str | None = None) -> Loss:
    """Return f(k x): the loss at k times the beta.

    >>> from gpo_theory.catalogue import LOSSES
    >>> scaled(LOSSES["exponential"], "1/2").formula
    'exp(-x/2)'
    """
    k, values = _number_of(Fraction(factor), parameter, loss)
    return _made("scaled", loss, factor, _at(loss, k * X), values)


def smoothed(loss: Loss, width: Number) -> Loss:
    """Return f with every kink rounded over `width` on either side: f + sum_t J_t max(0, h - |x - t|)^2 / (4h).

    t runs over the kinks of f, J_t = f'(t+) - f'(t-) is the jump of its slope and h the width. The result is
    continuously differentiable, equals f beyond the windows, and is convex where f is; for a piecewise linear f it is
    the average of f over [x - h, x + h]. The hinge becomes Chapelle's Huberised hinge. Raises InputError where f jumps
    or a kink is not at a rational point.

    >>> from gpo_theory.catalogue import LOSSES
    >>> smoothed(LOSSES["hinge"], "1/2").formula
    'max(0, 1 - x) + max(0, 1/2 - abs(x - 1))**2/2'
    """
    h, body = Fraction(width), loss.f
    if h <= 0:
        raise InputError(f"width {width} is not positive")
    pieces = _pieces(loss)
    points = [piece.low for piece in pieces if piece.is_point and piece.low is not None]
    for i, (x, joint) in enumerate(zip(points, joints(pieces), strict=True)):
        if joint.continuous is not True:
            raise InputError(f"{loss.formula!r} is not continuous at x = {x}: only kinks can be smoothed")
        if joint.bend:
            jump = constant_at(pieces[2 * i + 2].f.diff() - pieces[2 * i].f.diff(), x)
            body = body + jump * call("max", Expr.of(0), h - call("abs", X - x)) ** 2 / (4 * h)
    return _made("smoothed", loss, width, body, {})


def continued(loss: Loss, at: Number, side: str) -> Loss:
    """Return f continued by its tangent at the knee x = `at`, to the "left" or to the "right" of it.

    The tangent is that of the side that is kept, so the result is continuously differentiable at the knee, as the
    Huber loss is. This bounds the slope of a loss that grows too fast. Raises InputError where f is not defined at the
    knee, and for another side.

    >>> from gpo_theory.catalogue import LOSSES
    >>> continued(LOSSES["exponential"], 0, "left").formula
    'where(x < 0, 1 - x, exp(-x))'
    """
    if side not in ("left", "right"):
        raise InputError(f"side {side!r}; allowed: left, right")
    knee = Fraction(at)
    kept = beside(_pieces(loss), knee, 1 if side == "left" else -1)
    if not enclose(kept.f.diff(), knee).is_finite():
        raise InputError(f"{loss.formula!r} has no tangent at x = {at}")
    tangent = constant_at(kept.f, knee) + constant_at(kept.f.diff(), knee) * (X - knee)
    beyond = call("<" if side == "left" else ">", X, Expr.of(knee))
    return _made("continued", loss, f"{at}, {side}", call("where", beyond, tangent, loss.f), {})


def _pieces(loss: Loss) -> tuple[Piece, ...]:
    try:
        return split(loss.f.primitive())
    except UnsplitError as error:
        raise InputError(f"{loss.formula!r} cannot be split into smooth pieces: {error}") from None


def _at(loss: Loss, argument: Expr) -> Expr:
    return substitute(loss.body, {X: argument})


def _number_of(value: Fraction, parameter: str | None, loss: Loss) -> tuple[Expr, dict[str, Fraction]]:
    """Return the number as a formula, by name if it becomes a parameter, and the values of all parameters."""
    if parameter is None:
        return Expr.of(value), dict(loss.parameters)
    if parameter in loss.parameters:
        raise InputError(f"loss {loss.name!r} has a parameter {parameter!r} already; choose another name")
    return Expr("parameter", (parameter,)), {**loss.parameters, parameter: value}


def _made(transform: str, loss: Loss, number: Number, body: Expr, values: dict[str, Fraction]) -> Loss:
    return Loss(f"{transform}({loss.name}, {number})", body, values, loss.reference)


def _rate(flip: Number) -> Fraction:
    e = Fraction(flip)
    if not 0 <= e < Fraction(1, 2):
        raise InputError(f"flip rate {flip} is outside 0 <= e < 1/2")
    return e
