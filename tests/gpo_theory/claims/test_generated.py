"""Convexity of formulas whose truth is known by construction: no wrong verdict, and few left unknown."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath as mp
import pytest

from gpo_theory import parse
from tests.support.generated import Case, generate, recorded, run, summary, wrong
from tests.support.oracle import check_witness, evaluate, precision_for, real
from tests.support.soak import budget

SEEDS = range(budget(120, 300))
# Ratchet: the shares decided over these seeds; they may only grow. Times are CPU-seconds and generous to a busy machine.
PROVED, REFUTED, MEDIAN = 0.97, 0.97, 0.1


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(SEEDS, tmp_path_factory.mktemp("generated") / "answers.jsonl")


@pytest.mark.slow
def test_no_verdict_is_wrong(answers: list[dict[str, Any]]) -> None:
    assert len(answers) == len(SEEDS)
    assert [line for line in answers if wrong(line)] == []


@pytest.mark.slow
def test_few_are_left_unknown(answers: list[dict[str, Any]]) -> None:
    found = summary(answers)
    assert found["proved"] >= PROVED, [(line["seed"], line["because"]) for line in answers if line["verdict"] == "unknown"]
    assert found["refuted"] >= REFUTED, [(line["seed"], line["because"]) for line in answers if line["verdict"] == "unknown"]
    assert found["median_seconds"] <= MEDIAN


@pytest.mark.slow
def test_every_witness_refutes(answers: list[dict[str, Any]]) -> None:
    """From the definition, in mpmath: f above its chord, or a slope that falls."""
    refuted = [line for line in answers if line["verdict"] == "refuted"]
    assert len(refuted) > len(SEEDS) / 3
    for line in refuted:
        check_witness(line["formula"], lambda x, line=line: evaluate(line["formula"], x), "convex", line["witness"])


# --- the formulas themselves ---------------------------------------------------------------------------------------


def second_difference(case: Case, at: Fraction, width: Fraction) -> Any:
    """f(a + h) + f(a - h) - 2 f(a)."""
    with mp.workdps(2 * precision_for(at)):
        a, h = real(at), real(width)
        values = [evaluate(case.formula, x) for x in (a + h, a - h, a)]
        noise = sum(map(abs, values)) * mp.mpf(10) ** (20 - mp.mp.dps)
        difference = values[0] + values[1] - 2 * values[2]
        return difference if abs(difference) > noise else mp.mpf(0)


@pytest.mark.parametrize("seed", range(1, budget(120, 400), 2))
def test_what_is_said_not_to_be_convex_is_not(seed: int) -> None:
    case = generate(seed)
    assert not case.convex
    assert case.point is not None
    widths = [Fraction(1, 10**k) for k in (6, 9, 12, 15)]
    beside = (0, Fraction(1, 2), Fraction(-1, 2))  # a step up is seen from its upper side
    assert any(second_difference(case, case.point + side * h, h) < 0 for h in widths for side in beside), case


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, budget(120, 400), 2))
def test_what_is_said_to_be_convex_shows_no_violation(seed: int) -> None:
    case = generate(seed)
    assert case.convex
    for k in range(-30, 31, 3):
        for width in (Fraction(1, 97), Fraction(3, 7), Fraction(5)):
            assert second_difference(case, Fraction(k, 7), width) >= 0, case


def test_seeds_are_texts_of_the_grammar_and_never_change() -> None:
    texts = [generate(seed).formula for seed in range(200)]
    assert [generate(seed).formula for seed in range(200)] == texts
    assert len(set(texts)) == 200
    for text in texts:
        parse(text)


@pytest.mark.slow
def test_every_way_of_hiding_and_every_family_occurs() -> None:
    families = {generate(seed).family for seed in range(budget(400, 1200))}
    bases = {family.split(" ")[0].split("-")[0] for family in families}
    assert bases >= {"softplus", "log", "norm", "integrated", "polynomial", "simple", "square", "sum", "tight", "lines", "max", "where",
                     "quadratic", "kink", "minimum", "jump", "far"}  # fmt: skip
    assert {family.rsplit(" ", 1)[1] for family in families if " " in family} >= {"+0", "/d", "+g-g", "*2/2"}


# --- the run -------------------------------------------------------------------------------------------------------


def test_a_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    first = run(range(4), path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + '{"seed": 4, "fam', encoding="utf-8")  # cut off while it wrote
    both = run(range(6), path)
    assert path.read_text(encoding="utf-8").startswith(text)
    assert [line["seed"] for line in both] == list(range(6))
    assert both[:4] == first
    assert len(recorded(path)) == 6
    assert run(range(6), path) == both


def test_what_runs_past_its_limit_is_unknown(tmp_path: Path) -> None:
    (line,) = run(range(3, 4), tmp_path / "lines.jsonl", seconds=1e-6)
    assert line["verdict"] == "unknown"
    assert not wrong(line)


def test_the_summary_counts_what_is_wrong() -> None:
    def line(seed: int, convex: bool, verdict: str) -> dict[str, Any]:
        return {"seed": seed, "family": "x", "convex": convex, "verdict": verdict, "cpu": seed / 10, "because": ""}

    lines = [line(0, True, "proved"), line(1, False, "proved"), line(2, True, "refuted"), line(3, False, "unknown"),
             line(4, True, "unknown"), line(5, False, "exception")]  # fmt: skip
    found = summary(lines)
    assert found["wrong"] == [1, 2, 5]
    assert found["proved"] == pytest.approx(1 / 3, abs=1e-3)
    assert found["refuted"] == 0
    assert found["worst_seconds"] == 0.5
    json.dumps(found)
