"""The stable JSON of an analysis: every key always present, each of its type, exact values that mean their floats."""

import io
import json
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from rich.console import Console

from gpo_theory import LOSSES, InputError, analyze, parse
from tests.support.oracle import CLAIMS, TAIL_CLASSES, number
from tests.support.session import analysis, payload
from tests.support.strategies import formulas

WITNESSES = {"chord": {"a", "b", "t"}, "point": {"x"}, "kink": {"x", "left", "right"}, "theta": {"theta"}}


def text_or_null(value: object) -> bool:
    return value is None or (isinstance(value, str) and value != "")


def number_or_null(value: object) -> bool:
    return value is None or value in ("inf", "-inf") or (isinstance(value, int | float) and math.isfinite(value))


def check_shape(found: dict) -> None:
    """DESIGN.md, `gpo analyze LOSS --json`."""
    json.dumps(found, allow_nan=False)
    assert set(found) - {"schema"} == {"loss", "taylor", "strength", "claims", "tails", "link", "psi"}
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
