"""The harvest rules, on planted sources; the expected examples are written out by hand."""

from pathlib import Path

import pytest

from gpo_full.experiment.inputs.docstrings import Example, examples_in, harvest

FORTY = " ".join(f"word{i}" for i in range(40))


def source(docstring: str, head: str = "def load(path, *, mode=None):") -> str:
    return f'{head}\n    """{docstring}"""\n'


def summaries(docstring: str) -> list[str]:
    return [example.target for example in examples_in(source(docstring), "p")]


def test_an_example_is_signature_and_prose_against_the_summary() -> None:
    (found,) = examples_in(source(f"Load a table from disk.\n\n    {FORTY}\n    "), "p")
    assert found == Example(f"def load(path, mode)\n\n{FORTY}\n\nSummary:", "Load a table from disk.", "p")


def test_methods_lose_self_and_classes_have_no_arguments() -> None:
    text = f'class Table:\n    """Hold rows in memory only.\n\n    {FORTY}\n    """\n'
    text += f'    async def read(self, n):\n        """Read the next few rows.\n\n        {FORTY} more.\n        """\n'
    prompts = [example.prompt.split("\n")[0] for example in examples_in(text, "p")]
    assert prompts == ["class Table", "def read(n)"]


def test_the_rest_of_the_first_paragraph_belongs_to_the_prompt() -> None:
    (found,) = examples_in(source(f"Load a table from disk. Then {FORTY}."), "p")
    assert found.target == "Load a table from disk."
    assert found.prompt.split("\n\n")[1].startswith("Then word0")


@pytest.mark.parametrize(
    "docstring",
    [
        f"Load a table.\n\n{FORTY}",  # three words
        f"{' '.join(['Load'] * 21)}.\n\n{FORTY}",  # twenty-one words
        f"Load a `table` from disk.\n\n{FORTY}",  # markup
        f"Load the :class:x table now.\n\n{FORTY}",
        f"load a table from disk.\n\n{FORTY}",  # a fragment
        f"Load a table from disk.\n\n{' '.join(FORTY.split()[:39])}",  # thirty-nine words of prose
        f"Load a table from disk.\n\nParameters\n----------\n{FORTY}",
        f"Load a table from disk.\n\nArgs:\n    {FORTY}",
        f"Load a table from disk.\n\n- {FORTY}",
        f"Load a table from disk.\n\n>>> load()\n{FORTY}",
        f"Load a table from disk.\n\n.. note:: {FORTY}",
        f"Load a table from disk.\n\npath (str): {FORTY}",
        "",
    ],
)  # fmt: skip
def test_what_is_no_example(docstring: str) -> None:
    assert summaries(docstring) == []


def test_prose_ends_at_the_first_section() -> None:
    text = source(f"Load a table from disk.\n\n    {FORTY}\n\n    Returns\n    -------\n    secret\n")
    (found,) = examples_in(text, "p")
    assert "secret" not in found.prompt


@pytest.mark.parametrize("text", ["def broken(:", "\x00", "print 'old'", "(" * 500])
def test_a_source_that_does_not_parse_has_no_examples(text: str) -> None:
    assert list(examples_in(text, "p")) == []


def test_tests_and_vendored_code_are_skipped_and_nothing_is_imported(tmp_path: Path) -> None:
    body = source(f"Load a table from disk.\n\n    {FORTY}\n")
    for name in ("good.py", "tests/a.py", "test_b.py", "c_test.py", "_vendor/d.py", "deep/good.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise SystemExit('imported')\n{body}")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n" + body.encode())
    assert len(list(harvest(tmp_path, "p"))) == 2
    assert len(list(harvest(tmp_path / "good.py", "p"))) == 1
    assert list(harvest(tmp_path / "test_b.py", "p")) == []
