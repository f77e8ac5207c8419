"""What the rules use of a run: its metrics in nats, the facts of its loss, and whether anything moves in the log."""

__all__ = ["Metric", "View", "metrics_of"]

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

from gpo_full.diagnosis.log import IN_NATS, SCALED, RunLog
from gpo_theory.analysis import analyze
from gpo_theory.loss import Loss
from gpo_theory.report.result import Analysis
from gpo_theory.transforms import soft_label

# Conventions, not theory, so the findings' limits name them.
FEWEST_LOGS = 9  # a trend compares three thirds, of at least three logs each
STILL_X, STILL_NATS = 0.01, 0.1  # a mean x, and a root mean square of rho, that count as unmoved
FLAT = 0.01  # of |f'(0)|, as in the metric flat_right
NOISE_NATS = 0.5  # how far the precision of a forward pass may move rho at the start
NOISE_X = 0.05  # the same where beta is not known
ERRORS = 4  # standard errors between two thirds, beyond which a metric moves: three thirds are compared, of few logs
EARLY = 10  # the first log is of the start if its step is at most 1/10 of the last
MOVING = (*SCALED, "loss")
# The metrics whose rules hold for any method, pairs or none.
OF_ANY_METHOD = {"view", "grad_norm", "step"}
WHY_MISSING = {
    "analysis": "the loss is not known (`loss=None`)",
    "beta": "beta is not known (`beta=None`)",
    "at_zero": "f(0) is not derived",
    "slope": "f'(0) does not exist, or is not derived",
    "strength": "R > 0 under P1's hypotheses is not shown of the loss",
    "summed": "rho is averaged over tokens",
    "flat": "no share of flat pairs is logged, and loss, beta or accuracy is not known",
    "target": "a finite target x*(1) is not shown of the loss",
    "supported": "the rate of flipped labels is not known (`label_noise=None`), or the loss accounts for it itself",
    "to_x": "beta is not known (`beta=None`)",
}
NOT_LOGGED = {"logp_chosen": "it is for logs of logps/* without rewards"}
OF_LOSS = {"analysis", "at_zero", "slope", "strength", "target"}


class Metric(tuple[float, ...]):
    """A metric's values, oldest first."""

    def third(self, part: int = -1) -> tuple[float, ...]:
        """Return the first (0), middle (1) or last (-1) third."""
        size = max(1, len(self) // 3)
        return {0: self[:size], 1: self[size:-size] or self, -1: self[-size:]}[part]

    def mean(self, part: int = -1) -> float:
        """Return the mean over a third."""
        return fmean(self.third(part))

    def error(self) -> float:
        """Return the standard error of the mean over the last third."""
        third = self.third()
        return stdev(third) / math.sqrt(len(third)) if len(third) > 1 else 0.0

    @property
    def _noise(self) -> float:
        """The standard error of a third's mean, from the differences of neighbours, which a trend hardly enters."""
        squares = fmean((two - one) ** 2 for one, two in pairwise(self))
        return math.sqrt(squares / 2 / len(self.third())) + 1e-9 * max(1.0, *map(abs, self))

    @property
    def drift(self) -> float:
        """The largest difference between the means of two thirds, 0 if within ERRORS standard errors or of few logs."""
        if len(self) < FEWEST_LOGS:
            return 0.0
        change = max(abs(self.mean(two) - self.mean(one)) for one, two in ((0, 1), (0, -1), (1, -1)))
        return change if change > ERRORS * math.sqrt(2) * self._noise else 0.0

    @property
    def starts_at(self) -> float:
        """The mean of the first third, 0 if that is within ERRORS standard errors of it, or of few logs."""
        return self.mean(0) if len(self) >= FEWEST_LOGS and abs(self.mean(0)) > ERRORS * self._noise else 0.0


@dataclass(frozen=True)
class View:
    """What the rules use: the run's metrics and facts of its loss.

    `multiple` is what the logged loss is divided by, None for a multiple of f that is not known; `used` collects the
    metrics that were read.
    """

    log: RunLog
    loss: Loss | None
    beta: float | None
    label_noise: float | None = None
    multiple: float | None = 1.0
    used: dict[str, None] = field(default_factory=dict, compare=False)

    @cached_property
    def analysis(self) -> Analysis | None:
        """The analysis of the loss."""
        return None if self.loss is None else analyze(self.loss)

    @property
    def at_zero(self) -> float | None:
        """f(0)."""
        return self._coefficient(0)

    @property
    def slope(self) -> float | None:
        """f'(0)."""
        return self._coefficient(1)

    def _coefficient(self, order: int) -> float | None:
        found = self.analysis.taylor[order] if self.analysis else None
        return None if found is None else found.value

    @property
    def strength(self) -> float | None:
        """R > 0 under the hypotheses of proposition P1, else None."""
        slope = self.analysis.link.slope_at_half if self.analysis else None
        return 2 / slope if isinstance(slope, float) and slope > 0 else None

    @property
    def target(self) -> float | None:
        """The target x*(1), if it is finite."""
        return _finite(self.analysis.link.target_at_one) if self.analysis else None

    @cached_property
    def supported(self) -> float | None:
        """x*(1 - e), if it is finite: the target under labels flipped at rate e, which f does not account for."""
        if self.loss is None or self.label_noise is None or self.log.settings.get("label_noise"):
            return None
        # Its least value under labels that are always right is that of f under labels flipped at rate e.
        return _finite(analyze(soft_label(self.loss, str(self.label_noise))).link.target_at_one)

    @property
    def stops(self) -> bool | None:
        """Whether -f' tends to 0 on the right, None if that is not known."""
        limit = self.analysis.tails["right"]["slope"].limit if self.analysis else None
        return None if limit is None else limit == "0"

    @property
    def summed(self) -> bool | None:
        """True, or None if rho is averaged over tokens: then nats are per token, and small."""
        return None if self.log.settings.get("margin") == "mean" else True

    @property
    def unit(self) -> str:
        """The unit of the log-ratios."""
        return "nats" if self.log.source in IN_NATS or self.beta else "units of beta nats"

    @property
    def to_x(self) -> float | None:
        """The factor from a column of log-ratios to x = beta rho."""
        return self.beta or (None if self.log.source in IN_NATS else 1.0)

    def missing(self, needs: Sequence[str]) -> str | None:
        """Return why a rule with these `needs` cannot be applied, or None."""
        least = FEWEST_LOGS if "trend" in needs else 1
        others = [name for name in needs if name not in ("view", "trend")]
        if self.log.method and not OF_ANY_METHOD.issuperset(needs):
            return f"this is {self.log.method.name}: {self.log.method.because}"
        if others and len(self.log) < least:
            return f"{len(self.log)} logs are too few"
        for name in others:
            if name in OF_LOSS and self.loss is None:
                return "the loss is not known (`loss=None`)"
            if name in WHY_MISSING and getattr(self, name) is None:
                return WHY_MISSING[name]
            if name not in WHY_MISSING and name not in self.log.columns:
                return NOT_LOGGED.get(name, f"the run does not log {name}")
        return self._incomparable(needs) or self._too_few(metrics_of(needs), least)

    def _incomparable(self, needs: Sequence[str]) -> str | None:
        if "loss" in needs and "at_zero" in needs:
            if self.log.beside:
                return f"the logged loss has parts beside f ({', '.join(self.log.beside)})"
            if self.multiple is None:
                return "the logged loss is a multiple of f that is not known"
        return "nothing moves in this run" if "trend" in needs and self.elsewhere else None

    def _too_few(self, metrics: Sequence[str], least: int) -> str | None:
        count = len(self.log.holding(metrics))
        named = " and ".join(self.log.names.get(name, name) for name in metrics)
        return f"only {count} of {len(self.log)} logs hold {named}" if metrics and count < least else None

    def holding(self, metrics: Iterable[str]) -> "View":
        """Return a view of the logs that hold all of `metrics`, with none read yet."""
        return replace(self, log=self.log.holding(metrics), used={})

    def needed(self, name: str) -> Any:
        """Return what a rule calls `name`, which is not `missing`."""
        return self if name in ("view", "trend") else getattr(self, name) if name in WHY_MISSING else self.column(name)

    def column(self, name: str) -> Metric:
        """Return a metric of the logs that hold it, log-ratios in nats if beta is known, the loss that of f."""
        return Metric(value * self._scale(name) for value in self.log.columns[name] if math.isfinite(value))

    def first(self, name: str) -> float | None:
        """Return a metric of the first log, None if that does not hold it."""
        values = self.log.columns.get(name, ())
        return values[0] * self._scale(name) if values and math.isfinite(values[0]) else None

    def _scale(self, name: str) -> float:
        self.used[name] = None
        if name == "loss":
            return 1 / (self.multiple or 1.0)
        return 1 / self.beta if self.beta and self.log.source not in IN_NATS and name in SCALED else 1.0

    @property
    def spread(self) -> float:
        """The root mean square of rho at the end; without a log of rho^2, its smallest possible value |mean rho|."""
        if "regularizer" in self.log.columns:
            return math.sqrt(2 * self.column("regularizer").mean())
        return abs(self.column("margin").mean())

    @property
    def flat(self) -> tuple[float, str] | None:
        """The share of pairs in the flat right tail; if it is not logged, the accuracy if the mean x is there."""
        if "flat_right" in self.log.columns:
            share = self.column("flat_right").mean()
            return share, f"{share:.0%} of the pairs have"
        if not (self.loss and self.beta and self.slope and self.holds("margin") and self.holds("accuracy")):
            return None
        x = self.beta * self.column("margin").mean()
        there = x > 0 and -_slope_at(self.loss, x) < FLAT * abs(self.slope)
        return self.column("accuracy").mean() if there else 0.0, f"the mean x = {x:.3g} has"

    @property
    def at_margins(self) -> Metric:
        """f at the mean x of each log that holds it."""
        return Metric(_values_at(self.loss, [value * self.to_x for value in self.column("margin")])
                      if self.loss and self.to_x else ())  # fmt: skip

    @property
    def still(self) -> bool:
        """Whether the policy still equals its reference on these pairs."""
        return (self.beta or 0.0) * self.spread < STILL_X and (not self.summed or self.spread < STILL_NATS)

    @property
    def starts_off(self) -> float | None:
        """The first log's margin or log-ratio that is farthest from 0, in x, and 0 within noise; None if not logged."""
        found = [self.first(name) for name in SCALED]
        values = [value * self.to_x for value in found if value is not None and self.to_x is not None]
        noise = self.beta * NOISE_NATS if self.beta else NOISE_X
        far = max(values, key=abs, default=None)
        return 0.0 if far is not None and abs(far) <= noise else far

    @property
    def from_the_start(self) -> bool:
        """Whether the first log is of the start of the run: of its first step, or soon after it."""
        steps = self.log.columns.get("step", ())
        return bool(steps) and steps[0] <= max(1.0, steps[-1] / EARLY)

    def holds(self, name: str) -> bool:
        """Return whether any log holds the metric."""
        return any(map(math.isfinite, self.log.columns.get(name, ())))

    def moves_by(self, name: str) -> float:
        """Return by how much a metric moves, 0 for noise: between thirds, or from a first log at the reference."""
        values = self.column(name)
        if len(values) < FEWEST_LOGS:
            return 0.0
        end = abs(values.mean())
        left = name != "loss" and self.starts_off == 0.0 and end > ERRORS * values.error()
        return max(values.drift, end if left and end * (self.to_x or 1.0) > STILL_X else 0.0)

    def moved(self) -> bool:
        """Return whether loss, margin or log-ratios move."""
        return any(self.moves_by(name) for name in filter(self.holds, MOVING))

    def since(self, start: int) -> "View":
        """Return a view of the logs from number `start` on, which collects what is read in the same place."""
        columns = {name: values[start:] for name, values in self.log.columns.items()}
        return replace(self, log=replace(self.log, columns=columns))

    @cached_property
    def elsewhere(self) -> bool:
        """Whether nothing moves, at a margin or log-ratio that is not 0 and was not at the first step."""
        away = any(self.column(name).starts_at for name in filter(self.holds, SCALED))
        if self.log.method or not self.holds("margin") or not away or not self.starts_off or self.moved():
            return False
        if self.log.columns.get("step", (math.nan,))[0] <= 1:
            return True
        norms = self.column("grad_norm") if self.holds("grad_norm") else (math.nan,)
        return not any(norms) or (self.from_the_start and self.pulls(self.column("margin").mean()))

    def pulls(self, margin: float) -> bool:
        """Return whether f is known and has at the `margin` at least half of its slope at 0: descent would go on."""
        if self.loss is None or not self.slope or self.to_x is None:
            return False
        return abs(_slope_at(self.loss, margin * self.to_x)) >= abs(self.slope) / 2


def metrics_of(needs: Iterable[str]) -> list[str]:
    """Return those of a rule's `needs` that are metrics."""
    return [name for name in needs if name not in ("view", "trend") and name not in WHY_MISSING]


def _finite(text: str | None) -> float | None:
    from gpo_theory.calculus.constants import exact
    from gpo_theory.formula.grammar import parse_constant

    return None if text in (None, "inf", "-inf") else float(exact(parse_constant(str(text))))


def _values_at(loss: Loss, x: Sequence[float]) -> list[float]:
    import numpy as np

    from gpo_theory.lowering.lower import to_numpy

    values: list[float] = to_numpy(loss)(np.array(x)).tolist()
    return values


def _slope_at(loss: Loss, x: float, step: float = 1e-4) -> float:
    below, above = _values_at(loss, [x - step, x + step])
    return (above - below) / (2 * step)
