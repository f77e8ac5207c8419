"""The strength R = |f''(0) / f'(0)| with which a loss regularises, one-sided where f'' jumps at 0."""

__all__ = ["Strength", "strength"]

from dataclasses import dataclass
from typing import Any

from gpo_theory.calculus.constants import sign, text
from gpo_theory.calculus.series import Coefficient, one_sided, taylor
from gpo_theory.loss import Loss


@dataclass(frozen=True)
class Strength:
    """R, exact as text and as a number, with the sign of f''(0); `left` and `right` where f'' jumps (R is their mean).

    Every field is None where f'(0) does not exist or is 0.
    """

    exact: str | None = None
    value: float | None = None
    left: float | None = None
    right: float | None = None
    sign: int | None = None

    def as_dict(self) -> dict[str, str | float | int | None]:
        """Return the JSON form."""
        return {"exact": self.exact, "value": self.value, "left": self.left, "right": self.right, "sign": self.sign}


def strength(loss: Loss) -> Strength:
    """Return R = |f''(0) / f'(0)|, the weight of the offline regulariser against the preference term.

    Source: Tang et al., arXiv 2402.05749, the Taylor split at rho = 0.

    >>> from gpo_theory.catalogue import LOSSES
    >>> strength(LOSSES["squared"])
    Strength(exact='1', value=1.0, left=None, right=None, sign=1)
    >>> strength(LOSSES["perceptron"])
    Strength(exact=None, value=None, left=None, right=None, sign=None)
    """
    first = taylor(loss, 1)[1]
    if first is None or not sign(first.exact):  # f'(0) is 0, or its sign is not decided
        return Strength()
    f = loss.f.primitive()
    sides = [one_sided(f, side, 2)[2] for side in (-1, 1)]
    if sides[0] is None or sides[1] is None:
        return Strength()
    left, right = (_ratio(second, first) for second in (sides[0], sides[1]))
    curvature = sides[0].value + sides[1].value
    upwards = (curvature > 0) - (curvature < 0)
    if sides[0] == sides[1]:
        return Strength(text(left), float(left), None, None, upwards)
    mean = (left + right) / 2
    return Strength(text(mean), float(mean), float(left), float(right), upwards)


def _ratio(second: Coefficient, first: Coefficient) -> Any:
    ratio = 2 * second.exact / first.exact
    return -ratio if second.value * first.value < 0 else ratio
