"""The rules for the slope of f: f never rises; f'(0) exists."""

__all__ = [
    "differentiable",
    "falling",
    "falls_at_zero",
    "never_rises",
    "not_differentiable",
    "not_falling",
    "slopes_at_zero",
]

from fractions import Fraction
from itertools import pairwise

from mpmath import iv

from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.inequality import rational
from gpo_theory.kernel.resolution import Hints, UnprovedError, parts, prove, same_at
from gpo_theory.kernel.shape import shown_convex
from gpo_theory.kernel.size import equal_at, rounds_to
from gpo_theory.kernel.statement import (
    Statement,
    agree,
    joints,
    jumps,
    kink_slopes,
    lead_far,
    need,
    open_parts,
    place,
    smooth_parts,
    witnessed,
)
from gpo_theory.kernel.zeros import at

ZERO = Fraction(0)


def falling(s: Statement) -> None:
    """f never rises."""
    never_rises(s.f, s.hints)


def never_rises(f: Expr, hints: Hints) -> None:
    """f' <= 0 on every part and no jump up, from signs or from convexity and the limit of the slope."""
    pieces = smooth_parts(f, hints)
    for left, point, right in joints(pieces):
        x = place(point)
        for a, b in pairwise((left.f, point.f, right.f)):
            need(at(a - b, x).a >= 0 or same_at(a, b, x), f"no jump up at x = {x}")
    if hints.choice("by") == "limit":  # the slope of a convex f never exceeds its limit on the right
        shown_convex(f, hints)
        lead = lead_far(-pieces[-1].f.diff(), 1, hints)
        need(lead is None or lead.sign > 0 or lead.vanishes, "a slope that tends to 0 or to a negative number")
        return
    for p in open_parts(pieces):
        prove(-p.f.diff(), p.low, p.high, False, hints)


def not_falling(s: Statement) -> None:
    """f' > 0 at the witness or, with f' continuous up to it, to the right of it; or f jumps up there."""
    x = witnessed(s)
    for left, point, right in joints(parts(s.f, s.hints)):
        if place(point) == x and any(at(b - a, x).a > 0 for a, b in pairwise((left.f, point.f, right.f))):
            return
    for p in open_parts(parts(s.f, s.hints)):
        if (p.low is None or p.low <= x) and (p.high is None or x < p.high) and at(p.f.diff(), x).a > 0:
            return
    raise UnprovedError(f"f'({x}) > 0")


def differentiable(s: Statement) -> None:
    """f'(0) exists and is the certificate's number, exactly where it is said to be exact."""
    slope = slope_at_zero(s.f, s.hints)
    value = s.certificate.value
    need(value is not None, "the slope")
    if value is not None and value["exact"] is not None:
        exact = parse_constant(value["exact"])
        need(equal_at(slope, exact, ZERO) and rounds_to(exact, value["float"]), "the exact slope at 0")
    elif value is not None:
        need(agree(at(slope, ZERO), iv.mpf(value["float"])), "the slope at 0")


def slope_at_zero(f: Expr, hints: Hints) -> Expr:
    """Return a formula whose value at 0 is f'(0), where the one-sided slopes are exactly equal."""
    left, right = slopes_at_zero(f, hints)
    need(left == right or same_at(left, right, ZERO), "one-sided slopes at 0 that are exactly equal")
    return left


def slopes_at_zero(f: Expr, hints: Hints) -> tuple[Expr, Expr]:
    """Return formulas whose values at 0 are f'(0-) and f'(0+); one and the same where 0 lies inside a part."""
    pieces = smooth_parts(f, hints)
    for p in open_parts(pieces):
        if (p.low is None or p.low < 0) and (p.high is None or p.high > 0):
            return p.f.diff(), p.f.diff()
    for left, point, right in joints(pieces):
        if point.low == 0:
            need(same_at(left.f, point.f, ZERO) and same_at(right.f, point.f, ZERO), "continuity at 0")
            return left.f.diff(), right.f.diff()
    raise UnprovedError("a part that holds 0")


def not_differentiable(s: Statement) -> None:
    """f has a kink or a jump at 0."""
    if s.witness.get("kind") == "kink":
        left, right = kink_slopes(s)
        need(rational(s.witness["x"]) == 0 and abs(left - right).a > 0, "slopes at 0 that differ")
    else:
        need(rational(s.witness["x"]) == 0 and jumps(s, ZERO), "a jump at 0")


def falls_at_zero(f: Expr, hints: Hints) -> None:
    """f'(0) exists and is negative."""
    need(at(slope_at_zero(f, hints), ZERO).b < 0, "f'(0) < 0")
