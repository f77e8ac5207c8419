"""A stage is computed once for its inputs, and never half."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpo_full import source_hash
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


def test_a_continued_stage_finds_what_it_wrote_before_an_interruption(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def compute(folder: Path, interruption: BaseException | None) -> dict[str, Any]:
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / f"file{len(seen)}").write_text("content")
        if interruption is not None:
            raise interruption
        return {}

    def run(interruption: BaseException | None) -> Any:
        return stage(tmp_path, "s", {}, compute, lambda: (interruption,), continued=True)

    for interruption in (KeyboardInterrupt(), SystemExit(130)):
        with pytest.raises(type(interruption)):
            run(interruption)
    assert not run(None).cached
    assert seen == [[], ["file1"], ["file1", "file2"]]
    assert run(None).cached
    assert [path.name[0] for path in tmp_path.iterdir()] == ["s"]


def test_an_error_leaves_nothing_of_a_continued_stage(tmp_path: Path) -> None:
    def wrong(folder: Path) -> dict[str, Any]:
        (folder / "file").write_text("half")
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        stage(tmp_path, "s", {}, wrong, continued=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("payload", [{"x": float("nan")}, {"x": object()}])
def test_a_payload_that_is_not_json_is_refused_whole(tmp_path: Path, payload: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        stage(tmp_path, "s", {}, lambda folder: payload)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A module that computes with a helper of its own, loaded anew after each edit."""
    names = ("planted_stage", "planted_helper")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(source_hash, "_OWN", (*source_hash._OWN, *names))

    def write(number: int, note: str = "") -> Any:
        (tmp_path / "planted_helper.py").write_text(f'"""{note}"""\nNUMBER = {number}\n')
        (tmp_path / "planted_stage.py").write_text(
            "from planted_helper import NUMBER\n\n\ndef compute(folder, times):\n    return {'value': NUMBER * times}\n")  # fmt: skip
        for name in names:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("planted_stage").compute

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_a_stage_is_computed_again_when_code_that_it_reaches_was_edited(
    planted: Callable[..., Any], tmp_path: Path
) -> None:
    def run(*edit: Any) -> tuple[Any, bool]:
        found = stage(tmp_path / "stages", "s", {}, planted(*edit), lambda: (10,))
        return found.payload["value"], found.cached

    assert run(1) == (10, False)
    assert run(1, "another docstring") == (10, True)
    assert run(2) == (20, False)
    assert run(1) == (10, True)


def test_what_a_stage_takes_is_made_only_when_it_is_computed(tmp_path: Path) -> None:
    def compute(folder: Path, value: int) -> dict[str, Any]:
        return {"value": value}

    def never() -> tuple[int]:
        raise AssertionError("arguments of a cached stage were made")

    assert stage(tmp_path, "s", {}, compute, lambda: (3,)).payload == {"value": 3}
    assert stage(tmp_path, "s", {}, compute, never).cached
