"""The book's gallery: every figure that the lessons drew, linked to the page that draws it."""

__all__ = ["write_gallery"]

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpo_full.book.prose import cells
from gpo_full.book.templates import page


def write_gallery(notebooks: Sequence[Path], folder: Path) -> None:
    """Write `gallery.md` and its pictures: the figures of executed notebooks that have an alternative text."""
    (folder / "gallery").mkdir()
    figures = ""
    for notebook in notebooks:
        for number, (title, alt, picture) in enumerate(_figures(cells(notebook)), 1):
            name = f"{notebook.stem}-{number}.svg"
            (folder / "gallery" / name).write_text(picture, encoding="utf-8")
            figures += page("figure", name=name, alt=alt.replace('"', "'"), page=notebook.stem, title=title)
    (folder / "gallery.md").write_text(page("gallery", figures=figures), encoding="utf-8")


def _figures(read: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """The page's title, the alternative text and the SVG of each figure."""
    title = next(line[2:] for cell in read for line in cell["source"].split("\n") if line.startswith("# "))
    for cell in read:
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.get("outputs", ()):
            if alt and "image/svg+xml" in output.get("data", {}):
                yield title, alt, "".join(output["data"]["image/svg+xml"])
