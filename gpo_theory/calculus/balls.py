"""Rigorous numbers: a formula evaluated in ball arithmetic (Arb), at a point or as a power series."""

__all__ = ["Sign", "UndecidedError", "ball", "between", "bisected", "constant_at", "decided", "enclose",
           "enclose_between", "exact_value", "expand", "sign_at"]  # fmt: skip

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any

import flint
from flint import arb, arb_series, fmpq

from gpo_theory.budget import spend
from gpo_theory.formula.expression import Expr, rebuild, steps
from gpo_theory.formula.operations import COMPARISONS, NEGATED, OPERATIONS, PRIMITIVES

MAX_ROOT = 64  # n and k in base^(k/n) where it is looked for as a rational number
MAX_BITS = 4096  # where `sign_at` gives up: a value below about 1e-1230 of its terms
Sign = Callable[[Fraction], int | None]
Width = Callable[[Fraction], Fraction]


class UndecidedError(Exception):
    """Balls show no sign or bound where one is needed."""


def enclose(node: Expr, x: Fraction | arb, bits: int = 128) -> arb:
    """Return a ball that contains the value of `node` at x; not finite where it is undefined or undecided."""
    spend()
    with flint.ctx.workprec(bits):
        return _evaluate(node, ball(x))


def enclose_between(node: Expr, a: Fraction, b: Fraction, bits: int = 128) -> arb:
    """Return a ball that contains the values of a smooth formula, defined on [a, b], on that interval.

    Its range there; where that has no sign, the mean value form f((a+b)/2) + f'([a, b]) (x - (a+b)/2).
    """
    with flint.ctx.workprec(bits):
        values, middle = enclose(node, between(a, b), bits), (a + b) / 2
        if values > 0 or values < 0:
            return values
        return enclose(node, middle, bits) + enclose(node.diff(), between(a, b), bits) * between(a - middle, b - middle)


def sign_at(node: Expr, x: Fraction) -> int | None:
    """Return the sign (-1, 0, 1) of the value at a rational x, or None where it is not decided.

    Precision grows until the ball excludes zero; 0 is returned only where exact rational arithmetic gives it.
    """
    exact = exact_value(node, x)
    if exact is not None:
        return (exact > 0) - (exact < 0)
    bits = 64
    while bits <= MAX_BITS:
        value = enclose(node, x, bits)
        if value > 0:
            return 1
        if value < 0:
            return -1
        bits *= 4
    return None


def exact_value(node: Expr, x: Fraction) -> Fraction | None:
    """Return the value at x where rational arithmetic gives it (exp(0) = 1, log(1) = 0, sqrt(2)**2 = 2), else None."""
    head = node.head
    if head == "number":
        return node.args[0]  # type: ignore[no-any-return]
    if head == "x":
        return x
    if head == "**" and (power := _rational_power(*node.args)) is not None:
        return power
    values = [exact_value(child, x) for child in node.children]
    known = [value for value in values if value is not None]
    unknown = [child for child, value in zip(node.children, values, strict=True) if value is None]
    if head == "*" and 0 in known and not any(child.depends_on_x for child in unknown):
        return Fraction(0)
    if not values or len(known) < len(values):
        return None
    match head:
        case "+":
            return sum(known, Fraction(0))
        case "*":
            return reduce(Fraction.__mul__, known)
        case "**":
            base, exponent = known
            if exponent.denominator == 1 and (base or exponent > 0):
                return base ** int(exponent)
            return Fraction(0) if base == 0 and exponent > 0 else _root(base, exponent.denominator, exponent.numerator)
        case "max" | "min":
            return max(known) if head == "max" else min(known)
    point = OPERATIONS[head].rational if head in OPERATIONS else None
    return Fraction(point[1]) if point is not None and known[0] == point[0] else None


def constant_at(node: Expr, x: Fraction) -> Expr:
    """Return the value at x as a formula without x, its rational parts evaluated."""
    value = exact_value(node, x)
    return Expr.of(value) if value is not None else rebuild(node, (constant_at(child, x) for child in node.children))


def _root(base: Fraction, n: int, power: int) -> Fraction | None:
    """Return base^(power/n) where the n-th root of base > 0 is rational."""
    if base <= 0 or n > MAX_ROOT or abs(power) > MAX_ROOT:
        return None
    root = Fraction(*(int(flint.fmpz(part).root(n)) for part in (base.numerator, base.denominator)))
    return root**power if root**n == base else None


def _rational_power(base: Expr, exponent: Expr) -> Fraction | None:
    """Return (c**q)**n, or a product of such, where the exponents multiply to integers: sqrt(2)**2 is 2."""
    n = exponent.number
    if n is None or n.denominator != 1:
        return None
    total = Fraction(1)
    for factor in base.args if base.head == "*" else (base,):
        root, q = factor.args if factor.head == "**" else (factor, Expr.of(1))
        if root.number is None or q.number is None or (q.number * n).denominator != 1 or not root.number:
            return None
        if root.number < 0 and q.number.denominator != 1:
            return None
        total *= root.number ** int(q.number * n)
    return total


def expand(node: Expr, x: Fraction, order: int, bits: int = 256) -> list[arb]:
    """Return balls for the Taylor coefficients of a smooth formula at x, up to `order`."""
    with flint.ctx.workprec(bits):
        # flint silently truncates every series at ctx.cap, so the cap must be above the order.
        cap, flint.ctx.cap = flint.ctx.cap, order + 2
        try:
            try:
                series = _evaluate(node, arb_series([ball(x), 1], order + 1))
            except (ValueError, ZeroDivisionError):  # no power series at x: flint raises instead of returning NaN
                return [arb.nan()] * (order + 1)
            if isinstance(series, arb):
                return [series] + [arb(0)] * order
            return [series[k] for k in range(order + 1)]
        finally:
            flint.ctx.cap = cap


def ball(x: Fraction | arb) -> arb:
    """Return x as a ball."""
    return arb(fmpq(x.numerator, x.denominator)) if isinstance(x, Fraction) else x


def between(a: Fraction, b: Fraction) -> arb:
    """Return the ball with the ends a and b, at the working precision."""
    return ball((a + b) / 2) + arb(0, 1) * ball((b - a) / 2)


def bisected(sign: Sign, before: int, low: Fraction, high: Fraction, width: Width) -> tuple[Fraction, Fraction]:
    """Return two ends in [low, high] between which a sign changes from `before`, at most width(right end) apart.

    `sign` returns -1, 0, 1, or None where undecided. Where it returns 0, both ends are that zero. Raises UndecidedError
    where it is undecided at several points near the middle.
    """
    while high - low > width(high):
        middle, here = decided(sign, low, high)
        if here == 0:
            return middle, middle
        low, high = (middle, high) if here == before else (low, middle)
    return low, high


def decided(sign: Sign, low: Fraction, high: Fraction) -> tuple[Fraction, int]:
    """Return a point near the middle of [low, high] and the sign there; at the middle itself it may be undecided."""
    for share in (Fraction(1, 2), Fraction(31, 64), Fraction(27, 64)):
        x = low + share * (high - low)
        if (here := sign(x)) is not None:
            return x, here
    raise UndecidedError


def _evaluate(node: Expr, x: Any) -> Any:
    values: list[Any] = []
    for head, inside, datum in steps(node):
        values.append(_step(head, [values[i] for i in inside], datum, x))
    return values[-1]


def _step(head: str, parts: list[Any], datum: Fraction | None, x: Any) -> Any:
    match head:
        case "number":
            return ball(datum or Fraction(0))
        case "x":
            return x
        case "pi":
            return arb.pi()
        case "e":
            return arb(1).exp()
        case "+":
            return reduce(lambda a, b: a + b, parts)
        case "*":
            return reduce(lambda a, b: a * b, parts)
        case "**":
            return _power(parts[0], datum if datum is not None else parts[1])
        case "max" | "min":
            return reduce(lambda a, b: a.max(b) if head == "max" else a.min(b), parts)
        case "where":
            return arb.nan() if parts[0] is None else parts[1] if parts[0] else parts[2]
        case "and" | "or":
            decisive = head == "or"
            return decisive if decisive in parts else None if None in parts else not decisive
    if head in COMPARISONS:
        return True if COMPARISONS[head](*parts) else False if COMPARISONS[NEGATED[head]](*parts) else None
    if head not in PRIMITIVES:
        raise ValueError(f"{head} is not a primitive function")
    return getattr(parts[0], head)()


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        # Repeated multiplication: a ball to an integer power is NaN over zero in some versions.
        value = reduce(lambda a, b: a * b, [base] * abs(int(exponent)))
        return value if exponent > 0 else 1 / value
    if isinstance(exponent, Fraction) and exponent > 0 and isinstance(base, arb) and base.lower() <= 0 <= base.upper():
        # A root is defined for the part at or above 0, on which it rises from 0.
        half = (base.upper().log() * ball(exponent)).exp() / 2 if base.upper() > 0 else arb(0)
        return half + half * arb(0, 1)
    if exponent == Fraction(1, 2):
        return base.sqrt()
    return (base.log() * (ball(exponent) if isinstance(exponent, Fraction) else exponent)).exp()
