"""The tails of f and of -f' (the key "slope") as x goes to plus or minus infinity: class, rate, order and limit."""

__all__ = ["Tail", "leading", "limit_along", "slope_tail", "tail", "tails_of"]

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import flint
from flint import arb

from gpo_theory.calculus.asymptotics import Expansion, Growth, NoExpansionError, at_infinity
from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.constants import sign, text
from gpo_theory.calculus.pieces import UnsplitError, far
from gpo_theory.calculus.samples import unit
from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.horizon import UnresolvedError, lead_beyond
from gpo_theory.kernel.waves import along


@dataclass(frozen=True)
class Tail:
    """The class of a function as |x| -> infinity on one side, with X = |x|.

    `rate` c and `order` a, by kind: exponential, exp(-|c| X) X^a with the sign of c (super_exponential: |c| is the
    coefficient of the highest power in the exponent); power, c X^-a; polynomial, c X^a; logarithmic, c log(X)^a, which
    tends to 0 where a < 0. `limit`: exact text, "inf" or "-inf"; `verdict`: "proved" by exact expansion, else
    "evidence". A size such as X log X is of no class: the kind is "unknown", its limit may still be proved.
    """

    kind: str
    rate: str | None = None
    order: str | None = None
    limit: str | None = None
    verdict: str = "evidence"

    def as_dict(self) -> dict[str, str | None]:
        """Return the JSON form."""
        return {"class": self.kind, "rate": self.rate, "order": self.order, "limit": self.limit,
                "verdict": self.verdict}  # fmt: skip


UNKNOWN = Tail("unknown")


def tails_of(f: Expr) -> dict[str, dict[str, Tail]]:
    """Return {"left"|"right": {"loss"|"slope": Tail}} for a primitive formula; `slope` describes -f'.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> tails_of(parse_formula("log(1+exp(-x))").primitive())["right"]["slope"]
    Tail(kind='exponential', rate='1', order=None, limit='0', verdict='proved')
    """
    return {name: {"loss": tail(f, side), "slope": slope_tail(f, side)} for name, side in (("left", -1), ("right", 1))}


def tail(f: Expr, side: int) -> Tail:
    """Return the tail of f itself on one side (-1 left, 1 right)."""
    outer = _outer(f, side)
    return UNKNOWN if outer is None else _classify(outer, side)


def limit_along(f: Expr, side: int, x: Fraction) -> str | None:
    """Return the proved limit of f on one side, for an f that oscillates at points whole periods away from x."""
    outer = _outer(f, side)
    end = UNKNOWN if outer is None else _classify(along(outer, x), side)
    return end.limit if end.verdict == "proved" else None


def slope_tail(f: Expr, side: int) -> Tail:
    """Return the tail of -f' on one side."""
    outer = _outer(f, side)
    return UNKNOWN if outer is None else _classify(-outer.diff(), side)


def _outer(f: Expr, side: int) -> Expr | None:
    """Return the formula of the outermost piece on one side."""
    try:
        return far(f, side)
    except UnsplitError:
        return None


@lru_cache(maxsize=1024)
def leading(f: Expr, side: int) -> tuple[Growth, Any, int] | None:
    """Return the proved leading term of a smooth formula on one side: its size, coefficient and sign (0 where f = 0).

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> growth, coefficient, sign = leading(parse_formula("3/log(2+x**2)").primitive(), 1)
    >>> str(growth.a), str(growth.b), str(coefficient), sign
    ('0', '-1', '3/2', 1)
    """
    try:
        expansion = at_infinity(f, side)
        if not expansion.terms:
            return (Growth(), 0, 0) if expansion.dropped is None else None
        growth, coefficient = expansion.lead
        direction = sign(coefficient)
    except NoExpansionError:
        return None
    return (growth, coefficient, direction) if direction and _agrees(f, side, expansion) else None


def _classify(f: Expr, side: int) -> Tail:
    found = leading(f, side)
    if found is None or not found[2]:
        return UNKNOWN if found is None else Tail("zero", limit="0", verdict="proved")
    return Tail(*_shape(*found), _limit(*found), "proved")


def _limit(growth: Growth, coefficient: Any, direction: int) -> str:
    if growth == Growth():
        return text(coefficient)
    return "0" if growth < Growth() else "inf" if direction > 0 else "-inf"


def _shape(growth: Growth, coefficient: Any, direction: int) -> tuple[str, str | None, str | None]:
    if growth.b and (growth.a or any(growth.q)):
        return "unknown", None, None
    if any(growth.q):
        degree = next(len(growth.q) - i for i, c in enumerate(growth.q) if c)
        c = growth.q[len(growth.q) - degree]
        kind = ("" if degree == 1 else "super_") + ("exponential" if c < 0 else "exponential_growth")
        return kind, str(direction * abs(c)), str(growth.a) if growth.a else None
    if growth.b:
        return "logarithmic", text(coefficient), str(growth.b)
    if growth.a == 0:
        return "constant", None, None
    if growth.a < 0:
        return "power", text(coefficient), str(-growth.a)
    return ("linear" if growth.a == 1 else "polynomial"), text(coefficient), str(growth.a)


def _agrees(f: Expr, side: int, expansion: Expansion) -> bool:
    """Whether bounds on a half-line confirm the leading term; where there are none, whether values far from 0 do."""
    growth, coefficient = expansion.lead
    step = max(Fraction(1), unit(f))
    for start in (16 * step, 256 * step, 4096 * step):
        try:
            lead = lead_beyond(f, side, start)
        except UnresolvedError:
            continue
        if lead is not None and lead.sign:
            return lead.size == (*growth.q, growth.a, growth.b) and lead.sign == sign(coefficient)
    return _probed(f, side, growth, enclose(parse_constant(text(coefficient)), Fraction(0), 256))


def _probed(f: Expr, side: int, growth: Growth, constant: arb) -> bool:
    """Whether f over its leading term is near 1 at X = 2^12, or nearer than at X = 2^7."""
    distances = []
    for x in (unit(f) * 2**7, unit(f) * 2**12):
        with flint.ctx.workprec(256):
            leading = _value(growth, x) * constant
        for bits in (2**9, 2**13):
            value = enclose(f, side * x, bits)
            if value.is_finite() and value.rel_accuracy_bits() > 20:
                break
        else:
            return True  # no digits so far from 0 (a Gaussian tail): the exact expansion stands alone
        distances.append(abs(value / leading - 1))
    # A correction such as log(X)/X falls slowly: then it is enough that the distance shrinks.
    return bool(distances[1] < 0.25) or bool(distances[1] < distances[0])


def _value(growth: Growth, x: Fraction) -> arb:
    """Return the ball of a growth at X = x."""
    ball = arb(x.numerator) / x.denominator
    powers = [ball ** (len(growth.q) - i) for i in range(len(growth.q))]
    exponent = sum((arb(c.numerator) / c.denominator * p for c, p in zip(growth.q, powers, strict=True)), arb(0))
    a, b = (arb(power.numerator) / power.denominator for power in (growth.a, growth.b))
    return (exponent + ball.log() * a).exp() * ball.log() ** b
