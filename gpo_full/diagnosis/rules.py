"""What the theory says about a run from its metrics: one function for each rule, with its number and its limits.

A rule is named like its finding, and its parameters like what it needs: metrics that the run logs, facts of the View,
and `trend`, which is the View of a run of enough logs. It is applied if all of that is known.
"""

__all__ = ["Diagnosis", "Finding", "diagnose"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from inspect import signature
from statistics import fmean, stdev
from typing import Any

from gpo_full.diagnosis.log import SCALED, RunLog
from gpo_theory.analysis import analyze
from gpo_theory.catalogue import find_loss
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.report.result import Analysis
from gpo_theory.transforms import soft_label

# The rules' thresholds: conventions, not theory, so each finding's limits name them.
FEWEST_LOGS = 9  # a trend compares three thirds, of at least three logs each
STILL_X, STILL_NATS = 0.01, 0.1  # a mean x, and a root mean square of rho, that count as unmoved
WEAK, STRONG = 0.02, 0.5  # beta R rho: below, the regulariser has no effect; above, it dominates
SMALL_NATS = 0.5  # a root mean square of rho that is small for two whole responses
MOST = 0.9  # a share that counts as nearly all pairs
FLAT = 0.01  # of |f'(0)|, as in the metric flat_right
NEAR = 0.1  # relative distance from a target that counts as reached
NOISE_NATS = 0.5  # how far the precision of a forward pass may move rho at the start


@dataclass(frozen=True)
class Finding:
    """Something the metrics show: its name, its number, the reason, and the limits of the conclusion."""

    id: str
    number: float
    because: str
    limits: str


@dataclass(frozen=True)
class Diagnosis:
    """The findings of a run, the rules that were applied, and for the others the reason why not.

    `loss` is what the run minimised and `beta` its beta, None if not known; `label_noise` the rate at which labels are
    believed to be flipped, None if not given.
    """

    log: RunLog
    loss: Loss | None
    beta: float | None
    label_noise: float | None
    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...]
    not_looked_at: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return {"run": self.log.run, "source": self.log.source, "loss": self.loss and self.loss.name,
                "beta": self.beta, "label_noise": self.label_noise, "samples": [dict(one) for one in self.log.samples],
                "findings": [asdict(finding) for finding in self.findings],
                "looked_at": list(self.looked_at), "not_looked_at": dict(self.not_looked_at)}  # fmt: skip


def diagnose(
    log: RunLog, loss: Loss | None = None, beta: float | None = None, label_noise: float | None = None
) -> Diagnosis:
    """Apply every rule of RULES that the run's metrics and what is known of its loss allow.

    `loss` (a function of the logged x = beta rho) and `beta` are for a run that does not record them. `label_noise` is
    the rate at which labels are believed to be flipped, for a run whose loss does not account for it. rho and the
    log-ratios are in nats. Raises InputError if the run records what is given.

    >>> x = [1 - math.exp(-2 * t / 30) for t in range(90)]  # gradient flow of one pair under (x - 1)^2
    >>> log = RunLog("run", "gpo", {"loss": tuple((x - 1) ** 2 for x in x), "margin": tuple(2 * x for x in x)})
    >>> from gpo_theory.catalogue import LOSSES
    >>> [(finding.id, finding.number) for finding in diagnose(log, LOSSES["squared"], 0.5).findings]
    [('at_target', 2.0)]
    """
    loss, beta = _known(log, loss, beta)
    view = View(log, loss, beta, _noise(log, label_noise))
    findings, reasons = [], {}
    for name, rule in RULES.items():
        needs = [*signature(rule).parameters]
        reason = view.missing(needs)
        if reason is not None:
            reasons[name] = reason
        elif found := rule(*map(view.needed, needs)):
            findings.append(Finding(name, *found))
    looked_at = tuple(name for name in RULES if name not in reasons)
    return Diagnosis(log, loss, beta, view.label_noise, tuple(findings), looked_at, reasons)


def _known(log: RunLog, loss: Loss | None, beta: float | None) -> tuple[Loss | None, float | None]:
    """Return the run's own loss and beta, or else what was given."""
    recorded = {"loss": log.settings.get("loss"), "beta": log.settings.get("beta")}
    for name, given in (("loss", loss), ("beta", beta)):
        if given is not None and recorded[name] is not None:
            raise InputError(f"the run records its own {name}, {recorded[name]!r}: give none")
    if beta is not None and not 0 < beta < math.inf:
        raise InputError(f"beta {beta!r} must be a finite number above 0")
    return loss or _objective(log.settings), recorded["beta"] or beta


def _noise(log: RunLog, label_noise: float | None) -> float | None:
    """Return the rate that was given, checked, or else the one that the run's loss accounts for."""
    recorded = log.settings.get("label_noise") or None
    if label_noise is None:
        return recorded
    if recorded is not None:
        raise InputError(f"the run's loss accounts for label noise of its own, {recorded!r}: give none")
    if not 0 < label_noise < 0.5:
        raise InputError(f"label noise {label_noise!r} must be above 0 and below 1/2")
    return label_noise


def _objective(settings: Mapping[str, Any]) -> Loss | None:
    if settings.get("loss") is None:
        return None
    loss = find_loss(settings["loss"], {name: str(value) for name, value in (settings.get("parameters") or {}).items()})
    noise = settings.get("label_noise")
    return soft_label(loss, str(noise)) if noise else loss


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


@dataclass(frozen=True)
class View:
    """What the rules use: the run's metrics and facts of its loss."""

    log: RunLog
    loss: Loss | None
    beta: float | None
    label_noise: float | None = None

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
        return "nats" if self.log.source == "gpo" or self.beta else "units of beta nats"

    def missing(self, needs: Sequence[str]) -> str | None:
        """Return why a rule with these `needs` cannot be applied, or None."""
        others = [name for name in needs if name not in ("view", "trend")]
        if others and len(self.log) < (FEWEST_LOGS if "trend" in needs else 1):
            return f"{len(self.log)} logs are too few"
        for name in others:
            if name in OF_LOSS and self.loss is None:
                return "the loss is not known (`loss=None`)"
            if name in WHY_MISSING and getattr(self, name) is None:
                return WHY_MISSING[name]
            if name not in WHY_MISSING and name not in self.log.columns:
                return f"the run does not log {name}"
        return None

    def needed(self, name: str) -> Any:
        """Return what a rule calls `name`, which is not `missing`."""
        return self if name in ("view", "trend") else getattr(self, name) if name in WHY_MISSING else self.column(name)

    def column(self, name: str) -> Metric:
        """Return a metric, log-ratios in nats if beta is known."""
        scale = 1 / self.beta if self.beta and self.log.source == "trl" and name in SCALED else 1.0
        return Metric(value * scale for value in self.log.columns[name])

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
        if not (self.loss and self.beta and self.slope and {"margin", "accuracy"} <= set(self.log.columns)):
            return None
        x = self.beta * self.column("margin").mean()
        there = x > 0 and -_slope_at(self.loss, x) < FLAT * abs(self.slope)
        return self.column("accuracy").mean() if there else 0.0, f"the mean x = {x:.3g} has"

    @property
    def still(self) -> bool:
        """Whether the policy still equals its reference on these pairs."""
        return (self.beta or 0.0) * self.spread < STILL_X and (not self.summed or self.spread < STILL_NATS)


Found = tuple[float, str, str] | None  # number, because, limits



def _too_few_logs(view: View) -> Found:
    if len(view.log) >= FEWEST_LOGS:
        return None
    return (len(view.log), f"a trend needs at least {FEWEST_LOGS} logs",
            "no rule about the end of the run was applied; log more often")  # fmt: skip


def _not_finite(view: View) -> Found:
    if not view.log.broken:
        return None
    return (view.log.broken, f"{view.log.broken} logs hold a NaN or an infinity, and the optimiser took steps after "
            "them", "the logs do not say which pair caused it; a filter may have hidden others")  # fmt: skip


def _no_gradient(grad_norm: Metric) -> Found:
    share = fmean(value == 0 for value in grad_norm.third())
    if share < MOST:
        return None
    return (share, "the gradient is exactly 0: every pair lies where f is constant, or no parameter is trainable",
            "a norm below the precision of the dtype is also logged as 0")  # fmt: skip


def _starts_backwards(slope: float) -> Found:
    if slope <= 0:
        return None
    return (slope, f"f'(0) = {slope:.3g} > 0: descent from the reference first makes the chosen response less likely "
            "than the rejected one", "this follows from f at 0 alone: f may fall further out; or the sign of x in the "
            "formula is wrong")  # fmt: skip


def _wrong_start(loss: Metric, step: Metric, at_zero: float, slope: float, beta: float) -> Found:
    allowed = 1e-3 * max(1.0, abs(at_zero)) + abs(slope) * beta * NOISE_NATS
    if step[0] > 1 or abs(loss[0] - at_zero) <= allowed:
        return None
    return (loss[0], f"the first step's loss is not f(0) = {at_zero:.4g}, as it is where policy and reference agree",
            "a reference from other weights, another truncation or dropout causes this, and so does a loss or beta "
            f"that is not the run's; a difference below {allowed:.2g} is not reported")  # fmt: skip


def _stuck_at_start(trend: View, loss: Metric, margin: Metric, at_zero: float, beta: float) -> Found:
    if not trend.still:
        return None
    return (loss.mean(), f"near the reference the loss is f(0) + f'(0) x with f(0) = {at_zero:.4g}, and x = "
            f"beta rho is {beta * margin.mean():.2g} at the end: the margin has not moved",
            "the metrics do not say why: a learning rate that is too small, frozen weights and a long warm-up look "
            f"the same; below {STILL_X:g} in x and {STILL_NATS:g} nats counts as unmoved")  # fmt: skip


def _likelihood_displaced(trend: View, margin: Metric, log_ratio_chosen: Metric, log_ratio_rejected: Metric) -> Found:
    chosen, rejected = log_ratio_chosen.mean(), log_ratio_rejected.mean()
    falling = chosen < log_ratio_chosen.mean(0) and max(chosen, rejected) < 0
    if not falling or -chosen <= max(NEAR * abs(margin.mean()), 3 * log_ratio_chosen.error()):
        return None
    return (chosen, f"the chosen log-ratio has fallen to {chosen:.3g} and the rejected one to {rejected:.3g} "
            f"{trend.unit}: f(beta rho) sees their difference only, and is blind to what moves both (P7)",
            "these metrics do not show which responses gained the probability: read samples; pairs that contradict "
            "each other lower both means too, even if every response has its own logit; a fall below a tenth of the "
            "margin is not reported")  # fmt: skip


def _flat_tail(trend: View, flat: tuple[float, str]) -> Found:
    share, how = flat
    if share < MOST or trend.stops is False:
        return None
    slope = trend.analysis.tails["right"]["slope"] if trend.analysis else None
    class_of = f"; -f' has a right tail of class {slope.kind}" if slope else ""
    return (share, f"{how} -f' below {FLAT:.0%} of |f'(0)|: the loss barely moves them further{class_of}",
            "a loss near its infimum and an accuracy near 1 concern the training pairs; they say nothing about "
            "samples, whose KL may still grow")  # fmt: skip


def _beyond_knee(saturated_left: Metric, saturated_right: Metric, analysis: Analysis) -> Found:
    from gpo_theory.lowering.knees import find_knees

    share = max(map(sum, zip(saturated_left, saturated_right, strict=True)))
    if not share:
        return None
    places = ", ".join(f"{knee.x:.4g}" for knee in find_knees(analysis.loss.f.primitive()) if knee)
    return (share, f"up to {share:.2%} of an interval's pairs lie beyond the knee of f (x = {places}), where its "
            "tangent continues it: they dominate the gradient, whose weight there is up to 2^64",
            "the share is the largest of any interval, not that of the end")  # fmt: skip


def _beta_not_felt(trend: View, margin: Metric, strength: float, beta: float) -> Found:
    felt = beta * strength * trend.spread
    if trend.still or felt >= WEAK:
        return None
    return (felt, f"beta R rho = {felt:.2g} is far below 1: the regulariser's part of the gradient is about that share "
            f"of the preference part. P1's margin (2p-1)/(beta R) goes up to {1 / (beta * strength):.3g} "
            f"nats, the measured margin is {margin.mean():.3g}: the number of steps and the learning rate limit "
            "it, not beta",
            f"P1 holds near p = 1/2, and p is not known; reported below {WEAK:g}")  # fmt: skip


def _beta_holds(
    trend: View, margin: Metric, regularizer: Metric, summed: bool, strength: float, beta: float
) -> Found:
    scale, spread = 1 / (beta * strength), trend.spread
    if spread >= SMALL_NATS or spread < STRONG * scale:
        return None
    return (scale, f"P1's margin (2p-1)/(beta R) is at most {scale:.3g} nats near indifference, and rho is "
            f"{spread:.3g} in the root mean square: beta keeps the policy this close to its reference; a smaller beta "
            "lets it move further",
            f"P1 holds near p = 1/2; that less than {SMALL_NATS:g} nats is small is a convention")  # fmt: skip


def _worse_than_reference(trend: View, loss: Metric, at_zero: float, slope: float) -> Found:
    if loss.mean() <= at_zero + NEAR * abs(slope):
        return None
    return (loss.mean(), f"the loss is above f(0) = {at_zero:.4g}, which the reference itself has: pairs with a margin "
            "below 0 cost more than the others gain",
            "a step size that is too large, swapped columns and pairs that contradict each other look the same; "
            f"reported from the loss on that a margin of x = -{NEAR:g} has to first order")  # fmt: skip


def _wrong_way(trend: View, accuracy: Metric, margin: Metric) -> Found:
    if accuracy.mean() + 3 * accuracy.error() >= 0.5 or margin.mean() >= 0:
        return None
    reason = "as descent on f begins" if (trend.slope or 0.0) > 0 else "though descent on f raises them"
    return (accuracy.mean(), f"most margins are below 0, {reason}",
            "swapped columns and a step size that diverges look the same, and TRL counts rho = 0 as wrong; reported "
            "from three standard errors below 1/2 on, if the mean margin is below 0 too")  # fmt: skip


def _at_target(trend: View, margin: Metric, target: float, beta: float) -> Found:
    end, middle = (beta * margin.mean(part) for part in (-1, 1))
    if max(abs(end - target), abs(end - middle)) > NEAR * abs(target):
        return None
    number = target / beta
    return (number, f"the margin rests at {margin.mean():.3g} nats, its target x*(1)/beta = {number:.3g}: more "
            "steps do not separate the pairs further, a smaller beta does",
            "the mean is there; single pairs may be on either side")  # fmt: skip


def _past_target(trend: View, margin: Metric, target: float, beta: float) -> Found:
    x = beta * margin.mean()
    if trend.stops is not False or x - 3 * beta * margin.error() <= (1 + NEAR) * target:
        return None
    noise = trend.label_noise if trend.log.settings.get("label_noise") else None
    supports = f", the most that label noise {noise:g} supports" if noise else ""
    return (x, f"the mean x = beta rho is above the target x*(1) = {target:.3g}{supports}: beyond it f rises",
            "steps on other pairs can move a margin there, and so does a step size that is too large")  # fmt: skip


def _past_label_noise(trend: View, margin: Metric, supported: float, beta: float) -> Found:
    x = beta * margin.mean()
    if x - 3 * beta * margin.error() <= (1 + NEAR) * supported:
        return None
    noise = trend.label_noise or 0.0
    return (x, f"the mean x = beta rho is above x*({1 - noise:g}) = {supported:.3g}, where the loss is least on average"
            f" over labels flipped at rate {noise:g}: a larger margin fits the flipped labels",
            "a rate that differs from pair to pair supports more on the clear ones")  # fmt: skip


# In the order of the report: first the rules whose findings make the others doubtful.
RULES: dict[str, Callable[..., Found]] = {rule.__name__.removeprefix("_"): rule for rule in (
    _too_few_logs, _not_finite, _no_gradient, _starts_backwards, _wrong_start, _stuck_at_start, _worse_than_reference,
    _wrong_way, _likelihood_displaced, _flat_tail, _beyond_knee, _beta_not_felt, _beta_holds, _at_target, _past_target,
    _past_label_noise)}  # fmt: skip
# The facts of View, each with the reason why it may be None; any other need is a metric.
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
}
OF_LOSS = {"analysis", "at_zero", "slope", "strength", "target"}


def _finite(text: str | None) -> float | None:
    from gpo_theory.calculus.constants import exact
    from gpo_theory.formula.grammar import parse_constant

    return None if text in (None, "inf", "-inf") else float(exact(parse_constant(str(text))))


def _slope_at(loss: Loss, x: float, step: float = 1e-4) -> float:
    import numpy as np

    from gpo_theory.lowering.lower import to_numpy

    below, above = to_numpy(loss)(np.array([x - step, x + step]))
    return float((above - below) / (2 * step))
