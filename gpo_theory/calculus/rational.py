"""Formulas that are rational in x or in one exponential: exact normal form, exact roots, exact signs."""

__all__ = ["Rational", "SignChart", "as_rational", "common_step", "fraction", "sign_chart"]

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import pairwise
from math import gcd, lcm

import flint
from flint import arb, fmpq, fmpq_poly

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import ball, enclose, exact_value
from gpo_theory.formula.expression import Expr

MAX_DEGREE = 200  # a limit on the time that isolating the roots takes


@dataclass(frozen=True)
class Rational:
    """constant * numerator(t) / denominator(t), coprime, with t = x or t = exp(slope * (x - shift)).

    `constant` is a product of powers of numbers such as pi that are not rational; 1 for most.
    """

    numerator: fmpq_poly
    denominator: fmpq_poly
    slope: Fraction | None
    shift: Fraction
    constant: Expr

    @property
    def is_zero(self) -> bool:
        """Whether it vanishes identically."""
        return bool(self.numerator.is_zero())

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Rational) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> str:
        return f"{self.numerator} {self.denominator} {self.slope} {self.shift} {self.constant}"

    def t(self, x: Fraction) -> arb:
        """Return the ball of t at x."""
        if self.slope is None:
            return ball(x)
        exponent = self.slope * (x - self.shift)
        return ball(exponent).exp()

    def x_of(self, t: arb) -> arb:
        """Return the ball of x at t."""
        return t if self.slope is None else t.log() / ball(self.slope) + ball(self.shift)


class _NotRationalError(Exception):
    """The formula is not rational in x or in one exponential."""


@lru_cache(maxsize=1024)
def as_rational(node: Expr) -> Rational | None:
    """Return the exact rational form of a primitive formula without max, min and where, or None if it has none.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> r = as_rational(parse_formula("exp(x)/(1+exp(x))").primitive())
    >>> r.numerator, r.denominator, r.slope
    (x, x + 1, Fraction(1, 1))
    """
    try:
        slope, shift = _variable(node)
        return _Converter(slope, shift).convert(node)
    except _NotRationalError:
        return None


def _variable(node: Expr) -> tuple[Fraction | None, Fraction]:
    """Return (slope, shift) of the common exponential exp(slope (x - shift)), or (None, 0) for x itself."""
    lines = [_line(n.args[0]) for n in node.walk() if n.head == "exp" and n.depends_on_x]
    if not lines:
        return None, Fraction(0)
    slopes = [a for a, _ in lines]
    shifts = {-b / a for a, b in lines}
    if len(shifts) > 1:
        raise _NotRationalError
    return common_step(slopes), shifts.pop()


def common_step(values: Iterable[Fraction]) -> Fraction:
    """Return the largest number of which all values are integer multiples: a lone value itself, 1 where all are 0."""
    nonzero = [value for value in values if value] or [Fraction(1)]
    return Fraction(reduce(gcd, (value.numerator for value in nonzero)), lcm(*(value.denominator for value in nonzero)))


def _line(node: Expr) -> tuple[Fraction, Fraction]:
    """Return (a, b) for a formula equal to a x + b with a != 0."""
    first = _Converter(None, Fraction(0)).convert(node)
    numerator, denominator = first.numerator, first.denominator
    if denominator.degree() > 0 or numerator.degree() != 1 or first.constant.number != 1:
        raise _NotRationalError
    return fraction(numerator[1] / denominator[0]), fraction(numerator[0] / denominator[0])


def fraction(q: fmpq) -> Fraction:
    """Return a rational number of flint as a Fraction."""
    return Fraction(int(q.p), int(q.q))


ONE = Expr.of(1)


class _Converter:
    """Conversion at one fixed variable t."""

    def __init__(self, slope: Fraction | None, shift: Fraction) -> None:
        self.slope, self.shift = slope, shift

    def make(self, numerator: fmpq_poly, denominator: fmpq_poly, constant: Expr = ONE) -> Rational:
        if max(numerator.degree(), denominator.degree()) > MAX_DEGREE:
            raise _NotRationalError
        common = numerator.gcd(denominator)
        numerator, denominator = numerator // common, denominator // common
        scale = fmpq_poly([denominator.leading_coefficient()])
        return Rational(numerator // scale, denominator // scale, self.slope, self.shift, constant)

    def convert(self, node: Expr) -> Rational:
        spend()
        one = fmpq_poly([1])
        head, args = node.head, node.args
        if head == "number":
            return self.make(fmpq_poly([fmpq(args[0].numerator, args[0].denominator)]), one)
        if not node.depends_on_x:
            exact = exact_value(node, Fraction(0))
            if exact is not None:
                return self.convert(Expr.of(exact))
            if head not in ("*", "**", "+"):
                return self.make(one, one, node)
        if head == "x" and self.slope is None:
            return self.make(fmpq_poly([0, 1]), one)
        if head == "+":
            return reduce(self.add, map(self.convert, args))
        if head == "*":
            return reduce(self.multiply, map(self.convert, args))
        if head == "**":
            return self.power(self.convert(args[0]), args[1].number)
        if head == "exp" and self.slope is not None:
            a, b = _line(args[0])
            if -b / a != self.shift:
                raise _NotRationalError
            n = int(a / self.slope)
            t = self.raised(fmpq_poly([0, 1]), n)
            return self.make(t, one) if n > 0 else self.make(one, t)
        raise _NotRationalError

    def add(self, a: Rational, b: Rational) -> Rational:
        if a.is_zero or b.is_zero:
            return b if a.is_zero else a
        if a.constant != b.constant:
            raise _NotRationalError
        numerator = a.numerator * b.denominator + b.numerator * a.denominator
        return self.make(numerator, a.denominator * b.denominator, a.constant)

    def multiply(self, a: Rational, b: Rational) -> Rational:
        return self.make(a.numerator * b.numerator, a.denominator * b.denominator, a.constant * b.constant)

    def power(self, base: Rational, exponent: Fraction | None) -> Rational:
        plain = base.numerator.degree() <= 0 and base.denominator.degree() <= 0
        if exponent is None or (exponent.denominator != 1 and not (plain and base.constant.number is None)):
            raise _NotRationalError
        if exponent.denominator != 1:
            if base.numerator != base.denominator:
                raise _NotRationalError
            return self.make(fmpq_poly([1]), fmpq_poly([1]), base.constant**exponent)
        n = int(exponent)
        if n < 0 and base.is_zero:
            raise _NotRationalError
        above, below = (base.numerator, base.denominator) if n > 0 else (base.denominator, base.numerator)
        return self.make(self.raised(above, n), self.raised(below, n), base.constant**exponent)

    def raised(self, base: fmpq_poly, n: int) -> fmpq_poly:
        """Return base^|n|, of a degree that is looked at before the memory is taken."""
        if base.degree() * abs(n) > MAX_DEGREE:
            raise _NotRationalError
        return base ** abs(n)


@dataclass(frozen=True)
class Root:
    """A point where a rational form changes or touches zero or is infinite: low <= x <= high, exact where rational."""

    low: Fraction
    high: Fraction
    pole: bool

    @property
    def exact(self) -> Fraction | None:
        """The root itself where it is rational."""
        return self.low if self.low == self.high else None


@dataclass(frozen=True)
class SignChart:
    """The exact signs of a rational form on an open interval.

    `signs[i]` is its sign between `roots[i-1]` and `roots[i]`, and `samples[i]` a rational point there.
    """

    roots: tuple[Root, ...]
    signs: tuple[int, ...]
    samples: tuple[Fraction, ...]

    @property
    def defined(self) -> bool:
        """Whether no pole lies inside."""
        return not any(root.pole for root in self.roots)


def sign_chart(node: Expr, low: Fraction | None, high: Fraction | None) -> SignChart | None:
    """Return the exact signs of a formula on the open interval (low, high), None for an infinite end.

    The result is None where the formula has no rational form, or its roots are too close to be separated.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> sign_chart(parse_formula("x**2 - 1"), None, None).signs
    (1, -1, 1)
    """
    form = as_rational(node)
    if form is None or (low is not None and high is not None and low >= high):
        return None
    if form.is_zero:
        return SignChart((), (0,), (_between(low, high),))
    bits = 128
    while bits <= 2048:
        with flint.ctx.workprec(bits):
            chart = _chart(form, low, high)
        if chart is not None:
            return chart
        bits *= 4
    return None


def _chart(form: Rational, low: Fraction | None, high: Fraction | None) -> SignChart | None:
    roots: list[Root] = []
    for polynomial, pole in ((form.numerator, False), (form.denominator, True)):
        found = _real_roots(polynomial, form, pole)
        if found is None:
            return None
        roots += found
    inside = []
    for root in sorted(roots, key=lambda r: r.low):
        place = _inside(root, low, high)
        if place is None:
            return None
        if place:
            inside.append(root)
    if any(a.high >= b.low for a, b in pairwise(inside)):
        return None
    samples = _samples(inside, low, high)
    signs = [_sign(form, x) for x in samples]
    if None in signs:
        return None
    return SignChart(tuple(inside), tuple(s for s in signs if s is not None), tuple(samples))


def _real_roots(polynomial: fmpq_poly, form: Rational, pole: bool) -> list[Root] | None:
    """Return the roots in x of a polynomial in t, in rational brackets; None where the precision is too low."""
    if polynomial.degree() < 1:
        return []
    roots: list[Root] = []
    for factor, _ in polynomial.factor()[1]:
        if factor.degree() == 1:
            exact = fraction(-factor[0] / factor[1])
            if form.slope is None or exact == 1:
                x = exact if form.slope is None else form.shift
                roots.append(Root(x, x, pole))
                continue
            balls = [arb(fmpq(exact.numerator, exact.denominator))]
        else:
            balls = [z.real for z, _ in factor.complex_roots() if z.imag.is_zero()]
        for t in balls:
            if form.slope is not None:
                if t < 0 or t.is_zero():
                    continue
                if not t > 0:
                    return None
            roots.append(_bracket(form.x_of(t), pole))
    return roots


def _bracket(x: arb, pole: bool) -> Root:
    return Root(_rational(x.lower()), _rational(x.upper()), pole)


def _rational(x: arb) -> Fraction:
    mantissa, exponent = x.mid().man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _inside(root: Root, low: Fraction | None, high: Fraction | None) -> bool | None:
    """Whether a root lies in (low, high); None where its bracket reaches over an end."""
    if (low is not None and root.high <= low) or (high is not None and root.low >= high):
        return False
    return True if (low is None or root.low > low) and (high is None or root.high < high) else None


def _samples(roots: list[Root], low: Fraction | None, high: Fraction | None) -> list[Fraction]:
    edges = [low, *(edge for root in roots for edge in (root.low, root.high)), high]
    return [_between(edges[i], edges[i + 1]) for i in range(0, len(edges), 2)]


def _between(low: Fraction | None, high: Fraction | None) -> Fraction:
    """Return a rational with a small denominator strictly inside (low, high)."""
    if low is None:
        return Fraction(0) if high is None or high > 0 else Fraction(int(high) - 1)
    if high is None:
        return Fraction(0) if low < 0 else Fraction(int(low) + 1)
    denominator = 1
    while True:
        candidate = Fraction(int(low * denominator // 1) + 1, denominator)
        if low < candidate < high:
            return candidate
        denominator *= 2


def _sign(form: Rational, x: Fraction) -> int | None:
    """Return the sign of the form at a rational x that is no root."""
    t = form.t(x)
    value = _horner(form.numerator, t) * _horner(form.denominator, t) * enclose(form.constant, Fraction(0))
    return 1 if value > 0 else -1 if value < 0 else None


def _horner(polynomial: fmpq_poly, t: arb) -> arb:
    total = arb(0)
    for coefficient in reversed(polynomial.coeffs()):
        total = total * t + arb(coefficient)
    return total
