"""Tables fold at a terminal's edge and nowhere else, and no line ends in blanks."""

import io
import re
import sys

import pytest
from rich.table import Table
from rich.text import Text

from gpo_full.output import show, width

LONG = "a sentence that is longer than eighty characters, so that a terminal of eighty would have to fold it somewhere"


def table() -> Table:
    made = Table("claim", "because", box=None)
    made.add_row("convex", LONG)
    made.add_row("smooth", "short")
    return made


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, columns: str | None) -> list[str]:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", out)
    show(table(), Text("dim", style="dim"), LONG)
    return out.getvalue().splitlines()


def test_a_pipe_gets_each_row_as_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, io.StringIO(), None)
    assert len(lines) == 5
    assert lines[1].split() == ["convex", *LONG.split()]
    assert lines[3:] == ["dim", LONG]
    assert all(line == line.rstrip() for line in lines)


def test_a_terminal_gets_rows_folded_to_its_width_and_sentences_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [re.sub("\x1b.*?m", "", line) for line in shown(monkeypatch, Terminal(), "60")]
    assert all(len(line) <= 60 for line in lines[:-2])
    assert len(lines) > 5
    assert lines[-1] == LONG  # the terminal folds it, and what is copied from it is one line


def test_columns_holds_for_a_pipe_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, io.StringIO(), "60")
    assert all(len(line) <= 60 for line in lines[:-2])
    monkeypatch.setenv("COLUMNS", "many")
    assert width() > 10_000
