"""The book's gallery: every figure that the lessons drew, linked to the page that draws it."""

__all__ = ["write_gallery"]

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_INTRODUCTION = """---
html_theme.sidebar_secondary.remove: true
---

# Gallery

The figures of the lessons and pages. Each links to the page that draws it, code included. Lesson 7 has one more,
which is animated, and each loss of the [catalogue](catalogue.md) has one of its own.

::::{container} gallery

"""
_FIGURE = """:::{{figure}} gallery/{name}
:alt: "{alt}"
:target: {page}.html

{title}
:::

"""


def write_gallery(notebooks: Sequence[Path], folder: Path) -> None:
    """Write `gallery.md` and its pictures: the figures of executed notebooks that have an alternative text."""
    (folder / "gallery").mkdir()
    figures = []
    for notebook in notebooks:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for number, (title, alt, picture) in enumerate(_figures(cells), 1):
            name = f"{notebook.stem}-{number}.svg"
            (folder / "gallery" / name).write_text(picture, encoding="utf-8")
            figures.append(_FIGURE.format(name=name, alt=alt.replace('"', "'"), page=notebook.stem, title=title))
    (folder / "gallery.md").write_text(f"{_INTRODUCTION}{''.join(figures)}::::\n", encoding="utf-8")


def _figures(cells: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """The page's title, the alternative text and the SVG of each figure."""
    title = next(line[2:] for cell in cells for line in "".join(cell["source"]).split("\n") if line.startswith("# "))
    for cell in cells:
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.get("outputs", ()):
            if alt and "image/svg+xml" in output.get("data", {}):
                yield title, alt, "".join(output["data"]["image/svg+xml"])
