"""Lessons: executed once, and what was executed is what the book publishes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gpo_full.course.lessons import lesson_files, notebooks_folder
from tests.support.lessons import code_cells

NAMES = [path.stem for path in lesson_files()]
PARTS = ("The question", "Prediction", "Exercise", "Find the bug", "True or false", "The same from the command line", "Summary")


def executed(published: Path, name: str) -> list[dict[str, Any]]:
    return code_cells(json.loads((published / "lessons" / f"{name}.ipynb").read_text(encoding="utf-8")))


def test_the_lessons_are_there_in_order() -> None:
    assert [name[:2] for name in NAMES] == sorted(name[:2] for name in NAMES)
    assert {"01", "06", "09"} <= {name[:2] for name in NAMES}


@pytest.mark.parametrize("path", lesson_files(), ids=NAMES)
def test_every_lesson_has_the_skeleton(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    places = [next((i for i, h in enumerate(headings) if h.startswith(part)), None) for part in PARTS]
    missing = [part for part, place in zip(PARTS, places, strict=True) if place is None]
    assert not missing, f"{path.name} has no section {missing}"
    assert places == sorted(places), f"{path.name}: the order is {PARTS}"
    assert re.search(r'^prediction = "\?"', text, flags=re.MULTILINE)
    assert "\nassert time.process_time() < 60" in text  # the card's CPU time, tested where it is claimed
    assert all(f"| **{row}** |" in text for row in ("Time", "Needs", "You will be able to", "Source"))
    stubs = text.count('NotImplementedError("your turn")')
    assert text.count("### BEGIN SOLUTION") == text.count("### END SOLUTION") == stubs >= 1


@pytest.mark.parametrize("path", lesson_files(), ids=NAMES)
def test_every_exercise_has_hints_a_check_and_a_test_of_the_check(path: Path) -> None:
    sections = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    exercises = [section for section in sections if section.startswith("Exercise")]
    assert 1 <= len(exercises) <= 3, path.name
    for section in exercises:
        title = f"{path.name}, {section.splitlines()[0]}"
        assert re.search(r"^(Easy|Medium|Hard), \d+ minutes\.", section, re.MULTILINE), f"{title}: difficulty and minutes"
        hints = re.findall(r"^<details><summary>Hint (\d)</summary>\n\n", section, re.MULTILINE)
        assert hints == ["1", "2", "3"], f"{title}: three folded hints"
        for needed in ("Exercise(", "print(", ".check(", ".verify(", "### BEGIN SOLUTION"):
            assert needed in section, f"{title}: {needed} is missing"


@pytest.mark.parametrize("path", lesson_files(), ids=NAMES)
def test_true_or_false_answers_are_folded_and_marked(path: Path) -> None:
    sections = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith("True or false")]
    folded = "\n".join(re.findall(r"<details>(.*?)</details>", section, re.DOTALL))
    answers = re.split(r"(?=\*\*(?:True|False)\b)", folded)[1:]
    assert 3 <= len(answers) <= 5, f"{path.name}: {len(answers)} folded answers that begin with **True or **False"
    for answer in answers:
        assert "](ledger.md#c" in answer, f"{path.name}: an answer without a mark [¶N.M](ledger.md#cN-M): {answer}"


@pytest.mark.parametrize("path", lesson_files(), ids=NAMES)
def test_lessons_hold_no_outputs_of_their_own(path: Path) -> None:
    """A figure or a number that is committed could outlive the code that made it."""
    assert not re.search(r"data:image|\{figure\}|!\[", path.read_text(encoding="utf-8"))
    assert not list(notebooks_folder().rglob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_ran_without_a_word_on_stderr(published: Path, name: str) -> None:
    cells = executed(published, name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    errors = [output["text"] for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"]
    assert errors == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_says_what_it_shows(published: Path, name: str) -> None:
    for cell in executed(published, name):
        figures = [output for output in cell["outputs"] if "image/svg+xml" in output.get("data", {})]
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        assert bool(figures) == bool(alt), cell["source"]
        assert len(figures) <= 1
        assert not figures or len(alt) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_claims_are_tested_where_they_are_made(published: Path, name: str) -> None:
    cells = executed(published, name)
    tests = [cell for cell in cells if "hide-input" in cell["metadata"].get("tags", []) and "assert" in cell["source"]]
    assert len(tests) >= 2
    assert any("check(" in cell["source"] and "correct" in str(cell["outputs"]) for cell in cells)
