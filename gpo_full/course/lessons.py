"""Where the lessons are: MyST Markdown notebooks in a checkout of the source."""

__all__ = ["lesson_files", "notebooks_folder", "page_files"]

from pathlib import Path

from gpo_theory.errors import InputError


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
