"""How a command shows tables and sentences to people: fitted to a terminal, one row a line anywhere else."""

__all__ = ["show", "width"]

import os
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

# A file or a pipe has no edge at which to fold a row; this is wider than any row.
_UNFOLDED = 100_000


def width() -> int:
    """Return how many characters a line may have: the terminal's, or what COLUMNS says; else no limit that matters."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return shutil.get_terminal_size().columns
    return _UNFOLDED


def show(*parts: "RenderableType") -> None:
    """Print each part below the one before: a table folded to the width, a text left to the terminal to fold.

    Away from a terminal no line ends in blanks.

    >>> show("a margin, in nats:", "0.25")
    a margin, in nats:
    0.25
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(markup=False, highlight=False, width=width())
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str | Text))
    print("\n".join(line.rstrip() for line in captured.get().removesuffix("\n").split("\n")))
