"""The Fenchel conjugate f*(s) = sup over x of s x - f(x) of a convex loss."""

__all__ = ["Conjugate", "conjugate_at", "fenchel_conjugate"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import inf, nextafter
from typing import Any

import sympy

from gpo_theory.calculus.algebra import as_algebra, as_formula
from gpo_theory.calculus.balls import enclose, exact_value
from gpo_theory.calculus.constants import exact, text
from gpo_theory.calculus.infimum import infimum_of
from gpo_theory.calculus.inverse import inverses
from gpo_theory.calculus.pieces import UnsplitError, split
from gpo_theory.calculus.tails import slope_tail
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.formula.expression import Expr, piecewise, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.loss import Loss

X, S = Expr.x(), Expr("parameter", ("s",))
LONGEST = 200  # characters of a formula that is printed: two lines of a terminal


@dataclass(frozen=True)
class Conjugate:
    """f*(s) as text in `s`, which holds for low < s < high; outside [low, high] f* is infinite.

    The ends are exact text, "-inf" and "inf" included: the limits of f' at the two ends of R. None where not derived.
    """

    formula: str | None = None
    low: str | None = None
    high: str | None = None


class _OpenError(Exception):
    """For some s no closed form of the maximiser is found."""


@dataclass(frozen=True)
class _Stretch:
    """For low < s < high (None: no end) the maximiser is x; f is `f` there."""

    low: Fraction | None
    high: Fraction | None
    x: Expr
    f: Expr


def fenchel_conjugate(loss: Loss, claims: Mapping[str, Certificate]) -> Conjugate:
    """Return the conjugate of a convex loss, in closed form where f' is inverted by radicals on every piece.

    >>> from gpo_theory.analysis import analyze
    >>> from gpo_theory.loss import parse
    >>> loss = parse("max(0, 1-x)**2")
    >>> fenchel_conjugate(loss, analyze(loss).claims)
    Conjugate(formula='s**2/4 + s', low='-inf', high='0')
    """
    f = loss.f.primitive()
    if claims["convex"].verdict is not Verdict.PROVED:
        return Conjugate()
    lowest, highest = (_slope_limit(f, side) for side in (-1, 1))
    if lowest is None or highest is None:
        return Conjugate()
    try:
        found = list(_stretches(f, lowest, highest))
        ends = [Expr.of(part.high) for part in found[:-1] if part.high is not None]
        formula = piecewise(S, ends, map(_value, found)) if found else None
    except (UnsplitError, _OpenError, ValueError):
        formula = None
    shown = None if formula is None or len(str(formula)) > LONGEST else str(formula)
    return Conjugate(shown, lowest, highest)


def conjugate_at(loss: Loss, s: Fraction) -> tuple[float, float] | None:
    """Return (low, high) that enclose f*(s), both inf where it is infinite; None if not certified. f may be any loss.

    >>> from gpo_theory.loss import parse
    >>> low, high = conjugate_at(parse("(x-1)**2"), Fraction(2))
    >>> low <= 3 <= high, high - low < 1e-12
    (True, True)
    """
    found = infimum_of(loss.f.primitive() - s * X)
    if found is None:
        return None
    low, high = float(-found.high), float(-found.low)
    return low if low == inf else nextafter(low, -inf), nextafter(high, inf)


def _slope_limit(f: Expr, side: int) -> str | None:
    """Return the limit of f' on one side as exact text, None where it is not proved."""
    end = slope_tail(f, side)
    if end.verdict != "proved" or end.limit is None:
        return None
    if end.limit in ("inf", "-inf"):
        return "-inf" if end.limit == "inf" else "inf"
    return text(-exact(parse_constant(end.limit)))


def _stretches(f: Expr, lowest: str, highest: str) -> Iterator[_Stretch]:
    """Follow f' from the left to the right: it rises on pieces and jumps between them."""
    pieces = [piece for piece in split(f) if not piece.is_point]
    slopes: list[str | Fraction] = [lowest]
    for left, right in pairwise(pieces):
        assert left.high is not None
        slopes += [_exact(left.f.diff(), left.high), _exact(right.f.diff(), left.high)]
    slopes.append(highest)
    for i, piece in enumerate(pieces):
        low, high = slopes[2 * i], slopes[2 * i + 1]
        if i and slopes[2 * i - 1] != low:
            assert piece.low is not None
            yield _Stretch(_bound(slopes[2 * i - 1]), _bound(low), Expr.of(piece.low), piece.f)
        if str(low) == str(high):
            continue
        yield _solved(f, _Stretch(_bound(low), _bound(high), X, piece.f))


def _exact(slope: Expr, x: Fraction) -> Fraction:
    """Return the slope at x, or raise _OpenError where it is not rational."""
    value = exact_value(slope, x)
    if value is None:
        raise _OpenError
    return value


def _bound(end: str | Fraction) -> Fraction | None:
    """Return an end as a rational number, an irrational one rounded; None where it is infinite."""
    if end in ("inf", "-inf"):
        return None
    try:
        return Fraction(end)
    except ValueError:
        return Fraction(float(enclose(parse_constant(str(end)), Fraction(0)).mid()))


def _solved(f: Expr, stretch: _Stretch) -> _Stretch:
    """Return the stretch with x solved from f'(x) = s, confirmed by enclosures of f* at three values of s."""
    for x in inverses(stretch.f.diff(), Expr.of(1), (S, Expr.of(1))):
        found = _Stretch(stretch.low, stretch.high, x, stretch.f)
        if all(_confirmed(f, found, s) for s in _samples(stretch.low, stretch.high)):
            return found
    raise _OpenError


def _samples(low: Fraction | None, high: Fraction | None) -> list[Fraction]:
    """Return three values of s between the ends, or near the finite one; fractions that no breakpoint has."""
    if low is None or high is None:
        start, side = (low, 1) if low is not None else (high, -1) if high is not None else (Fraction(0), 1)
        assert start is not None
        return [start + side * step * (abs(start) or 1) for step in (Fraction(1, 7), Fraction(3, 2), Fraction(9))]
    return [low + share * (high - low) for share in (Fraction(1, 7), Fraction(1, 2), Fraction(9, 10))]


def _confirmed(f: Expr, stretch: _Stretch, s: Fraction) -> bool:
    """Whether s x - f(x) at the formula's x lies in the certified enclosure of f*(s)."""
    x = enclose(substitute(stretch.x, {S: Expr.of(s)}), Fraction(0), 192)
    found = infimum_of(f - s * X)
    if found is None or not x.is_finite():
        return False
    value = enclose(stretch.f - s * X, x, 192)
    return bool(value.is_finite() and value.overlaps(found.low.union(found.high)))


def _value(stretch: _Stretch) -> Expr:
    """Return s x - f(x) at the maximiser, simplified by sympy where that makes it shorter."""
    plain = S * stretch.x - substitute(stretch.f, {X: stretch.x})
    # sympy simplifies roots of a positive symbol: y = sign s.
    sign = -1 if stretch.high is not None and stretch.high <= 0 else 1
    positive = sign == -1 or (stretch.low is not None and stretch.low >= 0)
    y = sympy.Symbol("y", positive=True) if positive else sympy.Symbol("y", real=True)
    try:
        x = as_algebra(stretch.x, {S: sign * y}, _normal)
        value = sympy.expand(sign * y * x - as_algebra(stretch.f, {X: x, S: sign * y}, _normal))
        value = sympy.expand(value.replace(sympy.log, lambda inner: _logarithm(inner, y, sign, stretch)))
        logs = sorted(value.atoms(sympy.log), key=str)
        rest = sympy.expand(value - sum(value.coeff(log) * log for log in logs))
        forms = [sum((_normal(value.coeff(log)) * log for log in logs), _normal(rest)), value]
        short = min((as_formula(form, {y: sign * S}) for form in forms), key=lambda node: len(str(node)))
    except (ValueError, NotImplementedError, sympy.PolynomialError):
        return plain
    return min(short, plain, key=lambda node: len(str(node)))


def _normal(value: Any) -> Any:
    """Return a rational function in lowest terms, anything else as it is."""
    return sympy.cancel(value) if value.free_symbols and value.is_rational_function(*value.free_symbols) else value


def _logarithm(inner: Any, y: Any, sign: int, stretch: _Stretch) -> Any:
    """Return log(inner) as a sum of logarithms of lines in s that stay positive on the stretch, where it is one."""
    if not inner.has(y) or not inner.is_rational_function(y):
        return sympy.log(inner)
    at = sign * _samples(stretch.low, stretch.high)[0]
    out, constant = sympy.Integer(0), sympy.Integer(1)
    for side, power in zip(sympy.fraction(sympy.cancel(inner)), (1, -1), strict=True):
        front, factors = sympy.factor_list(side)
        constant *= front**power
        for base, n in factors:
            turned = base if base.subs(y, sympy.Rational(at.numerator, at.denominator)).is_positive else -base
            constant *= (-1) ** n if turned != base else 1
            line = sympy.Poly(base, y)
            if line.degree() != 1 or not _outside(-sign * line.coeff_monomial(1) / line.coeff_monomial(y), stretch):
                return sympy.log(inner)
            out += power * n * sympy.log(turned)
    return out + sympy.expand_log(sympy.log(constant))


def _outside(root: Any, stretch: _Stretch) -> bool:
    """Whether a zero in s is rational and not inside the stretch."""
    if not root.is_Rational:
        return False
    zero = Fraction(int(root.p), int(root.q))
    below = stretch.low is not None and zero <= stretch.low
    return below or (stretch.high is not None and zero >= stretch.high)
