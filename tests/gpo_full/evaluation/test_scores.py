"""Scores of an evaluation: closed forms for intervals and paired differences, and files that cannot mislead."""

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from gpo_full.evaluation.scores import (
    PromptScore,
    bootstrap_interval,
    compare_scores,
    read_scores,
    win_scores,
    write_scores,
)
from gpo_theory import InputError

ROW = PromptScore("p", "t", "answer", "other", 3, 4, 1.0, 0.5, 1.0, 0.25, -0.125, 2.0)


def rows(scores: list[float], rewards: list[float]) -> list[PromptScore]:
    pairs = zip(scores, rewards, strict=True)
    return [replace(ROW, prompt=str(i), score=score, reward=reward) for i, (score, reward) in enumerate(pairs)]


def test_a_tie_is_half_a_win() -> None:
    assert win_scores(np.array([0.1, 0.2, -1.0]), np.array([0.0, 0.2, 0.0])).tolist() == [1.0, 0.5, 0.0]


def test_the_interval_is_the_quantile_of_all_resamples() -> None:
    """Of 5 scores there are 5^5 equally likely resamples; their exact quantiles are on a grid of tenths."""
    scores = [0.0, 0.5, 0.5, 1.0, 1.0]
    means = sorted(sum(several) / 5 for several in product(scores, repeat=5))
    exact = [means[math.ceil(q * len(means)) - 1] for q in (0.025, 0.975)]
    assert bootstrap_interval(np.array(scores), resamples=50_000) == pytest.approx(exact)
    assert bootstrap_interval(np.full(10, 0.5)) == (0.5, 0.5)


def test_the_interval_of_many_scores_is_the_normal_one() -> None:
    scores = np.array([0.0] * 300 + [1.0] * 700)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert bootstrap_interval(scores) == pytest.approx((0.7 - half, 0.7 + half), abs=0.003)
    half = 1.2816 * math.sqrt(0.7 * 0.3 / 1000)
    assert bootstrap_interval(scores, level=0.8) == pytest.approx((0.7 - half, 0.7 + half), abs=0.003)


def test_a_comparison_is_paired() -> None:
    """Half of the prompts are won by both: the difference is 1/4 with no more spread than the other quarter has."""
    first, second = rows([1, 1, 1, 0] * 50, [4, 4, 4, 0] * 50), rows([1, 1, 0, 0] * 50, [4, 3, 1, 2] * 50)
    found = compare_scores(first, second)
    half = 1.96 * math.sqrt(0.25 * 0.75 / 200)
    assert (found.difference, found.n) == (0.25, 200)
    assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.01)
    assert found.win_rate == (0.5 + 1 + 1 + 0) / 4  # head to head, by the rewards
    assert found.win_low < found.win_rate < found.win_high
    other = compare_scores(second, first)
    assert (other.difference, other.win_rate) == (-0.25, 1 - found.win_rate)


def test_other_prompts_targets_or_reference_answers_do_not_compare() -> None:
    with pytest.raises(InputError, match="other prompts: 2 and 1 rows"):
        compare_scores([ROW, ROW], [ROW])
    with pytest.raises(InputError, match="other prompts"):
        compare_scores([ROW], [replace(ROW, target="u")])
    with pytest.raises(InputError, match="other answers of the reference"):
        compare_scores([ROW], [replace(ROW, reference="u")])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    several = [ROW, replace(ROW, prompt="é\n\u2028 \"'", kl=1e-300, policy_tokens=0)]
    write_scores(tmp_path / "scores.jsonl", several)
    assert read_scores(tmp_path / "scores.jsonl") == several
    with pytest.raises(ValueError, match="JSON"):
        write_scores(tmp_path / "scores.jsonl", [replace(ROW, kl=math.nan)])
    assert read_scores(tmp_path / "scores.jsonl") == several
    assert [path.name for path in tmp_path.iterdir()] == ["scores.jsonl"]


def changed(**changes: object) -> str:
    return json.dumps({"schema": 1, **ROW.__dict__} | changes)


@pytest.mark.parametrize(("line", "reason"), [
    ("{", "row 2 is not JSON"),
    ("[" * 100_000, "row 2 is not JSON"),
    (changed(kl=math.inf), "row 2 is not JSON"),
    ("[]", "row 2 is no score"),
    (changed(schema=2), "row 2 is no score"),
    (changed(more=1), "row 2 is no score"),
    ('{"schema": 1}', "row 2 is no score"),
    (changed(kl="0"), "row 2: kl '0' is of the wrong type"),
    (changed(score=True), "row 2: score True is of the wrong type"),
    (changed(policy_tokens=1.5), "row 2: policy_tokens 1.5"),
    (changed(prompt=None), "row 2: prompt None"),
])  # fmt: skip
def test_a_row_that_is_no_score_is_named(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text(f"{changed()}\n{line}\n")
    with pytest.raises(InputError, match=reason):
        read_scores(tmp_path / "scores.jsonl")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("absent", "bytes", "."):
        with pytest.raises(InputError, match="cannot be read"):
            read_scores(tmp_path / name)
