"""Student notebooks: the lessons without solutions, from the same source."""

__all__ = ["export", "student_notebook", "write_student_page"]

import argparse
import ast
import re
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from gpo_full.book.prose import MARK, cells
from gpo_full.book.templates import page
from gpo_full.course.keys import without_magics
from gpo_full.course.lessons import lesson_files
from gpo_full.files import write_whole
from gpo_theory.errors import InputError

_SOLUTION = re.compile(r"^### BEGIN SOLUTION\n.*?^### END SOLUTION$\n?", re.MULTILINE | re.DOTALL)
_TESTS = re.compile(r"^\s*assert\b|\.verify\(|assert_\w+\(", re.MULTILINE)
_CHECK = re.compile(r"print\(\w+\.check\([\w.]+\)\)\s*")  # says what is missing, and never raises


def export(lessons: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Write the student notebook of each lesson (Markdown source or executed notebook) to `folder/<name>.ipynb`."""
    import jupytext
    import nbformat

    for lesson in lessons:
        notebook = student_notebook(jupytext.read(lesson), lesson.stem)
        write_whole(folder / f"{lesson.stem}.ipynb", nbformat.writes(notebook) + "\n")
    return tuple(folder / f"{lesson.stem}.ipynb" for lesson in lessons)


def student_notebook(lesson: Any, name: str) -> Any:
    """Return a copy of a lesson, an nbformat notebook, with the stubs for solutions and without outputs.

    Folded tests that need a solution are left out; other cells that use one are tagged `raises-exception`, so that a
    notebook with nothing filled in runs to its end.
    """
    copy = deepcopy(lesson)
    solved: set[str] = set()  # names that have a value only once the reader has written the solution
    kept: list[Any] = []
    for cell in copy.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "markdown":
            cell.source = _for_jupyter(cell.source)
        else:
            cell.outputs, cell.execution_count = [], None
            if not _prepared(cell, solved):
                continue
        cell.id = f"{name[:2]}-{len(kept)}"
        kept.append(cell)
    copy.cells = kept
    return copy


def write_student_page(lessons: Sequence[Path], folder: Path) -> None:
    """Write `students.md`, a table of the lessons' exercises with the student notebooks to download."""
    rows = ""
    for path in export(lessons, folder / "_extra" / "students"):
        text = "\n".join(cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown")
        title = re.findall(r"^# (.*)$", text, re.MULTILINE)[0]
        exercises = "; ".join(re.findall(r"^## Exercise[^:\n]*: (.*)$", text, re.MULTILINE))
        rows += f'| [{title}]({path.name}) | {exercises} | <a href="students/{path.name}" download>{path.name}</a> |\n'
    (folder / "students.md").write_text(page("students", rows=rows), encoding="utf-8")


def _for_jupyter(text: str) -> str:
    """Links between lessons as notebooks; marks as text, because the ledger is a page of the book."""
    text = MARK.sub(lambda mark: f"¶{mark['id']}", text)
    return re.sub(r"\]\((\d\d_\w+)\.md", r"](\1.ipynb", text)


def _prepared(cell: Any, solved: set[str]) -> bool:
    """Strip a code cell's solution in place, and return whether the cell stays."""
    tags = cell.metadata.get("tags", [])
    if "hide-input" in tags:
        cell.metadata["jupyter"] = {"source_hidden": True}  # JupyterLab's own way to fold
    tree, stripped = ast.parse(without_magics(cell.source)), _SOLUTION.sub("", cell.source)
    if stripped != cell.source:
        solved |= _defined(tree)
        cell.source = stripped.rstrip("\n")
        return bool(cell.source)
    if not _used(tree) & solved:
        solved -= _defined(tree) - _stubs(tree)
        return True
    if "hide-input" in tags and _TESTS.search(cell.source):
        return False
    if not _CHECK.fullmatch(cell.source):
        solved |= _defined(tree)
        cell.metadata["tags"] = [*tags, "raises-exception"]
    return True


def _defined(tree: ast.Module) -> set[str]:
    """The names that the statements of a cell bind."""
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return functions.union(*(_names(node, ast.Store) for node in assigned))


def _stubs(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and "your turn" in ast.dump(node)}


def _used(tree: ast.Module) -> set[str]:
    """The names that a cell reads and does not bind itself."""
    return _names(tree, ast.expr_context) - _names(tree, ast.Store)


def _names(tree: ast.AST, context: type[ast.expr_context]) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}


def main(words: Sequence[str] | None = None) -> int:
    """Write the student notebooks of this checkout into the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m gpo_full.book.student_export", description=__doc__)
    parser.add_argument("output", type=Path, help="a folder; notebooks of the same name in it are replaced")
    folder = parser.parse_args(words).output
    try:
        for path in export(lesson_files(), folder):
            print(path)
        print('they open in Jupyter: pip install "gpo-toolkit[book]" jupyterlab', file=sys.stderr)
    except (InputError, OSError) as error:
        print(f"student_export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
