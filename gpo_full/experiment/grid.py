"""The runs of a scale: each loss at its matched beta and around it, with the seeds that each beta gets."""

__all__ = ["PlannedRun", "base_of", "all_runs"]

from collections.abc import Sequence
from dataclasses import dataclass

from gpo_full.experiment.inputs.scales import Scale


@dataclass(frozen=True)
class PlannedRun:
    """One loss at one beta with one seed; `factor` is beta over the matched one, and `matching` how that was chosen."""

    loss: str
    beta: float
    factor: float
    strength: float | None
    matching: str
    seed: int
    first: bool

    @property
    def matched(self) -> bool:
        """Whether beta is the matched one."""
        return self.factor == 1

    @property
    def name(self) -> str:
        """The run's name: `logistic-matched`, `logistic-x4`, and with a seed but the first `logistic-matched-seed1`."""
        seed = "" if self.first else f"-seed{self.seed}"
        return f"{self.loss}-{'matched' if self.matched else f'x{self.factor:g}'}{seed}"


def all_runs(scale: Scale) -> list[PlannedRun]:
    """Return every run: each loss at `scale.factors` times the beta matched to the logistic's, that one repeated.

    The runs of `scale.extra` come last. Within each seed the losses are in the scale's order.

    Matched by strength, beta R = beta_logistic R_logistic (proposition P1'); a loss with R = 0 has no such beta and
    shares the logistic's target margin x*(p) / beta at p = `scale.certainty` instead.

    >>> from gpo_full.experiment.inputs.scales import SCALES
    >>> len(all_runs(SCALES["cpu"])), len(all_runs(SCALES["full"]))  # 6 + 2, and 9 x 5 + 9 x 2 more seeds
    (8, 63)
    """
    matched = {loss: _matched(loss, scale) for loss in scale.losses}
    places = [(loss, factor, 0) for loss in scale.losses for factor in scale.factors]
    places += [(loss, 1.0, repeat) for repeat in range(1, scale.repeats) for loss in scale.losses]
    places += [(loss, factor, 0) for loss, factor in scale.extra]
    found = []
    for loss, factor, repeat in places:
        beta, r, how = matched[loss]
        matching = how if factor == 1 else f"{factor:g} times the matched beta"
        found.append(PlannedRun(loss, beta * factor, factor, r, matching, scale.seed + repeat, repeat == 0))
    return found


def base_of(runs: Sequence[PlannedRun]) -> PlannedRun:
    """Return the run whose loss and beta the pilot tries: the first matched one."""
    return next(one for one in runs if one.matched)


def _matched(loss: str, scale: Scale) -> tuple[float, float | None, str]:
    from gpo_theory import LOSSES, InputError, match_beta, strength

    found = match_beta("logistic", loss, scale.beta)
    if found.beta_to is not None:
        return found.beta_to, strength(LOSSES[loss]).value, "strength"
    # Where R = 0 the margin that is asked for at p is matched instead.
    found = match_beta("logistic", loss, scale.beta, by="target", p=scale.certainty)
    if found.beta_to is None:
        raise InputError(f"{loss} cannot be matched to the logistic loss: {found.refusal}")
    return found.beta_to, None, f"target margin at p = {scale.certainty:g}"
