"""The stable JSON of an analysis: every key always present, each of its type, exact values that mean their floats."""

import io
import json
import math

import mpmath as mp
import pytest
from hypothesis import HealthCheck, example, given, settings
from rich.console import Console

from gpo_theory import LOSSES, InputError, analyze, parse
from gpo_theory.claims.lower_bounds import bounded_below
from gpo_theory.report.signs import warnings_of
from tests.support.oracle import CLAIMS, TAIL_CLASSES, evaluate, number
from tests.support.session import analysis, payload
from tests.support.strategies import formulas

WITNESSES = {"chord": {"a", "b", "t"}, "point": {"x"}, "kink": {"x", "left", "right"}, "theta": {"theta"},
             "break": {"low", "high"}}  # fmt: skip


def text_or_null(value: object) -> bool:
    return value is None or (isinstance(value, str) and value != "")


def number_or_null(value: object) -> bool:
    return value is None or value in ("inf", "-inf") or (isinstance(value, int | float) and math.isfinite(value))


def check_shape(found: dict) -> None:
    """DESIGN.md, `gpo analyze LOSS --json`."""
    json.dumps(found, allow_nan=False)
    assert set(found) - {"schema"} == {"loss", "taylor", "strength", "claims", "tails", "link", "psi", "implied", "warnings"}
    assert isinstance(found["warnings"], list)
    assert all(isinstance(text, str) and text and "\n" not in text for text in found["warnings"])
    assert set(found["loss"]) == {"name", "formula", "latex", "parameters", "reference"}
    assert all(isinstance(found["loss"][key], str) for key in ("name", "formula", "latex", "reference"))
    assert isinstance(found["loss"]["parameters"], dict)
    assert len(found["taylor"]) == 5
    assert all(map(text_or_null, found["taylor"]))
    missing = [k for k, text in enumerate(found["taylor"]) if text is None]
    assert missing == list(range(5))[5 - len(missing) :], "after a coefficient that does not exist none does"
    strength = found["strength"]
    assert set(strength) == {"exact", "value", "left", "right", "sign"}
    assert text_or_null(strength["exact"])
    assert all(number_or_null(strength[key]) for key in ("value", "left", "right"))
    assert strength["sign"] in (None, -1, 0, 1)
    assert tuple(found["claims"]) == CLAIMS
    for claim in found["claims"].values():
        check_claim(claim)
    assert set(found["tails"]) == {"left", "right"}
    for end in found["tails"].values():
        assert set(end) == {"loss", "slope"}
        for tail in end.values():
            assert set(tail) == {"class", "rate", "order", "limit", "verdict"}
            assert tail["class"] in TAIL_CLASSES
            assert tail["verdict"] in ("proved", "evidence")
            assert all(text_or_null(tail[key]) for key in ("rate", "order", "limit"))
    assert set(found["link"]) == {"formula", "slope_at_half", "target_at_one"}
    assert text_or_null(found["link"]["formula"])
    assert number_or_null(found["link"]["slope_at_half"])
    assert text_or_null(found["link"]["target_at_one"])
    assert set(found["psi"]) == {"formula", "at_half"}
    assert text_or_null(found["psi"]["formula"])
    assert number_or_null(found["psi"]["at_half"])


def check_claim(claim: dict) -> None:
    assert set(claim) == {"verdict", "because", "witness", "value"}
    assert claim["verdict"] in ("proved", "refuted", "unknown")
    assert isinstance(claim["because"], str)
    assert claim["because"].strip()
    assert claim["verdict"] == "refuted" or claim["witness"] is None, "only a refutation has a witness"
    if claim["witness"] is not None:
        assert set(claim["witness"]) - {"kind"} == WITNESSES[claim["witness"]["kind"]]
        assert all(isinstance(text, str) for text in claim["witness"].values())
    if claim["value"] is not None:
        assert set(claim["value"]) == {"exact", "float"}
        assert text_or_null(claim["value"]["exact"])
        assert number_or_null(claim["value"]["float"])
        if claim["value"]["exact"] is not None and isinstance(claim["value"]["float"], float):
            assert claim["value"]["float"] == pytest.approx(float(number(claim["value"]["exact"])), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_the_shape_is_the_same_for_every_loss(name: str) -> None:
    check_shape(payload(name))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(formulas())
@example("expm1((7)**4)")  # a constant beyond the floats
def test_the_shape_is_the_same_for_random_formulas(text: str) -> None:
    """Any text of the grammar is analysed, or refused with an InputError: nothing else leaves the package."""
    try:
        found = analyze(parse(text), seconds=2.0)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the other outcome is checked below
        return
    check_shape(found.as_dict())


def test_a_formula_and_its_name_say_the_same() -> None:
    by_name, by_formula = payload("savage"), analyze(parse("1/(1+exp(x))**2")).as_dict()
    assert {key: by_name[key] for key in by_name if key != "loss"} == {key: by_formula[key] for key in by_formula if key != "loss"}


@pytest.mark.parametrize(("text", "same"), [("DPO", "logistic"), ("max(0,1-x)^2", "truncated_squared"), ("Savage", "savage"),
                                            ("trl_ipo", "ipo_tau"), ("-logsigmoid(x)", "logistic"), ("relu(1-x)", "hinge")])  # fmt: skip
def test_it_takes_a_name_or_a_formula_as_a_loss(text: str, same: str) -> None:
    found = analyze(text).as_dict()
    # Two ways to write one function may be proved in two ways: its verdicts and numbers are the same.
    assert {claim: each["verdict"] for claim, each in found["claims"].items()} == {claim: each["verdict"] for claim, each in payload(same)["claims"].items()}
    for key in ("taylor", "strength", "tails", "psi"):
        assert found[key] == payload(same)[key]


@pytest.mark.parametrize("wrong", ["logstic", "", "log(1+exp(-x)", 3, None, ["dpo"]])
def test_what_is_no_loss_is_an_input_error(wrong: object) -> None:
    with pytest.raises(InputError):
        analyze(wrong)


# f, and what falls where f rises: with the sign forgotten in front of f, or of x where f has a lower bound already.
RISING = [
    ("log(sigmoid(x))", "-log(sigmoid(x))"), ("logsigmoid(x)", "-log(sigmoid(x))"), ("F.logsigmoid(2*x)", "-log(sigmoid(2*x))"), ("exp(x)", "exp(-x)"),
    ("log(1+exp(x))", "log(1+exp(-x))"), ("max(0, 1+x)", "max(0, 1-x)"), ("(1+x)^2", "(1-x)**2"), ("x-1", "1-x"), ("relu(x)", "max(0, -x)"),
    ("-exp(-x)", "exp(-x)"), ("-log(1+exp(-x))", "log(1+exp(-x))"), ("x*sigmoid(-x)", "-x*sigmoid(-x)"), ("sigmoid(x)", "sigmoid(-x)"), ("log(Phi(x))", "-log_ndtr(x)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meant"), RISING)
def test_a_loss_that_rises_at_0_is_told_of_with_its_sign(text: str, meant: str) -> None:
    (said,) = told(text)
    assert "f rises at 0, so that training would begin by making the chosen response less likely; its sign is probably wrong" in said
    instead = said.rpartition("write '")[2].removesuffix("'")
    with mp.workdps(40):
        for x in (-3, mp.mpf(-1) / 3, mp.mpf(2) / 7, 5):
            assert abs(evaluate(parse(instead).formula, mp.mpf(x)) - evaluate(meant, mp.mpf(x))) < 1e-30
    assert told(instead) == []


def told(text: str) -> list[str]:
    """The warnings alone, from the one claim that they read."""
    loss = parse(text)
    return warnings_of(loss, {"bounded_below": next(bounded_below(loss.f.primitive()))})


def test_an_analysis_shows_its_warnings() -> None:
    found = analyze("(1+x)^2")
    assert found.warnings == found.as_dict()["warnings"] == told("(1+x)^2") != []
    assert found.warnings[0] in found._repr_html_().replace("&#x27;", "'").replace("&gt;", ">")


def test_a_parameter_stays_in_what_to_write_instead() -> None:
    (said,) = analyze(parse("log(sigmoid(a*x))", {"a": 2})).warnings
    assert said.endswith("write '-log(sigmoid(a*x))'")


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_of_the_catalogue_rises_at_0_but_one(name: str) -> None:
    """DiscoPOP's slope at 0 is 17/4 - 5 log 2 = 0.78 (THEORY section 4 has its formula); a published loss has its sign."""
    said = payload(name)["warnings"]
    assert bool(said) == (name == "discopop")
    assert not any("sign" in text for text in said)


@pytest.mark.parametrize("text", ["exp(-x)", "x^2", "|x|", "max(0, -x)", "where(x<0, x, -x)", "cos(x)", "max(x, -2*x)",
                                  pytest.param("log(1+exp(-x))*(1-sigmoid(20*x)) + exp(-x)*sigmoid(20*x)", marks=pytest.mark.slow)])  # fmt: skip
def test_no_sign_is_doubted_where_f_does_not_rise_on_the_whole(text: str) -> None:
    assert not any("sign" in said for said in analyze(text).warnings)


def test_it_shows_itself_in_a_notebook_and_a_terminal() -> None:
    html = analysis("savage")._repr_html_()
    assert "refuted" in html
    assert "<script" not in html
    shown = io.StringIO()
    Console(width=100, file=shown).print(analysis("savage"))
    text = shown.getvalue()
    assert "convex" in text
    assert "refuted" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_hostile_name_is_escaped_in_html() -> None:
    found = analyze(parse("exp(-x)", name="<img src=x onerror=alert(1)>"))
    assert "<img" not in found._repr_html_()


def test_a_formula_that_takes_too_long_is_unknown_not_an_error() -> None:
    found = analyze(parse("log(1+exp(-x))**7*sigmoid(3*x)**5+softplus(2*x-1)*tanh(x)**3"), seconds=0.2).as_dict()
    check_shape(found)


def test_what_needs_more_memory_than_there_is_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """One claim that runs out of memory leaves the others as they are."""
    import gpo_theory.analysis as module

    def exhausted(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr(module, "smooth", exhausted)
    claims = analyze(parse("log(1+exp(-x)) + x**2/977")).as_dict()["claims"]
    assert claims["smooth"]["verdict"] == "unknown"
    assert "memory" in claims["smooth"]["because"]
    assert claims["convex"]["verdict"] == "proved"
