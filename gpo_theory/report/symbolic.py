"""What a loss has at 0 as a formula in its parameters: sympy writes it shorter, and decides nothing."""

__all__ = ["slope_in", "strength_in", "zero_slope_at"]

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from gpo_theory.calculus.balls import sign_at
from gpo_theory.calculus.constants import exact, text
from gpo_theory.calculus.pieces import UnsplitError, breakpoints, decided, differences
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, fold, rebuild, substitute
from gpo_theory.formula.operations import CHOICES
from gpo_theory.loss import Loss

X, ZERO = Expr.x(), Expr.of(0)


def strength_in(loss: Loss) -> str | None:
    """Return R = |f''(0)/f'(0)| as a formula in the parameters, the mean of both sides where f'' jumps at 0.

    It holds while f'(0) and f''(0) keep their signs and no breakpoint crosses 0; a parameter that holds a breakpoint at
    0 has its value put in. None where f'(0) does not exist or is 0.

    >>> from gpo_theory.catalogue import LOSSES
    >>> strength_in(LOSSES["alpha_loss"]), strength_in(LOSSES["cdpo"])
    ('1/(2*alpha)', '-1/(4*eps - 2)')
    """
    ratios = []
    slopes = set()
    for side in (-1, 1):
        piece = _beside(loss, side)
        values = [_at_zero(piece.diff()), _at_zero(piece.diff().diff())]
        signs = [_sign(loss, value) for value in values]
        if not signs[0] or signs[1] is None:
            return None
        slopes.add(text(_symbolic(_valued(values[0], loss.parameters), loss)))
        first, second = (_symbolic(value, loss) for value in values)
        ratios.append(_short((signs[0] * (signs[1] or 1)) * second / first))
    if len(slopes) > 1:
        return None
    return text(ratios[0] if ratios[0] == ratios[1] else _short((ratios[0] + ratios[1]) / 2))


def slope_in(loss: Loss) -> str:
    """Return f'(0), from the right where f has a kink there, as a formula in the parameters.

    >>> from gpo_theory.catalogue import LOSSES
    >>> slope_in(LOSSES["robust_dpo"])
    '1/(4*eps - 2)'
    """
    return text(_short(_symbolic(_at_zero(_beside(loss, 1).diff()), loss)))


def zero_slope_at(loss: Loss, parameter: str) -> str:
    """Return the value of a parameter at which f'(0) = 0, where f'(0) times some power of it is linear in it.

    Raises InputError for another shape, and for a name that is no parameter.

    >>> from gpo_theory.catalogue import LOSSES
    >>> zero_slope_at(LOSSES["discopop"], "tau")
    '1/3 - log(2)/3'
    """
    if parameter not in loss.parameters:
        raise InputError(f"loss {loss.name!r} has no parameter {parameter!r}; allowed: {', '.join(loss.parameters)}")
    import sympy

    symbol = sympy.Symbol(parameter, positive=loss.parameters[parameter] > 0 or None)
    numerator, _ = sympy.fraction(sympy.together(_short(_symbolic(_at_zero(_beside(loss, 1).diff()), loss))))
    numerator = sympy.expand(numerator)
    a, b = numerator.coeff(symbol, 1), numerator.coeff(symbol, 0)
    if not a or {symbol} & (a.free_symbols | b.free_symbols) or sympy.expand(numerator - a * symbol - b) != 0:
        raise InputError(f"f'(0) = {slope_in(loss)} is not linear in {parameter}")
    return text(_short(-b / a))


def _beside(loss: Loss, side: int) -> Expr:
    """Return the formula of f next to 0 on one side, its parameters by name and all decisions taken at their values."""
    body, f = loss.body.primitive(), loss.f.primitive()
    try:
        cuts = [abs(x) for x in breakpoints(f) if x * side > 0]
    except UnsplitError as error:
        raise InputError(f"{loss.formula!r} cannot be split into smooth pieces: {error}") from None
    fixed = {name for decision in _decisions(body) if sign_at(_valued(decision, loss.parameters), Fraction(0)) == 0
             for name in _names(decision)}  # fmt: skip
    kept = {name: value for name, value in loss.parameters.items() if name in fixed}
    return _decided(_valued(body, kept), loss.parameters, side * min(cuts, default=Fraction(1)) / 2)


def _decisions(node: Expr) -> list[Expr]:
    """Return the differences whose signs decide every max, min and where."""
    return [difference for part in node.walk() if part.head in CHOICES for difference in differences(part)]


def _decided(node: Expr, values: Mapping[str, Fraction], x: Fraction) -> Expr:
    """Return the formula that holds at x, with each max, min and where replaced by the argument that it takes."""

    def sign(difference: Expr) -> int:
        return sign_at(_valued(difference, values), x) or 0

    def value(part: Expr, of: Callable[[Expr], Expr]) -> Expr:
        if part.head == "where":
            return of(decided(part, sign))
        part = rebuild(part, map(of, part.children))
        return decided(part, sign) if part.head in CHOICES else part

    return fold(node, value)


def _at_zero(node: Expr) -> Expr:
    return substitute(node, {X: ZERO})


def _valued(node: Expr, values: Mapping[str, Fraction]) -> Expr:
    return substitute(node, {Expr("parameter", (name,)): Expr.of(value) for name, value in values.items()})


def _names(node: Expr) -> set[str]:
    return {part.args[0] for part in node.walk() if part.head == "parameter"}


def _sign(loss: Loss, value: Expr) -> int | None:
    return sign_at(_valued(value, loss.parameters), Fraction(0))


def _symbolic(node: Expr, loss: Loss) -> Any:
    """Return a formula without x as an expression of sympy, with a symbol for every parameter."""
    import sympy

    known = {Expr("parameter", (name,)): sympy.Symbol(name, positive=value > 0 or None)
             for name, value in loss.parameters.items()}  # fmt: skip
    return exact(node, known)


def _short(value: Any) -> Any:
    """Return the shortest of a few forms of the same expression."""
    import sympy

    forms = [sympy.expand(value), sympy.cancel(sympy.expand(value)), sympy.factor(sympy.cancel(sympy.expand(value)))]
    return min(forms, key=lambda form: len(text(form)))
