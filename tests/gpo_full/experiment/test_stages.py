"""A stage is computed once for its inputs, and never half."""

from pathlib import Path
from typing import Any

import pytest

from gpo_full.experiment.stages import stage


def counting(calls: list[int]) -> Any:
    def compute(folder: Path) -> dict[str, Any]:
        calls.append(1)
        (folder / "file").write_text("content")
        return {"value": (1, 2.5)}

    return compute


def test_the_same_inputs_are_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []
    first = stage(tmp_path, "s", {"a": 1, "b": [2]}, counting(calls))
    again = stage(tmp_path, "s", {"b": [2], "a": 1}, counting(calls))
    assert (len(calls), first.cached, again.cached) == (1, False, True)
    assert first.payload == again.payload == {"value": [1, 2.5]}
    assert (again.folder / "file").read_text() == "content"
    assert again.cpu_seconds == first.cpu_seconds


def test_other_inputs_are_another_stage(tmp_path: Path) -> None:
    calls: list[int] = []
    keys = {stage(tmp_path, "s", {"a": value}, counting(calls)).key for value in (1, 2, None)}
    assert len(calls) == len(keys) == 3


def test_an_interrupted_stage_leaves_nothing_and_is_computed_again(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> dict[str, Any]:
        (folder / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, "s", {}, interrupted)
    assert list(tmp_path.iterdir()) == []
    assert not stage(tmp_path, "s", {}, counting([])).cached


@pytest.mark.parametrize("payload", [{"x": float("nan")}, {"x": object()}])
def test_a_payload_that_is_not_json_is_refused_whole(tmp_path: Path, payload: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        stage(tmp_path, "s", {}, lambda folder: payload)
    assert list(tmp_path.iterdir()) == []
