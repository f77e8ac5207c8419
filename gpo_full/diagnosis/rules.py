"""What the theory says about a run from its metrics: one function for each rule, with its number and its limits."""

__all__ = ["Diagnosis", "Finding", "diagnose"]

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from gpo_full.diagnosis.log import SCALED, RunLog
from gpo_theory.analysis import analyze
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.report.result import Analysis

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
    missing = {name: view.missing(rule.needs) for name, rule in RULES.items()}
    applied = [name for name, reason in missing.items() if reason is None]
    found = ((name, RULES[name].find(view)) for name in applied)
    findings = tuple(Finding(name, *finding) for name, finding in found if finding is not None)
    reasons = {name: reason for name, reason in missing.items() if reason is not None}
    return Diagnosis(log, loss, beta, view.label_noise, findings, tuple(applied), reasons)


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
    from gpo_theory.catalogue import find_loss
    from gpo_theory.transforms import soft_label

    if settings.get("loss") is None:
        return None
    loss = find_loss(settings["loss"], {name: str(value) for name, value in (settings.get("parameters") or {}).items()})
    noise = settings.get("label_noise")
    return soft_label(loss, str(noise)) if noise else loss


@dataclass(frozen=True)
class View:
    """What the rules use: means over the first, middle and last third of the logs, and facts of the loss."""

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
        from gpo_theory.transforms import soft_label

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

    def missing(self, needs: tuple[str, ...]) -> str | None:
        """Return why a rule with these `needs` cannot be applied, or None."""
        if needs and len(self.log) < (FEWEST_LOGS if "trend" in needs else 1):
            return f"{len(self.log)} logs are too few"
        for name in needs:
            if name in OF_LOSS and self.loss is None:
                return "the loss is not known (`loss=None`)"
            if name in WHY_MISSING and getattr(self, name) is None:
                return WHY_MISSING[name]
            if name not in (*WHY_MISSING, "trend") and name not in self.log.columns:
                return f"the run does not log {name}"
        return None

    def facts(self, *names: str) -> tuple[float, ...]:
        """Return facts that `missing` has shown not to be None."""
        return tuple(float(getattr(self, name)) for name in names)

    def column(self, name: str) -> list[float]:
        """Return a metric's values, log-ratios in nats if beta is known."""
        scale = 1 / self.beta if self.beta and self.log.source == "trl" and name in SCALED else 1.0
        return [value * scale for value in self.log.columns[name]]

    def mean(self, name: str, part: int = -1) -> float:
        """Return a metric's mean over the first (0), middle (1) or last (-1) third of the logs."""
        return fmean(self._third(name, part))

    def error(self, name: str) -> float:
        """Return the standard error of the mean over the last third."""
        third = self._third(name, -1)
        return stdev(third) / math.sqrt(len(third)) if len(third) > 1 else 0.0

    def _third(self, name: str, part: int) -> list[float]:
        values = self.column(name)
        size = max(1, len(values) // 3)
        return {0: values[:size], 1: values[size:-size] or values, -1: values[-size:]}[part]

    @property
    def spread(self) -> float:
        """The root mean square of rho at the end; without a log of rho^2, its smallest possible value |mean rho|."""
        if "regularizer" in self.log.columns:
            return math.sqrt(2 * self.mean("regularizer"))
        return abs(self.mean("margin"))

    @property
    def flat(self) -> tuple[float, str] | None:
        """The share of pairs in the flat right tail; if it is not logged, the accuracy if the mean x is there."""
        if "flat_right" in self.log.columns:
            share = self.mean("flat_right")
            return share, f"{share:.0%} of the pairs have"
        if not (self.loss and self.beta and self.slope and {"margin", "accuracy"} <= set(self.log.columns)):
            return None
        x = self.beta * self.mean("margin")
        there = x > 0 and -_slope_at(self.loss, x) < FLAT * abs(self.slope)
        return self.mean("accuracy") if there else 0.0, f"the mean x = {x:.3g} has"

    @property
    def still(self) -> bool:
        """Whether the policy still equals its reference on these pairs."""
        (beta,) = self.facts("beta")
        return beta * self.spread < STILL_X and (not self.summed or self.spread < STILL_NATS)


Found = tuple[float, str, str] | None  # number, because, limits


@dataclass(frozen=True)
class Rule:
    """The function that looks for a finding, and the metrics and facts (of View) that it needs."""

    find: Callable[[View], Found]
    needs: tuple[str, ...]


def _few(view: View) -> Found:
    if len(view.log) >= FEWEST_LOGS:
        return None
    return (len(view.log), f"a trend needs at least {FEWEST_LOGS} logs",
            "no rule about the end of the run was applied; log more often")  # fmt: skip


def _not_finite(view: View) -> Found:
    if not view.log.broken:
        return None
    return (view.log.broken, f"{view.log.broken} logs hold a NaN or an infinity, and the optimiser took steps after "
            "them", "the logs do not say which pair caused it; a filter may have hidden others")  # fmt: skip


def _no_gradient(view: View) -> Found:
    share = fmean(value == 0 for value in view.column("grad_norm")[-max(1, len(view.log) // 3) :])
    if share < MOST:
        return None
    return (share, "the gradient is exactly 0: every pair lies where f is constant, or no parameter is trainable",
            "a norm below the precision of the dtype is also logged as 0")  # fmt: skip


def _backwards(view: View) -> Found:
    (slope,) = view.facts("slope")
    if slope <= 0:
        return None
    return (slope, f"f'(0) = {slope:.3g} > 0: descent from the reference first makes the chosen response less likely "
            "than the rejected one", "this follows from f at 0 alone: f may fall further out; or the sign of x in the "
            "formula is wrong")  # fmt: skip


def _wrong_start(view: View) -> Found:
    at_zero, slope, beta = view.facts("at_zero", "slope", "beta")
    first = view.column("loss")[0]
    allowed = 1e-3 * max(1.0, abs(at_zero)) + abs(slope) * beta * NOISE_NATS
    if view.column("step")[0] > 1 or abs(first - at_zero) <= allowed:
        return None
    return (first, f"the first step's loss is not f(0) = {at_zero:.4g}, as it is where policy and reference agree",
            "a reference from other weights, another truncation or dropout causes this, and so does a loss or beta "
            f"that is not the run's; a difference below {allowed:.2g} is not reported")  # fmt: skip


def _stuck(view: View) -> Found:
    at_zero, beta = view.facts("at_zero", "beta")
    if not view.still:
        return None
    return (view.mean("loss"), f"near the reference the loss is f(0) + f'(0) x with f(0) = {at_zero:.4g}, and x = "
            f"beta rho is {beta * view.mean('margin'):.2g} at the end: the margin has not moved",
            "the metrics do not say why: a learning rate that is too small, frozen weights and a long warm-up look "
            f"the same; below {STILL_X:g} in x and {STILL_NATS:g} nats counts as unmoved")  # fmt: skip


def _displaced(view: View) -> Found:
    chosen, rejected = view.mean("log_ratio_chosen"), view.mean("log_ratio_rejected")
    falling = chosen < view.mean("log_ratio_chosen", 0) and max(chosen, rejected) < 0
    if not falling or -chosen <= max(NEAR * abs(view.mean("margin")), 3 * view.error("log_ratio_chosen")):
        return None
    return (chosen, f"the chosen log-ratio has fallen to {chosen:.3g} and the rejected one to {rejected:.3g} "
            f"{view.unit}: f(beta rho) sees their difference only, and is blind to what moves both (P7)",
            "these metrics do not show which responses gained the probability: read samples; pairs that contradict "
            "each other lower both means too, even if every response has its own logit; a fall below a tenth of the "
            "margin is not reported")  # fmt: skip


def _flat(view: View) -> Found:
    assert view.flat is not None
    share, how = view.flat
    if share < MOST or view.stops is False:
        return None
    slope = view.analysis.tails["right"]["slope"] if view.analysis else None
    class_of = f"; -f' has a right tail of class {slope.kind}" if slope else ""
    return (share, f"{how} -f' below {FLAT:.0%} of |f'(0)|: the loss barely moves them further{class_of}",
            "a loss near its infimum and an accuracy near 1 concern the training pairs; they say nothing about "
            "samples, whose KL may still grow")  # fmt: skip


def _saturated(view: View) -> Found:
    from gpo_theory.lowering.knees import find_knees

    assert view.loss is not None
    share = max(left + right for left, right in zip(view.column("saturated_left"), view.column("saturated_right"),
                                                    strict=True))  # fmt: skip
    if not share:
        return None
    places = ", ".join(f"{knee.x:.4g}" for knee in find_knees(view.loss.f.primitive()) if knee)
    return (share, f"up to {share:.2%} of an interval's pairs lie beyond the knee of f (x = {places}), where its "
            "tangent continues it: they dominate the gradient, whose weight there is up to 2^64",
            "the share is the largest of any interval, not that of the end")  # fmt: skip


def _weak(view: View) -> Found:
    beta, strength = view.facts("beta", "strength")
    felt = beta * strength * view.spread
    if view.still or felt >= WEAK:
        return None
    return (felt, f"beta R rho = {felt:.2g} is far below 1: the regulariser's part of the gradient is about that share "
            f"of the preference part. P1's margin (2p-1)/(beta R) goes up to {1 / (beta * strength):.3g} "
            f"nats, the measured margin is {view.mean('margin'):.3g}: the number of steps and the learning rate limit "
            "it, not beta",
            f"P1 holds near p = 1/2, and p is not known; reported below {WEAK:g}")  # fmt: skip


def _strong(view: View) -> Found:
    beta, strength = view.facts("beta", "strength")
    scale, spread = 1 / (beta * strength), view.spread
    if spread >= SMALL_NATS or spread < STRONG * scale:
        return None
    return (scale, f"P1's margin (2p-1)/(beta R) is at most {scale:.3g} nats near indifference, and rho is "
            f"{spread:.3g} in the root mean square: beta keeps the policy this close to its reference; a smaller beta "
            "lets it move further",
            f"P1 holds near p = 1/2; that less than {SMALL_NATS:g} nats is small is a convention")  # fmt: skip


def _worse(view: View) -> Found:
    at_zero, slope = view.facts("at_zero", "slope")
    loss = view.mean("loss")
    if loss <= at_zero + NEAR * abs(slope):
        return None
    return (loss, f"the loss is above f(0) = {at_zero:.4g}, which the reference itself has: pairs with a margin below "
            "0 cost more than the others gain",
            "a step size that is too large, swapped columns and pairs that contradict each other look the same; "
            f"reported from the loss on that a margin of x = -{NEAR:g} has to first order")  # fmt: skip


def _wrong_way(view: View) -> Found:
    accuracy = view.mean("accuracy")
    if accuracy + 3 * view.error("accuracy") >= 0.5 or view.mean("margin") >= 0:
        return None
    upwards = view.slope is not None and view.slope > 0
    reason = "as descent on f begins" if upwards else "though descent on f raises them"
    return (accuracy, f"most margins are below 0, {reason}",
            "swapped columns and a step size that diverges look the same, and TRL counts rho = 0 as wrong; reported "
            "from three standard errors below 1/2 on, if the mean margin is below 0 too")  # fmt: skip


def _at_target(view: View) -> Found:
    target, beta = view.facts("target", "beta")
    end, middle = (beta * view.mean("margin", part) for part in (-1, 1))
    if max(abs(end - target), abs(end - middle)) > NEAR * abs(target):
        return None
    number = target / beta
    return (number, f"the margin rests at {view.mean('margin'):.3g} nats, its target x*(1)/beta = {number:.3g}: more "
            "steps do not separate the pairs further, a smaller beta does",
            "the mean is there; single pairs may be on either side")  # fmt: skip


def _past_target(view: View) -> Found:
    target, beta = view.facts("target", "beta")
    x = beta * view.mean("margin")
    if view.stops is not False or x - 3 * beta * view.error("margin") <= (1 + NEAR) * target:
        return None
    noise = view.label_noise if view.log.settings.get("label_noise") else None
    supports = f", the most that label noise {noise:g} supports" if noise else ""
    return (x, f"the mean x = beta rho is above the target x*(1) = {target:.3g}{supports}: beyond it f rises",
            "steps on other pairs can move a margin there, and so does a step size that is too large")  # fmt: skip


def _past_noise(view: View) -> Found:
    supported, beta, noise = view.facts("supported", "beta", "label_noise")
    x = beta * view.mean("margin")
    if x - 3 * beta * view.error("margin") <= (1 + NEAR) * supported:
        return None
    return (x, f"the mean x = beta rho is above x*({1 - noise:g}) = {supported:.3g}, where the loss is least on average"
            f" over labels flipped at rate {noise:g}: a larger margin fits the flipped labels",
            "a rate that differs from pair to pair supports more on the clear ones")  # fmt: skip


# In the order of the report: first the rules whose findings make the others doubtful.
RULES: dict[str, Rule] = {
    "too_few_logs": Rule(_few, ()),
    "not_finite": Rule(_not_finite, ()),
    "no_gradient": Rule(_no_gradient, ("grad_norm",)),
    "starts_backwards": Rule(_backwards, ("slope",)),
    "wrong_start": Rule(_wrong_start, ("loss", "step", "at_zero", "slope", "beta")),
    "stuck_at_start": Rule(_stuck, ("trend", "loss", "margin", "at_zero", "beta")),
    "worse_than_reference": Rule(_worse, ("trend", "loss", "at_zero", "slope")),
    "wrong_way": Rule(_wrong_way, ("trend", "accuracy", "margin")),
    "likelihood_displaced": Rule(_displaced, ("trend", "margin", "log_ratio_chosen", "log_ratio_rejected")),
    "flat_tail": Rule(_flat, ("trend", "flat")),
    "beyond_knee": Rule(_saturated, ("saturated_left", "saturated_right", "analysis")),
    "beta_not_felt": Rule(_weak, ("trend", "margin", "strength", "beta")),
    "beta_holds": Rule(_strong, ("trend", "margin", "regularizer", "summed", "strength", "beta")),
    "at_target": Rule(_at_target, ("trend", "margin", "target", "beta")),
    "past_target": Rule(_past_target, ("trend", "margin", "target", "beta")),
    "past_label_noise": Rule(_past_noise, ("trend", "margin", "supported", "beta")),
}
# The facts of View, each with the reason why it may be None; any other need but "trend" is a metric.
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
