"""Small lessons, and what is in a notebook."""

__all__ = ["code_cells", "lesson"]

from pathlib import Path
from typing import Any

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""


def lesson(folder: Path, text: str, *cells: str, name: str = "04_small") -> Path:
    """Write a lesson of one text and cells of code."""
    path = folder / f"{name}.md"
    code = "".join(f"```{{code-cell}} ipython3\n{cell}\n```\n\n" for cell in cells)
    path.write_text(f"{HEADER}# Small\n\n{text}\n\n{code}", encoding="utf-8")
    return path


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]
