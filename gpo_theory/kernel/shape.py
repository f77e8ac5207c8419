"""The rules for convex, strictly convex and strongly convex."""

__all__ = [
    "convex",
    "not_convex",
    "not_strictly_convex",
    "not_strongly_convex",
    "shown_convex",
    "strictly_convex",
    "strongly_convex",
]

from fractions import Fraction

from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.inequality import rational
from gpo_theory.kernel.resolution import Hints, Part, UnprovedError, parts, prove
from gpo_theory.kernel.size import number_of, sharp
from gpo_theory.kernel.statement import (
    Statement,
    continuous,
    joints,
    kink_slopes,
    lead_far,
    need,
    open_parts,
    place,
    smooth_parts,
)
from gpo_theory.kernel.waves import along
from gpo_theory.kernel.zeros import at, left_of, right_of

ZERO = Fraction(0)


def convex(s: Statement) -> None:
    """f is convex."""
    shown_convex(s.f, s.hints)


def shown_convex(f: Expr, hints: Hints) -> list[Part] | None:
    """Show convexity by f'' >= 0 on every part and slopes that do not fall; else by the parts of a sum or a maximum."""
    try:
        pieces = smooth_parts(f, hints)
        continuous(pieces)
        for left, point, right in joints(pieces):
            x = place(point)
            need(at(right.f.diff() - left.f.diff(), x).a >= 0, f"a slope that does not fall at x = {x}")
        for p in open_parts(pieces):
            prove(p.f.diff().diff(), p.low, p.high, False, hints)
        return pieces
    except UnprovedError:
        if f.head not in ("max", "+", "*"):
            raise
        if f.head == "*":
            need(len(f.args) == 2 and f.args[0].number is not None and f.args[0].number > 0, f"convexity of {f}")
            return shown_convex(f.args[1], hints) and None
        for part in f.args:
            shown_convex(part, hints)
        return None


def strictly_convex(s: Statement) -> None:
    """f'' >= 0, and f'' > 0 somewhere on each part: an analytic f'' then vanishes at isolated points only."""
    pieces = shown_convex(s.f, s.hints)
    need(pieces is not None, "the parts of f")
    for p in open_parts(pieces or []):
        ends = [end(x) for x, end in ((p.low, right_of), (p.high, left_of)) if x is not None] or [Fraction(1)]
        points = [p.sample, *((p.sample + k * x) / (k + 1) for k in (1, 3) for x in ends)]
        need(any(at(p.f.diff().diff(), x).a > 0 for x in points), "a point of each part with f'' > 0")


def not_convex(s: Statement) -> None:
    """f lies above a chord, or its slope falls at a kink."""
    _refuting_chord(s, strict=True)


def not_strictly_convex(s: Statement) -> None:
    """f lies above a chord or touches it, or its slope falls at a kink."""
    _refuting_chord(s, strict=False)


def _refuting_chord(s: Statement, strict: bool) -> None:
    """The witness is a kink where the slope falls, or a chord below f (not strict: which f may touch)."""
    kind = s.witness.get("kind")
    if kind == "kink":
        left, right = kink_slopes(s)
        need((left - right).a > 0, "a slope that falls")
        return
    need(kind == "chord", "a chord")
    a, b, t = (rational(s.witness[k]) for k in ("a", "b", "t"))
    need(a < b and 0 < t < 1, "a < b and 0 < t < 1")
    m = t * a + (1 - t) * b
    for bits in (80, 320, 1280):
        gap = at(s.f, m, bits) - t.numerator * at(s.f, a, bits) / t.denominator
        gap -= (1 - t).numerator * at(s.f, b, bits) / (1 - t).denominator
        if gap.a > 0:
            return
    if not strict:  # f touches its chord: then f is affine on the part that contains the chord
        pieces = parts(s.f, s.hints)
        holding = [p for p in open_parts(pieces) if (p.low is None or p.low <= a) and (p.high is None or b <= p.high)]
        continuous(pieces)
        need(bool(holding), "a part that holds the chord")
        prove(-holding[0].f.diff().diff(), holding[0].low, holding[0].high, False, s.hints)
        return
    raise UnprovedError("f above its chord")


def strongly_convex(s: Statement) -> None:
    """f is convex, and f'' is at least the modulus of the certificate on every part."""
    modulus = number_of(s, below=True)
    pieces = shown_convex(s.f, s.hints)
    need(pieces is not None and at(modulus, ZERO).a > 0, "parts of f and a positive modulus")
    for p in open_parts(pieces or []):
        prove(p.f.diff().diff() - modulus, p.low, p.high, False, s.hints)
    sharp(s, open_parts(pieces or []), lambda g: g.diff().diff(), 1)


def not_strongly_convex(s: Statement) -> None:
    """Not even convex; or f'' is 0 on a part, at a point of it, or in the limit, whole periods from the witness."""
    if s.witness.get("kind") != "point":
        not_convex(s)
        return
    pieces = open_parts(smooth_parts(s.f, s.hints))
    x = rational(s.witness["x"])
    for p in pieces:
        if (p.low is None or p.low <= x) and (p.high is None or x <= p.high):
            value = at(p.f.diff().diff(), x)
            if value.b <= 0:
                return
    for p, side in ((pieces[0], -1), (pieces[-1], 1)):
        lead = lead_far(along(p.f.diff().diff(), x), side, s.hints)
        if lead is None or lead.vanishes:
            return
    raise UnprovedError("f'' that tends to 0")
