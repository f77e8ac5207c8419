"""A formula on a whole half-line at once: bounds for every y = |x| >= Y, as sums of c(y) exp(q(y)) y^a log(y)^b.

Each coefficient is an exact rational, or an interval that holds c(y) for every y >= Y; the remainder of a series is a
term whose coefficient is an interval. Where the largest term outweighs the others, its sign is the sign of the formula
on the whole half-line. No code is shared with `asymptotics`.
"""

__all__ = ["Lead", "UnresolvedError", "lead_beyond"]

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import isqrt
from operator import add
from typing import Any

from mpmath import iv

from gpo_theory.budget import spend
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.kernel.intervals import interval, ratio, rational_root

DEGREE = 4  # the highest power of y inside exp: as far as a Gaussian of a quadratic
ORDER = 4  # Taylor terms before the remainder; `exp` and `erfc` below list their coefficients up to it
KEPT = 12  # terms kept in a sum; with these values every claim of the catalogue is decided
# Exponents: of y^4 ... y^1 inside exp, then of y, then of log y; ordered by dominance. Whole ones are int: much faster.
Size = tuple[int | Fraction, ...]
Terms = dict[Size, Any]
ONE: Size = (0,) * (DEGREE + 2)
LOG: Size = (*ONE[:-1], 1)


class UnresolvedError(Exception):
    """The formula cannot be bounded in this way on the half-line; a larger Y may help."""


@dataclass(frozen=True)
class Lead:
    """f(side y) = size(y) c(y) with c(y) in `coefficient` for y >= Y; None stands for f = 0 there."""

    size: Size
    coefficient: Any

    @property
    def sign(self) -> int:
        """The sign of f on the whole half-line; 0 where the coefficient does not show one."""
        return 1 if self.coefficient.a > 0 else -1 if self.coefficient.b < 0 else 0

    @property
    def grows(self) -> bool:
        """Whether |f| tends to infinity."""
        return self.size > ONE and self.sign != 0

    @property
    def vanishes(self) -> bool:
        """Whether f tends to 0."""
        return self.size < ONE


def lead_beyond(f: Expr, side: int, start: Fraction, shift: Fraction = Fraction(0), bits: int = 80) -> Lead | None:
    """Return the leading behaviour of a smooth formula for all x with side (x - shift) >= start >= 8.

    In x - shift the coefficients of exp(k (x - shift)) are rational, so that equal terms cancel exactly.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> lead_beyond(parse_formula("log(1+exp(-x)) - exp(-x)").primitive(), 1, Fraction(8)).sign
    -1
    """
    before, iv.prec = iv.prec, bits
    try:
        terms = _Beyond(side, start).bound(substitute(f, {Expr.x(): Expr.x() + shift}) if shift else f)
        return _Beyond(side, start).lead(terms) if terms else None
    except ZeroDivisionError:
        raise UnresolvedError from None
    finally:
        iv.prec = before


@dataclass(frozen=True)
class Surd:
    """The exact coefficient r pi^p sqrt(n), n > 1 or p != 0, as the tails of erfc and atan have it."""

    r: Fraction
    p: Fraction
    n: int


def _surd(r: Fraction, p: Fraction, n: int) -> "Fraction | Surd":
    square = next((d for d in range(isqrt(n), 1, -1) if n % (d * d) == 0), 1) if n < 10**6 else 1
    r, n = r * square, n // square**2
    return r if n == 1 and p == 0 else Surd(r, p, n)


def _as_surd(c: Any) -> Surd:
    return c if isinstance(c, Surd) else Surd(c, Fraction(0), 1)


def _ball(c: Any) -> Any:
    """Return an exponent, or a coefficient, which is a Fraction, a Surd or an interval, as an interval."""
    if isinstance(c, Surd):
        return _ball(c.r) * iv.exp(_ball(c.p) * iv.log(iv.pi)) * iv.sqrt(iv.mpf(c.n))
    return ratio(c) if isinstance(c, int | Fraction) else c


def _exact(c: Any) -> bool:
    return isinstance(c, Fraction | Surd)


def _plus(c: Any, d: Any) -> Any:
    if isinstance(c, Fraction) and isinstance(d, Fraction):
        return c + d
    if _exact(c) and _exact(d):
        a, b = _as_surd(c), _as_surd(d)
        if (a.p, a.n) == (b.p, b.n):
            return Surd(a.r + b.r, a.p, a.n) if a.r + b.r else Fraction(0)
    return _ball(c) + _ball(d)


def _by(c: Any, d: Any) -> Any:
    if isinstance(c, Fraction) and isinstance(d, Fraction):
        return c * d
    if _exact(c) and _exact(d):
        a, b = _as_surd(c), _as_surd(d)
        return _surd(a.r * b.r, a.p + b.p, a.n * b.n)
    return _ball(c) * _ball(d)


def _constant(node: Expr) -> Any:
    """Return a constant exactly where it has the form of a Surd, else as an interval."""
    if node.number is not None:
        return node.number
    base, power = node.args if node.head == "**" else (node, Expr.of(1))
    if base.head == "pi" and power.number is not None:
        return Surd(Fraction(1), power.number, 1)
    if base.number is not None and base.number > 0 and power.number is not None and power.number.denominator == 2:
        k, value = int(power.number - Fraction(1, 2)), base.number
        return _surd(value**k / value.denominator, Fraction(0), value.numerator * value.denominator)
    return interval(node, Fraction(0), Fraction(0), iv.prec)


def _size(a: int) -> Size:
    return (*ONE[:DEGREE], a, 0)


def _times(s: Size, t: Size) -> Size:
    return tuple(map(add, s, t))


def _raised(s: Size, power: Fraction) -> Size:
    return tuple(_whole(a * power) for a in s)


def _whole(a: Fraction) -> int | Fraction:
    return a.numerator if a.denominator == 1 else a


@dataclass(frozen=True)
class _Beyond:
    """Arithmetic of bounds that hold for every y >= start."""

    side: int
    start: Fraction

    def bound(self, node: Expr) -> Terms:
        spend()
        if not node.depends_on_x:
            return self.constant(node)
        if node.head == "x":
            return {_size(1): Fraction(self.side)}
        if node.head in ("max", "min", "where"):
            raise UnresolvedError
        parts = [self.bound(child) for child in node.children]
        match node.head:
            case "+":
                return reduce(self.add, parts)
            case "*":
                return reduce(self.multiply, parts)
            case "**":
                if node.args[1].number is None:
                    raise UnresolvedError
                return self.power(parts[0], node.args[1].number)
            case "exp":
                return self.exp(parts[0])
            case "log":
                return self.log(parts[0])
            case "atan":
                return self.atan(parts[0])
            case "erfc":
                return self.erfc(parts[0])
        return {ONE: iv.mpf([-1, 1])}  # sin, cos

    def constant(self, node: Expr) -> Terms:
        if node.head == "+":
            return reduce(self.add, map(self.constant, node.args))
        if node.head == "*":
            return reduce(self.multiply, map(self.constant, node.args))
        return self.made({ONE: _constant(node)})

    def ratio(self, size: Size) -> Any:
        """Return an interval that holds size(y) for every y >= start, for a size below 1 that falls from there on."""
        log = iv.log(_ball(self.start))
        first = next(i for i, c in enumerate(size) if c)
        lead = size[first]
        if lead > 0:
            raise UnresolvedError
        # d log size / d log y = sum k q_k y^k + a + b / log y is negative for all y >= start if it is at start without
        # the negative terms after the leading one: relative to the leading term the others only decrease.
        weights = [(DEGREE - i) * c * self.start ** (DEGREE - i) for i, c in enumerate(size[:DEGREE])] + [size[-2]]
        rest = sum((w for i, w in enumerate(weights) if i > first and w > 0), Fraction(0))
        against = _ball(rest) + (_ball(size[-1]) / log if size[-1] > 0 and first < DEGREE + 1 else 0)
        if first <= DEGREE and not (_ball(weights[first]) + against).b < 0:
            raise UnresolvedError
        return iv.mpf([0, self.value(size).b])

    def value(self, size: Size) -> Any:
        y = _ball(self.start)
        exponent = sum((_ball(c * self.start ** (DEGREE - i)) for i, c in enumerate(size[:DEGREE])), iv.mpf(0))
        return iv.exp(exponent + _ball(size[-2]) * iv.log(y) + _ball(size[-1]) * iv.log(iv.log(y)))

    def made(self, terms: Terms) -> Terms:
        """Drop exact zeros; add the terms below the first of uncertain sign, or beyond KEPT, to the last one kept."""
        ordered = sorted(((s, c) for s, c in terms.items() if not isinstance(c, Fraction) or c), reverse=True,
                         key=lambda term: term[0])  # fmt: skip
        uncertain = [i for i, (_, c) in enumerate(ordered) if not _exact(c) and 0 in _ball(c)]
        last = min([*uncertain, KEPT - 1, len(ordered) - 1]) if ordered else 0
        kept = dict(ordered[: last + 1])
        for size, c in ordered[last + 1 :]:
            top = ordered[last][0]
            kept[top] = _ball(kept[top]) + _ball(c) * self.ratio(_times(size, _raised(top, Fraction(-1))))
        return kept

    def add(self, a: Terms, b: Terms) -> Terms:
        out = dict(a)
        for size, c in b.items():
            out[size] = _plus(out[size], c) if size in out else c
        return self.made(out)

    def multiply(self, a: Terms, b: Terms) -> Terms:
        out: Terms = {}
        for s, c in a.items():
            for t, d in b.items():
                size, product = _times(s, t), _by(c, d)
                before = out.get(size)
                out[size] = product if before is None else _plus(before, product)
        return self.made(out)

    def scaled(self, a: Terms, factor: Any, size: Size = ONE) -> Terms:
        return self.multiply(a, {size: factor})

    def lead(self, a: Terms) -> Lead:
        size, c, delta = self.split(a)
        return Lead(size, _ball(c) * (1 + self.range(delta)))

    def split(self, a: Terms) -> tuple[Size, Any, Terms]:
        """Return size, c and delta with a = c size (1 + delta)."""
        if not a:
            raise UnresolvedError
        size, c = next(iter(a.items()))
        if 0 in _ball(c):
            raise UnresolvedError
        rest = {s: d for s, d in a.items() if s != size}
        return size, c, self.scaled(rest, _root(c, Fraction(-1)), _raised(size, Fraction(-1))) if rest else {}

    def range(self, a: Terms) -> Any:
        """Return an interval that holds the value for every y >= start, for terms that are at most bounded."""
        return sum((_ball(c) * (1 if s == ONE else self.ratio(s)) for s, c in a.items()), iv.mpf(0))

    def series(self, delta: Terms, coefficient: Callable[[int], Any], rest: Any) -> Terms:
        """Return sum_(k < ORDER) coefficient(k) delta^k + rest delta^ORDER."""
        total: Terms = {}
        power: Terms = {ONE: Fraction(1)}
        for k in range(ORDER):
            total = self.add(total, self.scaled(power, coefficient(k)))
            power = self.multiply(power, delta)
            if not power:
                return total
        return self.add(total, self.scaled(power, rest))

    def above(self, delta: Terms) -> tuple[Any, Any]:
        """Return the range of delta widened to 0, and of 1 + that, which must be above 0."""
        reach = self.range(delta)
        reach = iv.mpf([min(reach.a, 0), max(reach.b, 0)])
        if not (1 + reach).a > 0:
            raise UnresolvedError
        return reach, 1 + reach

    def power(self, a: Terms, q: Fraction) -> Terms:
        if q.denominator == 1 and q > 0:
            return reduce(self.multiply, [a] * int(q))
        size, c, delta = self.split(a)
        front = _root(c, q)
        _, base = self.above(delta)
        rest = _ball(_binomial(q, ORDER)) * iv.exp(_ball(q - ORDER) * iv.log(base))
        return self.scaled(self.series(delta, lambda k: _binomial(q, k), rest), front, _raised(size, q))

    def log(self, a: Terms) -> Terms:
        size, c, delta = self.split(a)
        if size[-1] or not _ball(c).a > 0:
            raise UnresolvedError
        _, base = self.above(delta)
        out: Terms = {_size(DEGREE - i): Fraction(q) for i, q in enumerate(size[:DEGREE]) if q}
        out |= {LOG: Fraction(size[-2])} if size[-2] else {}
        out |= {ONE: iv.log(_ball(c))} if c != Fraction(1) else {}
        rest = _ball(Fraction((-1) ** (ORDER + 1), ORDER)) / base**ORDER
        return self.add(out, self.series(delta, lambda k: Fraction((-1) ** (k + 1), k) if k else Fraction(0), rest))

    def exp(self, a: Terms) -> Terms:
        exponents, power, constant = [Fraction(0)] * DEGREE, Fraction(0), Fraction(0)
        small: Terms = {}
        for size, c in a.items():
            if size < ONE:
                small[size] = c
            elif size == ONE:
                constant = c
            elif not isinstance(c, Fraction):
                raise UnresolvedError
            elif size == LOG:
                power = c
            elif any(size[:DEGREE]) or size[-1] or size[-2].denominator != 1 or size[-2] > DEGREE:
                raise UnresolvedError
            else:
                exponents[DEGREE - int(size[-2])] = c
        reach, _ = self.above({}) if not small else (self.range(small), None)
        reach = iv.mpf([min(reach.a, 0), max(reach.b, 0)])
        factorials = [Fraction(1), Fraction(1), Fraction(1, 2), Fraction(1, 6), Fraction(1, 24)]
        series = self.series(small, lambda k: factorials[k], iv.exp(reach) * _ball(factorials[ORDER]))
        front = Fraction(1) if constant == Fraction(0) else iv.exp(_ball(constant))
        return self.scaled(series, front, (*map(_whole, exponents), _whole(power), 0))

    def atan(self, a: Terms) -> Terms:
        """atan d lies between d - d^3/3 and d - d^3/3 + d^5/5; for a large argument u it is pi/2 - atan(1/u)."""
        size, c, _ = self.split(a)
        if size == ONE:
            raise UnresolvedError
        if size > ONE:
            quarter = Surd(Fraction(1 if _ball(c).a > 0 else -1, 2), Fraction(1), 1)
            return self.add({ONE: quarter}, self.scaled(self.atan(self.power(a, Fraction(-1))), Fraction(-1)))
        cube = self.power(a, Fraction(3))
        rest = self.scaled(self.multiply(cube, self.multiply(a, a)), iv.mpf([0, 1]) / 5)
        return self.add(self.add(a, self.scaled(cube, Fraction(-1, 3))), rest)

    def erfc(self, a: Terms) -> Terms:
        """erfc u = exp(-u^2)/(u sqrt pi) (1 - 1/(2u^2) + 3/(4u^4) - ... ), u > 0; 2 - erfc(-u) else.

        The error of each partial sum lies between 0 and the next term (DLMF 7.12).
        """
        size, c, _ = self.split(a)
        if size <= ONE:
            raise UnresolvedError
        if not _ball(c).a > 0:
            return self.add({ONE: Fraction(2)}, self.scaled(self.erfc(self.scaled(a, Fraction(-1))), Fraction(-1)))
        square = self.multiply(a, a)
        below = self.power(square, Fraction(-1))
        coefficients = [Fraction(1), Fraction(-1, 2), Fraction(3, 4), Fraction(-15, 8), Fraction(105, 16)]
        power: Terms = {ONE: Fraction(1)}
        series: Terms = {}
        for coefficient in coefficients[:-1]:
            series, power = self.add(series, self.scaled(power, coefficient)), self.multiply(power, below)
        series = self.add(series, self.scaled(power, _ball(coefficients[-1]) * iv.mpf([0, 1])))
        front = self.multiply(self.exp(self.scaled(square, Fraction(-1))), self.power(a, Fraction(-1)))
        return self.scaled(self.multiply(front, series), Surd(Fraction(1), Fraction(-1, 2), 1))


def _binomial(q: Fraction, k: int) -> Fraction:
    return reduce(lambda value, j: value * (q - j) / (j + 1), range(k), Fraction(1))


def _root(c: Any, q: Fraction) -> Any:
    """Return c^q, exact where c is rational or a Surd and c^q is of that form."""
    if isinstance(c, Fraction):
        if q.denominator == 1:
            return c ** int(q)
        root = rational_root(c, q.denominator) if c > 0 else None
        if root is not None:
            return root**q.numerator
    if isinstance(c, Surd) and q.denominator == 1:
        inverse = Surd(1 / (c.r * c.n), -c.p, c.n)
        return reduce(_by, [c if q > 0 else inverse] * abs(int(q)), Fraction(1))
    if q.denominator == 1:
        return c ** int(q) if q > 0 else 1 / c ** int(-q)
    if not _ball(c).a > 0:
        raise UnresolvedError
    return iv.exp(_ball(q) * iv.log(_ball(c)))
