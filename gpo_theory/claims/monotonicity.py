"""The slope of f: does f fall everywhere, and does f'(0) exist?"""

__all__ = ["differentiable_at_zero", "falls_at_zero", "falls_strictly", "monotone_decreasing"]

from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

from gpo_theory.calculus.balls import constant_at, enclose, sign_at
from gpo_theory.calculus.piece import Section
from gpo_theory.calculus.pieces import UnsplitError, joints, near, pieces_of, sign_charts
from gpo_theory.calculus.rational import SignChart
from gpo_theory.calculus.samples import rounded, sample, unit
from gpo_theory.calculus.series import one_sided
from gpo_theory.calculus.tails import slope_tail
from gpo_theory.certificate import Certificate, Verdict, proved, refuted, unknown
from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.zeros import left_of, right_of


def monotone_decreasing(f: Expr, is_convex: Certificate) -> Iterator[Certificate]:
    """Propose whether f never rises: f(a) >= f(b) for a < b. Refuted with a point where f' > 0 or f jumps up.

    >>> from gpo_theory.claims.convexity import convex
    >>> from gpo_theory.formula.grammar import parse_formula
    >>> f = parse_formula("(x-1)**2").primitive()
    >>> next(monotone_decreasing(f, convex(f))).witness
    {'kind': 'point', 'x': '2'}
    """
    claim = "monotone_decreasing"
    try:
        pieces = pieces_of(f)
    except UnsplitError as error:
        yield unknown(claim, f"the pieces are not known exactly: {error}")
        return
    charts = list(sign_charts(pieces, 1))
    for piece, chart in charts:
        x = _rising_point(piece, chart)
        if x is not None:
            yield refuted(claim, f"f' > 0 at x = {x}", kind="point", x=str(x))
            return
    if is_convex.verdict is Verdict.PROVED and slope_tail(f, 1).verdict == "proved":
        limit = slope_tail(f, 1).limit or ""
        if not limit.startswith("-"):
            yield proved(claim, f"f is convex and -f' tends to {limit} on the right")
            return
    how = "balls" if any(chart is None for _, chart in charts) else "exact"
    yield proved(claim, f"{how}: f' <= 0 on every piece, and f does not jump up")
    for joint in joints(pieces):
        if not joint.continuous:
            yield refuted(claim, f"f jumps up at x = {joint.x}", None, **joint.witness)


def _rising_point(piece: Section, chart: SignChart | None) -> Fraction | None:
    """Return a rational point of a piece at which f' > 0: from the exact signs, else from samples up to 64 units."""
    if chart is not None:
        return chart.samples[chart.signs.index(1)] if 1 in chart.signs else None
    slope, step = piece.f.diff(), float(unit(piece.f))
    low = None if piece.low is None else float(right_of(piece.low))
    high = None if piece.high is None else float(left_of(piece.high))
    left = min(0.0, high or 0.0) - 64 * step if low is None else low
    right = max(0.0, low or 0.0) + 64 * step if high is None else high
    grid = np.linspace(left, right, 1025)[1:-1]
    values = np.nan_to_num(sample(slope, grid), nan=0.0, posinf=0.0, neginf=0.0)
    x = rounded(float(grid[np.argmax(values)]), step)
    return x if values.max() > 0 and piece.contains(x) and sign_at(slope, x) == 1 else None


def falls_strictly(f: Expr, is_convex: Certificate) -> bool:
    """Whether f is differentiable with f' < 0 everywhere, shown exactly (False: not shown)."""
    try:
        pieces = pieces_of(f)
    except UnsplitError:
        return False
    if not all(joint.continuous and joint.bend == 0 for joint in joints(pieces)):
        return False
    edges = [sign_at(piece.f.diff(), left_of(x)) for piece in pieces for x in (piece.low, piece.high) if x is not None
             and not piece.is_point]  # fmt: skip
    if any(sign != -1 for sign in edges):
        return False
    if all(chart is not None and set(chart.signs) == {-1} and not chart.roots for _, chart in sign_charts(pieces, 1)):
        return True
    # A convex f whose slope reached 0 would be constant from there on.
    tail = slope_tail(f, 1)
    negative_far_out = tail.verdict == "proved" and tail.kind != "zero" and not (tail.limit or "-").startswith("-")
    return is_convex.verdict is Verdict.PROVED and negative_far_out


def falls_at_zero(known: Mapping[str, Certificate]) -> bool:
    """Whether f'(0) < 0 is proved."""
    slope = known["differentiable_at_zero"]
    if slope.verdict is not Verdict.PROVED or slope.value is None:
        return False
    exact = slope.value["exact"]
    return slope.value["float"] < 0 if exact is None else sign_at(parse_constant(exact), Fraction(0)) == -1


def _smooth_at_zero(f: Expr) -> float | None:
    """Return f'(0) where 0 lies inside a smooth piece and f and f' are defined there, else None."""
    try:
        piece = next(p for p in pieces_of(f) if p.contains(0))
    except UnsplitError:
        return None
    if piece.is_point:
        return None
    value, slope = enclose(piece.f, Fraction(0)), enclose(piece.f.diff(), Fraction(0))
    return float(slope.mid()) if value.is_finite() and slope.is_finite() else None


def differentiable_at_zero(f: Expr) -> Certificate:
    """Decide whether f'(0) exists; its exact value is the certificate's value. Refuted with the two slopes."""
    claim = "differentiable_at_zero"
    left, right = one_sided(f, -1, 1), one_sided(f, 1, 1)
    if None in left or None in right or left[1] is None or right[1] is None:
        inside = _smooth_at_zero(f)
        if inside is not None:
            value = {"exact": None, "float": inside}
            return proved(claim, "0 lies inside a smooth piece on which f is defined", value)
        return unknown(claim, "the one-sided expansions at 0 are not known exactly")
    if left[0] != right[0]:
        return refuted(claim, "f jumps at 0", kind="point", x="0")
    if left[1] != right[1]:
        slopes = [str(constant_at(near(f, Fraction(0), side).diff(), Fraction(0))) for side in (-1, 1)]
        return refuted(claim, "the slopes at 0 differ", kind="kink", x="0", left=slopes[0], right=slopes[1])
    return proved(claim, f"f'(0) = {left[1].text} from both sides", {"exact": left[1].text, "float": left[1].value})
