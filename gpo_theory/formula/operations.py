"""The functions of the grammar in one table, read by everything that parses, prints, differentiates or evaluates.

A primitive function is one with a derivative here; it has the same name in sympy, Arb, mpmath, and NumPy or
`scipy.special`. Every other function is defined by primitives or chooses among its arguments. What needs mathematics of
its own stands where it is used: expansions at infinity (`calculus/asymptotics.py`), the solution of equations
(`calculus/inverse.py`), stable array code (`lowering/`), and the kernel, which shares nothing with the provers.
"""

__all__ = ["CHOICES", "COMPARISONS", "CONSTANTS", "NEGATED", "OPERATIONS", "PRIMITIVES", "Operation", "operation"]

import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Formula = Any  # an Expr: that module reads this table, so this one cannot import it
Rule = Callable[[Formula, Callable[..., Formula]], Formula]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One function of the grammar.

    A rule is written in the argument u and in `call`, where call(name, *arguments) is the node of another operation.
    """

    definition: Rule | None = None  # the same function by others
    derivative: Rule | None = None  # with respect to u
    rational: tuple[int, int] | None = None  # the rational u at which the value is rational too, and that value
    partial: bool = False  # undefined for some real u
    arguments: tuple[int, int] = (1, 1)  # least and most
    latex: str = ""  # a command, or a text with %s for the argument; if empty, \operatorname{name}


# The derivative of max, min and where depends on x: `calculus/pieces.py` splits them first.
OPERATIONS: dict[str, Operation] = {
    "exp": Operation(derivative=lambda u, call: call("exp", u), rational=(0, 1), latex="e^{%s}"),
    "log": Operation(derivative=lambda u, call: 1 / u, rational=(1, 0), partial=True, latex=r"\log"),
    "atan": Operation(derivative=lambda u, call: 1 / (1 + u**2), rational=(0, 0), latex=r"\arctan"),
    "erfc": Operation(derivative=lambda u, call: -2 * call("pi") ** Fraction(-1, 2) * call("exp", -(u**2)),
                      rational=(0, 1)),
    "sin": Operation(derivative=lambda u, call: call("cos", u), rational=(0, 0), latex=r"\sin"),
    "cos": Operation(derivative=lambda u, call: -call("sin", u), rational=(0, 1), latex=r"\cos"),
    "max": Operation(arguments=(2, 8), latex=r"\max"),
    "min": Operation(arguments=(2, 8), latex=r"\min"),
    "where": Operation(arguments=(3, 3)),  # condition, value where it holds, value elsewhere
    "abs": Operation(definition=lambda u, call: call("max", u, -u), latex=r"\left|%s\right|"),
    "log1p": Operation(definition=lambda u, call: call("log", 1 + u), partial=True),
    "expm1": Operation(definition=lambda u, call: call("exp", u) - 1),
    "sqrt": Operation(definition=lambda u, call: u ** Fraction(1, 2), partial=True, latex=r"\sqrt{%s}"),
    "sigmoid": Operation(definition=lambda u, call: 1 / (1 + call("exp", -u)), latex=r"\sigma"),
    "softplus": Operation(definition=lambda u, call: call("log", 1 + call("exp", u))),
    "tanh": Operation(definition=lambda u, call: 1 - 2 / (1 + call("exp", 2 * u)), latex=r"\tanh"),
    "sinh": Operation(definition=lambda u, call: (call("exp", u) - call("exp", -u)) / 2, latex=r"\sinh"),
    "cosh": Operation(definition=lambda u, call: (call("exp", u) + call("exp", -u)) / 2, latex=r"\cosh"),
    "asinh": Operation(definition=lambda u, call: call("log", u + (1 + u**2) ** Fraction(1, 2)),
                       latex=r"\operatorname{arsinh}"),
    "erf": Operation(definition=lambda u, call: 1 - call("erfc", u)),
    "log_ndtr": Operation(definition=lambda u, call: call("log", call("erfc", -u * call("**", 2, Fraction(-1, 2))) / 2),
                          latex=r"\log\Phi"),
}  # fmt: skip

PRIMITIVES = frozenset(name for name, each in OPERATIONS.items() if each.derivative)
CHOICES = frozenset({"max", "min", "where"})  # functions that take the value of one of their arguments
CONSTANTS = ("pi", "e")
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}  # the comparison that holds where another does not


def operation(name: str) -> Operation:
    """Return the entry of a function; raises ValueError for a name that is no function of the grammar.

    >>> operation("log").partial
    True
    """
    if name not in OPERATIONS:
        raise ValueError(f"{name!r} is no function of the grammar; known: {', '.join(OPERATIONS)}")
    return OPERATIONS[name]
