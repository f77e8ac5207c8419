"""The rules for bounded below, with the infimum."""

__all__ = ["bounded_below", "not_bounded_below"]

from fractions import Fraction

from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.inequality import rational
from gpo_theory.kernel.resolution import Part, UnprovedError, parts, prove
from gpo_theory.kernel.size import number_of, sharp, zero_between
from gpo_theory.kernel.slope import never_rises
from gpo_theory.kernel.statement import Statement, lead_far, need, sign_on
from gpo_theory.kernel.waves import along
from gpo_theory.kernel.zeros import at

ZERO = Fraction(0)
DEEP = 1000  # how much deeper f lies at a witness that it is unbounded below than at 1 and -1


def bounded_below(s: Statement) -> None:
    """f >= b on every part and at every breakpoint, or f never rises and tends to b; f need not be continuous."""
    if s.hints.choice("falls"):
        never_rises(s.f, s.hints)
        need(s.certificate.value is not None and s.hints.choice("near") == "inf", "the limit on the right")
        sharp(s, parts(s.f, s.hints), lambda g: g, 1)
        return
    bound, pieces = number_of(s, below=True), parts(s.f, s.hints)
    for p in pieces:
        if not _lowest_inside(p.f - bound, p, s):
            sign_on(p.f - bound, p, False, s.hints)
    sharp(s, pieces, lambda g: g, 1)


def not_bounded_below(s: Statement) -> None:
    """f has fallen from 0 to the witness by 1000 times its changes from 0 to 1 and -1; it tends to -infinity.

    Where f oscillates, it does so along points that are whole periods away from the witness.
    """
    start, *changes = [at(s.f, ZERO), *(at(s.f, Fraction(side)) - at(s.f, ZERO) for side in (1, -1))]
    fall = start - at(s.f, x := rational(s.witness["x"]))
    need((fall - DEEP * (abs(changes[0]) + abs(changes[1]))).a > 0, "a value far below f(0) at the witness")
    pieces = parts(s.f, s.hints)
    for p, side in ((pieces[0], -1), (pieces[-1], 1)):
        lead = lead_far(along(p.f, x), side, s.hints)
        if lead is not None and lead.grows and lead.sign < 0:
            return
    raise UnprovedError("f that tends to -infinity")


def _lowest_inside(g: Expr, p: Part, s: Statement) -> bool:
    """Whether g >= 0 on a part: it is 0 with slope 0 at the point that `near` names, convex around it, else above 0."""
    near = s.hints.choice("near")
    if not isinstance(near, list) or len(near) < 3:
        return False
    low, high = map(rational, near[:2])
    if (p.low is not None and low <= p.low) or (p.high is not None and p.high <= high):
        return False
    need(zero_between(g, near) and zero_between(g.diff(), near), f"{g} that is 0 with slope 0 at x = {near[2]}")
    prove(g.diff().diff(), low, high, False, s.hints)
    prove(g, p.low, low, False, s.hints)
    prove(g, high, p.high, False, s.hints)
    return True
