"""Bayes consistency (classification calibration): does minimising E[f] give every pair a margin of the right sign?

With C_p(x) = p f(x) + (1-p) f(-x), H(p) = inf C_p and H^-(p) = inf of C_p over x (2p-1) <= 0: H(p) < H^-(p) for all
p != 1/2. This module proposes the theorems that may apply, with the numbers that each of them needs. The verifier
replays their hypotheses one by one, and the first proposal that it accepts is the verdict.
"""

__all__ = ["bayes_consistent"]

from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.constants import exact, sign
from gpo_theory.calculus.infimum import infimum_of
from gpo_theory.calculus.pieces import UnsplitError, beside, joints, pieces_of
from gpo_theory.calculus.samples import rounded, sample, unit
from gpo_theory.calculus.series import one_sided
from gpo_theory.calculus.tails import tail
from gpo_theory.certificate import Certificate, Verdict, proved, refuted, unknown
from gpo_theory.claims.monotonicity import falls_at_zero
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.waves import along

CLAIM = "bayes_consistent"
# Margins a at which f(a) and f(-a) are sampled, and theta = 2p - 1 at which a failure is looked for. They only suggest:
# what is not found is UNKNOWN.
_MARGINS = np.concatenate([np.linspace(0, 4, 4001), np.geomspace(4, 300, 600)[1:]])
_THETAS = tuple(Fraction(n, d) for n, d in ((1, 2), (1, 8), (9, 10), (1, 64)))


def bayes_consistent(f: Expr, known: Mapping[str, Certificate]) -> Iterator[Certificate]:
    """Yield proposed verdicts on Bayes consistency, the likeliest first. Refuted with a theta = 2p - 1.

    Convex f: iff f'(0) exists and is negative (Bartlett, Jordan, McAuliffe 2006). Other f: exactness; falling; the
    flip, the gap and the flat theorem; refuted where both tails reach the infimum, or by a direct comparison.
    """
    negative_slope = falls_at_zero(known)
    if known["convex"].verdict is Verdict.PROVED:
        yield _convex_case(f, known, negative_slope)
        return
    exact = known["bradley_terry_exact"]
    if exact.verdict is Verdict.PROVED and exact.value is not None:
        yield proved(CLAIM, "f is Bradley-Terry exact with f' < 0: C_p falls, then rises, with its least value at "
                            "c log(p/(1-p))", theorem="exact", c=exact.value["exact"])  # fmt: skip
    floor = _floor(f, known["bounded_below"])
    if floor is not None:
        limits = [tail(f, side).limit for side in (-1, 1)]
        if all(limit == floor for limit in limits):
            yield refuted(CLAIM, "f tends to its infimum at both ends, so C_p does on either side", {"theorem": "ends",
                          "floor": floor}, kind="theta", theta="1/2")  # fmt: skip
        if negative_slope and known["monotone_decreasing"].verdict is Verdict.PROVED:
            yield proved(CLAIM, "flip theorem: f is bounded below and never rises, and f'(0) < 0, so "
                                "f(-a) - f(a) is positive and never falls for a > 0", theorem="falling", floor=floor,
                         **known["monotone_decreasing"].choices)  # fmt: skip
        if negative_slope:
            yield proved(CLAIM, "flip theorem: f is continuous and bounded below, f'(0) < 0, f(-a) > f(a) for a > 0, "
                                "and in the limit this difference or f itself stays above its value at 0",
                         theorem="flip", floor=floor)  # fmt: skip
    yield from _unbounded(f, known["bounded_below"].witness)
    yield from _least_on_the_left(f)
    step = float(unit(f))
    values, mirrored = sample(f, step * _MARGINS), sample(f, -step * _MARGINS)
    if np.isfinite(values).all() and np.isfinite(mirrored).all():
        yield from _gap(values, mirrored, step)
        yield from _compared(values, mirrored, step)
    if floor is not None and (mirrored == values[0]).all() and values.min() < values[0]:
        lowest = Fraction(step * float(_MARGINS[np.argmin(values)]))
        yield proved(CLAIM, "f is constant wherever x <= 0 and lower elsewhere: H^- - H is theta times what it loses",
                     theorem="flat", floor=floor, at=str(lowest))  # fmt: skip
    yield unknown(CLAIM, "f is not convex, and none of the theorems for other f is shown to apply")


def _floor(f: Expr, bounded: Certificate) -> str | None:
    """Return a lower bound of f as text: its infimum where that is rational and seen from a range of f, else less."""
    if bounded.verdict is not Verdict.PROVED:
        return None
    if bounded.value is None:
        return bounded.choices.get("floor")
    exact, number = bounded.value["exact"], Fraction(bounded.value["float"])
    if isinstance(near := bounded.choices.get("near"), list) and len(near) > 2:
        return str(number - Fraction(float(abs(enclose(f, Fraction(0)).mid()))) / 2**20)
    if exact is not None and exact.lstrip("-").replace("/", "").isdigit():
        return str(exact)
    return str(number - abs(number) / 10**6)


def _convex_case(f: Expr, known: Mapping[str, Certificate], negative_slope: bool) -> Certificate:
    slope = known["differentiable_at_zero"]
    if slope.verdict is Verdict.UNKNOWN:
        return unknown(CLAIM, "f is convex, but f'(0) is not known exactly")
    if slope.verdict is Verdict.REFUTED:
        theta = _theta_of_kink(f)
        if theta is None:
            return unknown(CLAIM, "f is convex with a kink at 0, but no theta was found")
        return refuted(CLAIM, "f is convex with a kink at 0, so x = 0 minimises C_p near p = 1/2",
                       {"theorem": "convex"}, kind="theta", theta=str(theta))  # fmt: skip
    assert slope.value is not None
    if negative_slope:
        bounded = known["bounded_below"].verdict
        caveat = "" if bounded is Verdict.PROVED else (
            "; f is unbounded below: the pointwise criterion holds, but psi may be infinite and no excess-risk bound "
            "follows" if bounded is Verdict.REFUTED else "; whether f is bounded below is not decided")  # fmt: skip
        text = slope.value["exact"] or f"{slope.value['float']:.6g}"
        return proved(CLAIM, f"f is convex and f'(0) = {text} < 0{caveat}", theorem="convex")
    return refuted(CLAIM, "f is convex and f'(0) >= 0, so C_p is least on the wrong side", {"theorem": "convex"},
                   kind="theta", theta="1/2")  # fmt: skip


def _theta_of_kink(f: Expr) -> Fraction | None:
    """Return theta with 0 in the subdifferential of C_p at 0: p l - (1-p) r <= 0 <= p r - (1-p) l, slopes l < r."""
    left, right = one_sided(f, -1, 1)[1], one_sided(f, 1, 1)[1]
    if left is None or right is None:
        return None
    for k in range(1, 40):
        p = (1 + Fraction(1, 2**k)) / 2
        ends = [exact(p) * a.exact - exact(1 - p) * b.exact for a, b in ((left, right), (right, left))]
        if [sign(end) for end in ends] == [-1, 1]:
            return Fraction(1, 2**k)
    return None


def _unbounded(f: Expr, deep: Mapping[str, str] | None) -> Iterator[Certificate]:
    """Propose that C_p tends to -infinity on the wrong side, or repeats itself; `deep`: a point at which f is low."""
    if not along(f, Fraction(0)).depends_on_x:
        yield refuted(CLAIM, "f is periodic, so C_p takes every value on either side", {"theorem": "periodic"},
                      kind="theta", theta="1/2")  # fmt: skip
    x = Fraction(0 if deep is None else deep["x"])
    for theta in ("1", *map(str, _THETAS)) if x else ():
        for low in (x, -x):
            yield refuted(CLAIM, f"at theta = {theta}, C_p tends to -infinity on the wrong side too",
                          {"theorem": "unbounded", "at": str(low)}, kind="theta", theta=theta)  # fmt: skip


def _least_on_the_left(f: Expr) -> Iterator[Certificate]:
    """Propose theta = 1, where C_p is f: f comes as near to its infimum beside a jump at x < 0 as at any x > 0."""
    try:
        pieces = pieces_of(f)
        jumps = [joint.x for joint in joints(pieces) if joint.continuous is False and joint.x < 0]
    except UnsplitError:
        return
    for x, side in ((x, side) for x in jumps if isinstance(x, Fraction) for side in (-1, 1)):
        name = "left" if side < 0 else "right"
        limit = enclose(beside(pieces, x, side).f, x)
        below = infimum_of(f)
        if below is not None and not limit.lower() > below.high:
            yield refuted(CLAIM, f"at theta = 1, f tends to its infimum at x = {x} from the {name}, on the wrong side",
                          {"theorem": "compared", "at": str(x), "side": name}, kind="theta", theta="1")  # fmt: skip


def _gap(values: np.ndarray, mirrored: np.ndarray, step: float) -> Iterator[Certificate]:
    """Propose the gap theorem: a bracket of the minimiser a* of E, and a level between f there and inf f(-a)."""
    mean = (values + mirrored) / 2
    best = int(np.argmin(mean))
    for width in (1, 4, 16, 64):
        low, high = max(best - width, 0), min(best + width, len(mean) - 1)
        top, bottom = values[low : high + 1].max(), mirrored.min()
        if best and top < bottom:
            grid = (Fraction(float(_MARGINS[i])).limit_denominator(2**16) for i in (low, best, high))
            level = Fraction(float((top + bottom) / 2))
            yield proved(CLAIM, "gap theorem: (f(a) + f(-a))/2 is least at some a* where f is lower than anywhere on "
                                "the left, so every wrong side loses theta times that gap", theorem="gap",
                         bracket=[str(Fraction(step) * x) for x in grid], level=str(level))  # fmt: skip


def _compared(values: np.ndarray, mirrored: np.ndarray, step: float) -> Iterator[Certificate]:
    """Propose a theta at which one margin on the wrong side does at least as well as every one on the right."""
    for theta in _THETAS:
        p = float((1 + theta) / 2)
        right, wrong = p * values + (1 - p) * mirrored, p * mirrored + (1 - p) * values
        best = int(np.argmin(wrong))
        if wrong[best] <= right[1:].min():
            x = -rounded(step * float(_MARGINS[best]), step)
            yield refuted(CLAIM, f"at theta = {theta}, x = {x} on the wrong side has a risk C_p as small as any x > 0",
                          {"theorem": "compared", "at": str(x)}, kind="theta", theta=str(theta))  # fmt: skip
