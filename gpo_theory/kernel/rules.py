"""The table of rules: what has to be shown for each claim and verdict, in inequalities only.

Every rule but those of `total` presupposes that f is defined on all of R, which is a claim of its own in each
certificate. A rule raises UnprovedError where a step cannot be replayed; this decides nothing about the claim.
"""

__all__ = ["RULES"]

from collections.abc import Callable

from gpo_theory.certificate import Verdict
from gpo_theory.kernel.consistency import consistent, inconsistent
from gpo_theory.kernel.domain import total, undefined
from gpo_theory.kernel.exactness import exact, not_exact
from gpo_theory.kernel.floor import bounded_below, not_bounded_below
from gpo_theory.kernel.shape import (
    convex,
    not_convex,
    not_strictly_convex,
    not_strongly_convex,
    strictly_convex,
    strongly_convex,
)
from gpo_theory.kernel.size import lipschitz, not_lipschitz, not_smooth, smooth
from gpo_theory.kernel.slope import differentiable, falling, not_differentiable, not_falling
from gpo_theory.kernel.statement import Statement

RULES: dict[tuple[str, Verdict], Callable[[Statement], None]] = {
    ("total", Verdict.PROVED): total,
    ("total", Verdict.REFUTED): undefined,
    ("convex", Verdict.PROVED): convex,
    ("convex", Verdict.REFUTED): not_convex,
    ("strictly_convex", Verdict.PROVED): strictly_convex,
    ("strictly_convex", Verdict.REFUTED): not_strictly_convex,
    ("strongly_convex", Verdict.PROVED): strongly_convex,
    ("strongly_convex", Verdict.REFUTED): not_strongly_convex,
    ("lipschitz", Verdict.PROVED): lipschitz,
    ("lipschitz", Verdict.REFUTED): not_lipschitz,
    ("smooth", Verdict.PROVED): smooth,
    ("smooth", Verdict.REFUTED): not_smooth,
    ("bounded_below", Verdict.PROVED): bounded_below,
    ("bounded_below", Verdict.REFUTED): not_bounded_below,
    ("monotone_decreasing", Verdict.PROVED): falling,
    ("monotone_decreasing", Verdict.REFUTED): not_falling,
    ("differentiable_at_zero", Verdict.PROVED): differentiable,
    ("differentiable_at_zero", Verdict.REFUTED): not_differentiable,
    ("bayes_consistent", Verdict.PROVED): consistent,
    ("bayes_consistent", Verdict.REFUTED): inconsistent,
    ("bradley_terry_exact", Verdict.PROVED): exact,
    ("bradley_terry_exact", Verdict.REFUTED): not_exact,
}
