"""`gpo diagnose`: from the files of a run to findings for people, for machines, and as a figure."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpo_full.diagnosis.log import read_run
from gpo_full.diagnosis.plots import run_curves
from gpo_full.diagnosis.rules import diagnose
from gpo_theory import find_loss
from tests.support.commands import gpo, gpo_json, refused
from tests.support.simulated_logs import Truth, simulate
from tests.support.tables import write_rows
from tests.support.tiny_models import saved_policy


def diagnosed(*words: object) -> dict[str, Any]:
    return gpo_json("diagnose", *words)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A run of TRL under (x - 1)^2 and beta = 1/2 whose margins have been at x = 1 for long."""
    log = {"epoch": 0.5, "loss": 0.0, "grad_norm": 0.1, "rewards/chosen": 0.6, "rewards/rejected": -0.4,
           "rewards/margins": 1.0, "rewards/accuracies": 1.0}  # fmt: skip
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": [log | {"step": 10 * step} for step in range(1, 21)]}))
    return path


def run_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: object) -> Path:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model, data = saved_policy(tmp_path / "model"), write_rows(tmp_path / "pairs.jsonl")
    gpo("train", "--model", model, "--data", data, "--output", tmp_path / "run", "--threads", 1, "--batch-pairs", 7,
        "--steps", 12, *words, code=0)  # fmt: skip
    return tmp_path / "run"


def test_a_real_run_that_does_not_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of_ours(tmp_path, monkeypatch, "--loss", "ipo", "--beta", 0.1, "--learning-rate", 1e-9)
    payload = diagnosed(run)
    assert {key: payload[key] for key in ("schema", "run", "source", "loss", "beta")} == {
        "schema": 1, "run": str(run), "source": "gpo", "loss": "squared", "beta": 0.1}  # fmt: skip
    assert [finding["id"] for finding in payload["findings"]] == ["stuck_at_start"]
    assert payload["findings"][0]["number"] == pytest.approx(1.0, abs=1e-3)  # f(0) = (0 - 1)^2
    text = gpo("diagnose", run, code=0).stdout
    assert "(gpo): loss squared, beta 0.1, 12 logs" in text
    assert "convention: " in text
    assert "stuck_at_start (1): " in text


def test_a_real_run_that_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of_ours(tmp_path, monkeypatch, "--loss", "dpo", "--beta", 0.1, "--learning-rate", 1e-3)
    text = gpo("diagnose", run, code=0).stdout
    assert ("nothing found\nrules applied: too_few_logs, steps_begin_again, not_finite, steps_skipped, no_gradient, gradient_not_logged, "
            "gradient_grows, loss_multiple, nothing_moves, starts_backwards, wrong_start, wrong_reference, stuck_at_start,") in text  # fmt: skip
    (line,) = [line for line in text.splitlines() if "at_target" in line]
    assert line.startswith("not applied, because ")


def test_a_run_of_trl_with_what_it_does_not_record(state: Path) -> None:
    payload = diagnosed(state, "--loss", "max(a-x, x-a)**2", "--param", "a=1", "--beta", 0.5)
    assert payload["source"] == "trl"
    (finding,) = payload["findings"]
    assert (finding["id"], finding["number"]) == ("at_target", 2.0)
    bare = diagnosed(state.parent)
    assert (bare["loss"], bare["beta"], bare["findings"]) == (None, None, [])
    assert bare["not_looked_at"]["stuck_at_start"] == "the loss is not known (--loss)"


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_figure(suffix: str, state: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"run.{suffix}"
    gpo("diagnose", state, "--loss", "ipo", "--beta", 0.5, "--plot", path, code=0)
    assert path.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_figure_draws_the_run_and_its_levels(state: Path) -> None:
    found = diagnose(read_run(state), find_loss("ipo"), 0.5)
    loss, margin, ratios = run_curves(found).axes
    steps = [10.0 * step for step in range(1, 21)]
    assert [list(line.get_xdata()) for line in loss.get_lines()[:1]] == [steps]
    assert [line.get_ydata()[0] for line in loss.get_lines()] == [0.0, 1.0]  # f and f(0)
    assert [line.get_ydata()[0] for line in margin.get_lines()] == [2.0, 2.0]  # x = 1 and the target, in nats
    assert [line.get_ydata()[0] for line in ratios.get_lines()] == [1.2, -0.8, 0.0]
    assert margin.get_ylabel() == "nats"


@pytest.mark.parametrize(("words", "message"), [
    (["--loss", "trl-ipo", "--beta", "0.1"], "TRL logs the summed margin, and trl-ipo is a function"),
    (["--loss", "dpoo", "--beta", "0.1"], "dpoo"),
    (["--param", "a=1"], "--param is for --loss"),
    (["--beta", "0"], "must be a finite number above 0"),
    (["--plot", "run.xyz"], "--plot 'run.xyz' cannot be written"),
])  # fmt: skip
def test_bad_input_is_one_line(words: list[str], message: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(state.parent)
    err = refused("diagnose", state, *words)
    assert err.startswith("gpo diagnose: error: ")
    assert message in err
    assert [path.name for path in state.parent.iterdir()] == [state.name]


def test_a_rate_of_flipped_labels_is_asked_about(state: Path) -> None:
    payload = diagnosed(state, "--loss", "ipo", "--beta", 0.5, "--label-noise", 0.2)
    assert payload["label_noise"] == 0.2
    assert [finding["id"] for finding in payload["findings"]] == ["at_target", "past_label_noise"]  # 1 against 1 - 2e


def test_the_figure_of_a_sampled_run_has_its_frontier(state: Path) -> None:
    samples = tuple({"step": step, "kl": step / 10, "kl_se": 0.1, "win_rate": 0.5 + step / 100, "win_low": 0.4,
                     "win_high": 0.9, "n": 8} for step in (10, 20))  # fmt: skip
    *_, frontier = run_curves(diagnose(replace(read_run(state), samples=samples))).axes
    (points, level) = frontier.get_lines()
    assert points.get_xydata().tolist() == [[1.0, 0.6], [2.0, 0.7]]
    assert list(level.get_ydata()) == [0.5, 0.5]
    (bars,) = frontier.collections
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[0.4, 0.9], [0.4, 0.9]]


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"log_history": rows}))
    return path


def test_a_log_of_another_method_is_recognised_in_one_line(tmp_path: Path) -> None:
    rows = simulate(Truth(extra={"log_odds_ratio": -0.6, "log_odds_chosen": 0.1, "nll_loss": 1.2}, shift=0.5, drag=2.0))
    text = gpo("diagnose", written(tmp_path, rows), "--loss", "dpo", "--beta", 0.1, code=0).stdout
    assert "recognised by log_odds_ratio, log_odds_chosen: ORPO; its rewards are beta log pi, without a reference" in text
    assert not [word for word in ("KL", "displace", "f(0)", "wrong_start") if word in text]
    payload = diagnosed(tmp_path, "--loss", "dpo", "--beta", 0.1)
    assert (payload["method"]["name"], payload["findings"]) == ("ORPO", [])
    assert "ORPO" in payload["not_looked_at"]["likelihood_displaced"]


def test_what_a_finding_rests_on_and_what_rows_lack_is_printed(tmp_path: Path) -> None:
    rows = simulate(Truth(accumulation=8))
    path = written(tmp_path, [*rows, {"step": 201, "loss": 2.0}])
    text = gpo("diagnose", path, "--loss", "dpo", "--beta", 0.1, code=0).stdout
    assert "loss_multiple (8): the logged loss is 8 f(0)" in text
    assert "\n  columns: loss, rewards/margins, rewards/chosen, rewards/rejected\n" in text
    assert "1 of 22 logs lack rewards/margins, rewards/chosen, rewards/rejected, rewards/accuracies, grad_norm" in text
    assert "not read: learning_rate, logps/chosen, logps/rejected" in text
    payload = diagnosed(path, "--loss", "dpo", "--beta", 0.1)
    assert (payload["method"], payload["loss_multiple"], payload["lacking"]["rewards/margins"]) == (None, 8.0, 1)
    (finding,) = payload["findings"]
    assert finding["columns"] == ["loss", "rewards/margins", "rewards/chosen", "rewards/rejected"]
    figure = run_curves(diagnose(read_run(path), find_loss("dpo"), 0.1))
    assert figure.axes[0].get_lines()[0].get_ydata()[0] == pytest.approx(0.6931, abs=1e-4)  # f, not its multiple


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    assert f"run {str(tmp_path)!r} holds neither metrics.jsonl nor trainer_state.json" in refused("diagnose", tmp_path)
