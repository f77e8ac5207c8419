"""Inverse design: a loss that is proved to have the wished properties, or the reason why none can have them."""

__all__ = ["Design", "find_design"]

from dataclasses import dataclass
from typing import Any

from gpo_theory.analysis import analyze
from gpo_theory.calculus.constants import sign
from gpo_theory.calculus.tails import Tail
from gpo_theory.certificate import Verdict
from gpo_theory.choosing.families import candidates
from gpo_theory.choosing.matching import unmatchable
from gpo_theory.choosing.wishes import TailWish, Wish, exclusions
from gpo_theory.errors import DomainError
from gpo_theory.report.result import Analysis, describe


@dataclass(frozen=True)
class Design:
    """The answer to a wish: an analysis that proves it, or the propositions that exclude it, or neither (not found).

    `refusal` is set where a loss with every wished property was found but P1 does not apply to it, so that its R does
    not measure how strongly it regularises.
    """

    wish: Wish
    analysis: Analysis | None = None
    excluded_by: tuple[tuple[str, str], ...] = ()
    refusal: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; what does not apply is None."""
        found = self.analysis
        reasons = [{"proposition": name, "because": why} for name, why in self.excluded_by]
        return {"wish": self.wish.as_dict(), "loss": describe(found.loss) if found else None,
                "analysis": found.as_dict() if found else None, "excluded_by": reasons or None,
                "refusal": self.refusal}  # fmt: skip


def find_design(wish: Wish, seconds: float = 5.0) -> Design:
    """Return a loss for which every wished property is proved, or why there is none (propositions P3, P5, P6).

    Candidates are named losses at another beta and pieces of -f' joined at 0. Each is analysed within `seconds` of CPU
    time, and the first whose analysis proves every property is returned; a wished R > 0 needs P1's hypotheses too, as
    `match_beta` does. Neither a loss nor an exclusion means that the families searched here hold none, not that none
    exists.

    >>> from fractions import Fraction
    >>> find_design(Wish(target=Fraction(2), right=TailWish("zero"), convex=True)).analysis.loss.formula
    'max(0, 1 - x/2)**2'
    >>> find_design(Wish(target=Fraction(1), exactness=Fraction(1))).excluded_by[0][0]
    'P6'
    """
    excluded = tuple(exclusions(wish))
    if excluded:
        return Design(wish, None, excluded)
    refusal = None
    for loss in candidates(wish):
        try:
            analysis = analyze(loss, seconds)
        except DomainError:  # the pieces are not defined on all of R
            continue
        if grants(analysis, wish):
            reason = unmatchable(loss, seconds) if wish.strength else None
            if reason is None:
                return Design(wish, analysis)
            refusal = refusal or reason
    return Design(wish, refusal=refusal)


def grants(analysis: Analysis, wish: Wish) -> bool:
    """Whether the analysis proves every wished property, and f'(0) < 0; R is only compared as a number."""
    claims, first = analysis.claims, analysis.taylor[1]
    exact = claims["bradley_terry_exact"]
    target = "inf" if wish.target == "none" else str(wish.target)
    return (
        (first is not None and sign(first.exact) == -1)
        and (wish.strength is None or analysis.strength.exact == str(wish.strength))
        and (wish.target is None or analysis.link.target_at_one == target)
        and (wish.right is None or _matches(analysis.tails["right"]["slope"], wish.right))
        and (wish.left is None or _matches(analysis.tails["left"]["slope"], wish.left))
        and (not wish.convex or claims["convex"].verdict is Verdict.PROVED)
        and (wish.exactness is None or (exact.verdict is Verdict.PROVED and exact.value is not None
                                        and exact.value["exact"] == str(wish.exactness)))
    )  # fmt: skip


def _matches(tail: Tail, wish: TailWish) -> bool:
    number = tail.rate if wish.kind.startswith("exponential") else tail.order
    right = wish.number is None or number == str(wish.number)
    return tail.kind == wish.kind and tail.verdict == "proved" and right
