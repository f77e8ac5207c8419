"""The key of an executed lesson changes with everything that its outputs depend on, and with nothing else."""

import re
from pathlib import Path

import pytest

from gpo_full import source_hash
from gpo_full.course import keys
from gpo_full.course.keys import code_modules, lesson_key
from gpo_full.course.lessons import lesson_files, notebooks_folder, page_files
from tests.support.edits import edit
from tests.support.lessons import lesson

PAGES = (*lesson_files(), *page_files())
BETA = notebooks_folder() / "04_which_beta.md"  # it runs `gpo beta` and imports nothing of gpo_full but exercises and values
PUBLISHED = notebooks_folder() / "which_loss_which_beta.md"
MODEL = notebooks_folder() / "09_language_model.md"
EXPERIMENT = "gpo_full.experiment.run"


@pytest.mark.parametrize(
    ("module", "changes"),
    [("gpo_theory.choosing.matching", True), ("gpo_theory.kernel.certificates", True), ("gpo_full.course.values", True),
     ("gpo_full.cli.commands.beta", True), ("gpo_full.cli.entry", True), ("gpo_full.cli.commands.toy", False),
     ("gpo_full.training.trainer", False), ("gpo_full.book.book", False), (EXPERIMENT, False)],
)  # fmt: skip
def test_a_planted_edit_counts_where_the_lesson_reaches_it(module: str, changes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lesson_key(BETA, {}, {})
    edit(monkeypatch, module, lambda source: f"{source}\nplanted = 1\n")
    assert (lesson_key(BETA, {}, {}) != before) == changes


def test_a_comment_is_no_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = lesson_key(BETA, {}, {})
    edit(monkeypatch, "gpo_theory.choosing.matching", lambda source: f"{source}\n# planted\n")
    assert lesson_key(BETA, {}, {}) == before


def test_text_environment_and_versions_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / BETA.name
    found = []
    for text in (BETA.read_text(encoding="utf-8"), BETA.read_text(encoding="utf-8") + "\nMore.\n"):
        page.write_text(text, encoding="utf-8")
        found.append(lesson_key(page, {}, {}))
    assert found[0] == lesson_key(BETA, {}, {})
    found.append(lesson_key(BETA, {"GPO_SCALE": "cpu"}, {}))
    monkeypatch.setattr(keys, "versions_of", lambda names: {name: "0" if name == "torch" else "1" for name in names})
    found.append(lesson_key(BETA, {}, {}))
    monkeypatch.setattr(keys, "versions_of", lambda names: dict.fromkeys(names, "1"))
    found.append(lesson_key(BETA, {}, {}))
    assert len(set(found)) == 5


@pytest.mark.parametrize("page", [BETA, MODEL, PUBLISHED], ids=lambda path: path.stem)
def test_the_experiment_s_result_counts_for_the_lesson_that_reads_it(page: Path) -> None:
    same = lesson_key(page, {}, {EXPERIMENT: "a"}) == lesson_key(page, {}, {EXPERIMENT: "b"})
    assert same == (page != MODEL)


def test_data_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page reads the result that is shipped, which no import names."""
    found = {file.name for file in keys._data_files(source_hash.reached(code_modules(PUBLISHED)))}
    assert "full.json.xz" in found
    assert not {name for name in found if name.endswith(".py")}
    before = lesson_key(BETA, {}, {})
    monkeypatch.setattr(keys, "_data_files", lambda modules: [BETA])
    assert lesson_key(BETA, {}, {}) != before


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_that_a_lesson_runs_is_reached(page: Path) -> None:
    code = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shell = [line for cell in code for line in cell.split("\n") if re.match(r"\s*(?:\w+ = )?!", line)]
    commands = {word for line in shell for word in re.findall(r"\bgpo (\w+)", line)}
    reached = {name.split(".")[-1] for name in code_modules(page)}
    assert commands <= reached


def test_a_command_in_a_list_or_a_text_is_reached(tmp_path: Path) -> None:
    code = 'words = ["gpo", "toy", "bandit"]\nline = "gpo losses --json"\n# like `gpo sweep`\n!gpo verify {file}'
    assert code_modules(lesson(tmp_path, "", code)) == (
        "gpo_full.cli.commands.losses", "gpo_full.cli.commands.toy", "gpo_full.cli.commands.verify", "gpo_full.cli.entry")  # fmt: skip
