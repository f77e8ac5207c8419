"""Convexity of f on R: by structure, by a refuting chord, at the kinks, and by exact signs of f'' on every piece."""

__all__ = ["convex", "strictly_convex"]

from fractions import Fraction

import flint
import numpy as np
from numpy.typing import NDArray

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.piece import Section
from gpo_theory.calculus.pieces import Joint, UnsplitError, cuts_of, joints, pieces_of, sign_charts
from gpo_theory.calculus.rational import SignChart, as_rational, fraction
from gpo_theory.calculus.samples import rounded, sample, unit
from gpo_theory.certificate import Certificate, Verdict, proved, refuted, unknown
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.kernel.zeros import Place, Zero, left_of, right_of

MOST_LINES = 12  # linear terms of the formula near whose zeros a dip is looked for: a limit on time
# Half-widths of the chords tried on the grid. A dip narrower than 1/300 away from those zeros is missed: UNKNOWN.
_WIDTHS = (Fraction(1, 256), Fraction(1, 32), Fraction(1, 4), Fraction(1), Fraction(4), Fraction(16))


def convex(f: Expr) -> Certificate:
    """Decide convexity of a total primitive formula: f(t a + (1-t) b) <= t f(a) + (1-t) f(b).

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> convex(parse_formula("1/(1+exp(x))**2").primitive()).verdict
    <Verdict.REFUTED: 'refuted'>
    """
    chord = _violated_chord(f) or _dip(f)
    if chord is not None:
        a, b = chord
        return refuted("convex", "f lies above a chord", kind="chord", a=str(a), b=str(b), t="1/2")
    try:
        pieces = pieces_of(f)
    except UnsplitError as error:
        return proved("convex", f"structure: a sum or a maximum of convex parts (not split: {error})")
    for joint in joints(pieces):
        fault = _fault(f, joint)
        if fault is not None:
            return fault
    charts = list(sign_charts(pieces, 2))
    for _, chart in charts:
        if chart is not None and -1 in chart.signs:
            return _refuted_by_sign(f, chart)
    how = "balls" if any(chart is None for _, chart in charts) else "exact"
    return proved("convex", f"{how}: f'' >= 0 on every piece, and f' does not fall at any breakpoint")


def strictly_convex(f: Expr, is_convex: Certificate) -> Certificate:
    """Decide strict convexity, given the verdict on convexity: f'' > 0 but for isolated points."""
    claim = "strictly_convex"
    if is_convex.verdict is Verdict.REFUTED:
        return Certificate(claim, Verdict.REFUTED, "not even convex", is_convex.witness)
    if is_convex.verdict is Verdict.UNKNOWN:
        return unknown(claim, "convexity is not decided")
    try:
        charts = list(sign_charts(pieces_of(f), 2))
    except UnsplitError as error:
        return unknown(claim, f"the pieces are not known exactly: {error}")
    for piece, chart in charts:
        if chart is not None and 0 in chart.signs:
            a, b = _inside(piece, cuts_of(f))
            return refuted(claim, "f is affine on a piece", kind="chord", a=str(a), b=str(b), t="1/2")
    how = "balls" if any(chart is None for _, chart in charts) else "exact"
    return proved(claim, f"{how}: f'' > 0 on every piece but for isolated points")


def _inside(piece: Section, cuts: tuple[Place, ...]) -> tuple[Fraction, Fraction]:
    """Return two rational points a < b of a piece, its ends included, without any of the cuts between them."""
    low = piece.sample if piece.low is None else right_of(piece.low)
    high = piece.sample + 1 if piece.high is None else left_of(piece.high)
    low, high = (low - 1, high) if piece.low is None and piece.high is not None else (low, high)
    return low, next((left_of(x) for x in cuts if low < x < high), high)


def _violated_chord(f: Expr) -> tuple[Fraction, Fraction] | None:
    """Return (a, b) with f above its chord in the middle: found in floats on a grid, verified in ball arithmetic."""
    step = unit(f)
    centres = float(step) * np.concatenate([np.linspace(-12, 12, 769), np.linspace(-200, 200, 401)])
    for width in (step * width for width in _WIDTHS):
        h = float(width)
        left, middle, right = (sample(f, centres + shift) for shift in (-h, 0.0, h))
        with np.errstate(all="ignore"):
            second, size = left + right - 2 * middle, np.abs(left) + np.abs(right) + 2 * np.abs(middle)
        for centre in _worst(centres, second, size):
            m = rounded(centre, float(step))
            if chord_is_violated(f, m - width, m + width, Fraction(1, 2)):
                return m - width, m + width
    return None


def _dip(f: Expr) -> tuple[Fraction, Fraction] | None:
    """Return (a, b) with f above its chord in the middle, near the zero of a linear term a x + b inside the formula.

    A bump of width 1/|a| there may be too narrow for any grid, and its violation too small for floats.
    """
    for centre, scale in _lines(f):
        for m in (centre + scale * Fraction(k, 2) for k in (0, 1, -1, 2, -2, 4, -4, 6, -6)):
            for width in (scale / 2**k for k in (1, 3, 6, 9, 12, 15, 24)):
                if chord_is_violated(f, m - width, m + width, Fraction(1, 2)):
                    return m - width, m + width
    return None


def _lines(f: Expr) -> list[tuple[Fraction, Fraction]]:
    """Return (-b/a, 1/|a|) of the linear terms a x + b inside a formula, the steepest first."""
    found: dict[Fraction, Fraction] = {}
    for node in dict.fromkeys(f.walk()):
        form = as_rational(node) if node.depends_on_x and node.head in ("+", "*") else None
        if form is None or form.slope is not None or form.denominator.degree() or form.numerator.degree() != 1:
            continue
        slope, start = (fraction(form.numerator[k]) for k in (1, 0))
        found[-start / slope] = min(found.get(-start / slope, 1 / abs(slope)), 1 / abs(slope))
    return sorted(found.items(), key=lambda item: (item[1], item[0]))[:MOST_LINES]


def _worst(centres: NDArray[np.float64], second: NDArray[np.float64], size: NDArray[np.float64]) -> list[float]:
    """Return up to three centres at which the second difference is most negative relative to its terms."""
    usable = np.isfinite(second) & np.isfinite(size)
    relative = np.divide(second, size, out=np.zeros_like(second), where=usable & (size > 0))
    return [float(centres[i]) for i in np.argsort(relative)[:3] if relative[i] < -1e-14]


def chord_is_violated(f: Expr, a: Fraction, b: Fraction, t: Fraction) -> bool:
    """Whether f(t a + (1-t) b) > t f(a) + (1-t) f(b), certified by balls at growing precision."""
    for bits in (64, 256, 1024):
        with flint.ctx.workprec(bits):
            weights = ((t, a), (1 - t, b))
            left, right = (enclose(Expr.of(w), Fraction(0), bits) * enclose(f, x, bits) for w, x in weights)
            m = t * a + (1 - t) * b
            middle = enclose(f, m, bits)
            if not middle.is_finite():  # a root whose argument is exactly 0 at m
                middle = enclose(substitute(f, {Expr.x(): Expr.of(m)}), m, bits)
            gap = middle - left - right
        if gap > 0:
            return True
        if gap < 0:
            return False
    return False


def _fault(f: Expr, joint: Joint) -> Certificate | None:
    """Return the refuted or unknown verdict of a breakpoint, None where f is continuous and f' does not fall."""
    if joint.continuous is False:
        chord = _chord_over_jump(f, joint.x)
        if chord is not None:
            a, b, t = map(str, chord)
            return refuted("convex", f"f jumps at x = {joint.x}", kind="chord", a=a, b=b, t=t)
        return unknown("convex", f"f jumps at x = {joint.x}, but no chord was certified")
    if joint.continuous is None or joint.bend is None:
        return unknown("convex", f"the breakpoint x = {joint.x} is not decided exactly")
    if joint.bend < 0:
        if isinstance(joint.x, Zero):
            return _refuted_near(f, (joint.x.low + joint.x.high) / 2, f"f' falls at x = {joint.x}")
        return refuted("convex", f"f' falls at x = {joint.x}", None, **joint.witness)
    return None


def _chord_over_jump(f: Expr, place: Place) -> tuple[Fraction, Fraction, Fraction] | None:
    """Return (a, b, t) where f near its jump, on either side or at it, lies above a chord across it."""
    x = (left_of(place) + right_of(place)) / 2
    for width in (Fraction(1, 2**k) for k in range(2, 60, 3)):
        for a, middle, b in ((x - width, x + width, x + 1), (x - 1, x - width, x + width), (x - width, x, x + width)):
            t = (b - middle) / (b - a)
            if chord_is_violated(f, a, b, t):
                return a, b, t
    return None


def _refuted_by_sign(f: Expr, chart: SignChart) -> Certificate:
    centre = chart.samples[chart.signs.index(-1)]
    return _refuted_near(f, centre, f"f'' < 0 at x = {centre}")


def _refuted_near(f: Expr, centre: Fraction, reason: str) -> Certificate:
    """Turn a place where the slope falls into a chord around it: halve its width until the violation is certified."""
    width = unit(f)
    for _ in range(40):
        if chord_is_violated(f, centre - width, centre + width, Fraction(1, 2)):
            return refuted("convex", reason, kind="chord", a=str(centre - width), b=str(centre + width), t="1/2")
        width /= 2
    return unknown("convex", f"{reason}, but no chord was certified")


