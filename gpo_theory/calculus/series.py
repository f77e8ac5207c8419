"""The Taylor expansion of f at 0, exact, from each side where f has a breakpoint there."""

__all__ = ["Coefficient", "one_sided", "taylor"]

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from math import isfinite
from typing import Any

from gpo_theory.calculus.balls import enclose, expand
from gpo_theory.calculus.constants import TooLargeError, as_double, exact, function, text, tidy
from gpo_theory.calculus.pieces import UnsplitError, near
from gpo_theory.formula.expression import Expr, fold, slope_of
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.loss import Loss

Series = list[Any]
X = Expr.x()
USUAL = 4  # the order that the tables print
LARGEST = 200  # operations in one exact coefficient; more would make the exact arithmetic slow


@dataclass(frozen=True)
class Coefficient:
    """One exact coefficient: `text` in the grammar of formulas, `value` its nearest double."""

    text: str
    value: float

    @property
    def exact(self) -> Any:
        """The coefficient as an exact number."""
        return exact(parse_constant(self.text))


class _NoSeriesError(Exception):
    """The formula has no power series at 0."""


def taylor(loss: Loss, order: int = 4) -> tuple[Coefficient | None, ...]:
    """Return the exact coefficients c_0 ... c_order of f(x) = sum_k c_k x^k at x = 0.

    A coefficient that does not exist (f has a kink or a jump of that order at 0), and all after it, is None. Each
    exact coefficient is accepted only when it lies in the ball that Arb computes for it.

    >>> from gpo_theory.catalogue import LOSSES
    >>> [c.text for c in taylor(LOSSES["logistic"])]
    ['log(2)', '-1/2', '1/8', '0', '-1/192']
    >>> taylor(LOSSES["perceptron"], 1)
    (Coefficient(text='0', value=0.0), None)
    """
    f = loss.f.primitive()
    left, right = one_sided(f, -1, order), one_sided(f, 1, order)
    middle = _value_at_zero(f)
    out: list[Coefficient | None] = []
    for k in range(order + 1):
        exists = left[k] is not None and left[k] == right[k] and (k > 0 or left[0] == middle)
        if not exists:
            break
        out.append(left[k])
    return tuple(out + [None] * (order + 1 - len(out)))


def one_sided(f: Expr, side: int, order: int) -> tuple[Coefficient | None, ...]:
    """Return the coefficients of the piece of f that touches 0 from the left (side -1) or the right (side 1)."""
    try:
        # At least the usual order, so that the strength, the slope at 0 and the table share one cached expansion.
        return _checked(near(f, Fraction(0), side), max(order, USUAL))[: order + 1]
    except (UnsplitError, _NoSeriesError):
        return (None,) * (order + 1)


def _value_at_zero(f: Expr) -> Coefficient | None:
    try:
        return _checked(near(f, Fraction(0), 0), USUAL)[0]
    except (UnsplitError, _NoSeriesError):
        return None


@lru_cache(maxsize=512)
def _checked(f: Expr, order: int) -> tuple[Coefficient | None, ...]:
    """Return the coefficients of a smooth formula; from the first that disagrees with its ball on, all are None."""
    out: list[Coefficient | None] = []
    balls = expand(f, Fraction(0), order)
    for value, ball in zip(_expand(f, _line(order)), balls, strict=True):
        found = Coefficient(text(value), as_double(value))
        inside = ball.is_finite() and ball.overlaps(enclose(parse_constant(found.text), Fraction(0), 256))
        out.append(found if inside and isfinite(found.value) else None)
    bad = out.index(None) if None in out else len(out)
    return tuple(out[:bad] + [None] * (len(out) - bad))


def _line(order: int) -> Series:
    """Return x itself."""
    return [exact(int(k == 1)) for k in range(order + 1)]


def _expand(f: Expr, x: Series) -> Series:
    """Return the truncated power series of a smooth formula, with exact coefficients, where that of its x is given."""

    def value(part: Expr, of: Callable[[Expr], Series]) -> Series:
        if part.head == "x":
            return x
        if not part.depends_on_x:
            return [exact(part)] + [exact(0)] * (len(x) - 1)
        if part.head == "+":
            return [sum(column) for column in zip(*map(of, part.args), strict=True)]
        if part.head == "*":
            return reduce(_times, map(of, part.args))
        inner = of(part.args[0])
        if part.head == "**":
            return _power(inner, exact(part.args[1]))
        if part.head == "exp":
            return _exponential(inner)
        if part.head in ("sin", "cos"):
            return _circular(inner, part.head)
        # g(u) is the integral of g'(u) u', where g' is made of the functions above.
        slope = _expand(slope_of(part.head, X), inner)
        return _integrate(_times(slope, _differentiate(inner)), _at_start(part.head, inner[0]))

    return fold(f, value)


def _at_start(name: str, value: Any) -> Any:
    if name == "log" and not value.is_positive:
        raise _NoSeriesError
    return function(name, value)


def _times(a: Series, b: Series) -> Series:
    return [_short(sum(a[i] * b[k - i] for i in range(k + 1))) for k in range(len(a))]


def _short(value: Any) -> Any:
    try:
        return tidy(value, LARGEST)
    except TooLargeError:
        raise _NoSeriesError from None


def _differentiate(a: Series) -> Series:
    return [k * a[k] for k in range(1, len(a))] + [exact(0)]


def _integrate(a: Series, start: Any) -> Series:
    return [start] + [a[k - 1] / k for k in range(1, len(a))]


def _power(a: Series, q: Any) -> Series:
    """Return a**q by the recurrence k a_0 h_k = sum_j (q j - (k - j)) a_j h_(k-j)."""
    if q == int(q) and q >= 0:
        return reduce(_times, [a] * int(q), [exact(1)] + [exact(0)] * (len(a) - 1))
    if a[0].is_zero is not False or (q != int(q) and not a[0].is_positive):
        raise _NoSeriesError
    h = [a[0] ** q]
    for k in range(1, len(a)):
        h.append(_short(sum((q * j - (k - j)) * a[j] * h[k - j] for j in range(1, k + 1)) / (k * a[0])))
    return h


def _exponential(u: Series) -> Series:
    """Return exp(u) by the recurrence k h_k = sum_j j u_j h_(k-j)."""
    h = [function("exp", u[0])]
    for k in range(1, len(u)):
        h.append(_short(sum(j * u[j] * h[k - j] for j in range(1, k + 1)) / k))
    return h


def _circular(u: Series, name: str) -> Series:
    """Return sin(u) or cos(u) from the coupled recurrence s' = u' c, c' = -u' s."""
    s, c = [function("sin", u[0])], [function("cos", u[0])]
    for k in range(1, len(u)):
        s.append(_short(sum(j * u[j] * c[k - j] for j in range(1, k + 1)) / k))
        c.append(_short(-sum(j * u[j] * s[k - j] for j in range(1, k + 1)) / k))
    return s if name == "sin" else c
