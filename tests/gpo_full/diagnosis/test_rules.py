"""Diagnosis: each rule on metrics made from a closed form, its fault planted, and a healthy run in which none speaks."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mpmath
import pytest

from gpo_full.diagnosis.log import RunLog
from gpo_full.diagnosis.rules import RULES, Diagnosis, Finding, diagnose
from gpo_theory import LOSSES, InputError, parse

STEPS = 60


def logistic_flow(t: float) -> float:
    """x' = 1/(1+e^x) from 0: x + e^x = 1 + t, so x = 1 + t - W(e^(1+t))."""
    return float(1 + t - mpmath.lambertw(mpmath.e ** (1 + t)))


FLOWS = {
    "logistic": (logistic_flow, lambda x: math.log1p(math.exp(-x))),
    "squared": (lambda t: 1 - math.exp(-2 * t), lambda x: (x - 1) ** 2),  # x' = 2 (1 - x)
    "exponential": (math.log1p, lambda x: math.exp(-x)),  # x' = e^-x
    "hinge": (lambda t: min(1.0, t), lambda x: max(0.0, 1 - x)),  # x' = 1 until 1
}  # fmt: skip


def metrics(name: str, beta: float, time: float, **changes: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """The metrics of one pair under gradient flow, whose chosen log-ratio rises as the rejected one falls."""
    flow, f = FLOWS[name]
    x = [flow(time * step / STEPS) for step in range(STEPS)]
    rho = [value / beta for value in x]
    columns: dict[str, Sequence[float]] = {
        "step": [float(step) for step in range(1, STEPS + 1)], "loss": [f(value) for value in x], "margin": rho,
        "regularizer": [value**2 / 2 for value in rho], "log_ratio_chosen": [value / 2 for value in rho],
        "log_ratio_rejected": [-value / 2 for value in rho], "accuracy": [0.5] + [1.0] * (STEPS - 1),
        "saturated_left": [0.0] * STEPS, "saturated_right": [0.0] * STEPS, "flat_right": [0.0] * STEPS,
        "grad_norm": [1.0] * STEPS, **changes,
    }  # fmt: skip
    return {name: tuple(values) for name, values in columns.items()}


def ours(name: str, beta: float, time: float, settings: dict[str, Any] | None = None, **changes: Sequence[float]) -> Diagnosis:
    recorded = {"loss": name, "beta": beta, "margin": "sum", "label_noise": 0.0, **(settings or {})}
    return diagnose(RunLog("run", "gpo", metrics(name, beta, time, **changes), recorded))


def only(diagnosis: Diagnosis) -> Finding:
    (finding,) = diagnosis.findings
    assert finding.because
    assert finding.limits
    return finding


@pytest.mark.parametrize(("name", "time"), [("logistic", 3.0), ("squared", 0.5), ("exponential", 3.0), ("hinge", 0.8)])
def test_a_healthy_run_has_no_finding_and_says_what_was_looked_at(name: str, time: float) -> None:
    found = ours(name, 0.1, time)
    assert found.findings == ()
    assert set(found.looked_at) | set(found.not_looked_at) == set(RULES)
    assert {"stuck_at_start", "likelihood_displaced", "flat_tail", "wrong_way", "no_gradient"} <= set(found.looked_at)
    # R = 0 (the hinge) and an infinite target (logistic, exponential) leave nothing to compare with.
    expected = {"hinge": {"beta_not_felt", "beta_holds"}, "squared": set[str]()}
    assert set(found.not_looked_at) == {"past_label_noise", "log_probability_falls"} | expected.get(name, {"at_target", "past_target"})


RATIOS = [logistic_flow(3 * step / STEPS) / 0.1 for step in range(STEPS)]
FALLING = [-value / 2 for value in RATIOS]
FLAT = [float(logistic_flow(1200 * step / STEPS) > math.log(199)) for step in range(STEPS)]
LOSS = metrics("logistic", 0.1, 3.0)["loss"]
AT_ONE = math.log1p(math.exp(-1))


@pytest.mark.parametrize(("found", "rule", "number", "said"), [
    (ours("logistic", 0.1, 1e-4), "stuck_at_start", pytest.approx(math.log(2), abs=1e-4), "f(0) = 0.6931"),
    # The chosen log-ratio falls half as far as the margin grows, which f cannot see.
    (ours("logistic", 0.1, 3.0, log_ratio_chosen=FALLING, log_ratio_rejected=[3 * value for value in FALLING]),
     "likelihood_displaced", pytest.approx(-sum(RATIOS[-20:]) / 40), "P7"),
    # -f'(x) = 1/(1+e^x) is below 1/200 where x > log 199 = 5.29, which is where the flow is at t = 203.
    (ours("logistic", 0.1, 1200.0, flat_right=FLAT), "flat_tail", 1.0, "exponential"),
    # The knee is at log 2^64.
    (ours("exponential", 0.1, 3.0, saturated_left=[0.0] * 30 + [0.02] + [0.0] * 29), "beyond_knee", 0.02, "-44.36"),
    (ours("squared", 0.25, 5.0), "at_target", 4.0, "rests at 4 nats"),  # 1/beta
    # beta = 20, R = 1: 1/(beta R) = 1/20 nat, and x up to 1.79 is rho up to 0.09 nats.
    (ours("exponential", 20.0, 5.0), "beta_holds", pytest.approx(1 / 20), ""),
    (ours("logistic", 0.1, 3.0, grad_norm=[1.0] * 30 + [0.0] * 30, **{name: [*values[:30], *[values[30]] * 30] for name, values in
          metrics("logistic", 0.1, 3.0).items() if name in ("loss", "margin", "log_ratio_chosen", "log_ratio_rejected")}),
     "no_gradient", 1.0, "no parameter is trainable"),
    (ours("logistic", 0.1, 3.0, loss=[*LOSS[:30], math.inf, LOSS[31], math.inf, *LOSS[33:]]), "not_finite", 2,
     "the 27 logs after the last of them are finite"),
    # A reference off by 10 nats: x = 1 where it ought to be 0.
    (ours("logistic", 0.1, 3.0, loss=[AT_ONE] * STEPS), "wrong_start", pytest.approx(AT_ONE), ""),
])  # fmt: skip
def test_a_planted_fault_is_the_only_finding(found: Diagnosis, rule: str, number: float, said: str) -> None:
    assert (only(found).id, only(found).number) == (rule, number)
    assert said in only(found).because


def test_a_loss_near_f_of_0_whose_margin_moves_is_not_stuck_but_its_beta_is_not_felt() -> None:
    """beta = 1/1000 and rho up to 5 nats: the loss is 0.6906, and beta R rho = 0.0025."""
    rho = [step / 12 for step in range(STEPS)]
    moved = dict.fromkeys(("margin",), rho) | {"regularizer": [value**2 / 2 for value in rho],
                                               "loss": [math.log1p(math.exp(-value / 1000)) for value in rho]}  # fmt: skip
    finding = only(ours("logistic", 0.001, 1.0, **moved))
    assert finding.id == "beta_not_felt"
    end = [value**2 for value in rho[-20:]]
    assert finding.number == pytest.approx(0.001 / 2 * math.sqrt(sum(end) / 20))
    assert "up to 2e+03 nats" in finding.because  # 1/(beta R)


def test_contradicting_labels_lower_both_means_without_any_shared_features() -> None:
    """Two responses with free logits, even at first, and labels of which 3 in 5 prefer the one: rho goes to log(3/2)/beta.

    s = log(2 sigma(+-rho)), and each mean is taken over labels that name now the one, now the other.
    """
    rho = [math.log(1.5) / 0.1 * step / STEPS for step in range(STEPS)]
    up, down = ([math.log(2) - math.log1p(math.exp(-sign * value)) for value in rho] for sign in (1, -1))
    chosen, rejected = ([p * a + (1 - p) * b for a, b in zip(up, down, strict=True)] for p in (0.6, 0.4))
    found = ours("logistic", 0.1, 3.0, log_ratio_chosen=chosen, log_ratio_rejected=rejected, accuracy=[0.6] * STEPS,
                 margin=[value / 5 for value in rho])  # fmt: skip
    finding = only(found)
    assert (finding.id, finding.number) == ("likelihood_displaced", pytest.approx(sum(chosen[-20:]) / 20))
    assert "pairs that contradict each other lower both means too" in finding.limits


def test_both_log_ratios_rising_are_no_displacement() -> None:
    found = ours("logistic", 0.1, 3.0, log_ratio_chosen=RATIOS, log_ratio_rejected=[0.1 * value for value in RATIOS])
    assert found.findings == ()


def test_pairs_beyond_the_target_of_a_loss_that_pulls_back_are_not_flat() -> None:
    """-f' < 0 counts as flat in the metric, but (x-1)^2 moves such pairs."""
    found = ours("squared", 0.1, 3.0, flat_right=[1.0] * STEPS)
    assert [finding.id for finding in found.findings] == ["at_target"]


def test_length_averaged_nats_are_not_judged_by_their_size() -> None:
    found = ours("exponential", 20.0, 5.0, settings={"margin": "mean"})
    assert found.findings == ()
    assert found.not_looked_at["beta_holds"] == "rho is averaged over tokens"


def test_a_loss_above_that_of_the_reference() -> None:
    """e^-x over x = 2 and x = -1 has the mean 1.43, though the mean margin is above 0."""
    mean = (math.exp(-2) + math.e) / 2
    half = [0.5] * STEPS
    finding = only(ours("exponential", 0.1, 3.0, loss=[1.0] * 20 + [mean] * 40, accuracy=half))
    assert (finding.id, finding.number) == ("worse_than_reference", pytest.approx(mean))
    spikes = [*[1.0] * 20, *[0.5, 0.5, 0.5, 50.0] * 10]  # seldom, but the mean is 12.9
    assert only(ours("exponential", 0.1, 3.0, loss=spikes, accuracy=half)).id == "worse_than_reference"
    noisy = [1.0, *[1.0 + 0.5 * (-1) ** step for step in range(STEPS - 1)]]
    assert ours("exponential", 0.1, 3.0, loss=noisy).findings == ()


def test_an_accuracy_below_one_half() -> None:
    low = [0.25 + 0.05 * (-1) ** step for step in range(STEPS)]
    finding = only(ours("logistic", 0.1, 3.0, accuracy=low, margin=[-2.0] * STEPS))
    assert (finding.id, finding.number) == ("wrong_way", pytest.approx(0.25))
    assert "swapped columns" in finding.limits
    noisy = [0.45 + 0.4 * (-1) ** step for step in range(STEPS)]
    assert ours("logistic", 0.1, 3.0, accuracy=noisy, margin=[-2.0] * STEPS).findings == ()
    assert ours("logistic", 0.1, 3.0, accuracy=low).findings == ()  # ties that TRL counts as wrong


def test_a_loss_that_starts_the_wrong_way() -> None:
    """DiscoPOP at tau = 0.05: f'(0) = -1/2 (1/2) - 1/2 + (1 - log 2)/(4 tau) = -3/4 + 1.534 = 0.784 > 0."""
    log = RunLog("run", "gpo", {"accuracy": (0.2,) * STEPS, "margin": (-1.0,) * STEPS})
    first, second = diagnose(log, LOSSES["discopop"], 0.1).findings
    assert (first.id, second.id) == ("starts_backwards", "wrong_way")
    assert "f'(0) = 0.784 > 0" in first.because
    assert "as descent on f begins" in second.because


def test_a_loss_with_the_wrong_sign_is_seen_without_a_trend() -> None:
    """log(1 + exp(x)) has f'(0) = 1/2, which two logs are enough to say."""
    log = RunLog("run", "gpo", {"loss": (0.7, 0.6), "margin": (0.0, -1.0), "step": (1.0, 2.0)})
    found = diagnose(log, parse("log(1+exp(x))"), 0.1).findings
    assert ("starts_backwards", 0.5) in [(finding.id, finding.number) for finding in found]


def test_margins_beyond_what_label_noise_supports() -> None:
    """Under flip rate 1/10 the objective is least at x = log 9 = 2.197; the flow without noise goes to 4.7."""
    finding = only(ours("logistic", 0.1, 400.0, settings={"label_noise": 0.1}))
    assert finding.id == "past_target"
    assert finding.number > math.log(9)
    assert "the target x*(1) = 2.2, the most that label noise 0.1 supports" in finding.because
    assert ours("logistic", 0.1, 3.0, settings={"label_noise": 0.1}).findings == ()


def test_margins_beyond_what_the_labels_support_though_the_loss_ignores_their_noise() -> None:
    """E f over labels flipped at rate e is least where (1-e)/(1+e^x) = e/(1+e^-x): at x = log((1-e)/e)."""
    log = RunLog("run", "gpo", metrics("logistic", 0.1, 400.0), {"loss": "logistic", "beta": 0.1})
    found = diagnose(log, label_noise=0.1)
    assert (only(found).id, found.label_noise) == ("past_label_noise", 0.1)
    assert only(found).number > 1.1 * math.log(9)
    assert "above x*(0.9) = 2.2," in only(found).because
    assert diagnose(log, label_noise=0.005).findings == ()  # log 199 = 5.3
    assert "`label_noise=None`" in diagnose(log).not_looked_at["past_label_noise"]
    squared = RunLog("run", "trl", metrics("squared", 1.0, 0.9))  # x up to 0.83; E f is least at 1 - 2e
    (finding,) = diagnose(squared, LOSSES["squared"], 1.0, 0.25).findings
    assert finding.id == "past_label_noise"
    assert "x*(0.75) = 0.5," in finding.because


def test_too_few_logs_to_tell() -> None:
    short = {name: values[:8] for name, values in metrics("logistic", 0.1, 1e-4).items()}
    found = diagnose(RunLog("run", "gpo", short), LOSSES["logistic"], 0.1)
    assert (only(found).id, only(found).number) == ("too_few_logs", 8)
    assert found.not_looked_at["stuck_at_start"] == "8 logs are too few"
    empty = diagnose(RunLog("run", "gpo", {"loss": (math.inf,) * 3, "grad_norm": (1.0,) * 3}))
    assert [finding.id for finding in empty.findings] == ["too_few_logs", "not_finite"]


def trl(name: str, beta: float, time: float) -> RunLog:
    """The same run as TRL logs it: rewards, no squares, no share of flat pairs."""
    columns = metrics(name, beta, time)
    scaled = {key: tuple(beta * value for value in columns[key])
              for key in ("margin", "log_ratio_chosen", "log_ratio_rejected")}  # fmt: skip
    return RunLog("run", "trl", {key: columns[key] for key in ("step", "loss", "accuracy", "grad_norm")} | scaled)


def test_rewards_of_trl_become_nats_where_beta_is_known() -> None:
    found = diagnose(trl("squared", 0.25, 5.0), LOSSES["squared"], 0.25)
    assert (only(found).id, only(found).number) == ("at_target", 4.0)
    assert "rests at 4 nats" in only(found).because
    assert "regularizer" in found.not_looked_at["beta_holds"]


def test_the_flat_tail_of_trl_is_told_from_the_mean_margin() -> None:
    found = diagnose(trl("logistic", 0.1, 1200.0), LOSSES["logistic"], 0.1)
    assert (only(found).id, only(found).number) == ("flat_tail", 1.0)
    unknown = diagnose(trl("logistic", 0.1, 1200.0))
    assert unknown.findings == ()
    assert "not known" in unknown.not_looked_at["flat_tail"]


RECORDED = RunLog("run", "gpo", metrics("logistic", 0.1, 3.0), {"loss": "logistic", "beta": 0.1})


@pytest.mark.parametrize(("log", "options", "message"), [
    (RECORDED, {"loss": LOSSES["hinge"]}, "records its own loss, 'logistic'"),
    (RECORDED, {"beta": 0.2}, "records its own beta, 0.1"),
    (trl("logistic", 0.1, 3.0), {"loss": LOSSES["logistic"], "beta": -1.0}, "must be a finite number above 0"),
    (RECORDED, {"label_noise": 0.5}, r"label noise 0\.5 must be above 0 and below 1/2"),
    (RECORDED, {"label_noise": math.nan}, "must be above 0"),
    (replace(RECORDED, settings={"label_noise": 0.2}), {"label_noise": 0.1}, r"label noise of its own, 0\.2: give"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused(log: RunLog, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        diagnose(log, **options)


def test_json_names_loss_and_beta() -> None:
    payload = ours("squared", 0.25, 5.0).as_dict()
    assert (payload["run"], payload["source"], payload["loss"], payload["beta"]) == ("run", "gpo", "squared", 0.25)
    (finding,) = payload["findings"]
    assert set(finding) == {"id", "number", "because", "limits", "columns"}
    assert finding["columns"] == ("margin",)


def test_every_rule_has_its_fault_planted_here() -> None:
    """A rule without a test that makes it speak would be a claim nobody has seen."""
    from pathlib import Path

    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in RULES if f'"{name}"' not in text] == []
