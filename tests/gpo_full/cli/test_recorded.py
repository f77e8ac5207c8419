"""The options that a run's folder keeps: absolute, filled in where none is given, and never code."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from gpo_full.cli.options.recorded import options_to_record, take_recorded
from gpo_theory import InputError

NONE = {"model": None, "data": None, "eval_data": None, "test_by": None, "beta": None, "seed": None, "bf16": None, "steps": None, "epochs": None,
        "set": [], "param": [], "columns": [], "report_to": None, "reward": None, "prompts": None, "reference_store": None}  # fmt: skip
OF_A_CALL = {"output": "run", "resume": True, "allow_change": ["seed"], "json": True, "dry_run": True, "reference_only": True, "gpo": print}


def options(**given: Any) -> Namespace:
    return Namespace(**NONE | OF_A_CALL | given)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("pairs.jsonl", "a:b.jsonl"):
        (tmp_path / name).touch()
    for name in ("policy", "splits", "judge"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [("seed", 0, 0), ("beta", 0.0, 0.0), ("bf16", True, True), ("bf16", False, ...), ("set", ["a=1"], ["a=1"]), ("set", [], ...), ("seed", None, ...),
     ("model", "policy", "{here}/policy"), ("model", "owner/name", "owner/name"), ("data", "pairs.jsonl", "{here}/pairs.jsonl"),
     ("data", "splits:test", "{here}/splits:test"), ("data", "owner/name:test", "owner/name:test"), ("data", "a:b.jsonl", "{here}/a:b.jsonl"),
     ("eval_data", "splits", "{here}/splits"), ("prompts", "pairs.jsonl", "{here}/pairs.jsonl"), ("reward", "judge", "{here}/judge"),
     ("reward", "mine:judge", "mine:judge"), ("reference_store", "new", "{here}/new"), *((name, value, ...) for name, value in OF_A_CALL.items())],
)  # fmt: skip
def test_what_is_given_is_kept_by_absolute_paths(name: str, value: Any, kept: Any, here: Path) -> None:
    expected = kept.format(here=here.resolve()) if isinstance(kept, str) else kept
    assert options_to_record(options(**{name: value})) == ({} if kept is ... else {name: expected})


@pytest.mark.parametrize(
    ("given", "recorded", "found"),
    [({}, {"beta": 0.1, "seed": 0}, {"beta": 0.1, "seed": 0}), ({"seed": 0}, {"seed": 7}, {"seed": 0}), ({"bf16": None}, {"bf16": True}, {"bf16": True}),
     ({"epochs": 2.0}, {"steps": 4}, {"steps": None, "epochs": 2.0}), ({"steps": 2}, {"epochs": 4.0}, {"epochs": None}),
     ({"test_by": "topic"}, {"eval_data": "x"}, {"eval_data": None}), ({"eval_data": "x"}, {"test_by": "topic"}, {"test_by": None}),
     ({"set": ["b=2", "c=3"]}, {"set": ["a=1", "b=1"]}, {"set": ["a=1", "b=2", "c=3"]}), ({}, {"set": ["a=1=2"]}, {"set": ["a=1=2"]}),
     ({"set": ["a=3=4"]}, {"set": ["a=1=2"]}, {"set": ["a=3=4"]}), ({"columns": None}, {"columns": ["prompt=q"]}, {"columns": ["prompt=q"]}),
     ({"report_to": ["trackio"]}, {"report_to": ["wandb"]}, {"report_to": ["trackio"]}), ({"reward": "mine:b"}, {"reward": "mine:a"}, {"reward": "mine:b"})],
)  # fmt: skip
def test_what_is_not_given_is_the_run_s(given: Any, recorded: Any, found: Any) -> None:
    args = options(**given)
    take_recorded(args, recorded)
    assert {name: getattr(args, name) for name in found} == found


def test_what_no_option_has_is_left_out() -> None:
    args = options()
    take_recorded(args, {"no_such_option": 1, "set": ["a=1"]})
    assert not hasattr(args, "no_such_option")


def test_code_is_typed_again_and_a_folder_is_not(here: Path) -> None:
    args = options()
    with pytest.raises(InputError, match=r"^the run names code, --reward 'mine:judge', which is only run if it is typed: give it again$"):
        take_recorded(args, {"reward": "mine:judge"})
    with pytest.raises(InputError, match=r"^the run names code, --reward 'mine:judge'"):
        take_recorded(options(), {"set": ["seed=1", "sample_reward=mine:judge"]})
    take_recorded(args, {"reward": str(here / "judge")})
    assert args.reward == str(here / "judge")
