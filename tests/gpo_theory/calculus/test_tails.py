"""Tails of f and -f' at both ends: the table, hand-derived formulas, and every printed rate measured far out."""

import re
from fractions import Fraction

import mpmath as mp
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gpo_theory import LOSSES, analyze, parse
from gpo_theory.calculus.tails import Tail, tails_of
from tests.support.oracle import TRUTHS, check_growth, check_tails, evaluate, number, real
from tests.support.session import payload

ENDS = [(side, of) for side in ("left", "right") for of in ("loss", "slope")]


@pytest.mark.parametrize("name", TRUTHS)
def test_the_catalogue(name: str) -> None:
    check_tails(name, payload(name)["tails"])


def test_the_catalogue_is_mostly_known() -> None:
    """Of the tails of the table, as many must be classified; the figure may only grow."""
    assert [(name, end) for name in TRUTHS for end in ENDS if payload(name)["tails"][end[0]][end[1]]["class"] == "unknown"] == []


def measure(text: str, side: str, of: str, printed: dict) -> None:
    """The declared number from two far points of f or -f' itself, by mpmath."""
    size = printed["order" if printed["class"] in ("power", "polynomial") else "rate"]
    limit = None if printed["limit"] in (None, "inf", "-inf") else number(printed["limit"])

    def g(x: mp.mpf) -> mp.mpf:
        return -mp.diff(lambda u: evaluate(text, u), x) if of == "slope" else evaluate(text, x)

    check_growth(g, -1 if side == "left" else 1, printed["class"], size and number(size), limit, f"{text}: {of} at the {side}: {printed}")


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_every_printed_rate_is_measured(name: str) -> None:
    loss = LOSSES[name]
    text = loss.formula
    for parameter, value in loss.parameters.items():
        text = re.sub(rf"\b{parameter}\b", f"({value})", text)
    if "ndtr" in text or "erfc" in text:
        return  # 1500 digits of the error function cost minutes; check_tails compares these with closed forms
    for side, of in ENDS:
        measure(text, side, of, payload(name)["tails"][side][of])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("exp(-3*x)", ("exponential_growth", "exponential_growth", "exponential", "exponential")),
        ("x*exp(-x)+1", ("exponential_growth", "exponential_growth", "constant", "exponential")),
        ("log(1+exp(-x))**2", ("polynomial", "linear", "exponential", "exponential")), ("1/(1+x**2)", ("power", "power", "power", "power")),
        ("exp(-x**2)", ("super_exponential",) * 4), ("x**5-x", ("polynomial",) * 4),
        ("max(0,1-x)+3", ("linear", "constant", "constant", "zero")), ("7", ("constant", "zero", "constant", "zero")),
        ("max(0,min(1,-x))", ("constant", "zero", "zero", "zero")), ("log(1+x**2)", ("logarithmic", "power", "logarithmic", "power")),
        ("exp(-exp(x))", ("constant", "exponential", "super_exponential", "super_exponential")),
        ("exp(x**2)", ("super_exponential_growth",) * 4), ("sqrt(1+x**2)", ("linear", "constant", "linear", "constant")),
        ("log(3+exp(-2*x))", ("linear", "constant", "constant", "exponential")),
        ("(1+exp(-x))**(1/2)", ("exponential_growth", "exponential_growth", "constant", "exponential")),
        ("tanh(-x)", ("constant", "exponential", "constant", "exponential")), ("x", ("linear", "constant", "linear", "constant")),
        ("where(x<0, exp(x), 1/(1+x))", ("exponential", "exponential", "power", "power")),
    ],
)  # fmt: skip
def test_by_hand(text: str, kinds: tuple[str, ...]) -> None:
    """The class may be unknown, never wrong; a limit other than 0 makes the class constant."""
    tails = analyze(parse(text)).as_dict()["tails"]
    for (side, of), kind in zip(ENDS, kinds, strict=True):
        printed = tails[side][of]
        assert printed["class"] in (kind, "unknown"), f"{text}: {of} at the {side} is {printed}, it is {kind}"
        if printed["class"] not in ("unknown", "super_exponential_growth"):
            measure(text, side, of, printed)


POWERS = [Fraction(n, d) for n, d in ((-2, 1), (-3, 2), (-1, 1), (-1, 2), (1, 3), (1, 2), (1, 1), (3, 2), (2, 1), (3, 1))]


FACTORS = (Fraction(1), Fraction(3), Fraction(1, 2), Fraction(1, 7))  # the exact log(2/5)^6 would be too long


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(*[st.sampled_from(each) for each in (FACTORS, FACTORS, (-3, 2), POWERS, (1, 2, 3))])
def test_the_power_of_a_logarithm(a: Fraction, b: Fraction, c: int, power: Fraction, degree: int) -> None:
    """By hand: c log(1+a+b x^2m)^p is c (2m)^p log(X)^p to first order; measured where log(X) is 10^8 and more."""
    text = f"{c}*log({1 + a}+{b}*x**{2 * degree})**({power})"
    for side in ("left", "right"):
        printed = analyze_tails(text)[side]["loss"].as_dict()
        assert (printed["class"], printed["order"], printed["verdict"]) == ("logarithmic", str(power), "proved")
        assert printed["limit"] == ("0" if power < 0 else "inf" if c > 0 else "-inf")
        with mp.workdps(30):
            rate = number(printed["rate"])
            assert abs(rate / (c * (2 * real(Fraction(degree))) ** real(power)) - 1) < 1e-25
            far = mp.mpf(10) ** (10**8)
            assert abs(evaluate(text, far) / (rate * mp.log(far) ** real(power)) - 1) < 1e-6


@pytest.mark.parametrize(
    ("text", "limit"),
    [("x*log(2+x**2)", "inf"), ("exp(-x)*log(2+x**2)", "0"), ("log(2+x**2)**2/(1+x**2)", "0"), ("exp(x)/log(2+x**2)", "inf"),
     ("-x/log(2+x**2)**(1/2)", "-inf"), ("exp(-x**2)*log(2+x**2)**(-2)", "0")],
)  # fmt: skip
def test_what_is_of_no_class_has_its_limit_only(text: str, limit: str) -> None:
    """A power or an exponential times a power of log(X) is neither: said to be of no class, the limit by hand."""
    assert analyze_tails(text)["right"]["loss"].as_dict() == {"class": "unknown", "rate": None, "order": None, "limit": limit, "verdict": "proved"}


@pytest.mark.parametrize(("text", "limit"), [("3+1/log(2+x**2)", "3"), ("exp(1/log(2+x**2))", "1"), ("atan(log(2+x**2))", "pi/2")])
def test_a_limit_that_a_logarithm_approaches(text: str, limit: str) -> None:
    assert analyze_tails(text)["right"]["loss"].as_dict() == {"class": "constant", "rate": None, "order": None, "limit": limit, "verdict": "proved"}


def analyze_tails(text: str) -> dict[str, dict[str, Tail]]:
    return tails_of(parse(text).f.primitive())


def test_limits_and_signs() -> None:
    """Case I keeps pushing, case II stops; IPO pushes back on the right: -f' is linear downwards."""
    squared = payload("squared")["tails"]
    assert number(squared["right"]["slope"]["rate"]) == -2
    assert payload("hinge")["tails"]["right"]["slope"]["class"] == "zero"
    assert payload("logistic")["tails"]["left"]["slope"]["limit"] == "1"
    cdpo = payload("cdpo")["tails"]
    assert (cdpo["left"]["slope"]["limit"], cdpo["right"]["slope"]["limit"]) == ("9/10", "-1/10")
