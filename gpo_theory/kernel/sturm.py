"""Exact signs of a quotient of polynomials in x, or in one exponential, by Sturm's theorem over the rationals.

A formula equals a given quotient if their exact values agree at more points than two different quotients of these
degrees can have in common.
"""

__all__ = ["Quotient", "equals", "keeps_sign"]

from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import count, pairwise
from math import prod

from gpo_theory.budget import spend
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.intervals import span

Polynomial = list[Fraction]  # coefficients from the constant term up, without zeros at the end
MOST_POINTS = 400  # a limit on the time of comparing a formula with a quotient


@dataclass(frozen=True)
class Quotient:
    """numerator(t) / denominator(t) with t = x (slope None) or t = exp(slope (x - shift)), slope > 0."""

    numerator: tuple[Fraction, ...]
    denominator: tuple[Fraction, ...]
    slope: Fraction | None = None
    shift: Fraction = Fraction(0)


class _NotAQuotientError(Exception):
    """The formula is no quotient of polynomials in t."""


def equals(g: Expr, form: Quotient) -> bool:
    """Whether a formula is identically the quotient.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> equals(parse_formula("1/(1+exp(-x))").primitive(), Quotient((0, 1), (1, 1), Fraction(1)))
    True
    """
    try:
        above, below = _degrees(g, form)
        if not any(form.denominator) or (form.slope is not None and form.slope <= 0):
            return False
        most = max(above + len(form.denominator) - 1, below + len(form.numerator) - 1)
        if most >= MOST_POINTS:
            return False
        needed = most + 1
        for t in map(Fraction, count(2)):
            value = _value(g, t, form)
            bottom = _horner(list(form.denominator), t)
            if value is None or not bottom:
                continue
            if value * bottom != _horner(list(form.numerator), t):
                return False
            needed -= 1
            if not needed:
                return True
    except _NotAQuotientError:
        return False
    return False


def _degrees(g: Expr, form: Quotient) -> tuple[int, int]:
    """Return bounds for the degrees of a numerator and a denominator in t."""
    if g.number is not None:
        return 0, 0
    if g.head == "x" and form.slope is None:
        return 1, 0
    if g.head == "exp" and form.slope is not None:
        n = _exponent(g.args[0], form)
        return max(n, 0), max(-n, 0)
    if g.head not in ("+", "*", "**"):
        raise _NotAQuotientError
    if g.head == "**":
        power = g.args[1].number
        if power is None or power.denominator != 1:
            raise _NotAQuotientError
        above, below = _degrees(g.args[0], form)
        return (above * int(power), below * int(power)) if power > 0 else (below * int(-power), above * int(-power))
    parts = [_degrees(child, form) for child in g.args]
    bottom = sum(below for _, below in parts)
    if g.head == "*":
        return sum(above for above, _ in parts), bottom
    return max(above + bottom - below for above, below in parts), bottom


def _exponent(line: Expr, form: Quotient) -> int:
    """Return n with exp(line) = t^n; the argument must be slope n (x - shift) exactly."""
    assert form.slope is not None
    plain = Quotient((), ())
    if _degrees(line, plain)[0] > 1 or _degrees(line, plain)[1] > 0:
        raise _NotAQuotientError
    start, end = (_value(line, Fraction(x), plain) for x in (0, 1))
    if start is None or end is None:
        raise _NotAQuotientError
    n = (end - start) / form.slope
    if n.denominator != 1 or start != -n * form.slope * form.shift:
        raise _NotAQuotientError
    return int(n)


def _value(g: Expr, t: Fraction, form: Quotient) -> Fraction | None:
    """Return the exact value at t, None at a pole."""
    spend()
    if g.number is not None:
        return g.number
    if g.head == "x":
        return t
    if g.head == "exp":
        return t ** _exponent(g.args[0], form)
    if g.head == "**":
        base, power = _value(g.args[0], t, form), int(g.args[1].number or 0)
        return None if base is None or (not base and power < 0) else base**power
    values = [_value(child, t, form) for child in g.args]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return sum(known, Fraction(0)) if g.head == "+" else prod(known, start=Fraction(1))


def keeps_sign(form: Quotient, low: Fraction | None, high: Fraction | None, strictly: bool) -> bool:
    """Whether the quotient is defined and >= 0 (strictly: > 0) on the open interval (low, high).

    >>> keeps_sign(Quotient((1, -2, 1), (1,)), None, None, strictly=False)  # (x - 1)^2
    True
    >>> keeps_sign(Quotient((1, -2, 1), (1,)), None, None, strictly=True)
    False
    """
    top, bottom = _trimmed(form.numerator), _trimmed(form.denominator)
    if not top:
        return not strictly
    ends = _ends(form, low, high)
    if _roots(bottom, *ends) or (strictly and _roots(top, *ends)) or _roots(_odd_part(top), *ends):
        return False
    t = _inside(top, *ends)
    return _horner(top, t) * _horner(bottom, t) > 0


def _ends(form: Quotient, low: Fraction | None, high: Fraction | None) -> tuple[Fraction | None, Fraction | None]:
    """Return an open interval of t that holds the image of (low, high): e^q is never a root for rational q != 0."""
    if form.slope is None:
        return low, high
    out: list[Fraction | None] = []
    for end, outwards in ((low, 0), (high, 1)):
        if end is None:
            out.append(None if outwards else Fraction(0))
            continue
        exponent = form.slope * (end - form.shift)
        from mpmath import iv

        ball = iv.exp(span(exponent, exponent))
        out.append(Fraction(1) if not exponent else _fraction(ball._mpi_[outwards]))
    return out[0], out[1]


def _fraction(mpf: tuple[int, int, int, int]) -> Fraction:
    sign, mantissa, exponent, _ = mpf
    return (-1 if sign else 1) * Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _trimmed(p: tuple[Fraction, ...] | Polynomial) -> Polynomial:
    out = [Fraction(c) for c in p]
    while out and not out[-1]:
        out.pop()
    return out


def _horner(p: Polynomial, t: Fraction) -> Fraction:
    return reduce(lambda total, c: total * t + c, reversed(p), Fraction(0))


def _derivative(p: Polynomial) -> Polynomial:
    return [k * c for k, c in enumerate(p)][1:]


def _divide(p: Polynomial, q: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Return quotient and remainder."""
    spend()
    rest, out = list(p), [Fraction(0)] * max(len(p) - len(q) + 1, 0)
    while len(rest) >= len(q):
        shift, factor = len(rest) - len(q), rest[-1] / q[-1]
        out[shift] = factor
        rest = _trimmed([c - factor * q[i - shift] if i >= shift else c for i, c in enumerate(rest)][:-1])
    return out, rest


def _gcd(p: Polynomial, q: Polynomial) -> Polynomial:
    while q:
        p, q = q, _divide(p, q)[1]
        q = [c / q[-1] for c in q]
    return p


def _odd_part(p: Polynomial) -> Polynomial:
    """Return the product of the factors of odd multiplicity: where p changes sign (Yun's decomposition)."""
    odd: Polynomial = [Fraction(1)]
    common = _gcd(p, _derivative(p))
    rest = _divide(p, common)[0]
    multiplicity = 1
    while len(rest) > 1:
        shared = _gcd(rest, common) if len(common) > 1 else [Fraction(1)]
        if multiplicity % 2:
            odd = _multiply(odd, _divide(rest, shared)[0])
        rest, common = shared, _divide(common, shared)[0] if len(common) > 1 else common
        multiplicity += 1
    return odd


def _multiply(p: Polynomial, q: Polynomial) -> Polynomial:
    out = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] += a * b
    return out


def _roots(p: Polynomial, low: Fraction | None, high: Fraction | None) -> int:
    """Return the number of different real roots inside the open interval (low, high), by Sturm's theorem."""
    if len(p) < 2:
        return 0
    p = _divide(p, _gcd(p, _derivative(p)))[0]
    chain = [p, _derivative(p)]
    while len(chain[-1]) > 1:
        rest = _divide(chain[-2], chain[-1])[1]
        chain.append([-c / abs(rest[-1]) for c in rest])
    at_high = high is not None and not _horner(p, high)
    return _variations(chain, low, -1) - _variations(chain, high, 1) - int(at_high)


def _variations(chain: list[Polynomial], at: Fraction | None, side: int) -> int:
    values = [_horner(p, at) if at is not None else p[-1] * side ** (len(p) - 1) for p in chain]
    signs = [v > 0 for v in values if v]
    return sum(a != b for a, b in pairwise(signs))


def _inside(p: Polynomial, low: Fraction | None, high: Fraction | None) -> Fraction:
    """Return a point of the open interval that is no root."""
    a = low if low is not None else (high - 1 if high is not None else Fraction(0))
    b = high if high is not None else a + 1
    return next(t for t in (a + (b - a) / Fraction(k) for k in count(2)) if _horner(p, t))
