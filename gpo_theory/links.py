"""The link x*(p) = argmin C_p: which scaled margin a loss asks of a pair preferred with probability p."""

__all__ = ["Link", "link"]

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from gpo_theory.bounds import minimum
from gpo_theory.breakpoints import joints
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.formula import Expr, substitute
from gpo_theory.loss import Loss
from gpo_theory.pieces import UnsplitError, split
from gpo_theory.rational import as_rational, sign_chart
from gpo_theory.slopes import falls_strictly
from gpo_theory.strengths import strength


@dataclass(frozen=True)
class Link:
    """x*(p) as text in p, its slope at p = 1/2 (2/R; "inf" where R = 0), and the least argmin of f, x*(1).

    None where it is not derived; infinities are "inf" and "-inf".
    """

    formula: str | None = None
    slope_at_half: float | str | None = None
    target_at_one: str | None = None

    def as_dict(self) -> dict[str, str | float | None]:
        """Return the JSON form."""
        return {"formula": self.formula, "slope_at_half": self.slope_at_half, "target_at_one": self.target_at_one}


def link(loss: Loss, claims: Mapping[str, Certificate]) -> Link:
    """Return the link of a loss from its certificates (propositions P1 and P3)."""
    f = loss.f.primitive()
    exact = claims["bradley_terry_exact"]
    is_convex = claims["convex"]
    formula: str | None = None
    if exact.verdict is Verdict.PROVED and exact.value is not None:
        c = exact.value["exact"]
        formula = "log(p/(1 - p))" if c == "1" else f"{c}*log(p/(1 - p))" if "/" not in c else f"log(p/(1 - p))*{c}"
    elif is_convex.verdict is Verdict.PROVED:
        formula = _linear(f)
    return Link(formula, _slope(loss, claims), _target(f, is_convex))


def _linear(f: Expr) -> str | None:
    """Where f' = a + b x on a symmetric interval that reaches -a/b, the link is (-a/b) (2p - 1)."""
    try:
        piece = next(p for p in split(f) if (p.low is None or p.low < 0) and (p.high is None or p.high > 0))
    except (UnsplitError, StopIteration):
        return None
    form = as_rational(piece.f.diff())
    if form is None or form.slope is not None or form.denominator.degree() > 0 or form.numerator.degree() != 1:
        return None
    zero = -Fraction(str(form.numerator[0])) / Fraction(str(form.numerator[1]))
    reach = min(abs(x) for x in (piece.low, piece.high, Fraction(10) ** 9) if x is not None)
    if not 0 < zero <= reach:
        return None
    return "2*p - 1" if zero == 1 else f"{zero}*(2*p - 1)"


def _slope(loss: Loss, claims: Mapping[str, Certificate]) -> float | str | None:
    """2/R under P1's hypotheses: f'(0) < 0 <= f''(0), and 0 alone minimises C_(1/2)."""
    first, r = claims["differentiable_at_zero"], strength(loss)
    falling = first.verdict is Verdict.PROVED and first.value is not None and first.value["float"] < 0
    proofs = (claims["convex"].verdict, claims["bradley_terry_exact"].verdict)
    single = Verdict.PROVED in proofs or _rises_from_zero(loss.f.primitive())
    if not falling or not single or r.value is None or r.sign is None or r.sign < 0:
        return None
    return "inf" if r.value == 0.0 else 2 / r.value


def _rises_from_zero(f: Expr) -> bool:
    """Whether C_(1/2)(a) = (f(a) + f(-a))/2 is shown to rise for all a > 0, by the exact signs of its slope."""
    x = Expr.x()
    try:
        pieces = split((f + substitute(f, {x: -x})) / 2)
    except UnsplitError:
        return False
    ahead = [p for p in pieces if not p.is_point and (p.high is None or p.high > 0)]
    right = [(p, max(p.low or Fraction(0), Fraction(0))) for p in ahead]
    charts = [sign_chart(p.f.diff(), low, p.high) for p, low in right]
    smooth = all(joint.continuous is True for joint in joints(pieces))
    return smooth and all(chart is not None and set(chart.signs) == {1} for chart in charts)


def _target(f: Expr, is_convex: Certificate) -> str | None:
    if falls_strictly(f, is_convex):
        return "inf"
    least = minimum(f)
    return least.at if least else None
