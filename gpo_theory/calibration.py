"""Bayes consistency: does minimising E[f] choose the right side of every coin that is not fair?

With C_p(x) = p f(x) + (1-p) f(-x), H(p) = inf C_p and H^-(p) = inf of C_p over x (2p-1) <= 0: H(p) < H^-(p) for all
p != 1/2. Each theorem's hypotheses are certificates of their own.
"""

__all__ = ["bayes_consistent"]

from collections.abc import Mapping
from fractions import Fraction

from gpo_theory.breakpoints import joints
from gpo_theory.certificate import Certificate, Verdict, proved, refuted, unknown
from gpo_theory.far import tail
from gpo_theory.formula import Expr
from gpo_theory.pieces import UnsplitError, split
from gpo_theory.series import one_sided
from gpo_theory.structure import facts

CLAIM = "bayes_consistent"


def bayes_consistent(f: Expr, known: Mapping[str, Certificate]) -> Certificate:
    """Decide classification calibration from the certificates in `known`. Refuted with a theta = 2p - 1.

    Convex f: iff f'(0) exists and is negative (Bartlett, Jordan, McAuliffe 2006). Non-convex f: by the flip theorem for
    falling f, or by Bradley-Terry exactness; refuted where both tails reach the infimum.
    """
    if known["convex"].verdict is Verdict.PROVED:
        return _convex_case(f, known)
    if known["bradley_terry_exact"].verdict is Verdict.PROVED:
        return proved(CLAIM, "f is Bradley-Terry exact with f' < 0: C_p falls, then rises, with its least value at "
                             "c log(p/(1-p))")  # fmt: skip
    if _tails_reach_infimum(f):
        return refuted(CLAIM, "f tends to its infimum at both ends, so C_p does on either side", kind="theta",
                       theta="1/2")  # fmt: skip
    slope = known["differentiable_at_zero"]
    if slope.verdict is not Verdict.PROVED or slope.value is None or not slope.value["float"] < 0:
        return unknown(CLAIM, "f is not shown to be convex, and no theorem for other f applies without f'(0) < 0")
    needed = [name for name in ("monotone_decreasing", "bounded_below") if known[name].verdict is not Verdict.PROVED]
    if needed or not _continuous(f):
        return unknown(CLAIM, f"the flip theorem needs {', '.join(needed) or 'continuity'}, which is not shown")
    return proved(CLAIM, "flip theorem: f is continuous, bounded below and never rises, and f'(0) < 0, so f(-a) - f(a) "
                         "is positive and never falls for a > 0")  # fmt: skip


def _convex_case(f: Expr, known: Mapping[str, Certificate]) -> Certificate:
    slope = known["differentiable_at_zero"]
    if slope.verdict is Verdict.UNKNOWN:
        return unknown(CLAIM, "f is convex, but f'(0) is not known exactly")
    if slope.verdict is Verdict.REFUTED:
        theta = _theta_of_kink(f)
        if theta is None:
            return unknown(CLAIM, "f is convex with a kink at 0, but no theta was found")
        return refuted(CLAIM, "f is convex with a kink at 0, so x = 0 minimises C_p near p = 1/2", kind="theta",
                       theta=str(theta))  # fmt: skip
    assert slope.value is not None
    if slope.value["float"] < 0:
        bounded = known["bounded_below"].verdict
        caveat = "" if bounded is Verdict.PROVED else (
            "; f is unbounded below: the pointwise criterion holds, but psi may be infinite and no excess-risk bound "
            "follows" if bounded is Verdict.REFUTED else "; whether f is bounded below is not decided")  # fmt: skip
        return proved(CLAIM, f"f is convex and f'(0) = {slope.value['exact']} < 0{caveat}")
    return refuted(CLAIM, "f is convex and f'(0) >= 0, so C_p is least on the wrong side", kind="theta", theta="1/2")


def _theta_of_kink(f: Expr) -> Fraction | None:
    """Return theta with 0 in the subdifferential of C_p at 0: p l - (1-p) r <= 0 <= p r - (1-p) l, slopes l < r."""
    left, right = one_sided(f, -1, 1)[1], one_sided(f, 1, 1)[1]
    if left is None or right is None:
        return None
    low, high = left.value, right.value
    for k in range(1, 40):
        theta = Fraction(1, 2**k)
        p = float((1 + theta) / 2)
        slack = 1e-9 * (abs(low) + abs(high))
        if p * low - (1 - p) * high < -slack and p * high - (1 - p) * low > slack:
            return theta
    return None


def _tails_reach_infimum(f: Expr) -> bool:
    limits = [tail(f, side) for side in (-1, 1)]
    low = facts(f).low
    return isinstance(low, Fraction) and all(t.verdict == "proved" and t.limit == str(low) for t in limits)


def _continuous(f: Expr) -> bool:
    try:
        return all(joint.continuous is True for joint in joints(split(f)))
    except UnsplitError:
        return False
