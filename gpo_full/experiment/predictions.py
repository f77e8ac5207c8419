"""The theory's predictions for the controlled experiment, with bounds fixed before any run, and whether they held."""

__all__ = ["checks", "p11_bounds"]

import math
from collections.abc import Iterable
from statistics import mean
from typing import Any

from gpo_full.experiment.result import ExperimentResult, Run


def checks(result: ExperimentResult) -> tuple[dict[str, Any], ...]:
    """Return the predictions: `id`, `claim`, `value`, `bound` and `passed`, which is null where it is not decided.

    The losses with R > 0 are called smooth. There are five predictions, two more where each policy was compared with
    two answers of the reference, and up to three more for a grid with more betas than two for each loss, and seeds.
    """
    first = [one for one in result.runs if one.seed == result.seed]
    losses = list(dict.fromkeys(one.loss for one in first))
    kl = {loss: {one.factor: one.kl for one in first if one.loss == loss} for loss in losses}
    factors = sorted(set.intersection(*(set(found) for found in kl.values())))  # that every loss has
    spread = _spread(_mean_over_seeds(result.runs))
    nearest = min(result.runs, key=lambda one: one.kl)
    ratio = nearest.kl / nearest.regularizer if nearest.regularizer > 0 else math.nan
    rank = _rank_correlation([one.kl for one in result.runs], [one.regularizer for one in result.runs])
    best = max(one.win_low for one in result.runs)
    found = [
        _check("overlay", "at the matched betas the smooth losses end within a factor 1.5 of each other in KL",
               spread, 1.5, spread <= 1.5),
        _beta(kl),
        _check("half", "in the run nearest to the reference, KL is half the regulariser, within a factor 2",
               None if math.isnan(ratio) else ratio, 0.5, None if math.isnan(ratio) else 0.25 <= ratio <= 1.0),
        _check("scatter", "over the runs, KL and the regulariser have rank correlation of at least 0.8", rank, 0.8,
               None if rank is None else rank >= 0.8),
        _check("better", "at least one run's win rate is above 1/2 with an interval that excludes it", best, 0.5,
               best > 0.5),
    ]  # fmt: skip
    return (*found, *_of_win_rates(result), *(_of_many_betas(result, factors) if len(factors) > 2 else ()))


def _beta(kl: dict[str, dict[float, float]]) -> dict[str, Any]:
    """The prediction for the losses that were trained at several betas."""
    several = {loss: found for loss, found in kl.items() if len(found) > 1}
    closer = sum(found[max(found)] < found[min(found)] for found in several.values())
    ratio = max((max(found) / min(found) for found in several.values()), default=1.0)
    whom = "every loss" if len(several) == len(kl) else "every loss with several betas"
    return _check("beta", f"for {whom}, {ratio:g} times the beta ends at a smaller KL", closer if several else None,
                  len(several), closer == len(several) if several else None)  # fmt: skip


def _of_win_rates(result: ExperimentResult) -> Iterable[dict[str, Any]]:
    pooled = result.pooled_win_rate()
    if pooled is None:
        return
    yield _check("pooled", "the interval of the mean win rate of the losses at their matched betas lies above 1/2",
                 pooled[1], 0.5, pooled[1] > 0.5)  # fmt: skip
    above = sum(one.win_low > 0.5 for one in result.runs if one.matched and one.seed == result.seed)
    yield _check("four", "at least four losses' own intervals at their matched betas lie above 1/2", above, 4,
                 above >= 4)  # fmt: skip


def _of_many_betas(result: ExperimentResult, factors: list[float]) -> Iterable[dict[str, Any]]:
    at = {factor: _spread({one.loss: one.kl for one in _smooth(result.runs) if one.factor == factor
                           and one.seed == result.seed}) for factor in (factors[0], factors[-1])}  # fmt: skip
    apart = at[factors[0]] / at[factors[-1]]
    yield _check("tails", "the smooth losses' KLs are further apart at the smallest beta than at the largest", apart,
                 1.0, apart > 1)  # fmt: skip
    inside = sum(map(_inside, result.runs)) / len(result.runs)
    yield _check("sandwich", "every run's KL is within the bounds of P11, at the width seen between two draws", inside,
                 1.0, inside == 1)  # fmt: skip
    by_seed = [_spread({one.seed: one.kl for one in _smooth(result.runs) if one.loss == loss and one.matched})
               for loss in {one.loss for one in _smooth(result.runs)}]  # fmt: skip
    if len({one.seed for one in result.runs}) > 1:
        between = _spread(_mean_over_seeds(result.runs))
        yield _check("seeds", "at the matched betas the smooth losses' mean KLs are no further apart than the seeds of "
                     "one loss", between / max(by_seed), 1.0, between <= max(by_seed))  # fmt: skip


def p11_bounds(one: Run) -> tuple[float, float]:
    """Return kappa(-w) L and kappa(w) L, where L is the run's regulariser and w its observed width, in nats.

    P11 holds at the true width 2B >= w, of which only w is seen: these bounds may be too narrow, and a run outside them
    does not contradict P11.
    """
    import torch

    from toy_models.propositions.p11_bounds import kappa

    # Beyond 700 nats exp overflows; the bound is then no bound.
    low, high = kappa(torch.tensor([-one.width, min(one.width, 700.0)], dtype=torch.float64)).tolist()
    return low * one.regularizer, high * one.regularizer


def _inside(one: Run) -> bool:
    low, high = p11_bounds(one)
    return low <= one.kl + 1.96 * one.kl_se and one.kl - 1.96 * one.kl_se <= high


def _smooth(runs: Iterable[Run]) -> list[Run]:
    return [one for one in runs if one.strength]


def _mean_over_seeds(runs: Iterable[Run]) -> dict[str, float]:
    """Return the mean KL of each smooth loss at its matched beta."""
    matched = [one for one in _smooth(runs) if one.matched]
    return {loss: mean(one.kl for one in matched if one.loss == loss) for loss in {one.loss for one in matched}}


def _spread(values: dict[Any, float]) -> float:
    return max(values.values()) / max(min(values.values()), 1e-9)


def _check(name: str, claim: str, value: float | None, bound: float, passed: bool | None) -> dict[str, Any]:
    return {"id": name, "claim": claim, "passed": passed, "value": value, "bound": bound}


def _rank_correlation(a: list[float], b: list[float]) -> float | None:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic) if len(set(a)) > 1 and len(set(b)) > 1 else None
