"""Exact constants: numbers such as log(2) or 1/pi, kept exactly by sympy, which never decides anything here."""

__all__ = ["TooLargeError", "exact", "function", "as_double", "sign", "text", "tidy"]

import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import reduce
from math import inf
from operator import add, mul
from typing import Any

os.environ.setdefault("SYMPY_GROUND_TYPES", "python")
import sympy
from sympy.printing.str import StrPrinter

from gpo_theory.budget import spend
from gpo_theory.formula.expression import Expr, fold
from gpo_theory.formula.operations import CHOICES, CONSTANTS, PRIMITIVES


class TooLargeError(Exception):
    """An exact number has more operations than the caller allows."""


class _GrammarPrinter(StrPrinter):  # type: ignore[misc]
    """The printer of sympy, with Euler's number spelled as in the grammar."""

    def _print_Exp1(self, _: Any) -> str:
        return "e"


def exact(node: Expr | Fraction | int, known: Mapping[Expr, Any] | None = None) -> Any:
    """Return the exact sympy value of a formula without x, from the sympy values of the parts that are `known`.

    >>> text(exact(Expr("log", (Expr.of(2),))))
    'log(2)'
    """
    given = known or {}

    def value(part: Expr, of: Callable[[Expr], Any]) -> Any:
        if part in given:
            return given[part]
        if part.number is not None:
            return sympy.Rational(part.number.numerator, part.number.denominator)
        if part.head in CONSTANTS:
            return sympy.pi if part.head == "pi" else sympy.E
        if part.head in CHOICES:
            raise ValueError(f"{node} is not a plain constant")
        values = [of(child) for child in part.children]
        if part.head in ("+", "*"):
            return reduce(add if part.head == "+" else mul, values)
        return values[0] ** values[1] if part.head == "**" else function(part.head, values[0])

    return fold(Expr.of(node), value)


def sign(value: Any) -> int | None:
    """Return the sign of an exact number from its ball, 0 only where it is written as 0; None where undecided."""
    if value.is_Rational:
        return (value.p > 0) - (value.p < 0)  # type: ignore[no-any-return]
    from gpo_theory.calculus.balls import sign_at
    from gpo_theory.formula.grammar import parse_constant

    return sign_at(parse_constant(text(value)), Fraction(0))


def as_double(value: Any) -> float:
    """Return an exact number as a double, 0 or infinite only where it is beyond the range of doubles."""
    if value.is_Rational:
        from_fraction = Fraction(int(value.p), int(value.q))
        return _double(from_fraction)
    from gpo_theory.calculus.balls import MAX_BITS, enclose
    from gpo_theory.formula.grammar import parse_constant

    node, bits = parse_constant(text(value)), 128
    while (ball := enclose(node, Fraction(0), bits)).rel_accuracy_bits() < 64 and bits < MAX_BITS:
        bits *= 4
    return float(ball.mid())


def _double(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def tidy(value: Any, operations: int) -> Any:
    """Return an exact number in expanded form; raises TooLargeError where it stays above so many operations."""
    spend()
    if value.is_Rational:
        return value
    value = value.expand()
    if value.count_ops() > operations:
        value = sympy.cancel(value)
        if value.count_ops() > operations:
            raise TooLargeError
    return value


def function(name: str, value: Any) -> Any:
    """Return a primitive function of an exact number, exactly; raises ValueError for another name."""
    if name not in PRIMITIVES:
        raise ValueError(f"{name} is not a primitive function")
    return getattr(sympy, name)(value)


def text(value: Any) -> str:
    """Return an exact number as text in the grammar of formulas."""
    if value.is_Rational:
        return str(value)
    forms = (sympy.expand(value), sympy.cancel(value))
    return min((str(_GrammarPrinter().doprint(form)) for form in forms), key=len)
