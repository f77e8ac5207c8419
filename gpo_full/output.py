"""What a command prints: JSON or tables and sentences on stdout, progress on stderr."""

__all__ = ["announce", "print_json", "progress", "show", "width"]

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")
# Characters of a line where nothing folds it, a file or a pipe: wider than any row.
_UNFOLDED = 100_000


def print_json(payload: Mapping[str, Any]) -> None:
    """Print `payload` as one JSON object that carries `"schema": 1`; NaN and infinity are errors."""
    print(json.dumps({"schema": 1, **payload}, allow_nan=False))


def announce(command: str) -> None:
    """Say on stderr that a command has begun, if it now imports what takes seconds."""
    if "torch" not in sys.modules:
        print(f"gpo {command}: loading torch ...", file=sys.stderr, flush=True)


def progress(items: Iterable[T], label: str, total: int | None = None, after: float = 2.0) -> Iterator[T]:
    """Yield `items`, reporting on stderr about once a second when the work outlasts `after` seconds."""
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - start > after and now - last > 1.0:
            of = f"/{total}" if total else ""
            print(f"{label}: {done}{of}, {now - start:.0f} s", file=sys.stderr, flush=True)
            last = now
        yield item


def width() -> int:
    """Return how many characters a line may have: the terminal's width, or COLUMNS if it is set; else no real limit."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return shutil.get_terminal_size().columns
    return _UNFOLDED


def show(*parts: "RenderableType") -> None:
    """Print each part below the one before: a table folded to `width()`, a text as one line. No line ends in blanks.

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
