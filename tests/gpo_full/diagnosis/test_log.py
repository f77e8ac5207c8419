"""Run logs: ours and TRL's become the same columns, and what is no run is refused by name."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gpo_full.diagnosis.log import read_run
from gpo_theory import InputError


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def state(*logs: dict[str, Any]) -> dict[str, Any]:
    return {"global_step": 20, "log_history": list(logs)}


TRL = {"step": 10, "epoch": 0.5, "loss": 0.69, "grad_norm": 1.5, "learning_rate": 1e-6, "rewards/chosen": 0.1,
       "rewards/rejected": -0.2, "rewards/margins": 0.3, "rewards/accuracies": 0.75, "logps/chosen": -80.0}  # fmt: skip


def test_our_folder_with_its_configuration(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "loss": 1 / step, "margin": step}) for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 3, "lo')  # killed in the third
    write(tmp_path / "run.json", {"loss": "dpo", "beta": 0.1})
    for path in (tmp_path, tmp_path / "metrics.jsonl"):
        log = read_run(path)
        assert (log.run, log.source, log.broken, len(log)) == (str(path), "gpo", 0, 2)
        assert log.columns == {"step": (1.0, 2.0), "loss": (1.0, 0.5), "margin": (1.0, 2.0)}
        assert log.settings == {"loss": "dpo", "beta": 0.1}


def test_the_state_of_trl_by_our_names(tmp_path: Path) -> None:
    evaluation, summary = {"step": 10, "eval_loss": 0.5}, {"step": 20, "train_loss": 0.6, "train_runtime": 3.0}
    file = write(tmp_path / "trainer_state.json", state(TRL, evaluation, TRL | {"step": 20}, summary))
    for path in (file, tmp_path):
        log = read_run(path)
        assert (log.source, log.settings) == ("trl", {})
        assert log.columns == {"step": (10.0, 20.0), "epoch": (0.5, 0.5), "loss": (0.69, 0.69), "grad_norm": (1.5, 1.5),
                               "log_ratio_chosen": (0.1, 0.1), "log_ratio_rejected": (-0.2, -0.2),
                               "margin": (0.3, 0.3), "accuracy": (0.75, 0.75)}  # fmt: skip


def test_of_several_checkpoints_the_last(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        write(tmp_path / f"checkpoint-{step}" / "trainer_state.json", state(TRL | {"step": step}))
    write(tmp_path / "checkpoint-old" / "trainer_state.json", state(TRL))
    assert read_run(tmp_path).columns["step"] == (100.0,)


def test_a_checkpoint_of_ours_is_the_run_up_to_there(tmp_path: Path) -> None:
    write(tmp_path / "run.json", {"loss": "dpo", "beta": 0.1})
    ours = state({"step": 1, "loss": 0.7, "margin": 2.0}) | {"stateful_callbacks": {"GPOMeter": {}}}
    file = write(tmp_path / "checkpoint-1" / "trainer_state.json", ours)
    for path in (file, file.parent):
        log = read_run(path)
        assert (log.source, dict(log.settings)) == ("gpo", {"loss": "dpo", "beta": 0.1})
        assert log.columns == {"step": (1.0,), "loss": (0.7,), "margin": (2.0,)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_counted_and_the_others_of_their_log_kept(value: float, tmp_path: Path) -> None:
    file = write(tmp_path / "trainer_state.json", state(TRL | {"grad_norm": value}, TRL, TRL | {"loss": value}))
    log = read_run(file)
    assert (log.broken, len(log)) == (2, 3)
    assert log.columns["grad_norm"] == (math.inf, 1.5, 1.5)
    assert log.columns["loss"] == (0.69, 0.69, math.inf)
    assert log.holding(["grad_norm"]).columns["loss"] == (0.69, math.inf)
    assert log.holding(["grad_norm", "loss"]).columns["grad_norm"] == (1.5,)
    every = read_run(write(tmp_path / "all.json", state(TRL | {"loss": value})))
    assert (every.broken, len(every), len(every.holding(["loss"]))) == (1, 1, 0)


def test_a_metric_that_some_logs_lack_is_counted_and_kept_where_it_is(tmp_path: Path) -> None:
    log = read_run(write(tmp_path / "trainer_state.json", state(TRL, {"step": 20, "loss": 0.5})))
    assert (log.columns["step"], log.columns["loss"]) == ((10.0, 20.0), (0.69, 0.5))
    assert log.lacking == dict.fromkeys(
        ("margin", "log_ratio_chosen", "log_ratio_rejected", "accuracy", "grad_norm", "epoch"), 1)
    assert log.holding(["margin"]).columns["loss"] == (0.69,)
    assert log.broken == 0


@pytest.mark.parametrize(("name", "text", "message"), [
    ("metrics.jsonl", "", "holds no training log"),
    ("metrics.jsonl", "[1]\n", "holds no training log"),
    ("metrics.jsonl", "{\n", "is not the JSON of a run"),
    ("metrics.jsonl", "[" * 100_000 + "\n", "is not the JSON of a run"),
    ("trainer_state.json", "[]", "holds no training log"),
    ("trainer_state.json", '{"log_history": {}}', "holds no training log"),
    ("trainer_state.json", '{"log_history": [{"eval_loss": 1}]}', "holds no training log"),
    ("other.txt", "", "holds neither metrics.jsonl nor trainer_state.json"),
])  # fmt: skip
def test_what_is_no_run(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_run(tmp_path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'.*absent' is neither a folder nor a file"):
        read_run(tmp_path / "absent")
