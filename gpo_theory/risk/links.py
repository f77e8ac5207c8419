"""The link x*(p) = argmin C_p: the scaled margin that is optimal for a pair preferred with probability p."""

__all__ = ["Link", "link", "link_at"]

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import inf, isfinite, nextafter

from gpo_theory.calculus.balls import between, enclose
from gpo_theory.calculus.infimum import exact_infimum, infimum_of
from gpo_theory.calculus.isolation import refined
from gpo_theory.calculus.pieces import UnsplitError, clipped, joints, pieces_of, split
from gpo_theory.calculus.rational import sign_chart
from gpo_theory.calculus.strengths import strength
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.claims.monotonicity import falls_at_zero, falls_strictly
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, call, piecewise, substitute
from gpo_theory.kernel.zeros import Zero
from gpo_theory.loss import Loss
from gpo_theory.risk.regimes import P, regimes_of

NARROW = 1e-12  # relative width of an enclosure that is printed as a number, with 13 digits


@dataclass(frozen=True)
class Link:
    """x*(p) as text in p, its slope at p = 1/2 (2/R; "inf" where R = 0), and the least argmin of f, x*(1).

    None where it is not derived; infinities are "inf" and "-inf". A target without an exact form is certified to a
    relative error of 1e-12.
    """

    formula: str | None = None
    slope_at_half: float | str | None = None
    target_at_one: str | None = None

    def as_dict(self) -> dict[str, str | float | None]:
        """Return the JSON form."""
        return {"formula": self.formula, "slope_at_half": self.slope_at_half, "target_at_one": self.target_at_one}


def link(loss: Loss, claims: Mapping[str, Certificate]) -> Link:
    """Return the link of a loss from its certificates (propositions P1 and P3).

    Where argmin C_p is an interval, as for the hinge at p = 1/2, the formula gives one point of it, and `link_at` the
    interval. Below p = 1/2 it is x*(p) = -x*(1-p).
    """
    f = loss.f.primitive()
    return Link(_formula(f, claims), _slope(loss, claims), _target(f, claims))


def link_at(loss: Loss, p: Fraction) -> tuple[float, float] | None:
    """Return (low, high) that enclose every minimiser of C_p, infinite ends included; None if not certified.

    Raises InputError for p outside [0, 1].

    >>> from gpo_theory.loss import parse
    >>> [round(end, 9) for end in link_at(parse("max(0, 1-x)"), Fraction(1, 2))]
    [-1.0, 1.0]
    """
    if not 0 <= p <= 1:
        raise InputError(f"p = {p} is not a probability between 0 and 1")
    f = loss.f.primitive()
    found = infimum_of(p * f + (1 - p) * substitute(f, {Expr.x(): -Expr.x()}))
    return (found.left, found.right) if found else None


def _formula(f: Expr, claims: Mapping[str, Certificate]) -> str | None:
    found = regimes_of(f, claims)
    if not found:
        return None
    if len(found) == 1 and (found[0].both_sides or claims["bradley_terry_exact"].verdict is Verdict.PROVED):
        return str(found[0].x)
    above = piecewise(P, [Expr.of(regime.high) for regime in found[:-1]], [regime.x for regime in found])
    below = -substitute(above, {P: 1 - P})
    return str(above) if above == below else str(call("where", call(">=", P, Expr.of(Fraction(1, 2))), above, below))


def _slope(loss: Loss, claims: Mapping[str, Certificate]) -> float | str | None:
    """2/R under P1's hypotheses: f'(0) < 0 <= f''(0), and 0 alone minimises C_(1/2)."""
    r = strength(loss)
    proofs = (claims["convex"].verdict, claims["bradley_terry_exact"].verdict)
    if not falls_at_zero(claims) or r.value is None or r.sign is None or r.sign < 0:
        return None
    if Verdict.PROVED not in proofs and not _least_at_zero_alone(loss.f.primitive()):
        return None
    return "inf" if r.sign == 0 else 2 / r.value if r.value else None


def _least_at_zero_alone(f: Expr) -> bool:
    """Whether 0 alone is shown to minimise C_(1/2)(a) = (f(a) + f(-a))/2.

    Hypothesis: f'(0) exists. Shown by the exact signs of the slope, positive for all a > 0, or by strict convexity of
    C_(1/2) on an interval that is shown to hold its minimisers.
    """
    x = Expr.x()
    even = (f + substitute(f, {x: -x})) / 2
    try:
        pieces, smooth = split(even), all(joint.continuous is True for joint in joints(split(f)))
    except UnsplitError:
        return False
    ahead = [piece for piece in clipped(pieces, Fraction(0), None) if not piece.is_point]
    charts = [sign_chart(piece.f.diff(), piece.low, piece.high) for piece in ahead]
    if smooth and all(chart is not None and set(chart.signs) == {1} for chart in charts):
        return True
    found, first = infimum_of(even) if smooth else None, ahead[0]
    if found is None or found.right > (inf if first.high is None else first.high) or found.right == inf:
        return False
    return bool(enclose(first.f.diff().diff(), between(Fraction(0), Fraction(found.right))) > 0)


def _target(f: Expr, claims: Mapping[str, Certificate]) -> str | None:
    if falls_strictly(f, claims["convex"]):
        return "inf"
    try:
        least = exact_infimum(split(f))
    except UnsplitError:
        least = None
    if least is not None:
        return least.at
    found = infimum_of(f)
    if found is None or not isfinite(found.left):
        return None
    right = min([found.right, *_floors(f, claims["bounded_below"])])
    if not right - found.left <= NARROW * abs(found.left):
        return None
    # With all its digits, because "2" would be read as the exact number.
    return f"{(found.left + right) / 2:#.13g}"


def _floors(f: Expr, bounded: Certificate) -> list[float]:
    """Return the irrational points from which on f is constant and as low as it is proved to be."""
    exact = None if bounded.value is None else bounded.value["exact"]
    flat = (p.low for p in pieces_of(f) if isinstance(p.low, Zero) and not p.is_point and str(p.f) == exact)
    return [nextafter(float(refined(x, abs(x.high) / 2**64).high), inf) for x in flat]
