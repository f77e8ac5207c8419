"""The strength R = |f''(0) / f'(0)| with which a loss regularises, one-sided where f'' jumps at 0."""

__all__ = ["Strength", "strength"]

from dataclasses import dataclass

from gpo_theory.calculus.constants import sign, text
from gpo_theory.calculus.series import one_sided, taylor
from gpo_theory.loss import Loss


@dataclass(frozen=True)
class Strength:
    """R, exact as text and as a number, with the sign of f''(0).

    Where f'' jumps, R and `sign` are those of the mean of f''(0-) and f''(0+), and `left` and `right` have the mean R:
    the side on which f bends the other way is negative. Every field is None where f'(0) does not exist or is 0.
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

    Where f'' jumps at 0 it is |f''(0-) + f''(0+)| / (2 |f'(0)|), by which the link is steep (proposition P1).
    Source: Tang et al., arXiv 2402.05749, the Taylor split at rho = 0.

    >>> from gpo_theory.catalogue import LOSSES
    >>> strength(LOSSES["squared"])
    Strength(exact='1', value=1.0, left=None, right=None, sign=1)
    >>> strength(LOSSES["perceptron"])
    Strength(exact=None, value=None, left=None, right=None, sign=None)
    """
    first, f = taylor(loss, 1)[1], loss.f.primitive()
    way = first and sign(first.exact)
    below, above = (one_sided(f, side, 2)[2] for side in (-1, 1))
    if first is None or not way or below is None or above is None:  # f'(0) is 0, or something is not decided
        return Strength()
    upwards = sign(below.exact + above.exact)
    if upwards is None:
        return Strength()
    left, right = (2 * (upwards or 1) * way * second.exact / first.exact for second in (below, above))
    mean = (left + right) / 2
    if below == above:
        return Strength(text(mean), float(mean), sign=upwards)
    return Strength(text(mean), float(mean), float(left), float(right), upwards)
