"""The behaviour of a formula as |x| -> infinity, exact: a sum of terms c * exp(q(X)) * X^a * log(X)^b, X = |x|.

No limits are taken. Each operation acts on truncated sums and carries a bound on the dropped terms; NoExpansionError is
raised where the dropped terms could matter.
"""

__all__ = ["Growth", "NoExpansionError", "at_infinity"]

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

from gpo_theory.calculus.constants import TooLargeError, exact, function, sign, tidy
from gpo_theory.formula.expression import Expr, fold

DEGREE = 4  # the highest degree of q: as far as a Gaussian of a quadratic
TERMS = 6  # kept in a sum; enough for every tail of the catalogue
LARGEST = 60  # operations in one exact coefficient; more would make the exact arithmetic slow


class NoExpansionError(Exception):
    """The formula leaves the class of terms, or too many terms cancel."""


@dataclass(frozen=True, order=True)
class Growth:
    """The size exp(q(X)) X^a log(X)^b, ordered by dominance; `q` holds the coefficients of X^4 ... X^1."""

    q: tuple[Fraction, ...] = (Fraction(0),) * DEGREE
    a: Fraction = Fraction(0)
    b: Fraction = Fraction(0)

    def __mul__(self, other: "Growth") -> "Growth":
        q = tuple(s + t for s, t in zip(self.q, other.q, strict=True))
        return Growth(q, self.a + other.a, self.b + other.b)

    def __pow__(self, power: Fraction) -> "Growth":
        return Growth(tuple(c * power for c in self.q), self.a * power, self.b * power)


ONE = Growth()
LOG = Growth(b=Fraction(1))
Terms = dict[Growth, Any]


@dataclass(frozen=True)
class Expansion:
    """Terms in order of size, largest first; `dropped` bounds the terms that were cut off (None: none were)."""

    terms: tuple[tuple[Growth, Any], ...]
    dropped: Growth | None = None

    @property
    def lead(self) -> tuple[Growth, Any]:
        """The largest term."""
        if not self.terms:
            raise NoExpansionError
        return self.terms[0]


def at_infinity(f: Expr, side: int) -> Expansion:
    """Return the expansion of a smooth primitive formula as x -> side * infinity; raises NoExpansionError.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> at_infinity(parse_formula("log(1+exp(-x))").primitive(), 1).lead[1]
    1
    """

    def value(part: Expr, of: Callable[[Expr], Expansion]) -> Expansion:
        if not part.depends_on_x:
            return _single(ONE, exact(part))
        if part.head == "x":
            return _single(Growth(a=Fraction(1)), exact(side))
        if part.head in ("+", "*"):
            return reduce(_add if part.head == "+" else _times, map(of, part.args))
        if part.power is not None:
            return _power(of(part.args[0]), part.power)
        if part.head not in _EXPANDED:
            raise NoExpansionError
        return _EXPANDED[part.head](of(part.args[0]))

    try:
        return fold(f, value)
    except TooLargeError:
        raise NoExpansionError from None


def _make(terms: Terms, dropped: Growth | None) -> Expansion:
    kept = [(g, c) for g, c in terms.items() if c != 0 and (dropped is None or g > dropped)]
    kept.sort(key=lambda term: term[0], reverse=True)
    if len(kept) > TERMS:
        dropped = kept[TERMS][0]
        kept = kept[:TERMS]
    return Expansion(tuple(kept), dropped)


def _single(growth: Growth, coefficient: Any) -> Expansion:
    return _make({growth: coefficient}, None)


def _larger(a: Growth | None, b: Growth | None) -> Growth | None:
    return max(a, b) if a is not None and b is not None else a or b


def _add(a: Expansion, b: Expansion) -> Expansion:
    terms: Terms = dict(a.terms)
    for growth, coefficient in b.terms:
        terms[growth] = tidy(terms.get(growth, 0) + coefficient, LARGEST)
    return _make(terms, _larger(a.dropped, b.dropped))


def _times(a: Expansion, b: Expansion) -> Expansion:
    if (not a.terms and a.dropped is None) or (not b.terms and b.dropped is None):
        return Expansion(())
    terms: Terms = {}
    for g, c in a.terms:
        for h, d in b.terms:
            terms[g * h] = tidy(terms.get(g * h, 0) + c * d, LARGEST)
    dropped = None
    for one, other in ((a, b), (b, a)):
        if one.dropped is not None:
            size = other.terms[0][0] if other.terms else other.dropped
            dropped = _larger(dropped, one.dropped * size if size is not None else None)
    return _make(terms, dropped)


def _scaled(a: Expansion, factor: Any, growth: Growth = ONE) -> Expansion:
    return _times(a, _single(growth, factor))


def _split(a: Expansion) -> tuple[Growth, Any, Expansion]:
    """Return growth, coefficient and delta of a = c g (1 + delta), delta -> 0."""
    growth, coefficient = a.lead
    rest = Expansion(a.terms[1:], a.dropped)
    return growth, coefficient, _scaled(rest, 1 / coefficient, growth ** Fraction(-1))


def _compose(delta: Expansion, coefficient: Callable[[int], Any]) -> Expansion:
    """Return sum_k coefficient(k) delta^k up to k = TERMS, with the size of the rest as `dropped`."""
    total, power = _single(ONE, exact(0)), _single(ONE, exact(1))
    for k in range(TERMS + 1):
        total = _add(total, _scaled(power, coefficient(k)))
        power = _times(power, delta)
        if not power.terms and power.dropped is None:
            return total
    size = power.terms[0][0] if power.terms else power.dropped
    return _make(dict(total.terms), _larger(total.dropped, size))


def _binomial(q: Any) -> Callable[[int], Any]:
    def coefficient(k: int) -> Any:
        return reduce(lambda value, j: value * (q - j) / (j + 1), range(k), exact(1))

    return coefficient


def _power(a: Expansion, q: Fraction) -> Expansion:
    growth, c, delta = _split(a)
    if q.denominator != 1 and sign(c) != 1:
        raise NoExpansionError
    return _scaled(_compose(delta, _binomial(exact(q))), c ** exact(q), growth**q)


def _log(a: Expansion) -> Expansion:
    growth, c, delta = _split(a)
    if growth.b or sign(c) != 1:
        raise NoExpansionError
    terms: Terms = {Growth(a=Fraction(DEGREE - i)): exact(v) for i, v in enumerate(growth.q) if v}
    terms[LOG] = exact(growth.a)
    terms[ONE] = function("log", c)
    small = _compose(delta, lambda k: exact(0) if k == 0 else exact(Fraction((-1) ** (k + 1), k)))
    return _add(_make(terms, None), small)


def _exp(a: Expansion) -> Expansion:
    if a.dropped is not None and a.dropped >= ONE:
        raise NoExpansionError
    q, power, constant = [Fraction(0)] * DEGREE, Fraction(0), exact(0)
    small: Terms = {}
    for growth, c in a.terms:
        if growth < ONE:
            small[growth] = c
        elif growth == ONE:
            constant = c
        elif not c.is_Rational:
            raise NoExpansionError
        elif growth == LOG:
            power = Fraction(int(c.p), int(c.q))
        elif growth.b or any(growth.q) or growth.a.denominator != 1 or growth.a > DEGREE:
            raise NoExpansionError
        else:
            q[DEGREE - int(growth.a)] = Fraction(int(c.p), int(c.q))
    factorial = _reciprocal_factorial
    return _scaled(_compose(_make(small, a.dropped), factorial), function("exp", constant), Growth(tuple(q), power))


def _reciprocal_factorial(k: int) -> Any:
    return reduce(lambda value, j: value / j, range(1, k + 1), exact(1))


def _odd(k: int) -> Any:
    """Coefficients of atan: t - t^3/3 + t^5/5 ..."""
    return exact(Fraction((-1) ** (k // 2), k)) if k % 2 else exact(0)


def _atan(a: Expansion) -> Expansion:
    growth, c, _ = _split(a)
    if growth < ONE:
        return _compose(a, _odd)
    if growth == ONE:
        raise NoExpansionError
    direction = sign(c)
    if direction is None:
        raise NoExpansionError
    half_turn = _single(ONE, direction * exact(Expr("pi")) / 2)
    return _add(half_turn, _scaled(_compose(_power(a, Fraction(-1)), _odd), exact(-1)))


def _erfc(a: Expansion) -> Expansion:
    """erfc(s) = exp(-s^2) / (s sqrt(pi)) (1 - 1/(2 s^2) + 3/(4 s^4) - ...), and 2 - erfc(-s)."""
    growth, c, _ = _split(a)
    direction = sign(c)
    if growth <= ONE or direction is None:
        raise NoExpansionError
    s = _scaled(a, exact(direction))
    gaussian = _exp(_scaled(_times(s, s), exact(-1)))
    squared = _power(_times(s, s), Fraction(-1))
    mills = _compose(squared, lambda k: reduce(lambda v, j: -v * (2 * j + 1) / 2, range(k), exact(1)))
    root = exact(Expr("pi") ** Fraction(-1, 2))
    tail = _scaled(_times(_times(gaussian, _power(s, Fraction(-1))), mills), root)
    return tail if direction > 0 else _add(_single(ONE, exact(2)), _scaled(tail, exact(-1)))


_EXPANDED = {"exp": _exp, "log": _log, "atan": _atan, "erfc": _erfc}  # the functions with an expansion at infinity
