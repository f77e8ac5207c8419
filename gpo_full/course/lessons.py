"""Lessons: MyST Markdown notebooks, executed once from top to bottom; what is tested is what is published."""

__all__ = ["LessonError", "execute", "lesson_files", "notebooks_folder", "page_files"]

import os
import re
import sys
from pathlib import Path

from gpo_full.files import atomic_file
from gpo_theory.errors import InputError

_TIMEOUT = 600  # seconds for one cell; a lesson is meant to take well under a minute in all


class LessonError(RuntimeError):
    """A lesson raised while it was executed; nothing was written."""


def notebooks_folder() -> Path:
    """Return the folder of the lessons, which only a checkout of the source has."""
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if not (folder / "index.md").is_file():
        raise InputError("the lessons are not installed with the packages: run this in a checkout of the source")
    return folder


def lesson_files(folder: Path | None = None) -> tuple[Path, ...]:
    """Return the lessons of `folder` (default: this checkout's) in order: `NN_title.md`."""
    return tuple(sorted((folder or notebooks_folder()).glob("[0-9][0-9]_*.md")))


def page_files(folder: Path | None = None) -> tuple[Path, ...]:
    """Return the other pages of `folder` that are notebooks, too: those that say how Jupyter should read them."""
    pages = sorted((folder or notebooks_folder()).glob("[a-z]*.md"))
    return tuple(page for page in pages if page.read_text(encoding="utf-8").startswith("---\njupytext:"))


def execute(lesson: Path, output: Path, environment: dict[str, str] | None = None) -> Path:
    """Execute `lesson` in a fresh kernel and write it with its outputs to `output/<name>.ipynb`.

    `environment` adds to the kernel's environment. A cell that raises is a LessonError that quotes the cell.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from traitlets.config import Config

    notebook = jupytext.read(lesson)
    encrypted = Config({"KernelManager": {"transport_encryption": "auto"}})  # else every kernel warns on stderr
    place = {"metadata": {"path": str(lesson.parent)}}
    client = NotebookClient(notebook, timeout=_TIMEOUT, kernel_name="python3", resources=place, config=encrypted)
    try:
        client.execute(env=_settings() | (environment or {}))
    except CellExecutionError as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)  # IPython colours its tracebacks
        raise LessonError(f"{lesson.name}: {error.ename}: {error.evalue}\n{text}") from None
    target = output / f"{lesson.stem}.ipynb"
    with atomic_file(target) as temporary:
        temporary.write_text(nbformat.writes(notebook), encoding="utf-8")
    return target


def _settings() -> dict[str, str]:
    """The kernel's environment: one thread, so that sums have one order, and this installation's `gpo` on the path."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "COLUMNS": "105"}
