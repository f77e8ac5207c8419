"""Beta matching by strength, by target and by tail: each defining equation, the conventions, and the refusals."""

import json
import math
from collections.abc import Callable
from functools import cache

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_theory import InputError, match_beta
from tests.support.oracle import TRUTHS, evaluate, number
from tests.support.soak import budget

KEYS = {"from", "to", "beta_from", "beta_to", "by", "matched", "order", "convention", "refusal"}


def hypotheses_hold(name: str) -> bool:
    """P1: f'(0) < 0 < f''(0), and 0 the unique minimiser of C_1/2 (where the oracle's link has a finite slope)."""
    truth = TRUTHS[name]
    return truth.slope is not None and truth.slope != "inf" and number(truth.taylor[1]) < 0


def mean_strength(name: str) -> mp.mpf:
    sides = [number(text) for text in TRUTHS[name].strength]
    return sum(sides) / len(sides)


# Where f is convex or Bradley-Terry exact, 0 is at once the only minimiser of C_1/2; elsewhere a refusal may be honest.
MATCHABLE = [name for name in TRUTHS if hypotheses_hold(name)
             and (TRUTHS[name].holds("convex") or TRUTHS[name].holds("bradley_terry_exact"))]  # fmt: skip
HARD = [name for name in TRUTHS if hypotheses_hold(name) and name not in MATCHABLE]
REFUSED = [name for name in TRUTHS if not hypotheses_hold(name)]


def check_match(source: str, target: str, beta: float, result: dict) -> None:
    """The defining equation, with R from the oracle; a refusal is not a match."""
    assert set(result) == KEYS
    assert result["refusal"] is None, result["refusal"]
    wanted = beta * mean_strength(source) / mean_strength(target)
    assert abs(result["beta_to"] / wanted - 1) < 1e-12, (
        f"{source} to {target}: {result['beta_to']}, expected {mp.nstr(wanted)}"
    )
    assert result["beta_from"] == beta
    assert result["by"] == "strength"


@pytest.mark.parametrize(
    ("source", "target", "beta_to"),
    [("dpo", "ipo", 0.05), ("dpo", "ipo-tau", 0.025), ("ipo", "dpo", 0.2), ("dpo", "savage", 0.1), ("dpo", "exponential", 0.05),
     ("dpo", "truncated_squared", 0.05), ("exponential", "savage", 0.2), ("ipo", "ipo-tau", 0.05),
     ("ipo-tau", "ipo", 0.2), ("dpo", "dpo", 0.1),
     ("dpo", "exp(-x/2)", 0.1), ("log(1+exp(-x))", "(x-1)**2", 0.05), ("dpo", "probit", 0.05 / (2 / 3.141592653589793) ** 0.5)],
)  # fmt: skip
def test_by_hand(source: str, target: str, beta_to: float) -> None:
    """R: logistic 1/2, squared 1, (x-1/2)^2 2 (beta = 2 tau between the forms of IPO), exponential 1, truncated squared 1, Savage 1/2, probit sqrt(2/pi)."""
    assert match_beta(source, target, beta=0.1).beta_to == pytest.approx(beta_to, rel=1e-12)


@settings(max_examples=budget(25, 60), deadline=None)
@given(st.sampled_from(MATCHABLE), st.sampled_from(MATCHABLE), st.floats(1e-3, 10))
def test_strengths_are_equal_on_both_sides(source: str, target: str, beta: float) -> None:
    check_match(source, target, beta, match_beta(source, target, beta=beta).as_dict())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(MATCHABLE), st.sampled_from(MATCHABLE), st.floats(1e-3, 10))
def test_there_and_back(source: str, target: str, beta: float) -> None:
    there = match_beta(source, target, beta=beta).beta_to
    assert there is not None
    assert match_beta(target, source, beta=there).beta_to == pytest.approx(beta, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_a_loss_that_is_neither_convex_nor_exact_is_matched_or_refused(name: str) -> None:
    """Its C_1/2 is least at 0 alone, by the oracle: a match must be the right one, a refusal must say what is missing."""
    result = match_beta("dpo", name, beta=0.1)
    if result.refusal is None:
        check_match("logistic", name, 0.1, result.as_dict())
    else:
        assert "minimises" in result.refusal


def test_the_convention_of_ipo_is_always_stated() -> None:
    for pair in (("dpo", "ipo"), ("ipo", "dpo"), ("dpo", "ipo-tau"), ("ipo-tau", "hinge")):
        stated = match_beta(*pair, beta=0.1).convention
        assert "(x-1" in stated
        assert "tau" in stated


@pytest.mark.slow
@pytest.mark.parametrize("target", REFUSED)
def test_refusals(target: str) -> None:
    """R = 0, f''(0) < 0, f'(0) >= 0, a kink at 0, or a C_1/2 that is not least at 0: no beta is offered, a way out is."""
    for pair in ((target, "dpo"), ("dpo", target)):
        result = match_beta(*pair, beta=0.1)
        assert result.beta_to is None, f"{pair}: {result}"
        assert result.refusal
        assert target in result.refusal
        assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["beta_to"] is None


def test_the_reasons_of_refusal() -> None:
    assert "R = 0" in str(match_beta("dpo", "hinge", beta=0.1).refusal)
    assert "kink" in str(match_beta("dpo", "perceptron", beta=0.1).refusal)
    assert "f'(0)" in str(match_beta("dpo", "discopop", beta=0.1).refusal)
    assert "f''(0)" in str(match_beta("dpo", "log(1+(2-x)**2)", beta=0.1).refusal)
    assert match_beta("dpo", "x**2", beta=0.1).refusal
    assert match_beta("dpo", "-x", beta=0.1).refusal


def test_a_loss_whose_indifferent_minimiser_is_elsewhere_is_refused() -> None:
    """P1 needs 0 to minimise C_1/2: f'(0) < 0 < f''(0) is not enough. Here C_1/2(8) is about 64/20 - 5, C_1/2(0) = -10/65."""
    text = "x**2/20-x-10/(1+(x-8)**2)"
    with mp.workdps(30):
        risks = [(evaluate(text, mp.mpf(x)) + evaluate(text, mp.mpf(-x))) / 2 for x in (0, 8)]
        assert risks[1] < risks[0] - 1
    assert match_beta("dpo", text, beta=0.1).beta_to is None


@pytest.mark.parametrize(
    ("source", "target", "order"),
    [("dpo", "savage", "exact"), ("dpo", "exponential", "exact"), ("dpo", "ipo", "second")],
)
def test_how_far_the_match_holds(source: str, target: str, order: str) -> None:
    """Exact between Bradley-Terry exact losses (c logit p on both sides), to second order otherwise."""
    assert match_beta(source, target, beta=0.1).order == order


def test_an_averaged_margin_needs_the_length() -> None:
    """x = beta rho / N: for the same x near 0, beta is N times larger on the averaged margin."""
    refused = match_beta("dpo", "trl-ipo", beta=0.1)
    assert refused.beta_to is None
    assert "give `mean_length=N`" in str(refused.refusal)
    assert match_beta("dpo", "trl-ipo", beta=0.1, mean_length=40).beta_to == pytest.approx(0.025 * 40, rel=1e-12)
    assert match_beta("trl-ipo", "dpo", beta=1.0, mean_length=40).beta_to == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan"), float("inf"), float("-inf")])
def test_a_beta_that_is_not_positive_is_bad_input(beta: float) -> None:
    with pytest.raises(InputError):
        match_beta("dpo", "ipo", beta=beta)


def test_unknown_losses_are_bad_input() -> None:
    with pytest.raises(InputError, match="logistic"):
        match_beta("logstic", "ipo", beta=0.1)


# By target: equal rho* = x*(p)/beta. Every expected minimiser comes from the oracle's f, searched without derivatives.

UNTARGETED = {
    "perceptron": "not above 0",  # its C_p is least at 0
    "unhinged": "no finite target",  # linear: C_p has no minimum
    "robust_dpo": "no finite target",  # at p = 1 - e its C_p is a multiple of the logistic loss alone
    "sigmoid": "no finite target",  # symmetric: C_p is 1 - p + (2p - 1) f, and f falls for ever
    "arctan": "no finite target",
    "erf_loss": "no finite target",
    "ramp": "no single target",  # constant beyond its kink at 1
    "psi_learning": "no single target",
    "focal_po": "no single target",  # f tends to 0 at both ends
}


@cache
def value(name: str, x: mp.mpf) -> mp.mpf:
    """f in 60 digits, shared by the probabilities."""
    with mp.workdps(60):
        return TRUTHS[name].f(x)


def check_target(name: str, p: str, x: float) -> None:
    """x is the only minimiser: C_p is larger a little to each side, and on a grid far out."""
    with mp.workdps(60):
        at, q, step = mp.mpf(x), mp.mpf(p), mp.mpf("1e-6")
        least = q * value(name, at) + (1 - q) * value(name, -at)
        for other in (at - step, at + step, *(mp.mpf(k) / 8 for k in range(-160, 161))):
            if abs(other - at) >= step:
                found = q * value(name, other) + (1 - q) * value(name, -other)
                assert found > least, f"{name}: C_p({mp.nstr(other)}) is not above C_p({x})"


@pytest.mark.slow
@pytest.mark.parametrize("p", ["0.6", "0.9"])
def test_targets_by_direct_minimisation(p: str) -> None:
    """x*(p) of IPO is 2p - 1, so beta_to/beta_from from IPO tells every other target."""
    found = 0
    for name in TRUTHS:
        result = match_beta("ipo", name, beta=2.0, by="target", p=p)
        if result.refusal is None:
            found += 1
            check_target(name, p, result.beta_to / 2 * (2 * float(p) - 1))
            assert result.matched == pytest.approx((2 * float(p) - 1) / 2, rel=1e-12)
            assert set(result.as_dict()) == KEYS
            assert result.by == "target"
        else:
            assert UNTARGETED[name] in result.refusal
    assert found >= 33


@pytest.mark.parametrize(
    ("loss", "closed_form"),
    [
        ("logistic", lambda p: mp.log(p / (1 - p))),
        ("exponential", lambda p: mp.log(p / (1 - p)) / 2),
        ("squared", lambda p: 2 * p - 1),
        ("truncated_squared", lambda p: 2 * p - 1),
        ("savage", lambda p: mp.log(p / (1 - p))),
        ("hinge", lambda p: 1),
    ],
)
@pytest.mark.parametrize("p", [0.6, 0.9, 0.99])
def test_the_target_margin_is_the_minimiser_of_the_risk(loss: str, closed_form: Callable, p: float) -> None:
    """Each form solves p f'(x) = (1-p) f'(-x) by hand."""
    found = match_beta(loss, "ipo", 1.0, by="target", p=p).matched
    assert found == pytest.approx(float(closed_form(p)), rel=1e-12)


@pytest.mark.parametrize(
    ("source", "target", "p", "factor"),
    [
        ("dpo", "ipo", "0.9", 0.8 / math.log(9)),  # logit p and 2p - 1
        ("dpo", "slic", "9/10", 1 / math.log(9)),  # the hinge asks for its kink, x = 1
        ("dpo", "exponential", "0.75", 0.5),  # logit(p)/2
        ("ipo", "ipo-tau", "0.75", 0.5),
        ("ipo", "slic", "0.75", 2.0),
        ("ipo", "squared", "1", 1.0),
    ],
)
def test_targets_by_hand(source: str, target: str, p: str, factor: float) -> None:
    result = match_beta(source, target, beta=0.1, by="target", p=p)
    assert result.beta_to == pytest.approx(0.1 * factor, rel=1e-12)


def test_the_conventions_of_ipo_have_one_optimum() -> None:
    """(rho - 1/(2 tau))^2 has rho* = (2p-1)/(2 tau), by a grid over rho; each convention gives that rho*."""
    tau, p = 0.05, 0.8
    grid = [k / 1000 for k in range(-20000, 20001)]
    best = min(grid, key=lambda rho: p * (rho - 1 / (2 * tau)) ** 2 + (1 - p) * (-rho - 1 / (2 * tau)) ** 2)
    assert best == pytest.approx((2 * p - 1) / (2 * tau), abs=1e-3)
    assert match_beta("ipo", "dpo", beta=2 * tau, by="target", p="0.8").matched == pytest.approx(best, abs=1e-3)
    assert match_beta("ipo-tau", "dpo", beta=tau, by="target", p="0.8").matched == pytest.approx(best, abs=1e-3)
    length = 40.0  # an averaged margin is the summed one over the length
    match = match_beta("ipo-tau", "trl-ipo", beta=tau, mean_length=length, by="target", p="0.8")
    assert match.beta_to == pytest.approx(tau * length, rel=1e-12)
    averaged = min(grid, key=lambda m: p * (m - 1 / (2 * match.beta_to)) ** 2 + (1 - p) * (-m - 1 / (2 * match.beta_to)) ** 2)
    assert averaged * length == pytest.approx(best, abs=length * 1e-3)


def test_exact_losses_match_alike_by_strength_and_by_target() -> None:
    """Bradley-Terry exact: x*(p) = c logit p and R = 1/(2c), so the two ways agree, at every p."""
    for target in ("savage", "exponential", "kliep", "lsif", "logitboost"):
        strong = match_beta("dpo", target, beta=0.3)
        for p in ("0.51", "0.8", "0.999"):
            aimed = match_beta("dpo", target, beta=0.3, by="target", p=p)
            assert aimed.order == strong.order == "exact"
            assert aimed.beta_to == pytest.approx(strong.beta_to, rel=1e-12)
    assert match_beta("dpo", "ipo", beta=0.3, by="target", p="0.8").order == "one_p"


def test_near_indifference_the_target_is_matched_by_strength() -> None:
    """P1: x*(p) is about (2p-1)/R, so the two ways agree near p = 1/2 (R is the mean where f'' jumps)."""
    for name in ("squared", "probit", "smooth_hinge", "log_cosh"):
        ratio = match_beta("dpo", name, beta=1, by="target", p="0.5001").beta_to / match_beta("dpo", name, beta=1).beta_to
        assert ratio == pytest.approx(1, abs=3e-4)


# By tail: equal f'(x)/f'(0) at one margin, with the derivatives of the oracle's f.


@pytest.mark.parametrize("at", ["-2.3", "-0.7", "0.4", "0.7", "3.1"])
def test_weights_are_equal(at: str) -> None:
    def weight(name: str, x: mp.mpf) -> mp.mpf:
        return mp.diff(TRUTHS[name].f, x, h=mp.mpf("1e-25")) / mp.diff(TRUTHS[name].f, 0, h=mp.mpf("1e-25"))

    found = []
    with mp.workdps(80):
        for name in TRUTHS:
            result = match_beta("logistic", name, beta=0.1, by="tail", at=at)
            if result.refusal is None:
                found.append(name)
                wanted = weight("logistic", mp.mpf(at))
                reached = weight(name, mp.mpf(at) * mp.mpf(result.beta_to) / mp.mpf(0.1))
                assert abs(reached / wanted - 1) < 1e-9, name
                assert abs(result.matched / wanted - 1) < 1e-12
                assert result.order == "one_margin"
    assert {"logistic", "squared", "exponential", "truncated_squared"} <= set(found)


def test_weights_by_hand() -> None:
    """IPO's weight at x is 1 - x, the logistic's 2 sigma(-x) = 1 - tanh(x/2), the exponential's e^-x."""
    for x in (-3, 0.5, 3):
        assert match_beta("dpo", "ipo", beta=0.2, by="tail", at=x).beta_to == pytest.approx(0.2 * math.tanh(x / 2) / x, rel=1e-12)
        wanted = -math.log(2 / (1 + math.exp(x))) / x
        assert match_beta("dpo", "exponential", beta=1, by="tail", at=x).beta_to == pytest.approx(wanted, rel=1e-12)


# By weight: equal mean of f'(beta rho)/f'(0) over margins, with the derivatives of the oracle's f.

SPREAD = [-2.5, -0.75, 0.3, 1.1, 2.0, 4.5, 6.0, 9.5, 12.25, 17.0]


def mean_of_weights(name: str, beta: mp.mpf, margins: list[float]) -> mp.mpf:
    slopes = [mp.diff(TRUTHS[name].f, beta * rho, h=mp.mpf("1e-25")) for rho in map(mp.mpf, margins)]
    return sum(slopes) / len(slopes) / mp.diff(TRUTHS[name].f, 0, h=mp.mpf("1e-25"))


def test_mean_weights_are_equal() -> None:
    matched = []
    with mp.workdps(80):
        wanted = mean_of_weights("logistic", mp.mpf(0.1), SPREAD)
        for name in TRUTHS:
            result = match_beta("logistic", name, beta=0.1, by="weight", margins=SPREAD)
            if result.refusal is None:
                matched.append(name)
                assert abs(mean_of_weights(name, mp.mpf(result.beta_to), SPREAD) / wanted - 1) < 1e-9, name
                assert (result.matched, result.order) == (pytest.approx(float(wanted), rel=1e-12), "these_margins")
    assert {"logistic", "squared", "savage", "canonical_boosting", "cauchit"} <= set(matched)
    # Beyond a beta their weights of the two negative margins outgrow those of the others.
    assert not {"truncated_squared", "probit", "exponential"} & set(matched)


@given(st.lists(st.floats(-20, 40), min_size=1, max_size=30), st.floats(0.01, 2))
@settings(max_examples=60, deadline=None)
def test_the_squared_loss_by_hand(margins: list[float], beta: float) -> None:
    """Its weight is 1 - beta rho, so that 1 - beta_to mean(rho) is the mean of 2 sigma(-beta rho): one beta, or none."""
    share = sum(math.tanh(beta * rho / 2) for rho in margins) / len(margins)
    mean = sum(margins) / len(margins)
    if min(abs(mean), abs(share), 1 - share) < 1e-3:
        return
    result = match_beta("dpo", "ipo", beta=beta, by="weight", margins=margins)
    if share / mean > 0:
        assert result.beta_to == pytest.approx(share / mean, rel=1e-9)
    else:
        assert "no beta gives" in str(result.refusal)


@pytest.mark.parametrize("name", ["squared", "exponential", "truncated_squared", "canonical_boosting"])
def test_one_margin_is_the_match_by_tail(name: str) -> None:
    tail = match_beta("dpo", name, beta=0.25, by="tail", at="3/2")
    assert match_beta("dpo", name, beta=0.25, by="weight", margins=[6.0]).beta_to == pytest.approx(tail.beta_to, rel=1e-12)


def test_two_betas_are_refused_with_both() -> None:
    """The exponential's mean over 12 and -1 is (e^(-12 b) + e^b)/2: it falls up to log(12)/13, then rises."""
    refusal = match_beta("dpo", "exponential", beta=0.1, by="weight", margins=[12, -1]).refusal
    wanted, least = (2 - math.tanh(0.6) + math.tanh(0.05)) / 2, mp.log(12) / 13
    both = [mp.findroot(lambda b: (mp.exp(-12 * b) + mp.exp(b)) / 2 - wanted, ends, solver="anderson") for ends in ((0, least), (least, 1))]
    assert f"several betas, {float(both[0] / 0.1):.6g} and {float(both[1] / 0.1):.6g} times" in refusal


def test_the_hinge_is_matched_by_many_margins_and_not_by_few() -> None:
    """Its mean weight is the share of margins below 1/beta, which falls by 1/n at each."""
    margins = [k / 10 for k in range(1, 201)]
    result = match_beta("dpo", "hinge", beta=0.1, by="weight", margins=margins)
    weight = sum(1 - math.tanh(0.05 * rho) for rho in margins) / 200
    assert 1 / result.beta_to == pytest.approx(margins[math.floor(200 * weight)], rel=1e-9)
    assert "jumps from 0.75 to 0.5" in match_beta("dpo", "hinge", beta=0.1, by="weight", margins=[2, 5, 9, 11]).refusal


@pytest.mark.parametrize(("source", "target", "margins", "word"), [
    ("ipo", "dpo", [30, 40], "not above 0"), ("dpo", "unhinged", [3, 4], "no beta gives"), ("dpo", "perceptron", [3], "kink at 0"),
    ("dpo", "discopop", [3], "f'(0)"),
])  # fmt: skip
def test_mean_weights_without_a_match(source: str, target: str, margins: list[float], word: str) -> None:
    assert word in match_beta(source, target, beta=0.1, by="weight", margins=margins).refusal


@pytest.mark.parametrize("margins", [[], [0.0, 0.0], [math.nan], [math.inf, 1.0]])
def test_margins_that_say_nothing(margins: list[float]) -> None:
    with pytest.raises(InputError, match="margins are finite numbers, not all 0"):
        match_beta("dpo", "ipo", beta=0.1, by="weight", margins=margins)


@pytest.mark.parametrize(
    ("source", "target", "options", "word"),
    [
        ("dpo", "unhinged", {"by": "target", "p": "0.9"}, "unhinged"),
        ("dpo", "perceptron", {"by": "target", "p": "0.9"}, "perceptron"),
        ("dpo", "dpo", {"by": "target", "p": "1"}, "no finite target"),  # x*(1) is infinite
        ("ipo", "slic", {"by": "target", "p": "1"}, "no single target"),  # every x >= 1 is least
        ("dpo", "trl-ipo", {"by": "target", "p": "0.9"}, "`mean_length=N`"),
        ("dpo", "slic", {"by": "tail", "at": "2"}, "no single margin"),  # 1 up to the kink, then 0
        ("slic", "dpo", {"by": "tail", "at": "1/2"}, "no single margin"),  # 1, as at 0
        ("slic", "dpo", {"by": "tail", "at": "1"}, "kink"),
        ("slic", "dpo", {"by": "tail", "at": "2"}, "not above 0"),
        ("ipo", "dpo", {"by": "tail", "at": "2"}, "not above 0"),
        ("ipo", "dpo", {"by": "tail", "at": "-2"}, "no single margin"),  # 3, and the logistic stays below 2
        ("dpo", "perceptron", {"by": "tail", "at": "1"}, "kink"),
        ("dpo", "discopop", {"by": "tail", "at": "1"}, "f'(0)"),
        ("dpo", "savage", {"by": "tail", "at": "-1"}, "several margins"),  # -f' rises, then falls
    ],
)
def test_what_cannot_be_matched_elsewhere(source: str, target: str, options: dict, word: str) -> None:
    result = match_beta(source, target, beta=0.1, **options)
    assert result.beta_to is None
    assert result.matched is None
    assert word in str(result.refusal)
    assert result.by == options["by"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "slope"}, "strength, target, tail"), ({"by": "target"}, "needs p"), ({"by": "tail"}, "needs at"),
        ({"p": "0.9"}, "'target'"), ({"at": "1"}, "'tail'"), ({"by": "tail", "at": "1", "p": "0.9"}, "'target'"),
        ({"by": "target", "p": "0.5"}, "1/2 < p"), ({"by": "target", "p": "1.1"}, "1/2 < p"),
        ({"by": "target", "p": float("nan")}, "nan"), ({"by": "target", "p": "x"}, "1/2 < p"),
        ({"by": "target", "p": "9**9**9**9"}, "9"), ({"by": "tail", "at": "0"}, "other than 0"),
        ({"by": "tail", "at": float("inf")}, "inf"),
    ],
)
def test_options_that_do_not_fit(options: dict, words: str) -> None:
    with pytest.raises(InputError) as error:
        match_beta("dpo", "ipo", beta=0.1, **options)
    assert words in str(error.value)


def test_a_match_beyond_floating_point_is_bad_input() -> None:
    with pytest.raises(InputError, match="range"):
        match_beta("ipo", "dpo", beta=1e-320, by="target", p="0.9")
    with pytest.raises(InputError, match="range"):
        match_beta("ipo", "dpo", beta=1.5e308)
