"""What to tell of a loss that rises at 0, as log(sigmoid(x)) does for want of its minus sign."""

__all__ = ["warnings_of"]

from collections.abc import Mapping
from fractions import Fraction

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.series import one_sided
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.loss import Loss


def warnings_of(loss: Loss, claims: Mapping[str, Certificate]) -> list[str]:
    """Return a sentence for a loss that does not fall at 0, with the formula to write where the sign was forgotten.

    It rises where neither of the slopes beside 0 is negative and one is positive, as in max(0, x).
    """
    f = loss.f.primitive()
    left, right = (one_sided(f, side, 1)[1] for side in (-1, 1))
    if left and right and left.value == 0 == right.value:
        return ["f'(0) = 0: at the reference, where training starts, f does not prefer the chosen response"]
    if left is None or right is None or not min(left.value, right.value) >= 0 < max(left.value, right.value):
        return []
    slope = f"f'(0) = {left.text} > 0" if left == right else f"f' beside 0 is {left.text} and {right.text}"
    said = f"{slope}: f rises at 0, so that training would begin by making the chosen response less likely"
    if loss.reference or not enclose(f, Fraction(1)) > enclose(f, Fraction(-1)):  # published, or falling on the whole
        return [said]
    # f(-x) has the lower bound of f; where f has none, -f may have one.
    unbounded = claims["bounded_below"].verdict is Verdict.REFUTED
    instead = -loss.body if unbounded else substitute(loss.body, {Expr.x(): -Expr.x()})
    return [f"{said}; its sign is probably wrong: write '{instead}'"]
