"""The normal form as a list of array operations, run by any library that has them (torch, numpy)."""

__all__ = ["Program", "compiled", "numpy_operations", "with_polynomials"]

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from gpo_theory.calculus.balls import enclose
from gpo_theory.formula.expression import Expr
from gpo_theory.lowering.cancellation import TaylorPolynomial
from gpo_theory.lowering.normal_form import Branch, horner, is_negative, negated

Array = Any  # a tensor or an ndarray: one program serves both
Operations = Mapping[str, Callable[..., Array]]

_ARITHMETIC: Operations = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "negate": operator.neg, "power": operator.pow, "<": operator.lt,
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """The branches with their operations; `run(x, operations)` returns f(x), elementwise, in the dtype of x.

    `operations` names the library's exp, expm1, log, log1p, sigmoid, atan, acot, erfc, erfcx, log_erfcx, sin, cos,
    maximum, minimum, sqrt, square, where, sign (1 at 0 and at -0) and clamp(x, low, high).
    """

    branches: tuple[Branch, ...]
    steps: tuple[tuple["_Step", ...], ...]
    results: tuple[tuple[int, ...], ...]
    polynomials: tuple[tuple[TaylorPolynomial, tuple["_Step", ...]], ...] = ()

    def run(self, x: Array, operations: Operations) -> Array:
        """Return f(x)."""
        operations = {**_ARITHMETIC, **operations}
        where, value = operations["where"], None
        for branch, steps, results in zip(self.branches, self.steps, self.results, strict=True):
            here = self._one(branch, steps, results, x, operations)
            here = _spread(here, x, operations) if isinstance(here, float) else here
            if value is None:
                value = here
                continue
            edge = float(branch.low)  # type: ignore[arg-type]
            value = where(x >= edge if branch.closed else x > edge, here, value)
        for polynomial, steps in self.polynomials:
            v, radius = x - float(polynomial.centre), float(polynomial.radius)
            near = _evaluated(steps, operations["clamp"](v, -radius, radius), operations)[-1]
            value = where((v > -radius) & (v < radius), near, value)
        return value

    def _one(self, branch: Branch, steps: tuple["_Step", ...], results: tuple[int, ...], x: Array,
             operations: Operations) -> Array:  # fmt: skip
        # The input is clamped to the branch, so that no branch is infinite where `where` does not take it.
        u = x if branch.low is branch.high is None else operations["clamp"](x, _float(branch.low), _float(branch.high))
        v = u - float(branch.centre) if branch.centre else u
        if branch.left is None:
            return _evaluated(steps, v if branch.side > 0 else -v, operations)[results[0]]
        # |v| by a factor: the gradient of abs would be 0 at the centre.
        values = _evaluated(steps, v * operations["sign"](v), operations)
        right, left = (values[i] for i in results)
        return right if results[0] == results[1] else operations["where"](v >= 0, right, left)


def _spread(constant: float, x: Array, operations: Operations) -> Array:
    """Return a constant in the shape of x, with a gradient of 0; NaN where x is NaN, but not where x is infinite."""
    return constant + 0 * operations["clamp"](x, 0.0, 0.0)


def _float(edge: Fraction | None) -> float | None:
    return None if edge is None else float(edge)


def compiled(branches: tuple[Branch, ...]) -> Program:
    """Return the program of a normal form; a subformula that occurs twice in a branch is computed once.

    >>> import numpy as np
    >>> from gpo_theory.formula.grammar import parse_formula
    >>> from gpo_theory.lowering.normal_form import to_normal_form
    >>> program = compiled(to_normal_form(parse_formula("x**2 - 1")))
    >>> program.run(np.array([2.0, 3.0]), {"square": np.square, "where": np.where})
    array([3., 8.])
    """
    steps, results = [], []
    for branch in branches:
        tape = _Tape()
        codes = (branch.right,) if branch.left is None else (branch.right, branch.left)
        results.append(tuple(tape.add(code) for code in codes))
        steps.append(tuple(tape.steps))
    return Program(branches, tuple(steps), tuple(results))


def with_polynomials(program: Program, polynomials: tuple[TaylorPolynomial, ...]) -> Program:
    """Return the program with these polynomials in place of the branches, each within its radius."""
    programs = []
    for polynomial in polynomials:
        tape = _Tape()
        tape.add(horner(polynomial.coefficients))
        programs.append((polynomial, tuple(tape.steps)))
    return replace(program, polynomials=tuple(programs))


@dataclass(frozen=True)
class _Step:
    """One operation on earlier values; without a name it is the number itself, or y where that is None."""

    name: str | None
    operands: tuple[int, ...] = ()
    number: float | None = None


def _evaluated(steps: tuple[_Step, ...], y: Array, operations: Operations) -> list[Array]:
    values: list[Array] = []
    for step in steps:
        if step.name is None:
            values.append(y if step.number is None else step.number)
        else:
            values.append(operations[step.name](*(values[i] for i in step.operands)))
    return values


_NAMES = {"max": "maximum", "min": "minimum"}


class _Tape:
    """The steps of one branch."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []
        self.places: dict[Expr | _Step, int] = {}

    def emit(self, name: str | None, *operands: int, number: float | None = None) -> int:
        step = _Step(name, operands, number)
        if step not in self.places:
            self.places[step] = len(self.steps)
            self.steps.append(step)
        return self.places[step]

    def add(self, code: Expr) -> int:
        if code not in self.places:
            self.places[code] = self.new(code)
        return self.places[code]

    def new(self, code: Expr) -> int:
        if code.head == "x":
            return self.emit(None)
        if not code.depends_on_x:
            return self.emit(None, number=float(enclose(code, Fraction(0), 256)))
        if code.head == "+":
            return self.sum(code.args)
        if code.head == "*" or (code.head == "**" and code.args[1].number is not None and code.args[1].number < 0):
            return self.product(code.args if code.head == "*" else (code,))
        if code.head == "**":
            return self.power(self.add(code.args[0]), code.args[1])
        operands = [self.add(argument) for argument in code.args]
        if code.head in _NAMES:
            zero = self.emit("multiply", self.emit(None), self.emit(None, number=0.0))
            arrays = [at if argument.depends_on_x else self.emit("add", zero, at)
                      for at, argument in zip(operands, code.args, strict=True)]  # fmt: skip
            return reduce(lambda a, b: self.emit(_NAMES[code.head], a, b), arrays)
        return self.emit(code.head, *operands)

    def sum(self, terms: tuple[Expr, ...]) -> int:
        # The first term is one that is added, which saves a negation.
        first = next((term for term in terms if not is_negative(term)), terms[0])
        total = self.add(first)
        for term in terms:
            if term is not first and is_negative(term):
                total = self.emit("subtract", total, self.add(negated(term)))
            elif term is not first:
                total = self.emit("add", total, self.add(term))
        return total

    def product(self, factors: tuple[Expr, ...]) -> int:
        above, below, number = list[Expr](), list[Expr](), Fraction(1)
        for factor in factors:
            n = factor.args[1].number if factor.head == "**" else None
            if factor.number is not None:
                number *= factor.number
            elif n is not None and n < 0:
                below.append(factor.args[0] if n == -1 else Expr("**", (factor.args[0], Expr.of(-n))))
            else:
                above.append(factor)
        # A factor 1/n is a division by n, which rounds once.
        if abs(number.numerator) == 1 and number.denominator != 1 and not below:
            below, number = [Expr.of(number.denominator)], Fraction(number.numerator)
        negative, number = number < 0, abs(number)
        numbers = [self.emit(None, number=float(number))] if number != 1 or not above else []
        parts = numbers + [self.add(factor) for factor in above]
        value = reduce(lambda a, b: self.emit("multiply", a, b), parts)
        if below:
            value = self.emit("divide", value, reduce(lambda a, b: self.emit("multiply", a, b), map(self.add, below)))
        return self.emit("negate", value) if negative else value

    def power(self, base: int, exponent: Expr) -> int:
        n = exponent.number
        if n == Fraction(1, 2):
            return self.emit("sqrt", base)
        if n in (2, 3, 4):
            square = self.emit("square", base)
            return square if n == 2 else self.emit("multiply", square, base if n == 3 else square)
        return self.emit("power", base, self.add(exponent))


def numpy_operations() -> Operations:
    """Return numpy's and scipy's functions under the names that a program uses."""
    from scipy import special

    return {
        "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sin": np.sin, "cos": np.cos,
        "atan": np.arctan, "acot": lambda u: np.arctan2(1.0, u), "sqrt": np.sqrt, "square": np.square,
        "erfc": special.erfc, "erfcx": special.erfcx, "log_erfcx": _log_erfcx, "sigmoid": _sigmoid, "where": np.where,
        "maximum": np.maximum,
        "minimum": np.minimum, "clamp": _clip, "sign": lambda v: np.copysign(1.0, v + 0.0),
    }  # fmt: skip


def _clip(x: Array, low: float | None, high: float | None) -> Array:
    return np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)


def _log_erfcx(u: Array) -> Array:
    from scipy import special

    near, far = np.minimum(u, 1.0), np.maximum(u, 1.0)
    return np.where(u < 1.0, np.log(special.erfc(near)) + near * near, np.log(special.erfcx(far)))


def _sigmoid(u: Array) -> Array:
    """sigmoid(u), u <= 0: scipy's own is 2 ulp off."""
    falling = np.exp(u)
    return falling / (1 + falling)
