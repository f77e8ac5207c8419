"""Bradley-Terry exactness: does the population optimum recover the RLHF policy pi_ref exp(c r / beta)?

Proposition P3: for differentiable f with f' < 0, iff f'(-x) = exp(x / c) f'(x) for all x, with one c > 0.
"""

__all__ = ["bradley_terry_exact"]

from fractions import Fraction
from itertools import pairwise

from gpo_theory.calculus.balls import enclose, sign_at
from gpo_theory.calculus.piece import Section
from gpo_theory.calculus.pieces import UnsplitError, beside, joints, pieces_of
from gpo_theory.calculus.rational import as_rational
from gpo_theory.calculus.samples import unit
from gpo_theory.calculus.series import one_sided
from gpo_theory.certificate import Certificate, Verdict, proved, refuted, unknown
from gpo_theory.claims.monotonicity import falls_strictly
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.kernel.zeros import left_of

CLAIM = "bradley_terry_exact"
X = Expr.x()


def bradley_terry_exact(f: Expr, is_convex: Certificate, is_decreasing: Certificate) -> Certificate:
    """Decide proposition P3; the value is c. Refuted by a kink, a point with f' >= 0, or one that breaks the identity.

    >>> from gpo_theory.certificate import unknown
    >>> from gpo_theory.formula.grammar import parse_formula
    >>> none = unknown("convex", "")
    >>> bradley_terry_exact(parse_formula("exp(-x)").primitive(), none, none).value
    {'exact': '1/2', 'float': 0.5}
    """
    if is_decreasing.verdict is Verdict.REFUTED:
        return Certificate(CLAIM, Verdict.REFUTED, f"f' < 0 fails: {is_decreasing.because}", is_decreasing.witness)
    try:
        return _decided(f, pieces_of(f), is_convex)
    except UnsplitError as error:
        return unknown(CLAIM, f"the pieces are not known exactly: {error}")


def _decided(f: Expr, pieces: tuple[Section, ...], is_convex: Certificate) -> Certificate:
    """Decide proposition P3 for an f that is not known to rise, from its pieces."""
    for joint in joints(pieces):
        if joint.continuous is False:
            return refuted(CLAIM, f"f jumps at x = {joint.x}", None, **joint.witness)
        if joint.bend in (-1, 1):
            return refuted(CLAIM, f"f is not differentiable at x = {joint.x}", None, **joint.witness)
    flat = _flat_point(pieces)
    if flat is not None:
        return refuted(CLAIM, f"f'({flat}) is not negative", kind="point", x=str(flat))
    rate = _exact_rate(pieces)
    if rate is not None and rate <= 0:
        return refuted(CLAIM, f"f'(-x) = {_factor(rate)}f'(x), which no c > 0 gives", kind="point", x="1")
    if rate is not None and falls_strictly(f, is_convex):
        c = 1 / rate
        return proved(CLAIM, f"exact: f' < 0 and f'(-x) = {_factor(rate)}f'(x) on every piece",
                      {"exact": str(c), "float": float(c)})  # fmt: skip
    point = _failing_point(pieces)
    if point is not None:
        return refuted(CLAIM, f"log(f'(-x)/f'(x))/x at x = {point} differs from its value at x = 1", kind="point",
                       x=str(point))  # fmt: skip
    only = _only_candidate(f)
    if only is None:
        return unknown(CLAIM, "neither the identity nor a failure of it is certified")
    return proved(CLAIM, f"f' < 0 and f'(-x) = {_factor(1 / only)}f'(x), the only rate that R = 1/(2c) allows",
                  {"exact": str(only), "float": float(only)})  # fmt: skip


def _only_candidate(f: Expr) -> Fraction | None:
    """Return c = 1/(2R), where it is rational: the identity, differentiated at 0, leaves no other."""
    first, second = one_sided(f, 1, 1)[1], [one_sided(f, side, 2)[2] for side in (-1, 1)]
    if first is None or second[0] is None or second[1] is None or not first.value:
        return None
    ratio = (second[0].exact + second[1].exact) / first.exact
    return 1 / abs(Fraction(int(ratio.p), int(ratio.q))) / 2 if ratio.is_Rational and ratio else None


def _factor(rate: Fraction) -> str:
    """Return the text of exp(rate x), nothing for a rate of 0."""
    return f"exp({rate * X}) " if rate else ""


def _slope_at(pieces: tuple[Section, ...], x: Fraction) -> Expr:
    """Return the formula of f' to the right of x."""
    return beside(pieces, x, 1).f.diff()


def _flat_point(pieces: tuple[Section, ...]) -> Fraction | None:
    """Return the sample point of a piece on which f' >= 0 there, if there is one."""
    return next((p.sample for p in pieces if not p.is_point and (s := sign_at(p.f.diff(), p.sample)) is not None
                 and s >= 0), None)  # fmt: skip


def _exact_rate(pieces: tuple[Section, ...]) -> Fraction | None:
    """Return k with f'(-x) = exp(k x) f'(x) for all x > 0, exactly, or None."""
    edges = sorted({abs(left_of(x)) for p in pieces for x in (p.low, p.high) if x is not None} | {Fraction(0)})
    probes = [(a + b) / 2 for a, b in pairwise(edges)] + [edges[-1] + 1]
    rates = set()
    for x in probes:
        ahead, behind = _slope_at(pieces, x), substitute(_slope_at(pieces, -x), {X: -X})
        form = as_rational(behind / ahead)
        if behind == ahead or (form is not None and form.numerator == form.denominator and form.constant.number == 1):
            rates.add(Fraction(0))
            continue
        if form is None or form.slope is None or form.shift != 0 or form.constant.number != 1:
            return None
        if not (form.numerator.is_one() or form.denominator.is_one()):
            return None
        power, degree = (form.numerator, 1) if form.denominator.is_one() else (form.denominator, -1)
        n = power.degree()
        if any(power[i] != 0 for i in range(n)) or power[n] != 1:
            return None
        rates.add(degree * n * form.slope)
    return rates.pop() if len(rates) == 1 else None


def _failing_point(pieces: tuple[Section, ...]) -> Fraction | None:
    """Return a point where the c that fits x = 1 certainly fails, among a few."""

    def rate(x: Fraction) -> object:
        behind, ahead = (enclose(_slope_at(pieces, y), y, 256) for y in (-x, x))
        return (behind / ahead).log() / enclose(Expr.of(x), x, 256)

    first, step = rate(Fraction(1)), unit(pieces[-1].f)
    for x in (step * Fraction(x) for x in ("2", "1/2", "3", "1/4", "5", "10")):
        other = rate(x)
        if other < first or other > first:  # type: ignore[operator]
            return x
    return None
