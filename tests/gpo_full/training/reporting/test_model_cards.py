"""The card of a trained model: what it says is what was run, proved and measured, and nothing of whose machine it was."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpo_full.cli.commands.train import SECONDS
from gpo_full.data.pairs import PairSummary
from gpo_full.training.reporting.model_cards import METRICS, CardFacts, model_card
from gpo_theory import analyze, find_loss
from gpo_theory.report.result import Analysis
from tests.support.commands import gpo
from tests.support.pairs import ROWS
from tests.support.tables import write_rows
from tests.support.tiny_models import saved_policy
from tests.support.trainings import objects

FIRST = dict.fromkeys(METRICS, 0.25)
LAST = {name: 0.125 + place for place, name in enumerate(METRICS)}
HELD = {f"eval_{name}": 0.5 + place for place, name in enumerate(METRICS)} | {
    "eval_accuracy": 0.75, "eval_accuracy_low": 0.4, "eval_accuracy_high": 0.9, "eval_pairs": 8.0,
    "eval_longer_wins": 0.625, "eval_pairs_not_longer": 0.0}  # fmt: skip
SAMPLES = {"step": 40, "n": 16, "kl": 1.5, "kl_se": 0.25, "win_rate": 0.625, "win_low": 0.5, "win_high": 0.75,
           "judge": "/secret/place/encoder"}  # fmt: skip
FACTS = CardFacts(
    base="maker/base-135M", on_hub=True, licence="apache-2.0",
    settings={"loss": "ipo", "beta": 0.05, "margin": "sum", "max_length": 64, "max_prompt_length": 32},
    command="gpo train --loss ipo", data_name="pairs.jsonl", data_hash="ab12", data=None, reference_weights="cd34",
    versions={"torch": "2.13.0"}, first=FIRST, last=LAST,
)  # fmt: skip


@cache
def analysis(loss: str) -> Analysis:
    return analyze(find_loss(loss), SECONDS)


def card(loss: str = "ipo", settings: dict[str, Any] | None = None, **changes: Any) -> str:
    given = {**FACTS.settings, "loss": loss, **(settings or {})}
    return model_card(replace(FACTS, settings=given, **changes), analysis(loss))


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


# By hand: R of (1-x)^2 is 1, of log(1+exp(-x)) 1/2, of exp(-x) 1, of the hinge 0; DPO's beta is the one of beta R = beta'/2.
@pytest.mark.parametrize(("loss", "beta", "felt", "like"), [
    ("ipo", 0.05, "0.05", "like DPO at beta = 0.1:"), ("dpo", 0.3, "0.15", "like DPO at beta = 0.3:"),
    ("exp(-x)", 2.0, "2", "like DPO at beta = 4:"),
])  # fmt: skip
def test_the_equivalent_beta(loss: str, beta: float, felt: str, like: str) -> None:
    text = card(loss, {"beta": beta})
    assert f"beta R = {felt}: near the reference it regularises {like[:-1]}" in text
    assert f"with $\\beta$ = {beta:g}." in text
    assert "(on the length-averaged margin as well)" not in text
    assert "(on the length-averaged margin as well)" in card(loss, {"beta": beta, "margin": "mean"})


@pytest.mark.parametrize(("loss", "reason"), [
    ("hinge", "beta R = 0: f''(0) is not above 0, so near the reference no DPO beta is equivalent."),
    ("x**2", "is unknown or does not exist, so no DPO beta is equivalent."),
    # f' = -1/2 - 2 x, f'' = -2 at 0.
    ("1 - x/2 - x**2", "f''(0) is not above 0, so near the reference no DPO beta is equivalent."),
])  # fmt: skip
def test_no_equivalent_beta_where_there_is_none(loss: str, reason: str) -> None:
    text = card(loss, {"beta": 0.3})
    assert reason in text
    assert "like DPO" not in text


def test_every_claim_has_its_row_and_its_verdict() -> None:
    for loss in ("ipo", "hinge"):
        rows = [line.split(" | ") for line in card(loss).splitlines() if line.startswith("| ")]
        found = {row[0].removeprefix("| "): row[1] for row in rows if len(row) >= 3}
        for name, claim in analysis(loss).claims.items():
            assert found[name.replace("_", " ")] == claim.verdict.value
    assert "| convex | proved |" in card("ipo")
    assert "| strictly convex | refuted |" in card("hinge")


def test_what_a_formula_may_hold_cannot_break_the_table() -> None:
    for line in card("max(0,1-x)**2").splitlines():
        if line.startswith("| ") and "proved" in line:
            assert line.replace(r"\|", "").count("|") == 4


def test_the_front_matter_names_base_licence_and_loss() -> None:
    found = front(card())
    assert (found["base_model"], found["license"]) == ("maker/base-135M", "apache-2.0")
    assert (found["library_name"], found["pipeline_tag"]) == ("transformers", "text-generation")
    assert found["tags"] == ["preference-optimization", "gpo", "loss:squared"]  # ipo is an alias
    assert "model-index" not in found
    assert "[maker/base-135M](https://huggingface.co/maker/base-135M)" in card()
    assert front(card("exp(-2*x)"))["tags"][-1] == "loss:formula"
    assert front(card(versions={"peft": "0.21"}))["library_name"] == "peft"
    local = card(base="policy", on_hub=False, licence=None)
    assert not {"base_model", "license"} & front(local).keys()
    assert "`policy`, fine-tuned" in local
    assert "huggingface.co" not in local


def test_the_results_are_those_of_the_run() -> None:
    text = card()
    for name in METRICS:
        assert f"| {name} | 0.2500 | {LAST[name]:.4f} |\n" in text
    assert "held out" not in text
    assert "On samples" not in text


def test_held_out_pairs_beside_length_and_samples() -> None:
    text = card(held_out=HELD, held_out_name="`eval.jsonl`, sha256 `ef56`", samples=SAMPLES)
    for name in METRICS:
        assert f"| {name} | 0.2500 | {LAST[name]:.4f} | {HELD[f'eval_{name}']:.4f} |\n" in text
    assert "- held-out pairs: `eval.jsonl`, sha256 `ef56`\n" in text
    assert "preferring the longer response: 0.625" in text
    (result,) = front(text)["model-index"][0]["results"]
    assert [each["value"] for each in result["metrics"]] == [0.75]
    assert ("On samples for 16 prompts after step 40: KL to the reference 1.5000 nats per response (standard error "
            "0.2500), win rate against it 0.625 (95% interval 0.500 to 0.750) by the reward `encoder`.") in text
    assert "secret" not in text


def test_data_reference_and_how_it_was_made() -> None:
    text = card(data_hash="hub:owner/name@5")
    assert "- preference pairs: `pairs.jsonl`, `hub:owner/name@5`" in text
    assert "sha256 `ab12`" in card()
    assert "weights sha256 `cd34`" in text
    assert "- at most 64 tokens, 32 of them the prompt's" in text
    assert "```\ngpo train --loss ipo\n```" in text
    assert "With torch 2.13.0." in text
    assert "label noise at rate 0.2" in card(settings={"label_noise": 0.2})


def test_what_the_data_says_of_its_pairs() -> None:
    counts = "counts $w\\,(p f(\\beta\\rho) + (1-p) f(-\\beta\\rho))$"
    assert counts not in card()
    assert counts not in card(data=PairSummary(3, 3))
    assert all(counts in card(data=PairSummary(3, 3, **told)) for told in ({"weighted": 1}, {"uncertain": 3}))
    brought = card(data=PairSummary(3, 3, referred=3))
    assert "- used: 3 of 3 pairs, 3 with the reference's log-probabilities" in brought
    assert "- reference: as the data brings its log-probabilities, pair by pair" in brought
    assert "cd34" not in brought


def test_a_run_s_card_its_certificate_and_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "secret").mkdir()
    model, output = saved_policy(tmp_path / "secret" / "policy"), tmp_path / "secret" / "run"
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    data = write_rows(tmp_path / "secret" / "pairs.jsonl", ROWS[:3])
    command = ["train", "--loss", "ipo", "--beta", "0.05", "--model", model, "--data", data, "--eval-data", data,
               "--output", output, "--steps", "2", "--threads", "1", "--json"]  # fmt: skip
    printed = gpo(*command, code=0).stdout
    text = (output / "README.md").read_text()
    assert front(text)["license"] == "mit"
    assert "\ngpo train --loss ipo --beta 0.05 --output run --model policy --data pairs.jsonl --eval-data pairs.jsonl " in text
    assert str(tmp_path) not in text
    assert "secret" not in text
    metrics = objects(output.parent)
    assert f"| margin | {metrics[0]['margin']:.4f} | {metrics[-1]['margin']:.4f} |" in text
    assert math.isclose(metrics[0]["loss"], 1.0, abs_tol=1e-4)  # f(0) of (1-x)^2
    gpo("verify", output / "certificate.json", code=0)
    # Asked again for what is done, it says the same.
    assert gpo(*command, "--resume", code=0).stdout == printed
