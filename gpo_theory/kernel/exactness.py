"""The rule for Bradley-Terry exactness: f' < 0 and f'(-x) = exp(x/c) f'(x)."""

__all__ = ["exact", "identity", "not_exact"]

from fractions import Fraction
from functools import reduce
from math import gcd, lcm
from operator import mul

from mpmath import iv

from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.kernel.expansion import expanded
from gpo_theory.kernel.inequality import rational, root_factors
from gpo_theory.kernel.intervals import interval
from gpo_theory.kernel.resolution import Hints, Part, parts, prove, same_at
from gpo_theory.kernel.size import rounds_to
from gpo_theory.kernel.statement import (
    Statement,
    continuous,
    joints,
    jumps,
    kink_slopes,
    need,
    open_parts,
    place,
    smooth_parts,
    witnessed,
)
from gpo_theory.kernel.sturm import Quotient, equals
from gpo_theory.kernel.zeros import at, left_of, right_of

X = Expr.x()
ZERO = Fraction(0)


def exact(s: Statement) -> None:
    """The identity holds with the c of the certificate (proposition P3)."""
    value = s.certificate.value
    need(value is not None and value["exact"] is not None, "the constant c")
    c = rational((value or {})["exact"])
    need(rounds_to(Expr.of(c), (value or {})["float"]), "exact and float that agree")
    identity(s.f, c, s.hints)


def identity(f: Expr, c: Fraction, hints: Hints) -> None:
    """f is differentiable with f' < 0, and f'(-x) = exp(x/c) f'(x)."""
    need(c > 0, "c > 0")
    pieces = smooth_parts(f, hints)
    continuous(pieces)
    for left, point, right in joints(pieces):
        x = place(point)
        need(same_at(left.f.diff(), right.f.diff(), x), f"a slope that does not jump at x = {x}")
        need(at(right.f.diff(), x).b < 0, f"f'({x}) < 0")
    for p in open_parts(pieces):
        prove(-p.f.diff(), p.low, p.high, True, hints)
    need(_ratio_is(pieces, 1 / c), f"f'(-x) = exp(x/{c}) f'(x)")


def _ratio_is(pieces: list[Part], rate: Fraction) -> bool:
    """Whether f'(-x) = exp(rate x) f'(x) identically on every pair of mirrored parts."""
    for p in open_parts(pieces):
        if p.high is not None and p.high <= 0:
            continue
        for q in open_parts(pieces):
            low = None if q.high is None else -right_of(q.high)
            high = None if q.low is None else -left_of(q.low)
            if (high is not None and high <= max(p.low or ZERO, ZERO)) or (p.high is not None and low is not None
                                                                           and low >= p.high):  # fmt: skip
                continue
            behind, ahead, degree = _without_roots(substitute(q.f.diff(), {X: -X}), p.f.diff())
            factor = Expr("exp", (rate * degree * X,)) if rate else Expr.of(1)
            difference = expanded(behind - factor * ahead) or behind - factor * ahead
            flat = interval(difference, ZERO, None)
            if flat.a == 0 and flat.b == 0:  # all terms cancel
                continue
            if not equals(difference, Quotient((), (Fraction(1),), _common_slope(difference))):
                return False
    return True


def _without_roots(a: Expr, b: Expr) -> tuple[Expr, Expr, int]:
    """Return a^d, b^d and d, where d clears the common roots of both: for slopes of one sign a = b iff a^d = b^d."""
    split = [root_factors(g) for g in (a, b)]
    degree = lcm(1, *(n.denominator for powers, _ in split for n in powers.values()))
    if degree == 1:
        return a, b, 1
    raised = [reduce(mul, (base ** (n * degree) for base, n in powers.items()), rest**degree) for powers, rest in split]
    return raised[0], raised[1], degree


def _common_slope(g: Expr) -> Fraction | None:
    """Return the largest s of which the slope of every exponential is a multiple."""
    lines = [n.args[0] for n in g.walk() if n.head == "exp" and n.depends_on_x]
    exact = [slope for line in lines if (slope := substitute(line.diff(), {X: Expr.of(0)}).number)]
    bottom = lcm(1, *(slope.denominator for slope in exact))
    return Fraction(gcd(*(int(slope * bottom) for slope in exact)), bottom) if exact else None


def not_exact(s: Statement) -> None:
    """A kink, a jump, a point with f' >= 0, a ratio that no c > 0 gives, or two points with different c."""
    kind = s.witness.get("kind")
    if kind in ("point", "break") and jumps(s, witnessed(s)):
        return
    if kind != "point":
        left, right = kink_slopes(s)
        need(abs(left - right).a > 0, "slopes that differ")
        return
    x = rational(s.witness["x"])
    pieces = parts(s.f, s.hints)
    slope = _slope_at(pieces, x)
    if at(slope, x).a >= 0:
        return
    if _ratio_is(pieces, ZERO):
        return
    rates = [(at(_slope_at(pieces, -y), -y) / at(_slope_at(pieces, y), y), y) for y in (Fraction(1), x)]
    need(all(ratio.a > 0 for ratio, _ in rates), "slopes of one sign")
    first, second = (iv.log(ratio) * y.denominator / y.numerator for ratio, y in rates)
    need(second.b < 0 or first.b < 0 or (first - second).a > 0 or (second - first).a > 0, "two rates that differ")


def _slope_at(pieces: list[Part], x: Fraction) -> Expr:
    """Return the formula of f' to the right of x."""
    inside = [p for p in open_parts(pieces) if (p.low is None or p.low <= x) and (p.high is None or x < p.high)]
    return inside[0].f.diff()
