"""The loss: one scalar function f of the scaled margin x = beta * rho, with its parameters and its source."""

__all__ = ["Loss", "parse"]

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from gpo_theory.errors import InputError, ParseError, nearest
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.formula.operations import CONSTANTS, OPERATIONS

_RESERVED = {"x", "and", "or", *CONSTANTS, *OPERATIONS}
# At most 31 characters and a two-digit exponent: a longer number would fill the memory as an exact fraction.
_NUMBER = re.compile(r"[+-]?(?=.{1,31}$)(\d+/\d+|(\d+\.?\d*|\.\d+)([eE][+-]?\d\d?)?)")


@dataclass(frozen=True)
class Loss:
    """A preference loss: E[f(beta * rho)], with rho in nats and f a function of x = beta * rho.

    `body` is the formula with its parameters by name; `f` has their values put in. Losses compare by value.

    >>> Loss("mine", parse_formula("max(0, 1-x)**2")).formula
    'max(0, 1 - x)**2'
    """

    name: str
    body: Expr
    parameters: Mapping[str, Fraction] = field(default_factory=dict, hash=False)
    reference: str = ""

    @cached_property
    def f(self) -> Expr:
        """The formula in x alone."""
        values = {Expr("parameter", (name,)): Expr.of(value) for name, value in self.parameters.items()}
        return substitute(self.body, values)

    @property
    def formula(self) -> str:
        """The formula as text in the grammar of `parse`, parameters by name."""
        return str(self.body)

    def __str__(self) -> str:
        """The name where it is not the formula itself, the formula, and what x and the parameters are."""
        name = "" if self.name == self.formula else f"{self.name}: "
        return f"{name}f(x) = {self.formula}, x = beta * rho{self._values()}"

    def __repr__(self) -> str:
        formula = "" if self.name == self.formula else f": {self.formula}"
        return f"<Loss {self.name}{formula}{self._values()}>"

    def _values(self) -> str:
        return "".join(f", {name} = {value}" for name, value in self.parameters.items())

    def with_parameters(self, values: Mapping[str, Fraction | int | str]) -> "Loss":
        """Return the same loss at other parameter values; an unknown name is an InputError.

        >>> parse("exp(-a*x)", {"a": 1}).with_parameters({"a": "1/2"}).f.diff()
        Expr(...)
        """
        for name in values:
            if name not in self.parameters:
                allowed = ", ".join(self.parameters) or "none"
                raise InputError(f"loss {self.name!r} has no parameter {name!r}{nearest(name, self.parameters)}; "
                                 f"allowed: {allowed}")  # fmt: skip
        read = {name: _rational(name, value) for name, value in values.items()}
        return Loss(self.name, self.body, {**self.parameters, **read}, self.reference)


def parse(
    text: str,
    parameters: Mapping[str, Fraction | int | str] | None = None,
    *,
    name: str | None = None,
    reference: str = "",
) -> Loss:
    """Return the loss that the formula `text` in x spells; `parameters` gives every other name its value.

    Raises ParseError with the text quoted. A float parameter is refused: write it as text, which is read exactly.

    >>> parse("max(0,1-x)**2").formula
    'max(0, 1 - x)**2'
    """
    values = {key: _rational(key, value) for key, value in (parameters or {}).items()}
    body = parse_formula(text, values)
    unused = set(values) - {node.args[0] for node in body.walk() if node.head == "parameter"}
    if unused:
        raise ParseError(f"in {text!r}: parameter {sorted(unused)[0]!r} does not occur")
    return Loss(name or str(body), body, values, reference)


def _rational(name: str, value: Fraction | int | str) -> Fraction:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", name) or name in _RESERVED:
        raise ParseError(f"{name!r} cannot name a parameter: letters, digits and _ that are no word of the grammar")
    try:
        if not isinstance(value, Fraction | int | str) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
            raise ValueError
        return Fraction(value)
    except (ValueError, ZeroDivisionError):
        raise ParseError(f"parameter {name}={value!r} is not a number such as 0.1 or 1/3") from None
