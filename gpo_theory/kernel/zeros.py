"""Places on the line: rational numbers, and isolated zeros of formulas, such as log(9), in rational brackets.

Two places are ordered only where their brackets are disjoint, and a zero is equal to another only by identity. What is
shown on a bracket holds at its zero; a formula is 0 there by identity alone.
"""

__all__ = ["Place", "Zero", "at", "is_isolated", "is_smooth", "left_of", "right_of", "simplified", "solution",
           "vanishes"]  # fmt: skip

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from operator import add, mul

from mpmath import mp

from gpo_theory.formula.expression import Expr, call, fold, rebuild, substitute
from gpo_theory.formula.operations import CHOICES
from gpo_theory.kernel import inequality
from gpo_theory.kernel.expansion import cancelled, expanded
from gpo_theory.kernel.intervals import Interval, interval

X, ZERO, BITS = Expr.x(), Fraction(0), 320
LARGEST_PRIME = 1000  # factors looked for in the argument of a logarithm


@dataclass(frozen=True)
class Zero:
    """The one zero of a smooth formula g in the open interval (low, high); `a < b` is true where it is certain."""

    g: Expr
    low: Fraction
    high: Fraction

    def __lt__(self, other: "Place | float") -> bool:
        return self.high <= (other.low if isinstance(other, Zero) else other)

    def __gt__(self, other: "Place | float") -> bool:
        return self.low >= (other.high if isinstance(other, Zero) else other)

    def __le__(self, other: "Place | float") -> bool:
        return self == other or self < other

    def __ge__(self, other: "Place | float") -> bool:
        return self == other or self > other

    def __str__(self) -> str:
        return f"{float((self.low + self.high) / 2):.9g}..., where {self.g} = 0"


Place = Fraction | Zero


def left_of(place: Place) -> Fraction:
    """Return a rational that is not above a place."""
    return place.low if isinstance(place, Zero) else place


def right_of(place: Place) -> Fraction:
    """Return a rational that is not below a place."""
    return place.high if isinstance(place, Zero) else place


@lru_cache(maxsize=1024)
def is_isolated(zero: Zero) -> bool:
    """Whether g is smooth on the bracket, of opposite signs at its ends, with a slope of one sign, and 0 lies outside.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> is_isolated(Zero(parse_formula("x**2-2"), Fraction(1), Fraction(2)))
    True
    >>> is_isolated(Zero(parse_formula("1/(x-1)"), Fraction(1, 2), Fraction(3)))
    False
    """
    if not zero.low < zero.high or zero.low <= 0 <= zero.high or not is_smooth(zero.g, zero):
        return False
    low, high = (inequality.at(zero.g, end, BITS) for end in (zero.low, zero.high))
    slope = interval(zero.g.diff(), zero.low, zero.high, BITS)
    return bool((low.b < 0 < high.a and slope.a > 0) or (high.b < 0 < low.a and slope.b < 0))


def is_smooth(h: Expr, zero: Zero) -> bool:
    """Whether a formula is analytic on the bracket: every logarithm, root and quotient has an argument well inside."""
    for node in dict.fromkeys(h.walk()):
        if node.head in CHOICES:
            return False
        power = node.power
        whole = power is not None and power.denominator == 1
        if node.head == "log" or (node.head == "**" and not (whole and power is not None and power > 0)):
            inside = interval(node.args[0], zero.low, zero.high, BITS)
            if not (inside.a > 0 or (whole and inside.b < 0)):
                return False
    return True


def at(g: Expr, x: Place, bits: int = 80) -> Interval:
    """Return an interval for g(x), 0 where that is an identity; at an isolated zero else the range on the bracket."""
    if not isinstance(x, Zero):
        value = inequality.at(g, x, bits)
        if not value.a <= 0 <= value.b or value.a == value.b or not abs(value).b < mp.inf:
            return value
        form = expanded(simplified(cancelled(inequality.folded(substitute(g, {X: Expr.of(x)})))))
        return value if form is None or form.number != 0 else interval(form, x, x, bits)
    return interval(Expr.of(0) if vanishes(g, x) else g, x.low, x.high, bits)


@lru_cache(maxsize=4096)
def vanishes(h: Expr, zero: Zero) -> bool:
    """Whether h tends to 0 at an isolated zero by identity.

    It is identically 0, has a factor that is 0 there, is a multiple of g, or is 0 at the number that solves g = 0.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> log3 = Zero(parse_formula("x-log(3)"), Fraction(1), Fraction(2))
    >>> [vanishes(parse_formula(h), log3) for h in ("(2*x-log(9))**3", "exp(-2*x)-1/9", "x-1.0986")]
    [True, True, False]
    """
    if h.number is not None:
        return h.number == 0
    if h.power is not None and h.power > 0:
        return vanishes(h.args[0], zero)
    if h.head == "*":
        found = [vanishes(factor, zero) for factor in h.args]
        return any(found) and all(one or is_smooth(factor, zero) for one, factor in zip(found, h.args, strict=True))
    if not is_smooth(h, zero):
        return False
    form = expanded(h)
    if form is not None and (form.number == 0 or form in (expanded(zero.g), expanded(-zero.g))):
        return True
    x = solution(zero)
    value = None if x is None else expanded(simplified(substitute(h, {X: x})))
    return value is not None and value.number == 0


@lru_cache(maxsize=1024)
def solution(zero: Zero) -> Expr | None:
    """Return the zero as a constant such as -log(3) or sqrt(2), where g = 0 is solved step by step."""
    node, value = zero.g, Expr.of(0)
    while node != X:
        inner = [part for part in node.children if part.depends_on_x]
        if len(inner) != 1:
            return None
        rest = [part for part in node.children if part != inner[0]]
        if node.head == "+":
            value = value - reduce(add, rest)
        elif node.head == "*" and all(part.number for part in rest):
            value = value / reduce(mul, rest)
        elif node.head == "exp":
            value = call("log", value)
        elif node.power == 2:
            value = value ** Fraction(1, 2) * (1 if zero.low > 0 or inner[0] != X else -1)
        else:
            return None
        node = inner[0]
    value = simplified(value)
    here = interval(value, ZERO, ZERO, BITS)
    low, high = (interval(X, end, end) for end in (zero.low, zero.high))
    return value if here.a > low.b and here.b < high.a else None


def simplified(g: Expr) -> Expr:
    """Return a constant with logarithms of rationals as those of primes, and exp(r log(q)) as q**r.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> str(simplified(parse_formula("exp(-log(9)) + log(8)").primitive()))
    '1/9 + 3*log(2)'
    """

    def value(part: Expr, of: Callable[[Expr], Expr]) -> Expr:
        part = rebuild(part, tuple(map(of, part.children)))
        inside = part.children[0] if part.children else part
        if part.head == "log" and inside.number is not None and inside.number > 0:
            return _log(inside.number)
        if part.head == "exp":
            terms = inside.args if inside.head == "+" else (inside,)
            return reduce(mul, map(_exp, terms), Expr.of(1))
        return part

    return fold(g, value)


def _log(q: Fraction) -> Expr:
    total = Expr.of(0)
    for number, sign in ((q.numerator, 1), (q.denominator, -1)):
        for p in range(2, LARGEST_PRIME):
            while number % p == 0:
                number, total = number // p, total + sign * call("log", p)
        total = total + sign * call("log", number) if number > 1 else total
    return total


def _exp(term: Expr) -> Expr:
    r, log = (term.args[0].number, term.args[1]) if term.head == "*" and len(term.args) == 2 else (Fraction(1), term)
    if term.number == 0:
        return Expr.of(1)
    whole = r is not None and log.head == "log" and log.args[0].number is not None
    return log.args[0] ** Expr.of(r or 0) if whole else Expr("exp", (term,))
