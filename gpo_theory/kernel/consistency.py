"""The rule for Bayes consistency: one theorem per way to show it, each hypothesis replayed."""

__all__ = ["consistent", "inconsistent"]

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from mpmath import iv

from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.kernel.exactness import identity
from gpo_theory.kernel.inequality import rational
from gpo_theory.kernel.resolution import Hints, Part, UnprovedError, parts, prove, same_at
from gpo_theory.kernel.shape import shown_convex
from gpo_theory.kernel.slope import falls_at_zero, never_rises, slopes_at_zero
from gpo_theory.kernel.statement import Statement, continuous, lead_far, need, open_parts, place, sign_on
from gpo_theory.kernel.waves import along
from gpo_theory.kernel.zeros import at

X = Expr.x()
ZERO = Fraction(0)


def consistent(s: Statement) -> None:
    """Replay the theorem that the certificate names."""
    theorem = s.hints.choice("theorem")
    need(theorem in _THEOREMS, f"a theorem among {', '.join(_THEOREMS)}")
    _THEOREMS[theorem](s)


def _by_convexity(s: Statement) -> None:
    """Bartlett, Jordan, McAuliffe 2006: convex f is consistent iff f'(0) exists and is negative."""
    shown_convex(s.f, s.hints)
    falls_at_zero(s.f, s.hints)


def _by_falling(s: Statement) -> None:
    """f never rises, is bounded below and f'(0) < 0: f(-a) - f(a) > 0 never falls for a > 0.

    So margins -a with C_p(-a) near H^- lose at least theta (f(-b) - f(b)) to a where a >= b; near 0, C_p falls.
    """
    never_rises(s.f, s.hints)
    falls_at_zero(s.f, s.hints)
    _has_floor(s)


def _has_floor(s: Statement) -> None:
    """f is bounded below by the number that the proof names."""
    floor = s.hints.choice("floor")
    need(floor is not None, "a lower bound")
    for p in parts(s.f, s.hints):
        sign_on(p.f - rational(floor), p, False, s.hints)


def _by_exactness(s: Statement) -> None:
    """f' < 0 and f'(-x) = exp(x/c) f'(x): C_p falls up to c log(p/(1-p)) and rises from there."""
    identity(s.f, rational(s.hints.choice("c")), s.hints)


def _by_flip(s: Statement) -> None:
    """f continuous and bounded below, f'(0) < 0, D(a) = f(-a) - f(a) > 0 for a > 0, and in the limit either
    liminf D > 0 as a -> inf or liminf f > f(0) as |x| -> inf.
    """
    continuous(parts(s.f, s.hints))
    falls_at_zero(s.f, s.hints)
    _has_floor(s)
    difference = substitute(s.f, {X: -X}) - s.f
    pieces = [p for p in parts(difference, s.hints) if p.high is None or p.high > 0]
    for p in pieces:
        low = p.low if p.low is not None and p.low >= 0 else ZERO
        sign_on(p.f, Part(low, p.high, p.f), True, s.hints)
    try:
        lead = lead_far(pieces[-1].f, 1, s.hints)
    except UnprovedError:  # f itself may still show it
        lead = None
    if lead is not None and not lead.vanishes and lead.sign > 0:
        return
    ends = parts(s.f, s.hints)
    for p, side in ((ends[0], -1), (ends[-1], 1)):
        above = lead_far(p.f - _at_zero(s.f, s.hints), side, s.hints)
        need(above is not None and not above.vanishes and above.sign > 0, "f above f(0) far out")


def _at_zero(f: Expr, hints: Hints) -> Expr:
    """Return f(0) as a formula."""
    part = next(p for p in parts(f, hints) if (p.low is None or p.low <= 0) and (p.high is None or p.high >= 0))
    return substitute(part.f, {X: Expr.of(0)})


def _by_gap(s: Statement) -> None:
    """E(a) = (f(a) + f(-a))/2 attains its infimum over a >= 0 inside [a1, a2], and f(-a) >= level > f on [a1, a2].

    From C_p(-a) = (1 - theta) E(a) + theta f(-a): any wrong side is worse than the minimiser of E by theta m.
    """
    low, middle, high = map(rational, s.hints.choice("bracket"))
    level = rational(s.hints.choice("level"))
    need(0 <= low <= middle <= high and low < high, "0 <= a1 <= a <= a2")
    mean = (s.f + substitute(s.f, {X: -X})) / 2
    pieces = parts(mean, s.hints)
    continuous(pieces)
    at_middle = next(p.f for p in pieces if (p.low is None or p.low <= middle) and (p.high is None or p.high >= middle))
    above = parts(mean - substitute(at_middle, {X: Expr.of(middle)}), s.hints)
    for a, b in ((ZERO, low), (high, None)):
        _on_interval(above, a, b, s.hints)
    mirrored = substitute(s.f, {X: -X})
    _on_interval(parts(mirrored - level, s.hints), ZERO, None, s.hints, closed=True)
    _on_interval(parts(level - s.f, s.hints), low, high, s.hints, strict=True, closed=True)


def _by_flatness(s: Statement) -> None:
    """f = M wherever x <= 0, f is bounded below, and f < M somewhere: with m = inf f, H^- exceeds H by theta (M - m).

    For p > 1/2 and a >= 0, C_p(-a) = p M + (1-p) f(a) has the infimum p M + (1-p) m, and C_p(a) has p m + (1-p) M.
    """
    pieces = parts(s.f, s.hints)
    level = pieces[0].f
    for p in pieces:
        if p.low is None or p.low < 0 or (p.is_point and p.low <= 0):
            constant = same_at(p.f, level, place(p)) if p.is_point else p.f == level
            need(constant and not level.depends_on_x, "one value of f wherever x <= 0")
    need((at(s.f, rational(s.hints.choice("at"))) - at(level, ZERO)).b < 0, "f below f(0)")
    _has_floor(s)


def _on_interval(pieces: list[Part], a: Fraction, b: Fraction | None, hints: Hints, strict: bool = False,
                 closed: bool = False) -> None:  # fmt: skip
    """Show g >= 0 (strict: > 0) on (a, b), or on its closure, from the parts of g."""
    for p in pieces:
        low = a if p.low is None else max(a, p.low)
        high = p.high if b is None else b if p.high is None else min(b, p.high)
        if p.is_point:
            if not (place(p) < a or (b is not None and b < place(p))):
                sign_on(p.f, p, strict, hints)
        elif high is None or not high <= low:
            prove(p.f, low, high, strict, hints)
            for x in (low, high) if closed else ():
                if x is not None:
                    value = at(p.f, x)
                    need(value.a > 0 or (value.a >= 0 and not strict), f"{p.f} at x = {x}")


_THEOREMS: dict[str, Callable[[Statement], None]] = {
    "convex": _by_convexity, "falling": _by_falling, "exact": _by_exactness, "flip": _by_flip, "gap": _by_gap,
    "flat": _by_flatness,
}  # fmt: skip


def inconsistent(s: Statement) -> None:
    """At theta = 2p - 1 the wrong side does as well: C_p(x0) <= C_p(a) for some x0 <= 0 and every a > 0."""
    theta = rational(s.witness["theta"])
    need(0 < theta <= 1, "0 < theta <= 1")
    p = (1 + theta) / 2
    if s.hints.choice("theorem") == "ends":  # f tends to its infimum at both ends: so does C_p, on either side
        infimum = rational(s.hints.choice("floor"))
        pieces = parts(s.f, s.hints)
        for part in pieces:
            sign_on(part.f - infimum, part, False, s.hints)
        for part, side in ((pieces[0], -1), (pieces[-1], 1)):
            lead = lead_far(part.f - infimum, side, s.hints)
            need(lead is None or lead.vanishes, "f that tends to its infimum at both ends")
        return
    if s.hints.choice("theorem") == "periodic":  # then so is C_p, which takes every value on either side
        need(not along(s.f, ZERO).depends_on_x, "a periodic f")
        return
    risk = p * s.f + (1 - p) * substitute(s.f, {X: -X})
    if s.hints.choice("theorem") == "unbounded":  # C_p tends to -infinity on the wrong side: H = H^- = -infinity
        lead = lead_far(along(parts(risk, s.hints)[0].f, rational(s.hints.choice("at"))), -1, s.hints)
        need(lead is not None and lead.grows and lead.sign < 0, "C_p that tends to -infinity on the left")
        return
    if s.hints.choice("theorem") == "convex":  # C_p is convex with 0 in its subdifferential, or rises at 0
        shown_convex(s.f, s.hints)
        left, right = (at(slope, ZERO) for slope in slopes_at_zero(s.f, s.hints))
        top, rest = _weight(p), _weight(1 - p)
        need((top * right - rest * left).a >= 0, "C_p that does not fall to the right of 0")
        return
    x, side = rational(s.hints.choice("at") or "0"), s.hints.choice("side")
    need(x < 0 or (x == 0 and side != "right"), "a point on the wrong side")
    if side is not None:  # the limit of C_p from one side of x, which a jump of f need not attain
        beside = [p.f for p in open_parts(parts(risk, s.hints)) if x == (p.high if side == "left" else p.low)]
        need(len(beside) == 1, f"a part on the {side} of x = {x}")
    least = substitute(risk if side is None else beside[0], {X: Expr.of(x)})
    _on_interval(parts(risk - least, s.hints), ZERO, None, s.hints)


def _weight(p: Fraction) -> Any:
    return iv.mpf(p.numerator) / p.denominator
