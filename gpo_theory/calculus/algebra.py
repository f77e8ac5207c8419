"""Formulas as expressions of sympy, in which equal terms cancel, and back."""

__all__ = ["as_algebra", "as_formula", "signed"]

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import reduce
from typing import Any

import sympy

from gpo_theory.budget import spend
from gpo_theory.calculus.constants import exact, function
from gpo_theory.formula.expression import Expr, call, fold
from gpo_theory.formula.operations import PRIMITIVES


def as_algebra(node: Expr, known: Mapping[Expr, Any], normal: Callable[[Any], Any]) -> Any:
    """Return a formula with its `known` parts replaced, and every sum in it brought to `normal` form.

    Raises ValueError for an operation that is not listed here.

    >>> x, s = Expr.x(), sympy.Symbol("s", positive=True)
    >>> as_algebra(call("exp", x) + 1, {x: sympy.log(s - 1)}, sympy.cancel)
    s
    """

    def value(part: Expr, of: Callable[[Expr], Any]) -> Any:
        spend()
        if part in known:
            return known[part]
        if not part.children or not any(inner in known for inner in part.walk()):
            return exact(part)
        parts = [of(child) for child in part.children]
        match part.head:
            case "+":
                return normal(sympy.Add(*parts))
            case "*":
                return sympy.Mul(*parts)
            case "**":
                return sympy.powdenest(sympy.factor(parts[0]) ** parts[1])
            case "log":
                return sympy.expand_log(sympy.log(normal(parts[0])))
        return function(part.head, parts[0])

    return fold(node, value)


def as_formula(value: Any, known: Mapping[Any, Expr]) -> Expr:
    """Return a sum, product, power or primitive function of numbers and `known` symbols as a formula.

    Raises ValueError for anything else.

    >>> y = sympy.Symbol("y")
    >>> str(as_formula(1 / (2 - sympy.sqrt(y)), {y: Expr.x()}))
    '1/(2 - x**(1/2))'
    """
    if value in known:
        return known[value]
    if value.is_Rational:
        return Expr.of(Fraction(int(value.p), int(value.q)))
    if value in (sympy.E, sympy.pi):
        return Expr("e" if value == sympy.E else "pi")
    if value.is_Pow and value.base != sympy.E:
        return as_formula(value.base, known) ** as_formula(value.exp, known)
    if value.is_Add or value.is_Mul:
        # The first term of a sum has no minus sign, where there is such a term.
        ordered = sorted(value.args, key=lambda part: part.could_extract_minus_sign()) if value.is_Add else value.args
        parts = [as_formula(part, known) for part in ordered]
        return reduce(lambda a, b: a + b if value.is_Add else a * b, parts)
    name = type(value).__name__
    if name not in PRIMITIVES:
        raise ValueError(f"{value} is not a formula of the grammar")
    return call(name, *(as_formula(part, known) for part in value.args))


def signed(value: Any) -> Any:
    """Return a quotient in lowest terms whose denominator is positive where every symbol is 3/4.

    >>> y = sympy.Symbol("y")
    >>> signed(y / (y - 1))
    -y/(1 - y)
    """
    top, bottom = sympy.fraction(sympy.cancel(value))
    negative = bottom.subs(dict.fromkeys(bottom.free_symbols, sympy.Rational(3, 4))).is_negative
    return sympy.expand(-top) / sympy.expand(-bottom) if negative else top / bottom
