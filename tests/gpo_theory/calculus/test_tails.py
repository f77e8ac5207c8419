"""Tails of f and -f' at both ends: the table, hand-derived formulas, and every printed rate measured far out."""

import re

import mpmath as mp
import pytest

from gpo_theory import LOSSES, analyze, parse
from tests.support.oracle import TRUTHS, check_tails, evaluate, number
from tests.support.session import payload

ENDS = [(side, of) for side in ("left", "right") for of in ("loss", "slope")]


@pytest.mark.parametrize("name", [name for name in LOSSES if name in TRUTHS])
def test_the_catalogue(name: str) -> None:
    check_tails(name, payload(name)["tails"])


def test_the_catalogue_is_mostly_known() -> None:
    """Of the tails of the table, as many must be classified; the figure may only grow."""
    known = [payload(name)["tails"][side][of]["class"] != "unknown" for name in LOSSES if name in TRUTHS for side, of in ENDS]
    assert sum(known) == len(known)


def measure(text: str, side: str, of: str, printed: dict) -> None:
    """The declared number from two far points of f or -f' itself, by mpmath."""
    sign = -1 if side == "left" else 1
    near, far = {"exponential": (300, 600), "exponential_growth": (300, 600), "super_exponential": (20, 40),
                 "super_exponential_growth": (4, 6)}.get(printed["class"], (10**6, 4 * 10**6))  # fmt: skip

    def g(x: int) -> mp.mpf:
        return (-mp.diff(lambda u: evaluate(text, u), sign * mp.mpf(x)) if of == "slope" else evaluate(text, sign * mp.mpf(x)))

    with mp.workdps(1500):
        a, b = g(near), g(far)
        kind, what = printed["class"], f"{text}: {of} at the {side}: {printed}"
        if printed["limit"] not in (None, "inf", "-inf"):
            gap = abs(b - number(printed["limit"]))
            assert gap < 1e-4, what
            a, b = a - number(printed["limit"]), b - number(printed["limit"])
        if kind == "zero":
            assert a == b == 0, what
        elif kind == "constant":
            assert printed["limit"] is not None, what
        elif kind == "logarithmic":
            assert abs(b) > abs(a) > 1, what
            assert abs(b / a) < 1.2, what
        elif kind in ("power", "polynomial", "linear"):
            order = mp.log(abs(b / a)) / mp.log(4)
            declared = 1 if kind == "linear" else number(printed["order"]) * (-1 if kind == "power" else 1)
            assert abs(order - declared) < 1e-3, f"{what}: measured {mp.nstr(order)}"
            if kind == "linear" and printed["rate"] is not None:
                assert abs(b / far - number(printed["rate"])) < 1e-4, f"{what}: measured {mp.nstr(b / far)}"
        elif kind in ("exponential", "exponential_growth"):
            rate = mp.log(abs(b / a)) / (far - near) * (-1 if kind == "exponential" else 1)
            assert abs(rate - abs(number(printed["rate"]))) < 0.02, f"{what}: measured {mp.nstr(rate)}"
        elif kind == "super_exponential":
            assert mp.log(abs(b)) / mp.log(abs(a)) > 3, what
        elif kind == "super_exponential_growth":
            assert mp.log(abs(b)) / mp.log(abs(a)) > 2, what
        else:
            assert kind == "unknown", what


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


def test_limits_and_signs() -> None:
    """Case I keeps pushing, case II stops; IPO pushes back on the right: -f' is linear downwards."""
    squared = payload("squared")["tails"]
    assert number(squared["right"]["slope"]["rate"]) == -2
    assert payload("hinge")["tails"]["right"]["slope"]["class"] == "zero"
    assert payload("logistic")["tails"]["left"]["slope"]["limit"] == "1"
    cdpo = payload("cdpo")["tails"]
    assert (cdpo["left"]["slope"]["limit"], cdpo["right"]["slope"]["limit"]) == ("9/10", "-1/10")
