"""Interval values of a formula in mpmath's arithmetic, independent of the arithmetic of the provers."""

__all__ = ["Interval", "interval", "ratio", "rational_root", "span"]

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from operator import add, mul
from typing import Any

from mpmath import iv, libmp, mp

from gpo_theory.budget import spend
from gpo_theory.formula.expression import Expr, steps

Interval = Any  # mpmath's interval type is not typed


def interval(g: Expr, low: Fraction | None, high: Fraction | None, bits: int = 80) -> Interval:
    """Return an interval that holds g(x) for every x in [low, high] at which g is defined (None: no end).

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> interval(parse_formula("1/(1+x**2)"), None, None)
    mpi('0.0', '1.0')
    """
    before, iv.prec = iv.prec, bits
    try:
        return _run(steps(g), span(low, high))
    finally:
        iv.prec = before


def span(low: Fraction | None, high: Fraction | None) -> Interval:
    """Return [low, high] rounded outwards."""
    left = iv.mpf("-inf") if low is None else ratio(low)
    right = iv.mpf("inf") if high is None else ratio(high)
    return iv.mpf([left.a, right.b])


def ratio(value: int | Fraction) -> Interval:
    """Return the least interval of the working precision that holds a rational number."""
    n, d = value.numerator, value.denominator
    return iv.make_mpf((libmp.from_rational(n, d, iv.prec, "f"), libmp.from_rational(n, d, iv.prec, "c")))


def _run(program: tuple[Any, ...], x: Interval) -> Interval:
    spend()
    values: list[Any] = []
    for head, inside, data in program:
        values.append(_step(head, [values[i] for i in inside], data, x))
    return values[-1]


def _step(head: str, parts: list[Any], data: Any, x: Interval) -> Any:
    match head:
        case "x":
            return x
        case "number":
            return ratio(data)
        case "+" | "*":
            return reduce(add if head == "+" else mul, parts)
        case "**":
            return _power(parts[0], data if isinstance(data, Fraction) else parts[1])
        case "max" | "min":
            pick = max if head == "max" else min
            return iv.mpf([pick(p.a for p in parts), pick(p.b for p in parts)])
        case "where":
            return parts[1] if parts[0] is True else parts[2] if parts[0] is False else _hull(parts[1], parts[2])
        case "and" | "or":
            decisive = head == "or"
            return decisive if decisive in parts else None if None in parts else not decisive
        case "<" | "<=" | ">" | ">=":
            return _compare(head, *parts)
    return _FUNCTIONS[head](*parts)


def _hull(a: Interval, b: Interval) -> Interval:
    return iv.mpf([min(a.a, b.a), max(a.b, b.b)])


def _compare(head: str, a: Interval, b: Interval) -> bool | None:
    """Whether a comparison holds: True for all values, False for none, None for some or where undecided."""
    if head in (">", ">="):
        return _compare("<" if head == ">" else "<=", b, a)
    if (a.b < b.a) if head == "<" else (a.b <= b.a):
        return True
    return False if (a.a >= b.b if head == "<" else a.a > b.b) else None


def _defined(a: Interval) -> Interval:
    """Return the part at or above 0, where a logarithm or a root is defined."""
    return a if a.a >= 0 else iv.mpf([0, max(a.b, 0)])


def _power(base: Interval, exponent: Any) -> Interval:
    if isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            return base ** int(exponent) if exponent > 0 else 1 / base ** int(-exponent)
        if exponent == Fraction(1, 2):
            return iv.sqrt(_defined(base))
        exponent = ratio(exponent)
    return iv.exp(exponent * iv.log(_defined(base)))


def _circular(function: Callable[[Interval], Interval]) -> Callable[[Interval], Interval]:
    return lambda a: function(a) if abs(a).b < mp.inf else iv.mpf([-1, 1])


def _erfc(a: Interval) -> Interval:
    """erfc falls, so its values at the ends bound it; they are computed with 40 more bits and moved outwards."""
    with mp.workprec(iv.prec + 40):
        slack = mp.mpf(2) ** -(iv.prec + 8)
        ends = [mp.erfc(mp.make_mpf(end)) for end in reversed(a._mpi_)]
        return iv.mpf([ends[0] * (1 - slack), ends[1] * (1 + slack)])


_FUNCTIONS: dict[str, Callable[..., Interval]] = {
    "pi": lambda: +iv.pi,
    "e": lambda: iv.exp(iv.mpf(1)),
    "exp": iv.exp,
    "log": lambda a: iv.log(_defined(a)),
    "atan": lambda a: iv.make_mpf(libmp.mpi_atan(a._mpi_, iv.prec)),
    "erfc": _erfc,
    "sin": _circular(iv.sin),
    "cos": _circular(iv.cos),
}


def rational_root(c: Fraction, n: int) -> Fraction | None:
    """Return the n-th root of c > 0 where it is rational."""
    root = Fraction(*(_nearest_root(part, n) for part in (c.numerator, c.denominator)))
    return root if root**n == c else None


def _nearest_root(value: int, n: int) -> int:
    """Return the largest k with k^n <= value, by bisection."""
    low, high = 1, 1 << (value.bit_length() // n + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**n <= value else (low, middle)
    return low
