"""The strength R = |f''(0) / f'(0)| with which a loss regularises, from the mean of f'' where it jumps at 0."""

__all__ = ["Strength", "strength"]

from dataclasses import dataclass

from gpo_theory.calculus.constants import as_double, sign, text
from gpo_theory.calculus.series import one_sided, taylor
from gpo_theory.loss import Loss


@dataclass(frozen=True)
class Strength:
    """R, exact as text and as a number, with the sign of f''(0); `left` and `right` where f'' jumps.

    There R is their mean and `sign` that of the mean of f'', against which one of the two may be negative. Every field
    is None where f'(0) does not exist or is 0.
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
    left, right = (2 * second.exact / first.exact for second in (sides[0], sides[1]))
    mean = left if sides[0] == sides[1] else (left + right) / 2
    ahead = sign(mean)
    if ahead is None:
        return Strength()
    turn = ahead or 1
    beside = None if sides[0] == sides[1] else (as_double(turn * left), as_double(turn * right))
    below, above = beside or (None, None)
    return Strength(text(turn * mean), as_double(turn * mean), below, above, ahead * (sign(first.exact) or 0))
