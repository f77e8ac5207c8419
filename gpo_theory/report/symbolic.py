"""f'(0) and R as formulas in the parameters of a loss; sympy only writes them shorter, every sign is certified."""

__all__ = ["slope_in", "strength_in", "validity_in", "zero_slope_at"]

from collections.abc import Mapping
from fractions import Fraction
from itertools import combinations
from typing import Any

from gpo_theory.calculus.balls import enclose, sign_at
from gpo_theory.calculus.constants import exact, function, text
from gpo_theory.calculus.pieces import UnsplitError, breakpoints
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import COMPARISONS, Expr, call, rebuild, substitute
from gpo_theory.formula.grammar import parse_formula
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
    """Return R = |f''(0)/f'(0)| as a formula in the parameters, the mean of both sides where f'' jumps at 0.

    `validity_in` says for which parameters it holds. None where f'(0) does not exist or is 0.

    >>> from gpo_theory.catalogue import LOSSES
    >>> strength_in(LOSSES["alpha_loss"]), strength_in(LOSSES["cdpo"])
    ('1/(2*alpha)', '-1/(4*eps - 2)')
    """
    sides = _strengths(loss)
    return None if sides is None else text(sides[0] if sides[0] == sides[1] else _short((sides[0] + sides[1]) / 2))


def validity_in(loss: Loss) -> tuple[tuple[str, str], ...]:
    """Return the conditions on the parameters under which `slope_in` and `strength_in` hold, where f is defined.

    Each is a formula and its relation to 0: no breakpoint passes 0, f'(0) keeps its sign, and f''(0)/f'(0) does on
    either side. A parameter that holds a breakpoint at 0 has its value put in the formulas, and keeps it.

    >>> from gpo_theory.catalogue import LOSSES
    >>> validity_in(LOSSES["gamma_hinge"]), validity_in(LOSSES["lum"])
    ((('1 - gamma', '>'),), (('c', '='), ('1 + 1/a', '>=')))
    """
    body = loss.body.primitive()
    found = [(str(Expr("parameter", (name,)) - value), "=") for name, value in _held(loss, body).items()]
    found += [(text(_short(_symbolic(_at_zero(difference), loss))), ">")
              for side in (-1, 1) for difference in _beside(loss, side)[1]]  # fmt: skip
    found.append((slope_in(loss), "<" if (_sign(loss, _at_zero(_beside(loss, 1)[0].diff())) or 0) < 0 else ">"))
    found += [(text(ratio), ">=") for ratio in _strengths(loss) or ()]
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


def _strengths(loss: Loss) -> list[Any] | None:
    """Return |f''(0)/f'(0)| on the left and on the right, None where f'(0) does not exist or is 0."""
    ratios, slopes = [], set()
    for side in (-1, 1):
        slope = _beside(loss, side)[0].diff()
        values = [_at_zero(slope), _at_zero(slope.diff())]
        signs = [_sign(loss, value) for value in values]
        if not signs[0] or signs[1] is None:
            return None
        slopes.add(text(_symbolic(_valued(values[0], loss.parameters), loss)))
        first, second = (_symbolic(value, loss) for value in values)
        ratios.append(_short((signs[0] * (signs[1] or 1)) * second / first))
    return ratios if len(slopes) == 1 else None


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
    differences = [part.args[0] - part.args[1] for part in body.walk() if part.head in COMPARISONS]
    differences += [a - b for part in body.walk() if part.head in ("max", "min") for a, b in combinations(part.args, 2)]
    names = {name for difference in differences if _sign(loss, _at_zero(difference)) == 0
             for name in _names(difference)}  # fmt: skip
    return {name: value for name, value in loss.parameters.items() if name in names}


def _decided(node: Expr, values: Mapping[str, Fraction], x: Fraction, positive: list[Expr]) -> Expr:
    """Return the formula that holds at x, without max, min and `where`; add what is positive there to `positive`."""
    if node.head == "where":
        for part in node.args[0].walk():
            if part.head in COMPARISONS:
                difference = _decided(part.args[0] - part.args[1], values, x, positive)
                positive.append((sign_at(_valued(difference, values), x) or 0) * difference)
        return _decided(node.args[1] if _holds(node.args[0], values, x) else node.args[2], values, x, positive)
    children = [_decided(child, values, x, positive) for child in node.children]
    if node.head not in ("max", "min"):
        return rebuild(node, tuple(children))
    best, sense = children[0], 1 if node.head == "max" else -1
    for other in children[1:]:
        best = other if sense * (sign_at(_valued(other - best, values), x) or 0) > 0 else best
    positive += [sense * (best - other) for other in children if other is not best]
    return best


def _holds(condition: Expr, values: Mapping[str, Fraction], x: Fraction) -> bool:
    if condition.head in ("and", "or"):
        return (all if condition.head == "and" else any)(_holds(part, values, x) for part in condition.args)
    chosen = call("where", condition, Expr.of(1), ZERO)
    return bool(enclose(_valued(chosen, values), x) > 0)


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

    if node.head == "parameter":
        return sympy.Symbol(node.args[0], positive=loss.parameters[node.args[0]] > 0 or None)
    if not _names(node):
        return exact(node)
    values = [_symbolic(child, loss) for child in node.children]
    if node.head in ("+", "*"):
        return (sympy.Add if node.head == "+" else sympy.Mul)(*values)
    return values[0] ** values[1] if node.head == "**" else function(node.head, values[0])


def _short(value: Any) -> Any:
    """Return the shortest of a few forms of the same expression."""
    import sympy

    forms = [sympy.expand(value), sympy.cancel(sympy.expand(value)), sympy.factor(sympy.cancel(sympy.expand(value)))]
    return min(forms, key=lambda form: len(text(form)))
