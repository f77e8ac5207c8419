"""What each claim asks to be shown: one rule per claim, over inequalities alone. Part of the verifier.

Every rule but the first supposes that f is defined on all of R, which is a claim of its own in each certificate. A
rule raises UnprovedError where a step cannot be replayed; that is no verdict, only the absence of one.
"""

__all__ = ["RULES", "Statement"]

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from math import gcd, lcm
from operator import mul
from typing import Any

from mpmath import iv

from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.formula import Expr, substitute
from gpo_theory.grammar import parse_constant
from gpo_theory.horizon import Lead, UnresolvedError, lead_beyond
from gpo_theory.inequality import at, root_factors
from gpo_theory.intervals import interval
from gpo_theory.resolved import Hints, Part, UnprovedError, parts, prove, same_at
from gpo_theory.sturm import Quotient, equals

X, ZERO = Expr.x(), Fraction(0)
TIGHT = Fraction(1, 10**9)


@dataclass(frozen=True)
class Statement:
    """A verdict on one claim about f, with what its certificate holds for the replay."""

    f: Expr
    certificate: Certificate
    hints: Hints

    @property
    def witness(self) -> dict[str, Any]:
        """The witness of a refutation."""
        return dict(self.certificate.witness or {})


def _need(condition: bool, step: str) -> None:
    if not condition:
        raise UnprovedError(step)


def _open(pieces: list[Part]) -> list[Part]:
    return [p for p in pieces if not p.is_point]


def _joints(pieces: list[Part]) -> list[tuple[Part, Part, Part]]:
    return [(pieces[i], pieces[i + 1], pieces[i + 2]) for i in range(0, len(pieces) - 2, 2)]


def _smooth_parts(f: Expr, hints: Hints) -> list[Part]:
    """Return the parts of f, each analytic inside: no root there of a base that may be 0."""
    pieces = parts(f, hints)
    for p in _open(pieces):
        for node in p.f.walk():
            if node.head == "**" and (node.args[1].number is None or node.args[1].number.denominator != 1):
                prove(node.args[0], p.low, p.high, True, hints)
    return pieces


def _continuous(pieces: list[Part]) -> None:
    for left, point, right in _joints(pieces):
        x = _end(point)
        _need(same_at(left.f, point.f, x) and same_at(right.f, point.f, x), f"continuity at x = {x}")


def _end(point: Part) -> Fraction:
    assert point.low is not None
    return point.low


# --- total ---------------------------------------------------------------------------------------------------------


def _total(s: Statement) -> None:
    for p in parts(s.f, s.hints):
        _defined(s.f, p, s.hints)


def _defined(node: Expr, part: Part, hints: Hints) -> None:
    """Every logarithm, quotient and root that is met on the part has an argument in its domain."""
    if node.head == "where":
        condition, yes, no = node.children
        for side in (n for c in condition.walk() if c.head in ("<", "<=", ">", ">=") for n in c.args):
            _defined(side, part, hints)
        taken = parts_of(node, part, hints)
        for branch in (yes, no):
            if parts_of(branch, part, hints) == taken:
                _defined(branch, part, hints)
                return
        raise UnprovedError(f"which branch of {node}")
    for child in node.children:
        _defined(child, part, hints)
    power = node.args[1].number if node.head == "**" else None
    integer = power is not None and power.denominator == 1
    if node.head not in ("log", "**") or (integer and power is not None and power > 0):
        return
    argument = parts_of(node.args[0], part, hints)
    if node.head == "**" and integer:
        x = part.low if part.is_point and part.low is not None else _sample(part)
        argument = argument if at(argument, x).a > 0 else -argument
    _positive(argument, part, node.head == "log" or power is None or power < 0, hints)


def parts_of(node: Expr, part: Part, hints: Hints) -> Expr:
    """Return a node as it is on one part."""
    from gpo_theory.resolved import _at_point, _resolve

    return _at_point(node, _end(part)) if part.is_point else _resolve(node, part.low, part.high, hints)


def _sample(part: Part) -> Fraction:
    if part.low is None:
        return ZERO if part.high is None else part.high - 1
    return part.low + 1 if part.high is None else (part.low + part.high) / 2


def _positive(g: Expr, part: Part, strict: bool, hints: Hints) -> None:
    if not part.is_point:
        prove(g, part.low, part.high, strict, hints)
        return
    value = at(g, _end(part))
    _need(value.a > 0 or (value.a >= 0 and not strict), f"{g} at x = {part.low}")


# --- convexity -----------------------------------------------------------------------------------------------------


def _convex(s: Statement) -> None:
    _shown_convex(s.f, s.hints)


def _shown_convex(f: Expr, hints: Hints) -> list[Part] | None:
    """Show convexity by f'' >= 0 on every part and slopes that do not fall; else by the parts of a sum or a maximum."""
    try:
        pieces = _smooth_parts(f, hints)
        _continuous(pieces)
        for left, point, right in _joints(pieces):
            x = _end(point)
            _need(at(right.f.diff() - left.f.diff(), x).a >= 0, f"a slope that does not fall at x = {x}")
        for p in _open(pieces):
            prove(p.f.diff().diff(), p.low, p.high, False, hints)
        return pieces
    except UnprovedError:
        if f.head not in ("max", "+", "*"):
            raise
        if f.head == "*":
            _need(len(f.args) == 2 and f.args[0].number is not None and f.args[0].number > 0, f"convexity of {f}")
            return _shown_convex(f.args[1], hints) and None
        for part in f.args:
            _shown_convex(part, hints)
        return None


def _strictly_convex(s: Statement) -> None:
    """f'' >= 0 everywhere, and f'' > 0 somewhere on each part: an analytic f'' then vanishes at isolated points only."""
    pieces = _shown_convex(s.f, s.hints)
    _need(pieces is not None, "the parts of f")
    for p in _open(pieces or []):
        points = [_sample(p), *((_sample(p) + k * (x or 0)) / (k + 1) for k in (1, 3) for x in (p.low, p.high))]
        _need(any(at(p.f.diff().diff(), x).a > 0 for x in points), "a point of each part with f'' > 0")


def _not_convex(s: Statement) -> None:
    _refuting_chord(s, strict=True)


def _not_strictly_convex(s: Statement) -> None:
    _refuting_chord(s, strict=False)


def _refuting_chord(s: Statement, strict: bool) -> None:
    kind = s.witness.get("kind")
    if kind == "kink":
        left, right = _slopes(s)
        _need((left - right).a > 0, "a slope that falls")
        return
    _need(kind == "chord", "a chord")
    a, b, t = (Fraction(s.witness[k]) for k in ("a", "b", "t"))
    _need(a < b and 0 < t < 1, "a < b and 0 < t < 1")
    m = t * a + (1 - t) * b
    for bits in (80, 320, 1280):
        gap = at(s.f, m, bits) - t.numerator * at(s.f, a, bits) / t.denominator
        gap -= (1 - t).numerator * at(s.f, b, bits) / (1 - t).denominator
        if gap.a > 0:
            return
    if not strict:  # f touches its chord: it is affine between, which the part that holds the chord shows
        pieces = parts(s.f, s.hints)
        holding = [p for p in _open(pieces) if (p.low is None or p.low <= a) and (p.high is None or b <= p.high)]
        _continuous(pieces)
        _need(bool(holding), "a part that holds the chord")
        prove(-holding[0].f.diff().diff(), holding[0].low, holding[0].high, False, s.hints)
        return
    raise UnprovedError("f above its chord")


def _slopes(s: Statement, where: Fraction | None = None) -> tuple[Any, Any]:
    """Return the one-sided slopes at the breakpoint of a kink, at which f must be continuous."""
    x = Fraction(s.witness["x"]) if where is None else where
    for left, point, right in _joints(parts(s.f, s.hints)):
        if point.low == x:
            _need(same_at(left.f, point.f, x) and same_at(right.f, point.f, x), f"continuity at x = {x}")
            slopes = at(left.f.diff(), x), at(right.f.diff(), x)
            for name, slope in zip(("left", "right"), slopes, strict=True):
                said = s.witness.get(name) if where is None else None
                if said is not None:
                    _need(_near(slope, interval(parse_constant(said), ZERO, ZERO)), f"the slope {said}")
            return slopes
    raise UnprovedError(f"a breakpoint at x = {x}")


def _near(a: Any, b: Any) -> bool:
    """Whether two small intervals agree to nine digits (exact values are printed in decimals where not rational)."""
    return bool(abs(a - b).b <= (1 + abs(a).b) * 1e-9)


def _strongly_convex(s: Statement) -> None:
    modulus = _bound(s, below=True)
    pieces = _shown_convex(s.f, s.hints)
    _need(pieces is not None and modulus > 0, "parts of f and a positive modulus")
    for p in _open(pieces or []):
        prove(p.f.diff().diff() - modulus, p.low, p.high, False, s.hints)
    _sharp(s, pieces or [], lambda g: g.diff().diff(), 1)


def _not_strongly_convex(s: Statement) -> None:
    """Not even convex; or f'' is 0 on a part, at a point of it, or in the limit."""
    if s.witness.get("kind") != "point":
        _not_convex(s)
        return
    pieces = _open(_smooth_parts(s.f, s.hints))
    x = Fraction(s.witness["x"])
    for p in pieces:
        if (p.low is None or p.low <= x) and (p.high is None or x <= p.high):
            value = at(p.f.diff().diff(), x)
            _need(value.b < 1e-3, f"f''({x}) < 0.001")
            if value.b <= 0:
                return
    for p, side in ((pieces[0], -1), (pieces[-1], 1)):
        lead = _lead(p.f.diff().diff(), side, s.hints)
        if lead is None or lead.vanishes:
            return
    raise UnprovedError("f'' that tends to 0")


def _lead(g: Expr, side: int, hints: Hints) -> Lead | None:
    """Return the leading behaviour far out on one side."""
    shift = Fraction(hints.choice("shift") or 0)
    for start in (16, 64, 1024, 2**16):
        try:
            return lead_beyond(g, side, Fraction(start), shift)
        except UnresolvedError:
            continue
    raise UnprovedError(f"the behaviour of {g} far out")


# --- bounds --------------------------------------------------------------------------------------------------------


def _bound(s: Statement, below: bool) -> Fraction:
    """Return the certificate's number, moved by at most one part in 1e9 to the safe side where it is not rational."""
    value = s.certificate.value
    if value is None:
        floor = s.hints.choice("floor")
        _need(floor is not None, "a bound")
        return Fraction(floor)
    number = Fraction(value["float"])
    if value["exact"] is not None:
        exact = parse_constant(value["exact"])
        _need(_near(interval(exact, ZERO, ZERO), iv.mpf(value["float"])), "exact and float that agree")
        if exact.number is not None:
            return exact.number
    slack = TIGHT * (1 + abs(number)) / 2
    return number - slack if below else number + slack


def _sharp(s: Statement, pieces: list[Part], of: Callable[[Expr], Expr], side: int) -> None:
    """The number cannot be improved by more than one part in a million: `near` names a point that shows it."""
    if s.certificate.value is None:
        return
    near = s.hints.choice("near")
    _need(near is not None, "a point near which the number is reached")
    x, number = Fraction(near), iv.mpf(s.certificate.value["float"])
    slack = (1 + abs(number)) * 1e-6
    for p in _open(pieces):
        if (p.low is None or p.low <= x) and (p.high is None or x <= p.high):
            value = at(of(p.f), x)
            if side > 0 and value.b <= (number + slack).b:
                return
            if side < 0 and abs(value).a >= (number - slack).a:
                return
    raise UnprovedError(f"the number {s.certificate.value['float']} reached near x = {near}")


def _lipschitz(s: Statement) -> None:
    pieces = _smooth_parts(s.f, s.hints)
    _continuous(pieces)
    _both_sides(s, pieces, lambda g: g.diff())


def _both_sides(s: Statement, pieces: list[Part], of: Callable[[Expr], Expr]) -> None:
    bound = _bound(s, below=False)
    for p in _open(pieces):
        for sign in (1, -1):
            prove(bound + sign * of(p.f), p.low, p.high, False, s.hints)
    _sharp(s, pieces, of, -1)


def _smooth(s: Statement) -> None:
    pieces = _smooth_parts(s.f, s.hints)
    _continuous(pieces)
    for left, point, right in _joints(pieces):
        x = _end(point)
        _need(same_at(left.f.diff(), right.f.diff(), x), f"a slope that does not jump at x = {x}")
    _both_sides(s, pieces, lambda g: g.diff().diff())


def _not_lipschitz(s: Statement) -> None:
    _unbounded(s, lambda g: g.diff(), "f'")


def _not_smooth(s: Statement) -> None:
    if s.witness.get("kind") == "kink":
        left, right = _slopes(s)
        _need(abs(left - right).a > 0, "slopes that differ")
    else:
        _unbounded(s, lambda g: g.diff().diff(), "f''")


def _unbounded(s: Statement, of: Callable[[Expr], Expr], name: str) -> None:
    if _jumps(s, Fraction(s.witness["x"])):
        return
    pieces = _open(_smooth_parts(s.f, s.hints))
    x = Fraction(s.witness["x"])
    holding = [p for p in pieces if (p.low is None or p.low < x) and (p.high is None or x < p.high)]
    _need(bool(holding) and abs(at(of(holding[0].f), x)).a > 1e4, f"|{name}({x})| > 10000")
    for p, side in ((pieces[0], -1), (pieces[-1], 1)):
        lead = _lead(of(p.f), side, s.hints)
        if lead is not None and lead.grows:
            return
    raise UnprovedError(f"{name} that grows without bound")


def _jumps(s: Statement, x: Fraction) -> bool:
    for left, point, right in _joints(parts(s.f, s.hints)):
        if point.low == x:
            values = at(left.f, x), at(point.f, x), at(right.f, x)
            return any((a - b).a > 0 or (a - b).b < 0 for a, b in pairwise(values))
    return False


def _bounded_below(s: Statement) -> None:
    """f >= b on every part and at every breakpoint; f need not be continuous."""
    bound, pieces = _bound(s, below=True), parts(s.f, s.hints)
    for p in pieces:
        _positive(p.f - bound, p, False, s.hints)
    _sharp(s, pieces, lambda g: g, 1)


def _not_bounded_below(s: Statement) -> None:
    _need(at(s.f, Fraction(s.witness["x"])).b < -1000, "f < -1000 at the witness")
    pieces = parts(s.f, s.hints)
    for p, side in ((pieces[0], -1), (pieces[-1], 1)):
        lead = _lead(p.f, side, s.hints)
        if lead is not None and lead.grows and lead.sign < 0:
            return
    raise UnprovedError("f that tends to -infinity")


# --- slope ---------------------------------------------------------------------------------------------------------


def _monotone(s: Statement) -> None:
    _never_rises(s.f, s.hints)


def _never_rises(f: Expr, hints: Hints) -> None:
    """f' <= 0 on every part of a continuous f, from signs or from convexity and the limit of the slope."""
    pieces = _smooth_parts(f, hints)
    _continuous(pieces)
    if hints.choice("by") == "limit":  # the slope of a convex f never exceeds its limit on the right
        _shown_convex(f, hints)
        lead = _lead(-pieces[-1].f.diff(), 1, hints)
        _need(lead is None or lead.sign > 0 or lead.vanishes, "a slope that tends to 0 or to a negative number")
        return
    for p in _open(pieces):
        prove(-p.f.diff(), p.low, p.high, False, hints)


def _not_monotone(s: Statement) -> None:
    x = Fraction(s.witness["x"])
    for p in _open(parts(s.f, s.hints)):
        if (p.low is None or p.low < x) and (p.high is None or x < p.high) and at(p.f.diff(), x).a > 0:
            return
    raise UnprovedError(f"f'({x}) > 0")


def _differentiable(s: Statement) -> None:
    slope = _slope_at_zero(s.f, s.hints)
    _need(s.certificate.value is not None, "the slope")
    value = s.certificate.value or {}
    said = iv.mpf(value["float"]) if value["exact"] is None else interval(parse_constant(value["exact"]), ZERO, ZERO)
    _need(_near(slope, said) and _near(said, iv.mpf(value["float"])), "the slope at 0")


def _slope_at_zero(f: Expr, hints: Hints) -> Any:
    """Return f'(0), which must exist: nearly equal slopes are not enough."""
    left, right = _slopes_at_zero(f, hints)
    _need(left is right, "one-sided slopes at 0 that are exactly equal")
    return left


def _slopes_at_zero(f: Expr, hints: Hints) -> tuple[Any, Any]:
    """Return f'(0-) and f'(0+); one and the same object where 0 lies inside a part or the slopes agree exactly."""
    pieces = _smooth_parts(f, hints)
    for p in _open(pieces):
        if (p.low is None or p.low < 0) and (p.high is None or p.high > 0):
            slope = at(p.f.diff(), ZERO)
            return slope, slope
    for left, point, right in _joints(pieces):
        if point.low == 0:
            _need(same_at(left.f, point.f, ZERO) and same_at(right.f, point.f, ZERO), "continuity at 0")
            slopes = left.f.diff(), right.f.diff()
            if same_at(*slopes, ZERO):
                return (at(slopes[0], ZERO),) * 2
            return at(slopes[0], ZERO), at(slopes[1], ZERO)
    raise UnprovedError("a part that holds 0")


def _not_differentiable(s: Statement) -> None:
    if s.witness.get("kind") == "kink":
        left, right = _slopes(s)
        _need(Fraction(s.witness["x"]) == 0 and abs(left - right).a > 0, "slopes at 0 that differ")
    else:
        _need(_jumps(s, ZERO), "a jump at 0")


# --- Bayes consistency ---------------------------------------------------------------------------------------------


def _falls_at_zero(f: Expr, hints: Hints) -> None:
    _need(_slope_at_zero(f, hints).b < 0, "f'(0) < 0")


def _consistent(s: Statement) -> None:
    theorem = s.hints.choice("theorem")
    _need(theorem in _THEOREMS, f"a theorem among {', '.join(_THEOREMS)}")
    _THEOREMS[theorem](s)


def _by_convexity(s: Statement) -> None:
    """Bartlett, Jordan, McAuliffe 2006: convex f is consistent iff f'(0) exists and is negative."""
    _shown_convex(s.f, s.hints)
    _falls_at_zero(s.f, s.hints)


def _by_falling(s: Statement) -> None:
    """f is continuous, never rises, is bounded below and f'(0) < 0: f(-a) - f(a) > 0 never falls for a > 0."""
    _never_rises(s.f, s.hints)
    _falls_at_zero(s.f, s.hints)
    floor = s.hints.choice("floor")
    _need(floor is not None, "a lower bound")
    for p in parts(s.f, s.hints):
        _positive(p.f - Fraction(floor), p, False, s.hints)


def _by_exactness(s: Statement) -> None:
    """f' < 0 and f'(-x) = exp(x/c) f'(x): C_p falls up to c log(p/(1-p)) and rises from there."""
    _identity(s.f, Fraction(s.hints.choice("c")), s.hints)


def _by_flip(s: Statement) -> None:
    """f continuous and bounded below, f'(0) < 0, D(a) = f(-a) - f(a) > 0 for a > 0, and far out either liminf D > 0 or
    liminf f > f(0)."""
    _continuous(parts(s.f, s.hints))
    _falls_at_zero(s.f, s.hints)
    floor = s.hints.choice("floor")
    _need(floor is not None, "a lower bound")
    for p in parts(s.f, s.hints):
        _positive(p.f - Fraction(floor), p, False, s.hints)
    difference = substitute(s.f, {X: -X}) - s.f
    pieces = [p for p in parts(difference, s.hints) if p.high is None or p.high > 0]
    for p in pieces:
        low = p.low if p.low is not None and p.low >= 0 else ZERO
        _positive(p.f, Part(low, p.high, p.f), True, s.hints)
    lead = _lead(pieces[-1].f, 1, s.hints)
    if lead is not None and not lead.vanishes and lead.sign > 0:
        return
    ends = parts(s.f, s.hints)
    for p, side in ((ends[0], -1), (ends[-1], 1)):
        above = _lead(p.f - _at_zero(s.f, s.hints), side, s.hints)
        _need(above is not None and not above.vanishes and above.sign > 0, "f above f(0) far out")


def _at_zero(f: Expr, hints: Hints) -> Expr:
    part = next(p for p in parts(f, hints) if (p.low is None or p.low <= 0) and (p.high is None or p.high >= 0))
    return substitute(part.f, {X: Expr.of(0)})


def _by_gap(s: Statement) -> None:
    """E(a) = (f(a) + f(-a))/2 attains its infimum over a >= 0 inside [a1, a2], and f(-a) >= level > f on [a1, a2].

    From C_p(-a) = (1 - theta) E(a) + theta f(-a): any wrong side is worse than the minimiser of E by theta m.
    """
    low, middle, high = (Fraction(x) for x in s.hints.choice("bracket"))
    level = Fraction(s.hints.choice("level"))
    _need(0 <= low <= middle <= high and low < high, "0 <= a1 <= a <= a2")
    mean = (s.f + substitute(s.f, {X: -X})) / 2
    pieces = parts(mean, s.hints)
    _continuous(pieces)
    at_middle = next(p.f for p in pieces if (p.low is None or p.low <= middle) and (p.high is None or p.high >= middle))
    above = parts(mean - substitute(at_middle, {X: Expr.of(middle)}), s.hints)
    for a, b in ((ZERO, low), (high, None)):
        _on_interval(above, a, b, s.hints)
    mirrored = substitute(s.f, {X: -X})
    _on_interval(parts(mirrored - level, s.hints), ZERO, None, s.hints, closed=True)
    _on_interval(parts(level - s.f, s.hints), low, high, s.hints, strict=True, closed=True)


def _on_interval(pieces: list[Part], a: Fraction, b: Fraction | None, hints: Hints, strict: bool = False,
                 closed: bool = False) -> None:  # fmt: skip
    """Show g >= 0 (strict: > 0) on (a, b), or on its closure, from the parts of g."""
    for p in pieces:
        low = a if p.low is None else max(a, p.low)
        high = p.high if b is None else b if p.high is None else min(b, p.high)
        if p.is_point:
            if a <= _end(p) and (b is None or _end(p) <= b):
                _positive(p.f, p, strict, hints)
        elif high is None or low < high:
            prove(p.f, low, high, strict, hints)
            for x in (low, high) if closed else ():
                if x is not None:
                    value = at(p.f, x)
                    _need(value.a > 0 or (value.a >= 0 and not strict), f"{p.f} at x = {x}")


_THEOREMS: dict[str, Callable[[Statement], None]] = {
    "convex": _by_convexity, "falling": _by_falling, "exact": _by_exactness, "flip": _by_flip, "gap": _by_gap,
}  # fmt: skip


def _inconsistent(s: Statement) -> None:
    """At theta = 2p - 1 the wrong side does as well: C_p(x0) <= C_p(a) for some x0 <= 0 and every a > 0."""
    theta = Fraction(s.witness["theta"])
    _need(0 < theta <= 1, "0 < theta <= 1")
    p = (1 + theta) / 2
    if s.hints.choice("theorem") == "ends":  # f tends to its infimum at both ends: so does C_p, on either side
        infimum = Fraction(s.hints.choice("floor"))
        pieces = parts(s.f, s.hints)
        for part in pieces:
            _positive(part.f - infimum, part, False, s.hints)
        for part, side in ((pieces[0], -1), (pieces[-1], 1)):
            lead = _lead(part.f - infimum, side, s.hints)
            _need(lead is None or lead.vanishes, "f that tends to its infimum at both ends")
        return
    risk = p * s.f + (1 - p) * substitute(s.f, {X: -X})
    if s.hints.choice("theorem") == "convex":  # C_p is convex with 0 in its subdifferential, or rises at 0
        _shown_convex(s.f, s.hints)
        left, right = _slopes_at_zero(s.f, s.hints)
        top, rest = _weight(p), _weight(1 - p)
        _need((top * right - rest * left).a >= 0, "C_p that does not fall to the right of 0")
        return
    x = Fraction(s.hints.choice("at") or 0)
    _need(x <= 0, "a point on the wrong side")
    least = substitute(risk, {X: Expr.of(x)})
    _on_interval(parts(risk - least, s.hints), ZERO, None, s.hints)


def _weight(p: Fraction) -> Any:
    return iv.mpf(p.numerator) / p.denominator


# --- Bradley-Terry exactness ---------------------------------------------------------------------------------------


def _exact(s: Statement) -> None:
    value = s.certificate.value
    _need(value is not None and value["exact"] is not None, "the constant c")
    c = Fraction((value or {})["exact"])
    _need(_near(iv.mpf(c.numerator) / c.denominator, iv.mpf((value or {})["float"])), "exact and float that agree")
    _identity(s.f, c, s.hints)


def _identity(f: Expr, c: Fraction, hints: Hints) -> None:
    """f is differentiable with f' < 0, and f'(-x) = exp(x/c) f'(x)."""
    _need(c > 0, "c > 0")
    pieces = _smooth_parts(f, hints)
    _continuous(pieces)
    for left, point, right in _joints(pieces):
        x = _end(point)
        _need(same_at(left.f.diff(), right.f.diff(), x), f"a slope that does not jump at x = {x}")
        _need(at(right.f.diff(), x).b < 0, f"f'({x}) < 0")
    for p in _open(pieces):
        prove(-p.f.diff(), p.low, p.high, True, hints)
    _need(_ratio_is(pieces, 1 / c), f"f'(-x) = exp(x/{c}) f'(x)")


def _ratio_is(pieces: list[Part], rate: Fraction) -> bool:
    """Whether f'(-x) = exp(rate x) f'(x) identically on every pair of mirrored parts."""
    for p in _open(pieces):
        if p.high is not None and p.high <= 0:
            continue
        for q in _open(pieces):
            low, high = (None if q.high is None else -q.high), (None if q.low is None else -q.low)
            if (high is not None and high <= max(p.low or ZERO, ZERO)) or (p.high is not None and low is not None
                                                                           and low >= p.high):  # fmt: skip
                continue
            behind, ahead, degree = _without_roots(substitute(q.f.diff(), {X: -X}), p.f.diff())
            factor = Expr("exp", (rate * degree * X,)) if rate else Expr.of(1)
            difference = behind - factor * ahead
            flat = interval(difference, ZERO, None)
            if flat.a == 0 and flat.b == 0:  # it cancels as written
                continue
            if not equals(difference, Quotient((), (Fraction(1),), _common_slope(difference))):
                return False
    return True


def _without_roots(a: Expr, b: Expr) -> tuple[Expr, Expr, int]:
    """Return a^d, b^d and d, where d clears the roots in front of both: for slopes of one sign a = b iff a^d = b^d."""
    split = [root_factors(g) for g in (a, b)]
    degree = lcm(1, *(n.denominator for powers, _ in split for n in powers.values()))
    if degree == 1:
        return a, b, 1
    raised = [reduce(mul, (base ** (n * degree) for base, n in powers.items()), rest**degree) for powers, rest in split]
    return raised[0], raised[1], degree


def _common_slope(g: Expr) -> Fraction | None:
    """Return the largest s of which every exponential's slope is a multiple."""
    slopes = {at(n.args[0].diff(), ZERO).a for n in g.walk() if n.head == "exp" and n.depends_on_x}
    exact = [Fraction(float(value)).limit_denominator(10**6) for value in slopes if value]
    if not exact:
        return None
    top, bottom = 0, 1
    for value in exact:
        bottom = lcm(bottom, value.denominator)
    for value in exact:
        top = gcd(top, int(value * bottom))
    return Fraction(abs(top), bottom)


def _not_exact(s: Statement) -> None:
    """A kink, a jump, a point with f' >= 0, a ratio that no c > 0 gives, or two points with different c."""
    if s.witness.get("kind") == "kink":
        left, right = _slopes(s)
        _need(abs(left - right).a > 0, "slopes that differ")
        return
    x = Fraction(s.witness["x"])
    if _jumps(s, x):
        return
    pieces = parts(s.f, s.hints)
    slope = _slope_at(pieces, x)
    if at(slope, x).a >= 0:
        return
    if _ratio_is(pieces, ZERO):
        return
    rates = [(at(_slope_at(pieces, -y), -y) / at(_slope_at(pieces, y), y), y) for y in (Fraction(1), x)]
    _need(all(ratio.a > 0 for ratio, _ in rates), "slopes of one sign")
    first, second = (iv.log(ratio) * y.denominator / y.numerator for ratio, y in rates)
    _need(second.b < 0 or first.b < 0 or (first - second).a > 0 or (second - first).a > 0, "two rates that differ")


def _slope_at(pieces: list[Part], x: Fraction) -> Expr:
    inside = [p for p in _open(pieces) if (p.low is None or p.low <= x) and (p.high is None or x < p.high)]
    return inside[0].f.diff()


def _undefined(s: Statement) -> None:
    """An operation that f meets at the point has an argument outside its domain."""
    x = Fraction(s.witness["x"])
    _need(_fails_at(s.f, x), f"f undefined at x = {x}")


def _fails_at(node: Expr, x: Fraction) -> bool:
    if node.head == "where":
        from gpo_theory.resolved import _true_at

        return _fails_at(node.args[1] if _true_at(node.args[0], x) else node.args[2], x)
    if any(_fails_at(child, x) for child in node.children):
        return True
    power = node.args[1].number if node.head == "**" else None
    if node.head not in ("log", "**") or (power is not None and power > 0 and power.denominator == 1):
        return False
    value = at(node.args[0], x)
    zero = bool(value.a == 0 and value.b == 0)
    if node.head == "log":
        return bool(value.b < 0) or zero
    return (zero and (power is None or power < 0)) or (
        bool(value.b < 0) and (power is None or power.denominator != 1)
    )


RULES: dict[tuple[str, Verdict], Callable[[Statement], None]] = {
    ("total", Verdict.PROVED): _total,
    ("total", Verdict.REFUTED): _undefined,
    ("convex", Verdict.PROVED): _convex,
    ("convex", Verdict.REFUTED): _not_convex,
    ("strictly_convex", Verdict.PROVED): _strictly_convex,
    ("strictly_convex", Verdict.REFUTED): _not_strictly_convex,
    ("strongly_convex", Verdict.PROVED): _strongly_convex,
    ("strongly_convex", Verdict.REFUTED): _not_strongly_convex,
    ("lipschitz", Verdict.PROVED): _lipschitz,
    ("lipschitz", Verdict.REFUTED): _not_lipschitz,
    ("smooth", Verdict.PROVED): _smooth,
    ("smooth", Verdict.REFUTED): _not_smooth,
    ("bounded_below", Verdict.PROVED): _bounded_below,
    ("bounded_below", Verdict.REFUTED): _not_bounded_below,
    ("monotone_decreasing", Verdict.PROVED): _monotone,
    ("monotone_decreasing", Verdict.REFUTED): _not_monotone,
    ("differentiable_at_zero", Verdict.PROVED): _differentiable,
    ("differentiable_at_zero", Verdict.REFUTED): _not_differentiable,
    ("bayes_consistent", Verdict.PROVED): _consistent,
    ("bayes_consistent", Verdict.REFUTED): _inconsistent,
    ("bradley_terry_exact", Verdict.PROVED): _exact,
    ("bradley_terry_exact", Verdict.REFUTED): _not_exact,
}
