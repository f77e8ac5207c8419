"""The rules for Lipschitz, smooth and bounded below, each with its constant."""

__all__ = [
    "number_of",
    "bounded_below",
    "lipschitz",
    "not_bounded_below",
    "not_lipschitz",
    "not_smooth",
    "sharp",
    "smooth",
]

from collections.abc import Callable
from fractions import Fraction

from mpmath import iv

from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.inequality import at, rational
from gpo_theory.kernel.intervals import interval
from gpo_theory.kernel.resolution import Part, UnprovedError, parts, prove, same_at
from gpo_theory.kernel.statement import (
    Statement,
    agree,
    continuous,
    joints,
    jumps,
    kink_slopes,
    lead_far,
    need,
    open_parts,
    place,
    sign_on,
    smooth_parts,
)

ZERO = Fraction(0)
TIGHT = Fraction(1, 10**9)  # room for the rounding of floats (1e-16), below the millionth of `sharp`


def number_of(s: Statement, below: bool) -> Fraction:
    """Return the certificate's number, moved by at most one part in 1e9 to the safe side where it is not rational."""
    value = s.certificate.value
    if value is None:
        floor = s.hints.choice("floor")
        need(floor is not None, "a bound")
        return rational(floor)
    need(isinstance(value["float"], float | int), "a number")
    number = Fraction(value["float"])
    if value["exact"] is not None:
        exact = parse_constant(value["exact"])
        need(agree(interval(exact, ZERO, ZERO), iv.mpf(value["float"])), "exact and float that agree")
        if exact.number is not None:
            return exact.number
    slack = TIGHT * (1 + abs(number)) / 2
    return number - slack if below else number + slack


def sharp(s: Statement, pieces: list[Part], of: Callable[[Expr], Expr], side: int) -> None:
    """The number cannot be improved by more than one part in a million: `near` names a point that shows it."""
    if s.certificate.value is None:
        return
    near = s.hints.choice("near")
    need(near is not None, "a point near which the number is reached")
    x, number = rational(near), iv.mpf(s.certificate.value["float"])
    slack = (1 + abs(number)) * 1e-6
    for p in open_parts(pieces):
        if (p.low is None or p.low <= x) and (p.high is None or x <= p.high):
            value = at(of(p.f), x)
            if side > 0 and value.b <= (number + slack).b:
                return
            if side < 0 and abs(value).a >= (number - slack).a:
                return
    raise UnprovedError(f"the number {s.certificate.value['float']} reached near x = {near}")


def lipschitz(s: Statement) -> None:
    """f is continuous, and |f'| <= L on every part."""
    pieces = smooth_parts(s.f, s.hints)
    continuous(pieces)
    _both_sides(s, pieces, lambda g: g.diff())


def _both_sides(s: Statement, pieces: list[Part], of: Callable[[Expr], Expr]) -> None:
    """|g| is at most the certificate's number on every part, for g = f' or f'', and nearly reaches it."""
    bound = number_of(s, below=False)
    for p in open_parts(pieces):
        for sign in (1, -1):
            prove(bound + sign * of(p.f), p.low, p.high, False, s.hints)
    sharp(s, pieces, of, -1)


def smooth(s: Statement) -> None:
    """f and f' are continuous, and |f''| is bounded on every part."""
    pieces = smooth_parts(s.f, s.hints)
    continuous(pieces)
    for left, point, right in joints(pieces):
        x = place(point)
        need(same_at(left.f.diff(), right.f.diff(), x), f"a slope that does not jump at x = {x}")
    _both_sides(s, pieces, lambda g: g.diff().diff())


def not_lipschitz(s: Statement) -> None:
    """f jumps, or f' is unbounded."""
    _unbounded(s, lambda g: g.diff(), "f'")


def not_smooth(s: Statement) -> None:
    """f jumps or has a kink, or f'' is unbounded."""
    if s.witness.get("kind") == "kink":
        left, right = kink_slopes(s)
        need(abs(left - right).a > 0, "slopes that differ")
    else:
        _unbounded(s, lambda g: g.diff().diff(), "f''")


def _unbounded(s: Statement, of: Callable[[Expr], Expr], name: str) -> None:
    """f jumps at the witness, or |g| is above 10^4 there and grows without bound on one side, for g = f' or f''."""
    if jumps(s, rational(s.witness["x"])):
        return
    pieces = open_parts(smooth_parts(s.f, s.hints))
    x = rational(s.witness["x"])
    holding = [p for p in pieces if (p.low is None or p.low < x) and (p.high is None or x < p.high)]
    need(bool(holding) and abs(at(of(holding[0].f), x)).a > 1e4, f"|{name}({x})| > 10000")
    for p, side in ((pieces[0], -1), (pieces[-1], 1)):
        lead = lead_far(of(p.f), side, s.hints)
        if lead is not None and lead.grows:
            return
    raise UnprovedError(f"{name} that grows without bound")


def bounded_below(s: Statement) -> None:
    """f >= b on every part and at every breakpoint; f need not be continuous."""
    bound, pieces = number_of(s, below=True), parts(s.f, s.hints)
    for p in pieces:
        sign_on(p.f - bound, p, False, s.hints)
    sharp(s, pieces, lambda g: g, 1)


def not_bounded_below(s: Statement) -> None:
    """f < -1000 at the witness, and f tends to -infinity on one side."""
    need(at(s.f, rational(s.witness["x"])).b < -1000, "f < -1000 at the witness")
    pieces = parts(s.f, s.hints)
    for p, side in ((pieces[0], -1), (pieces[-1], 1)):
        lead = lead_far(p.f, side, s.hints)
        if lead is not None and lead.grows and lead.sign < 0:
            return
    raise UnprovedError("f that tends to -infinity")
