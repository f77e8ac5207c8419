"""f'(0) and R as formulas in the parameters of a loss; sympy only writes them shorter, every sign is certified."""

__all__ = ["slope_in", "strength_in", "validity_in", "zero_slope_at"]

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from gpo_theory.calculus.balls import sign_at
from gpo_theory.calculus.constants import exact, text
from gpo_theory.calculus.pieces import UnsplitError, breakpoints, decided, differences
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, fold, rebuild, substitute
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.formula.operations import CHOICES
from gpo_theory.loss import Loss

X, ZERO = Expr.x(), Expr.of(0)


def slope_in(loss: Loss) -> str:
    """Return f'(0), from the right where f has a kink there, as a formula in the parameters; see `validity_in`.

    >>> from gpo_theory.catalogue import LOSSES
    >>> slope_in(LOSSES["robust_dpo"])
    '1/(4*eps - 2)'
    """
    return text(_slope(loss))


def strength_in(loss: Loss) -> str | None:
    """Return R = |f''(0)/f'(0)| as a formula in the parameters, by the mean of both sides where f'' jumps at 0.

    `validity_in` says for which parameters it holds. None where f'(0) does not exist or is 0.

    >>> from gpo_theory.catalogue import LOSSES
    >>> strength_in(LOSSES["alpha_loss"]), strength_in(LOSSES["cdpo"])
    ('1/(2*alpha)', '-1/(4*eps - 2)')
    """
    found = _strengths(loss)
    return None if found is None else text(found[0])


def validity_in(loss: Loss) -> tuple[tuple[str, str], ...]:
    """Return the conditions on the parameters under which `slope_in` and `strength_in` hold, where f is defined.

    Each is a formula and its relation to 0: no breakpoint passes 0, f'(0) keeps its sign, and f''(0)/f'(0) does on
    either side, or in the mean where the sides differ in sign. A parameter that holds a breakpoint at 0 has its value
    put in the formulas, and keeps it.

    >>> from gpo_theory.catalogue import LOSSES
    >>> validity_in(LOSSES["gamma_hinge"]), validity_in(LOSSES["lum"])
    ((('1 - gamma', '>'),), (('c', '='), ('1 + 1/a', '>=')))
    """
    body = loss.body.primitive()
    found = [(str(Expr("parameter", (name,)) - value), "=") for name, value in _held(loss, body).items()]
    found += [(text(_short(_symbolic(_at_zero(difference), loss))), ">")
              for side in (-1, 1) for difference in _beside(loss, side)[1]]  # fmt: skip
    found.append((slope_in(loss), "<" if (_sign(loss, _at_zero(_beside(loss, 1)[0].diff())) or 0) < 0 else ">"))
    found += [(text(ratio), ">=") for ratio in (_strengths(loss) or (None, ()))[1]]
    return tuple(dict.fromkeys(pair for pair in found if _names(parse_formula(pair[0], loss.parameters))))


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
    numerator, _ = sympy.fraction(sympy.together(_slope(loss)))
    numerator = sympy.expand(numerator)
    a, b = numerator.coeff(symbol, 1), numerator.coeff(symbol, 0)
    if not a or {symbol} & (a.free_symbols | b.free_symbols) or sympy.expand(numerator - a * symbol - b) != 0:
        raise InputError(f"f'(0) = {slope_in(loss)} is not linear in {parameter}")
    return text(_short(-b / a))


def _slope(loss: Loss) -> Any:
    return _short(_symbolic(_at_zero(_beside(loss, 1)[0].diff()), loss))


def _strengths(loss: Loss) -> tuple[Any, list[Any]] | None:
    """Return R and what keeps its sign where that is R, None where f'(0) does not exist or is 0."""
    slopes = [_beside(loss, side)[0].diff() for side in (-1, 1)]
    firsts, seconds = [_at_zero(slope) for slope in slopes], [_at_zero(slope.diff()) for slope in slopes]
    ways, bends = ([_sign(loss, value) for value in values] for values in (firsts, seconds))
    upwards = _sign(loss, seconds[0] + seconds[1])
    if not all(ways) or None in (*bends, upwards):
        return None
    if len({text(_symbolic(_valued(value, loss.parameters), loss)) for value in firsts}) > 1:
        return None
    sense = (upwards or 1) * (ways[0] or 1)
    sides = [_short(sense * _symbolic(second, loss) / _symbolic(first, loss))
             for first, second in zip(firsts, seconds, strict=True)]  # fmt: skip
    mean = sides[0] if sides[0] == sides[1] else _short((sides[0] + sides[1]) / 2)
    return mean, [mean] if {-1, 1} <= {*bends} else sides


def _beside(loss: Loss, side: int) -> tuple[Expr, list[Expr]]:
    """Return the formula of f next to 0 on one side, and the differences that are positive there and decide it.

    Parameters are kept by name; every max, min and `where` is decided at their values.
    """
    body, f = loss.body.primitive(), loss.f.primitive()
    try:
        cuts = [abs(x) for x in breakpoints(f) if x * side > 0]
    except UnsplitError as error:
        raise InputError(f"{loss.formula!r} cannot be split into smooth pieces: {error}") from None
    positive: list[Expr] = []
    x = side * min(cuts, default=Fraction(1)) / 2
    return _decided(_valued(body, _held(loss, body)), loss.parameters, x, positive), positive


def _held(loss: Loss, body: Expr) -> dict[str, Fraction]:
    """Return the parameters that hold a breakpoint at 0, with their values."""
    found = [difference for part in body.walk() if part.head in CHOICES for difference in differences(part)]
    names = {name for difference in found if _sign(loss, _at_zero(difference)) == 0 for name in _names(difference)}
    return {name: value for name, value in loss.parameters.items() if name in names}


def _decided(node: Expr, values: Mapping[str, Fraction], x: Fraction, positive: list[Expr]) -> Expr:
    """Return the formula that holds at x, without max, min and `where`; add what is positive there to `positive`."""

    def sign(difference: Expr) -> int:
        return sign_at(_valued(difference, values), x) or 0

    def value(part: Expr, of: Callable[[Expr], Expr]) -> Expr:
        if part.head == "where":
            for difference in map(of, differences(part)):
                positive.append(sign(difference) * difference)
            return of(decided(part, sign))
        part = rebuild(part, map(of, part.children))
        if part.head not in CHOICES:
            return part
        best, sense = decided(part, sign), 1 if part.head == "max" else -1
        positive.extend(sense * (best - other) for other in part.children if other is not best)
        return best

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
