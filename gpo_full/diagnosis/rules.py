"""What the theory says about a run from its metrics: one function for each rule, with its number and its limits.

A rule is named like its finding, and its parameters like what it needs: metrics that the run logs, facts of the View,
and `trend`, which is the View of a run of enough logs. It is applied, to the logs that hold its metrics, if all of that
is known; a parameter with a default is a metric that the run need not log.
"""

__all__ = ["Diagnosis", "Finding", "diagnose"]

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from inspect import signature
from statistics import fmean
from typing import Any

from gpo_full.diagnosis.log import SCALED, RunLog
from gpo_full.diagnosis.log_rules import LOG_RULES, MOST, Found
from gpo_full.diagnosis.scale import allowed_at_start, loss_multiple
from gpo_full.diagnosis.view import FLAT, STILL_NATS, STILL_X, Metric, View, metrics_of
from gpo_theory.catalogue import find_loss
from gpo_theory.certificate import Verdict
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.report.result import Analysis
from gpo_theory.transforms import soft_label

# The rules' thresholds: conventions, not theory, so each finding's limits name them.
WEAK, STRONG = 0.02, 0.5  # beta R rho: below, the regulariser has no effect; above, it dominates
SMALL_NATS = 0.5  # a root mean square of rho that is small for two whole responses
NEAR = 0.1  # relative distance from a target that counts as reached
FEW_LOGS, FEW_SHARE = 5, 4  # a collapse takes at most five logs, and at most a quarter of all
LEFT = 0.02  # of the first loss, what is about 0
JUMP = 5.0  # of x: from 0 to there, -f' of the logistic loss falls to 1/75 of its value
FALL, FALL_NATS = 1.0, 10.0  # of x, by which the chosen log-ratio has fallen; and of a log-probability
SOON = 10  # the last step at which a log's mean is still about that of the start
AT_ONCE, FAR_NATS = 2.0, 10.0  # nats of a log-ratio that no noise has at step 1, and no descent over SOON steps
DRIFT = 1.25  # times the first log's, the size of a drift from 0 in the next three at the least; 3 if it is steady
USUAL_BETA = 0.1  # for nats where beta is not known
# Of f at a mean margin, what precision and rounding do; of f(0) - f(mean x), less than with 9 of 10 pairs at x = 0.
PRECISE, LEAST_FALL = 0.05, 0.1


@dataclass(frozen=True)
class Finding:
    """Something the metrics show: its name, its number, the reason, the limits of the conclusion, and what it rests on.

    `columns` are the metrics that the rule read, by their names in the log; none if it rests on the loss alone.
    """

    id: str
    number: float
    because: str
    limits: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """The findings of a run, the rules that were applied, and for the others the reason why not.

    `loss` is what the run minimised and `beta` its beta, None if not known; `label_noise` the rate at which labels are
    believed to be flipped, None if not given. `loss_multiple` is what the logged loss was divided by, None if it is a
    multiple of f that is not known.
    """

    log: RunLog
    loss: Loss | None
    beta: float | None
    label_noise: float | None
    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...]
    not_looked_at: Mapping[str, str]
    loss_multiple: float | None = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return {"run": self.log.run, "source": self.log.source, "loss": self.loss and self.loss.name,
                "beta": self.beta, "label_noise": self.label_noise, "samples": [dict(one) for one in self.log.samples],
                "method": self.log.method and asdict(self.log.method), "loss_multiple": self.loss_multiple,
                "lacking": {self.log.names.get(name, name): count for name, count in self.log.lacking.items()},
                "unread": list(self.log.unread), "findings": [asdict(finding) for finding in self.findings],
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
    view = replace(view, multiple=loss_multiple(view))
    findings, reasons = [], {}
    for name, rule in RULES.items():
        needs = [each.name for each in signature(rule).parameters.values()
                 if each.default is each.empty or each.name in log.columns]  # fmt: skip
        reason = view.missing(needs)
        if reason is not None:
            reasons[name] = reason
            continue
        seen = view.holding(metrics_of(needs))
        if found := rule(**{need: seen.needed(need) for need in needs}):
            findings.append(Finding(name, *found, columns=tuple(log.names.get(used, used) for used in seen.used)))
    looked_at = tuple(name for name in RULES if name not in reasons)
    return Diagnosis(log, loss, beta, view.label_noise, tuple(findings), looked_at, reasons, view.multiple)


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


def _starts_backwards(slope: float) -> Found:
    if slope <= 0:
        return None
    return (slope, f"f'(0) = {slope:.3g} > 0: descent from the reference first makes the chosen response less likely "
            "than the rejected one", "this follows from f at 0 alone: f may fall further out; or the sign of x in the "
            "formula is wrong")  # fmt: skip


def _wrong_start(view: View, loss: Metric, step: Metric, at_zero: float, slope: float, beta: float) -> Found:
    allowed, off, later = allowed_at_start(at_zero, slope, beta), view.starts_off, step[0] > 1
    allowed += NEAR * max(abs(at_zero), abs(slope)) if later else 0.0
    if any(math.isinf(view.log.columns.get(name, (0.0,))[0]) for name in SCALED):
        return None  # transformers logs a loss of 0 in place of a NaN
    if step[0] > SOON or (later and off != 0.0) or abs(loss[0] - at_zero) <= allowed:
        return None
    causes = ("a reference from other weights, another truncation or dropout causes this, and so does a loss or beta "
              "that is not the run's")  # fmt: skip
    if off is not None:
        causes = (f"margin or log-ratios are x = {off:.3g} there, so the reference is not the policy at the start: "
                  "other weights, another truncation, dropout, or a method without a reference" if off else
                  "margin and log-ratios are 0 there, so the reference is the policy: what differs is the loss, one of "
                  "its parameters or a part beside f")  # fmt: skip
    return (loss[0], f"the loss {f'up to step {step[0]:g}' if later else 'of the first step'} is not "
            f"f(0) = {at_zero:.4g}, as it is where policy and reference agree",
            f"{causes}; a difference below {allowed:.2g} is not reported")  # fmt: skip


def _wrong_reference(view: View, step: Metric, log_ratio_chosen: Metric, log_ratio_rejected: Metric) -> Found:
    far = max(log_ratio_chosen, log_ratio_rejected, key=lambda side: abs(side[0]))
    later, nats = step[0] > 1, abs(far[0]) / (1.0 if view.unit == "nats" else USUAL_BETA)
    if step[0] > SOON or nats < (FAR_NATS if later else AT_ONCE) or view.elsewhere:
        return None
    grown = fmean(map(abs, far[1:4])) / abs(far[0]) if len(far) > 2 else math.inf
    if later and (grown >= DRIFT or abs(log_ratio_chosen[0] - log_ratio_rejected[0]) >= abs(far[0]) / 2):
        return None
    how = f", and {grown:.2g} times that in the next, where a drift from 0 has 3 times and more" if later else ""
    side = "chosen" if far is log_ratio_chosen else "rejected"
    return (far[0], f"the {side} log-ratio is {far[0]:.3g} {view.unit} in the log of step {step[0]:g}{how}: the "
            "reference is not the policy at the start, where it is 0",
            "other weights, another truncation, dropout, a method without a reference, and after step 1 a jump that "
            f"ended, look the same; reported at step 1 from {AT_ONCE:g} nats on, up to step {SOON} from {FAR_NATS:g} "
            f"on if both are away and grow below {DRIFT:g} times; unknown beta: {USUAL_BETA:g}")  # fmt: skip


def _stuck_at_start(trend: View, loss: Metric, at_zero: float, beta: float, margin: Metric | None = None) -> Found:
    if margin is not None:
        moved, seen = not trend.still, f"x = beta rho is {beta * margin.mean():.2g} at the end"
    else:
        off = max(abs(value - at_zero) for value in loss)
        right = trend.column("accuracy") if trend.holds("accuracy") else Metric((0.0,))
        moved = off > STILL_X * abs(trend.slope or 1.0) or right.mean() > 0.5 + 3 * right.error()
        seen = f"every log's loss is within {off:.2g} of that"
    if moved:
        return None
    return (loss.mean(), f"near the reference the loss is f(0) + f'(0) x with f(0) = {at_zero:.4g}, and {seen}: the "
            "margin has not moved",
            "the metrics do not say why: a learning rate that is too small, frozen weights and a long warm-up look "
            f"the same; below {STILL_X:g} in x and {STILL_NATS:g} nats counts as unmoved")  # fmt: skip


def _log_probability_falls(trend: View, logp_chosen: Metric, logp_rejected: Metric) -> Found:
    chosen, rejected = (column.mean() - column.mean(0) for column in (logp_chosen, logp_rejected))
    if not logp_chosen.drift or chosen > -FALL_NATS:
        return None
    return (chosen, f"from the first third of the logs to the last the log-probability of chosen responses changes by "
            f"{chosen:.3g} nats and that of rejected ones by {rejected:.3g}: so do, on average, the log-ratios of "
            "rewards/*, which are not logged",
            "the reference is constant only over the same pairs, so the data must be in a random order; a fall below "
            f"{FALL_NATS:g} nats is not reported")  # fmt: skip


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


def _collapsed(trend: View, margin: Metric, log_ratio_chosen: Metric, to_x: float) -> Found:
    x, chosen = [to_x * value for value in margin], to_x * log_ratio_chosen.mean()
    within = max(1, min(FEW_LOGS, len(x) // FEW_SHARE))
    if trend.from_the_start and trend.first("step") not in (0.0, 1.0):
        x = [0.0, *x]  # before the first step, where policy and reference agree
    jumps = [high - low for at, low in enumerate(x) for high in x[at + 1 : at + 1 + within] if low <= high / 2]
    loss = trend.column("loss") if trend.holds("loss") else Metric()
    gone = [low <= LEFT * high for at, high in enumerate(loss) for low in loss[at + 1 : at + 1 + within]
            if high >= loss[0] / 2 > 0]  # fmt: skip
    jumped = max(jumps, default=0.0) >= JUMP and to_x * margin.mean() >= JUMP
    collapsed = any(gone) and loss.mean() <= LEFT * loss[0]
    if chosen > -FALL or not (jumped or collapsed):
        return None
    what = "the margin jumps" if jumped else "the loss falls to about 0"
    return (log_ratio_chosen.mean(), f"{what} within {within} logs, and the chosen log-ratio has fallen to "
            f"{log_ratio_chosen.mean():.3g} {trend.unit}: steps this large leave the reference, as at a learning rate "
            "that is too high",
            f"reported where the loss falls to {LEFT:.0%} of its first value, or x rises by {JUMP:g}, and stays there, "
            f"within {FEW_LOGS} logs and a quarter of the run, and x of the chosen is below -{FALL:g}; how many steps "
            "a log stands for is not used, and repetition is not logged: read samples")  # fmt: skip


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


def _beta_holds(trend: View, margin: Metric, regularizer: Metric, summed: bool, strength: float, beta: float) -> Found:
    scale, spread = 1 / (beta * strength), trend.spread
    if spread >= SMALL_NATS or spread < STRONG * scale:
        return None
    return (scale, f"P1's margin (2p-1)/(beta R) is at most {scale:.3g} nats near indifference, and rho is "
            f"{spread:.3g} in the root mean square: beta keeps the policy this close to its reference; a smaller beta "
            "lets it move further",
            f"P1 holds near p = 1/2; that less than {SMALL_NATS:g} nats is small is a convention")  # fmt: skip


def _contradicts_margins(
    view: View, loss: Metric, margin: Metric, analysis: Analysis, at_zero: float, slope: float, to_x: float,
    accuracy: Metric | None = None,
) -> Found:  # fmt: skip
    f, proved = view.at_margins.mean(), {name for name, of in analysis.claims.items() if of.verdict is Verdict.PROVED}
    noise = allowed_at_start(at_zero, slope, view.beta) + PRECISE * abs(f)
    falls = accuracy is not None and min(accuracy.third()) == 1 and "monotone_decreasing" in proved
    low = f - noise if "convex" in proved else -math.inf  # Jensen's inequality
    high = at_zero - LEAST_FALL * (at_zero - f) + noise if falls else math.inf
    if view.log.source == "gpo" or view.multiple != 1 or low <= loss.mean() <= high:
        return None
    why = ("f is convex, so its mean over pairs is not below that" if loss.mean() < low else
           f"the accuracy is 1, so every margin is above 0, where f falls from f(0) = {at_zero:.4g}")  # fmt: skip
    return (loss.mean(), f"the loss contradicts the margins, at whose means f is {f:.4g}: {why}. The loss is not this "
            "f, or not with these parameters",
            "a loss that is weighted, summed or has parts beside f, and margins in another unit, look the same; not "
            f"reported within {noise:.2g}, or with {LEAST_FALL:.0%} of the fall from f(0) to {f:.2g}")  # fmt: skip


def _worse_than_reference(
    trend: View, loss: Metric, at_zero: float, slope: float,
    margin: Metric | None = None, accuracy: Metric | None = None,
) -> Found:  # fmt: skip
    beyond = margin is not None and margin.mean() > 0 and bool(trend.at_margins) and trend.at_margins.mean() > at_zero
    if loss.mean() <= at_zero + NEAR * abs(slope) or beyond or (accuracy is not None and min(accuracy.third()) == 1):
        return None  # past_target and contradicts_margins say what does not come from margins below 0
    rises = "" if trend.target is None else ", or far beyond the target,"
    return (loss.mean(), f"the loss is above f(0) = {at_zero:.4g}, which the reference itself has: pairs with a margin "
            f"below 0{rises} cost more than the others gain",
            "a step size that is too large, swapped columns, pairs that contradict each other and another loss look "
            f"the same; reported from the loss on that a margin of x = -{NEAR:g} has to first order")  # fmt: skip


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
_RULES: tuple[Callable[..., Found], ...] = (
    *LOG_RULES, _starts_backwards, _wrong_start, _wrong_reference, _stuck_at_start, _contradicts_margins,
    _worse_than_reference, _wrong_way, _collapsed, _likelihood_displaced, _log_probability_falls, _flat_tail,
    _beyond_knee, _beta_not_felt, _beta_holds, _at_target, _past_target, _past_label_noise)  # fmt: skip
RULES = {rule.__name__.removeprefix("_"): rule for rule in _RULES}
