"""How fast f and f' can change: Lipschitz, smoothness and strong-convexity constants, exact where the signs are."""

__all__ = ["lipschitz", "smooth", "strongly_convex"]

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice

from flint import arb

from gpo_theory.calculus.balls import ball, enclose
from gpo_theory.calculus.piece import Section
from gpo_theory.calculus.pieces import UnsplitError, beside, joints, pieces_of
from gpo_theory.calculus.samples import pace
from gpo_theory.calculus.tails import limit_along, tail
from gpo_theory.certificate import Certificate, Verdict, proved, refuted, unknown
from gpo_theory.claims.extrema import least
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.expansion import expanded
from gpo_theory.kernel.size import pole_at

# Witnesses: |f'| or |f''| is so many times, f'' at most such a part of, its largest value at 1 and -1.
LARGE, SMALL = 10**4 + 1, Fraction(1, 1000)
TRIED = 8  # witnesses that a function is unbounded: whether it grows along whole periods from one is not always decided
Pieces = tuple[Section, ...]


def lipschitz(f: Expr) -> Certificate:
    """Decide whether |f(a) - f(b)| <= L |a - b|; the value is the least L = sup |f'|."""
    return _attempt("lipschitz", f, lambda pieces: _sup("lipschitz", pieces, lambda g: -g.diff(), "f'"))


def smooth(f: Expr) -> Certificate:
    """Decide whether f' exists everywhere and is Lipschitz; the value is the least constant sup |f''|."""
    claim = "smooth"

    def decide(pieces: Pieces) -> Certificate:
        for joint in joints(pieces):
            if joint.bend in (-1, 1):
                return refuted(claim, f"f' jumps at x = {joint.x}", None, **joint.witness)
        return _sup(claim, pieces, lambda g: g.diff().diff(), "f''")

    return _attempt(claim, f, decide)


def strongly_convex(f: Expr, is_convex: Certificate) -> Certificate:
    """Decide strong convexity, given the verdict on convexity; the value is the modulus inf f'' > 0."""
    claim = "strongly_convex"
    if is_convex.verdict is Verdict.REFUTED:
        return Certificate(claim, Verdict.REFUTED, "not even convex", is_convex.witness)
    if is_convex.verdict is Verdict.UNKNOWN:
        return unknown(claim, "convexity is not decided")

    def decide(pieces: Pieces) -> Certificate:
        curved = _mapped(pieces, lambda g: g.diff().diff())
        flat = next((p.sample for p in curved if expanded(p.f) == Expr.of(0)), None)
        if flat is not None:
            return refuted(claim, "f is affine on a piece", kind="point", x=str(flat))
        if not any(tail(p.f, side).limit == "0" for p, side in ((curved[0], -1), (curved[-1], 1))):
            modulus = least(curved)
            if modulus is not None and modulus.value > 0:
                return proved(claim, "f is convex and f'' is bounded away from 0", modulus.number, near=modulus.near)
        x = _where(curved, lambda value, size: value <= ball(SMALL) * size)
        if x is None:
            return unknown(claim, "neither a modulus nor a point with a small f'' was found")
        return refuted(claim, f"inf f'' = 0; f''({x}) is small", kind="point", x=str(x))

    return _attempt(claim, f, decide)


def _attempt(claim: str, f: Expr, decide: Callable[[Pieces], Certificate]) -> Certificate:
    """Decide a claim from the pieces of f, once f is shown to be continuous."""
    try:
        pieces = pieces_of(f)
        jump = next((joint for joint in joints(pieces) if joint.continuous is not True), None)
        if jump is None:
            return decide(pieces)
    except UnsplitError as error:
        return unknown(claim, f"the pieces are not known exactly: {error}")
    if jump.continuous is None:
        return unknown(claim, f"the breakpoint x = {jump.x} is not decided exactly")
    return refuted(claim, f"f jumps at x = {jump.x}", None, **jump.witness)


def _mapped(pieces: Pieces, operate: Callable[[Expr], Expr]) -> Pieces:
    """Return the open pieces with an operation, such as a derivative, applied to each formula."""
    return tuple(Section(p.low, p.high, operate(p.f)) for p in pieces if not p.is_point)


def _sup(claim: str, pieces: Pieces, operate: Callable[[Expr], Expr], name: str) -> Certificate:
    """Bound |g| for g = f' or f'' on every piece: the larger of -inf g and -inf (-g)."""
    mapped = _mapped(pieces, operate)
    pole = _pole(claim, mapped, name)
    if pole is not None:
        return pole
    for side, outer in ((-1, mapped[0].f), (1, mapped[-1].f)):
        if tail(outer, side).limit in (None, "inf", "-inf"):
            points = islice(_points(mapped, lambda value, size: abs(value) > LARGE * size), TRIED)
            x = next((x for x in points if limit_along(outer, side, x) in ("inf", "-inf")), None)
            if x is not None:
                return refuted(claim, f"{name} is unbounded; |{name}({x})| is large", kind="point", x=str(x))
    low, high = least(mapped), least(_mapped(mapped, lambda g: -g))
    if low is None or high is None:
        return unknown(claim, f"the range of {name} is not known")
    # inf g and inf (-g): whichever lies further below 0 holds the supremum of |g|.
    bound = min((low, high), key=lambda m: m.value).negated
    return proved(claim, f"|{name}| is bounded on every piece", bound.number, near=bound.near)


def _pole(claim: str, pieces: Pieces, name: str) -> Certificate | None:
    """Refute a bound on |g| by an end of a piece at which it tends to infinity, if there is one."""
    x = next((x for p in pieces for x in (p.low, p.high) if isinstance(x, Fraction) and pole_at(p.f, x)), None)
    return None if x is None else refuted(claim, f"{name} is unbounded near x = {x}", kind="point", x=str(x))


def _where(pieces: Pieces, holds: Callable[[arb, arb], bool]) -> Fraction | None:
    """Return the first of `_points`."""
    return next(_points(pieces, holds), None)


def _points(pieces: Pieces, holds: Callable[[arb, arb], bool]) -> Iterator[Fraction]:
    """Yield powers of two, also times `pace`, and their negatives, at which the value certainly is as asked.

    The condition is on the value there and on the largest size at 1 and -1.
    """
    near = [abs(enclose(beside(pieces, Fraction(side), 1).f, Fraction(side), 256)) for side in (1, -1)]
    finite = [size for size in near if size.is_finite()]
    if not finite:
        return
    largest = finite[0] if finite[0] >= finite[-1] else finite[-1]
    steps = {*map(pace, (p.f for p in pieces)), Fraction(1)}
    for x in (side * step * Fraction(2) ** k for k in range(100) for step in sorted(steps) for side in (-1, 1)):
        piece = next((p for p in pieces if p.contains(x)), None)
        value = arb.nan() if piece is None else enclose(piece.f, x, 256)
        if value.is_finite() and holds(value, largest):
            yield x
