"""Exact constants: numbers such as log(2) or 1/pi, kept exactly by sympy, which never decides anything here."""

__all__ = ["TooLargeError", "exact", "function", "sign", "text", "tidy"]

import os
from fractions import Fraction
from functools import reduce
from operator import add, mul
from typing import Any

os.environ.setdefault("SYMPY_GROUND_TYPES", "python")
import sympy
from sympy.printing.str import StrPrinter

from gpo_theory.budget import spend
from gpo_theory.formula.expression import Expr


class TooLargeError(Exception):
    """An exact number has more operations than the caller allows."""


_FUNCTIONS = {"exp": sympy.exp, "log": sympy.log, "atan": sympy.atan, "erfc": sympy.erfc, "sin": sympy.sin,
              "cos": sympy.cos}  # fmt: skip


class _GrammarPrinter(StrPrinter):  # type: ignore[misc]
    """The printer of sympy, with Euler's number spelled as in the grammar."""

    def _print_Exp1(self, _: Any) -> str:
        return "e"


def exact(node: Expr | Fraction | int) -> Any:
    """Return the exact sympy number that a formula without x is equal to.

    >>> text(exact(Expr("log", (Expr.of(2),))))
    'log(2)'
    """
    if isinstance(node, Fraction | int):
        return sympy.Rational(Fraction(node).numerator, Fraction(node).denominator)
    head, args = node.head, node.args
    if head == "number":
        return exact(args[0])
    if head in ("pi", "e"):
        return sympy.pi if head == "pi" else sympy.E
    if head in ("max", "min", "where"):
        raise ValueError(f"{node} is not a plain constant")
    values = [exact(child) for child in node.children]
    if head in ("+", "*"):
        return reduce(add if head == "+" else mul, values)
    return values[0] ** values[1] if head == "**" else _FUNCTIONS[head](values[0])


def sign(value: Any) -> int | None:
    """Return the sign of an exact number from its ball, 0 only where it is written as 0; None where undecided."""
    if value.is_Rational:
        return (value.p > 0) - (value.p < 0)  # type: ignore[no-any-return]
    from gpo_theory.calculus.balls import sign_at
    from gpo_theory.formula.grammar import parse_constant

    return sign_at(parse_constant(text(value)), Fraction(0))


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
    """Return a primitive function of an exact number, exactly."""
    return _FUNCTIONS[name](value)


def text(value: Any) -> str:
    """Return an exact number as text in the grammar of formulas."""
    if value.is_Rational:
        return str(value)
    forms = (sympy.expand(value), sympy.cancel(value))
    return min((str(_GrammarPrinter().doprint(form)) for form in forms), key=len)
