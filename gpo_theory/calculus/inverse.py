"""Closed-form solutions x of w a(x) = u b(x), for formulas a and b whose quotient can be inverted.

x, exp(k x), atan and every other operation stand as independent symbols. Where all but one of them cancel from a/b, and
the rest is of degree one or two in it, the equation is solved by radicals.
"""

__all__ = ["inverses", "simplified"]

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from math import gcd, lcm
from operator import mul
from typing import Any

import sympy

from gpo_theory.budget import spend
from gpo_theory.calculus.algebra import as_formula, signed
from gpo_theory.calculus.rational import MAX_DEGREE, common_step
from gpo_theory.formula.expression import Expr, call
from gpo_theory.kernel.inequality import root_factors

LARGEST = 120  # nodes of the two formulas; factoring larger ones can take minutes
X = Expr.x()


class _UnsolvedError(Exception):
    pass


def inverses(above: Expr, below: Expr, weights: tuple[Expr, Expr]) -> list[Expr]:
    """Return the solutions x of w above(x) = u below(x), weights = (u, w): above(x)/below(x) = u/w.

    They are formulas in what the weights hold.

    Every branch of a square root is listed; the caller checks which of them is a solution.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> p = parse_formula("p", ["p"])
    >>> [str(x) for x in inverses(parse_formula("-2*x-2"), parse_formula("2*x-2"), (p, 1 - p))]
    ['2*p - 1']
    """
    if sum(1 for side in (above, below) for _ in side.walk()) > LARGEST:
        return []
    for sides in dict.fromkeys(((above, below, 1), _raised(above, below))):  # a power loses the sign of a solution
        try:
            return list(_solutions(*sides, weights))
        except _UnsolvedError:
            continue
    return []


def simplified(above: Expr, below: Expr) -> Expr | None:
    """Return above/below in lowest terms, as in `inverses`; None where below is 0 or a part is not a polynomial's.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> str(simplified(parse_formula("-2*x-2"), parse_formula("-4+0*x")))
    '(1 + x)/2'
    """
    if sum(1 for side in (above, below) for _ in side.walk()) > LARGEST:
        return None
    try:
        symbols = _Symbols(_unit(above, below))
        bottom = sympy.expand(symbols.read(below))
        if bottom == 0:
            return None
        top, bottom = sympy.fraction(sympy.together(sympy.cancel(symbols.read(above) / bottom)))
        return symbols.back(top) / symbols.back(bottom)
    except _UnsolvedError:
        return None


def _raised(above: Expr, below: Expr) -> tuple[Expr, Expr, int]:
    """Return above^d, below^d and the least d that leaves no root which all terms of either share."""
    split = [root_factors(g) for g in (above, below)]
    d = lcm(1, *(n.denominator for roots, _ in split for n in roots.values()))
    sides = [reduce(mul, (base ** (n * d) for base, n in roots.items()), rest**d) for roots, rest in split]
    return sides[0], sides[1], d


def _solutions(above: Expr, below: Expr, d: int, weights: tuple[Expr, Expr]) -> Iterator[Expr]:
    symbols = _Symbols(_unit(above, below))
    denominator = symbols.read(below)
    if denominator == 0:
        raise _UnsolvedError
    ratio = sympy.cancel(symbols.read(above) / denominator)
    if len(symbols.generators & ratio.free_symbols) == 2:
        ratio = symbols.paired(ratio)
    if len(symbols.generators & ratio.free_symbols) != 1:
        raise _UnsolvedError
    y = (symbols.generators & ratio.free_symbols).pop()
    top, bottom, n, turned = _root(ratio, y)
    weights = (-weights[0] if turned else weights[0], weights[1])
    u, w = (symbols.read(weight) if n == d else symbols.symbol(weight ** Fraction(d, n)) for weight in weights)
    for branch in (1, -1) if n % 2 == 0 else (1,):
        a = sympy.Poly(sympy.expand(branch * w * top - u * bottom), y).all_coeffs()[::-1]
        step = reduce(gcd, (k for k, c in enumerate(a) if c != 0), 0) if symbols.back(y).head == "exp" else 1
        for value in _roots(a[::step], symbols):
            yield from symbols.unwrap(y, value, step)


def _roots(a: list[Any], symbols: "_Symbols") -> Iterator[Expr]:
    """Yield the zeros of a polynomial of degree one or two."""
    if len(a) == 2:
        yield symbols.back(signed(-a[0] / a[1]))
    elif len(a) == 3:
        middle, last = (symbols.back(sympy.factor(c)) for c in (-a[1], 2 * a[2]))
        root = symbols.back(sympy.factor(a[1] ** 2 - 4 * a[0] * a[2])) ** Fraction(1, 2)
        yield from ((middle + root) / last, (middle - root) / last)


def _root(ratio: Any, y: Any) -> tuple[Any, Any, int, bool]:
    """Return (t, b, n, turned) with ratio = (t/b)^n, or -(t/b)^n where turned, for the largest n that factors show."""
    powers, sides = list[int](), []
    top, bottom = sympy.fraction(ratio)
    for side in (top, bottom):
        spend()
        constant, factors = sympy.factor_list(side)
        sides.append((constant, factors))
        powers += [n for base, n in factors]
    n = reduce(gcd, powers, 0)
    (c, over), (d, under) = sides
    turned, whole = bool(c / d < 0), abs(c / d) ** sympy.Rational(1, n) if n else None
    scale = -whole if whole is not None and turned and n % 2 else whole
    if n < 2 or scale is None or not scale.is_Rational or not all(base.has(y) for base, _ in over + under):
        return top, bottom, 1, False
    parts = [reduce(lambda a, b: a * b, (base ** (k // n) for base, k in side), front)
             for side, front in ((over, scale), (under, sympy.Integer(1)))]  # fmt: skip
    return *parts, n, turned and n % 2 == 0


def _unit(*formulas: Expr) -> tuple[Fraction, Fraction]:
    """Return the common step of the slopes, and of the constants, in the arguments of all exponentials."""
    lines = [_line(n.args[0]) for g in formulas for n in g.walk() if n.head == "exp" and n.depends_on_x]
    return common_step(a for a, _ in lines), common_step(b for _, b in lines)


def _line(node: Expr) -> tuple[Fraction, Fraction]:
    """Return (a, b) for a x + b."""
    slope, start = node.diff().number, None
    if slope is not None:
        start = (node - slope * X).number
    if slope is None or start is None:
        raise _UnsolvedError
    return slope, start


@dataclass
class _Symbols:
    """A symbol for every part of a formula that is no polynomial, and the formula that it stands for."""

    unit: tuple[Fraction, Fraction]
    known: dict[Expr, Any] = field(default_factory=dict)

    @property
    def generators(self) -> set[Any]:
        return {symbol for node, symbol in self.known.items() if node.depends_on_x}

    def symbol(self, node: Expr) -> Any:
        return self.known.setdefault(node, sympy.Symbol(f"y{len(self.known)}", positive=True))

    def read(self, node: Expr) -> Any:
        spend()
        if node.number is not None:
            return sympy.Rational(node.number.numerator, node.number.denominator)
        if node.head in ("+", "*"):
            parts = [self.read(child) for child in node.children]
            return sympy.Add(*parts) if node.head == "+" else sympy.Mul(*parts)
        if node.head == "**" and node.args[1].number is not None and node.args[1].number.denominator == 1:
            if abs(node.args[1].number) > MAX_DEGREE:
                raise _UnsolvedError
            return self.read(node.args[0]) ** int(node.args[1].number)
        if node.head == "**" and node.args[1].number is not None and node.depends_on_x:
            q = node.args[1].number
            return self.symbol(node.args[0] ** Fraction(1, q.denominator)) ** q.numerator
        if node.head == "exp" and node.depends_on_x:
            a, b = _line(node.args[0])
            slope, constant = self.unit
            if max(abs(a / slope), abs(b / constant)) > MAX_DEGREE:
                raise _UnsolvedError
            power = self.symbol(call("exp", slope * X)) ** int(a / slope)
            return power * self.symbol(call("exp", Expr.of(constant))) ** int(b / constant) if b else power
        if node.head == "atan" and -node.args[0] in (known.args[0] for known in self.known if known.head == "atan"):
            return -self.symbol(call("atan", -node.args[0]))
        return self.symbol(node)

    def back(self, value: Any) -> Expr:
        """Return an expression in the symbols as a formula."""
        return as_formula(value, {symbol: node for node, symbol in self.known.items()})

    def paired(self, ratio: Any) -> Any:
        """Rewrite a ratio in x and s = sqrt(a x^2 + b) as one in x/s, where that is all it depends on."""
        root = next((n for n, s in self.known.items() if s in ratio.free_symbols and n.head == "**"), None)
        if root is None or X not in self.known:
            raise _UnsolvedError
        v = self.symbol(Expr("*", (X, root**-1)))
        return sympy.cancel(ratio.subs(self.known[X], v * self.known[root]))

    def unwrap(self, symbol: Any, value: Expr, step: int) -> Iterator[Expr]:
        """Yield x where the `step`-th power of what a symbol stands for takes a value."""
        node = self.back(symbol)
        if node == X:
            yield value
        elif node.head == "exp":
            yield call("log", value) / (step * self.unit[0])
        elif node.head == "atan":
            a, b = _line(node.args[0])
            yield (call("sin", value) / call("cos", value) - b) / a
        elif node.head == "*":
            square_term, constant = _even_square(node.args[1].args[0])
            square = signed(self.read(constant) / (1 - self.read(square_term) * self.read(value) ** 2))
            yield value * self.back(sympy.factor(square)) ** Fraction(1, 2)


def _even_square(node: Expr) -> tuple[Expr, Expr]:
    """Return (a, b) for a x^2 + b."""
    a, b = node.diff().diff() / 2, node - (node.diff().diff() / 2) * X**2
    if a.depends_on_x or b.depends_on_x:
        raise _UnsolvedError
    return a, b
