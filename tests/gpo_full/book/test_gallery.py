"""The gallery: each figure once, with its text, its page and exactly its picture."""

import json
from pathlib import Path
from typing import Any

from gpo_full.book.gallery import write_gallery


def notebook(folder: Path, name: str, title: str, pictures: list[tuple[str, str]]) -> Path:
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": [f"# {title}\n", "Words."]}]
    for alt, svg in pictures:
        metadata = {"mystnb": {"image": {"alt": alt}}} if alt else {}
        output = {"output_type": "display_data", "data": {"image/svg+xml": [svg[:5], svg[5:]]}}
        cells.append({"cell_type": "code", "metadata": metadata, "source": [], "outputs": [{"data": {}}, output]})
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return path


def test_every_figure_with_a_text_stands_there_once(tmp_path: Path) -> None:
    first = notebook(tmp_path, "01_a", "1 · A", [("two curves", "<svg>1</svg>"), ("", "<svg>hidden</svg>")])
    second = notebook(tmp_path, "02_b", "2 · B", [('a "bar"', "<svg>2</svg>"), ("a line", "<svg>3</svg>")])
    write_gallery([first, second], tmp_path)
    pictures = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "gallery").iterdir()}
    assert pictures == {"01_a-1.svg": "<svg>1</svg>", "02_b-1.svg": "<svg>2</svg>", "02_b-2.svg": "<svg>3</svg>"}
    text = (tmp_path / "gallery.md").read_text(encoding="utf-8")
    assert [text.count(f"{{figure}} gallery/{name}\n") for name in pictures] == [1, 1, 1]
    assert ":alt: \"a 'bar'\"\n:target: 02_b.html\n\n2 · B" in text
    assert "hidden" not in text
