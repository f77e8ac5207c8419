"""A normal form as a list of array operations, run by any library that has them (torch, numpy)."""

__all__ = ["Program", "TaylorPolynomial", "compiled", "operations"]

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache, partial, reduce
from typing import Any

import numpy as np

from gpo_theory.calculus.balls import enclose, expand
from gpo_theory.formula.expression import Expr
from gpo_theory.lowering.normal_form import Branch, horner, is_negative, negated

Array = Any  # a tensor or an ndarray: one program serves both
Operations = Mapping[str, Any]  # functions of arrays
_ARITHMETIC: Operations = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "negate": operator.neg, "power": operator.pow, "<": operator.lt,
}  # fmt: skip
# Methods of tensors that overwrite; the memory of a new array costs as much as a pass over it.
_IN_PLACE = {
    **{name: f"{name}_" for name in ("exp", "expm1", "log", "log1p", "sqrt", "square", "abs", "clip", "sigmoid")},
    "add": "add_", "subtract": "sub_", "multiply": "mul_", "divide": "div_", "negate": "neg_",
}  # fmt: skip
_SAME = ("exp", "expm1", "log", "log1p", "sin", "cos", "sqrt", "square", "where", "abs", "clip")
_TERMS = 45  # of the continued fraction of the Mills ratio, which from 5/2 on is then exact to 2^-56


@dataclass(frozen=True)
class TaylorPolynomial:
    """sum_k coefficients[k] (x - centre)^k on |x - centre| < radius."""

    centre: Fraction
    radius: Fraction
    coefficients: tuple[Fraction, ...]


@dataclass(frozen=True)
class Program:
    """The branches with their operations, and the polynomials that stand in their place near some points."""

    branches: tuple[Branch, ...]
    steps: tuple[tuple["_Step", ...], ...]
    results: tuple[tuple[int, ...], ...]
    polynomials: tuple[tuple[TaylorPolynomial, tuple["_Step", ...]], ...] = ()

    def run(self, x: Array, operations: Operations) -> Array:
        """Return the value at x, elementwise, in the dtype of x, by the `operations` of x's library."""
        where, value = operations["where"], None
        for branch, steps, results in zip(self.branches, self.steps, self.results, strict=True):
            here = _one(branch, steps, results, x, operations)
            if value is None:
                value = here
                continue
            edge = float(branch.low)  # type: ignore[arg-type]
            value = where(x >= edge if branch.closed else x > edge, here, value)
        for polynomial, steps in self.polynomials:
            v = x - float(polynomial.centre) if polynomial.centre else x
            inside = operations["abs"](v) < float(polynomial.radius)
            near = partial(_last, steps, operations)
            value = operations["replaced"](value, inside, near, v)
        return value


def _last(steps: tuple["_Step", ...], operations: Operations, v: Array) -> Array:
    return _evaluated(steps, v, operations)[-1]


def _one(branch: Branch, steps: tuple["_Step", ...], results: tuple[int, ...], x: Array, ops: Operations) -> Array:
    v = x - float(branch.centre) if branch.centre else x
    two = branch.left is not None
    values = _evaluated(steps, ops["abs"](v) if two else v if branch.side > 0 else -v, ops, results)
    right, left = values[results[0]], values[results[-1]]
    here = right if results[0] == results[-1] else ops["where"](v >= 0, right, left)
    # A constant in the shape of x; NaN where x is NaN, but not where x is infinite.
    return here + 0 * ops["clip"](x, 0.0, 0.0) if isinstance(here, float) else here


def compiled(branches: tuple[Branch, ...], polynomials: tuple[TaylorPolynomial, ...] = ()) -> Program:
    """Return the program of a normal form; a subformula that occurs twice in a branch is computed once.

    >>> import numpy as np
    >>> from gpo_theory.formula.grammar import parse_formula
    >>> from gpo_theory.lowering.normal_form import to_normal_form
    >>> program = compiled(to_normal_form(parse_formula("x**2 - 1")))
    >>> program.run(np.array([2.0, 3.0]), operations(np))
    array([3., 8.])
    """
    steps, results = [], []
    for branch in branches:
        tape = _Tape()
        codes = (branch.right,) if branch.left is None else (branch.right, branch.left)
        results.append(tuple(tape.add(code) for code in codes))
        steps.append(tuple(tape.steps))
    near = []
    for polynomial in polynomials:
        tape = _Tape()
        tape.add(horner(polynomial.coefficients))
        near.append((polynomial, tuple(tape.steps)))
    return Program(branches, tuple(steps), tuple(results), tuple(near))


@dataclass(frozen=True)
class _Step:
    """One operation on earlier values; without a name it is the number itself, or y where that is None."""

    name: str | None
    operands: tuple[int, ...] = ()
    number: float | None = None


def _evaluated(
    steps: tuple[_Step, ...], y: Array, operations: Operations, results: tuple[int, ...] = ()
) -> list[Array]:
    values: list[Array] = []
    methods = operations.get("in place", {})
    dead = _dead(steps, results) if methods else (None,) * len(steps)  # torch.compile traces no cache
    for step, place in zip(steps, dead, strict=True):
        if step.name is None:
            values.append(y if step.number is None else step.number)
        elif place is not None and step.name in methods and not isinstance(values[place], float):
            others = (values[i] for i in step.operands if i != place)
            values.append(getattr(values[place], methods[step.name])(*others))
        else:
            values.append(operations[step.name](*(values[i] for i in step.operands)))
    return values


@lru_cache(maxsize=2048)
def _dead(steps: tuple[_Step, ...], results: tuple[int, ...]) -> tuple[int | None, ...]:
    """Return for each step the operand in whose memory its value may be written, because it is not used afterwards."""
    last = {i: at for at, step in enumerate(steps) for i in step.operands} | dict.fromkeys(results, len(steps))
    out: list[int | None] = []
    for at, step in enumerate(steps):
        allowed = step.operands if step.name in ("add", "multiply") else step.operands[:1]
        free = (i for i in allowed if steps[i].name is not None and last[i] == at and step.operands.count(i) == 1)
        out.append(next(free, None))
    return tuple(out)


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
        if code.head == "*" or (code.power is not None and code.power < 0):
            return self.product(code.args if code.head == "*" else (code,))
        if code.head == "**":
            return self.power(self.add(code.args[0]), code.args[1])
        if code.head in ("max", "min"):
            value = reduce(lambda a, b: self.emit(code.head, a, b), (self.add(u) for u in code.args if u.depends_on_x))
            for bound in (float(enclose(u, Fraction(0), 256)) for u in code.args if not u.depends_on_x):
                ends = (bound, math.inf) if code.head == "max" else (-math.inf, bound)
                value = self.emit("clip", value, *(self.emit(None, number=end) for end in ends))
            return value
        if code.head == "where":
            return self.emit("where", self.add(code.args[0]), *map(self.array, code.args[1:]))
        return self.emit(code.head, *map(self.add, code.args))

    def array(self, code: Expr) -> int:
        """Add a part that has to be an array, a number too."""
        at, zero = self.add(code), self.emit(None, number=0.0)
        return at if code.depends_on_x else self.emit("add", self.emit("clip", self.emit(None), zero, zero), at)

    def sum(self, terms: tuple[Expr, ...]) -> int:
        # The first term is one that is added, which saves a negation.
        first = next((i for i, term in enumerate(terms) if not is_negative(term)), 0)
        value = self.add(terms[first])
        for term in (*terms[:first], *terms[first + 1 :]):
            if is_negative(term):
                value = self.emit("subtract", value, self.add(negated(term)))
            else:
                value = self.emit("add", value, self.add(term))
        return value

    def product(self, factors: tuple[Expr, ...]) -> int:
        above, below, number = list[Expr](), list[Expr](), Fraction(1)
        for factor in factors:
            n = factor.power
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
        if n is not None and n.denominator == 2 and 1 < n < 5:
            return self.emit("multiply", self.power(base, Expr.of(n - Fraction(1, 2))), self.emit("sqrt", base))
        if n == 1:
            return base
        if n in (2, 3, 4):
            square = self.emit("square", base)
            return square if n == 2 else self.emit("multiply", square, base if n == 3 else square)
        return self.emit("power", base, self.add(exponent))


@lru_cache(maxsize=1)
def _mills_near() -> tuple[float, ...]:
    """Return the Taylor coefficients at 5/4, up to (1.25 / 3.2)^42 < 2^-56: the zeros of erfc are 3.2 away."""
    x, root = Expr.x(), Expr("pi") ** Fraction(1, 2)
    ratio = 2 * Expr("exp", (-(x**2),)) * (root * Expr("erfc", (x,))) ** -1 - 2 * x
    return tuple(float(c.mid()) for c in expand(ratio, Fraction(5, 4), 42))


@cache
def operations(library: Any) -> Operations:
    """Return the functions of numpy or torch under the names that a program uses."""
    where, exp, log = library.where, library.exp, library.log
    if library is np:
        from scipy import special

        # As torch's kernels compute it, which is 0 from exp(-u) = inf on: what is measured here has to hold there.
        rest: Operations = {"logsigmoid": lambda u: -np.logaddexp(0, -u), "sigmoid": lambda u: 1 / (1 + exp(-u)),
                            "step": lambda u: np.clip(np.sign(u), 0.0, None)}  # fmt: skip
    else:
        special, rest = library.special, {
            "logsigmoid": library.nn.functional.logsigmoid, "sigmoid": library.sigmoid,
            "step": lambda u: library.sign(u).clip_(0.0), "in place": _IN_PLACE}  # fmt: skip
    erfc = special.erfc

    def replaced(value: Array, inside: Array, function: Callable[[Array], Array], v: Array) -> Array:
        """Return the value with function(v) in its place where `inside`, which on the CPU is computed there alone."""
        if not value.ndim or (library is not np and (value.device.type != "cpu" or library.compiler.is_compiling())):
            return where(inside, function(v), value)
        if inside.any():
            value[inside] = function(v[inside])
        return value

    def log_erfcx(u: Array) -> Array:  # torch's erfcx is 7 ulp off below 1, where erfc is not
        return where(u < 1, log(erfc(u)) + u * u, log(special.erfcx(u)))

    def erfcx(u: Array) -> Array:
        return where(u < 1, exp(u * u) * erfc(u), special.erfcx(u))

    near = _mills_near()[::-1]

    def mills(u: Array) -> Array:
        """2/(sqrt(pi) erfcx(u)) - 2u = 1/(u + 1/(u + (3/2)/(u + ...))), below 5/2 by a polynomial: none cancels."""
        far = reduce(lambda below, k: u + (k / 2) / below, range(_TERMS, 1, -1), u)
        return replaced(1 / far, u < 2.5, lambda v: reduce(lambda value, c: value * v + c, near), u - 1.25)

    return {
        **{name: getattr(library, name) for name in _SAME}, **_ARITHMETIC, **rest,
        "atan": library.arctan, "acot": lambda u: library.arctan2(library.ones_like(u), u),
        "erfc": erfc, "erfcx": erfcx, "log_erfcx": log_erfcx, "mills": mills, "replaced": replaced,
        "max": library.maximum, "min": library.minimum,
    }  # fmt: skip
