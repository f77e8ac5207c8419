"""Published values: what a lesson shows is what is gathered, and nonsense is refused where it is made."""

import json
from pathlib import Path

import pytest

from gpo_full.course.execution import execute
from gpo_full.course.values import Value, collect
from tests.support.lessons import lesson


def test_published_values_come_back_from_the_executed_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    values = "Value('a', 0.5, 0.25, 0.75, seed=3), Value('b', 2.0, tolerance=1e-6)"
    code = f"from gpo_full.course.values import Value, publish\npublish({values})"
    (path,) = execute([lesson(tmp_path, "", code)], tmp_path / "out", {}, {})
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert collect(notebook) == [Value("a", 0.5, 0.25, 0.75, seed=3), Value("b", 2.0, tolerance=1e-6)]
    shown = "".join(notebook["cells"][1]["outputs"][0]["data"]["text/markdown"])
    assert "| `a` | 0.5 | [0.25, 0.75] | 3 |" in shown


@pytest.mark.parametrize("wrong", [{"value": float("nan")}, {"value": float("inf")}, {"value": 1.0, "low": 2.0},
                                   {"value": 1.0, "high": 0.0}, {"value": 1.0, "tolerance": float("inf")}])  # fmt: skip
def test_a_value_outside_its_interval_or_json_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="value 'x'"):
        Value("x", **wrong)  # type: ignore[arg-type]


def test_an_id_is_used_once() -> None:
    output = {"data": {"application/vnd.gpo.values+json": [{"id": "a", "value": 1.0}]}}
    assert [value.id for value in collect({"cells": [{"outputs": [output]}, {}]})] == ["a"]
    with pytest.raises(ValueError, match="more than once: a"):
        collect({"cells": [{"outputs": [output]}, {"outputs": [output]}]})
