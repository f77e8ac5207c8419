"""Student notebooks: the same source without solutions, and nothing else changed; they run to their end."""

import json
import re
from pathlib import Path
from typing import Any

import jupytext
import pytest
from nbclient import NotebookClient

from gpo_full.book.student_export import export, main, student_notebook
from gpo_full.course.lessons import lesson_files

SMALL = """# Small

## Exercise: double

```{code-cell} ipython3
def my_double(x):
    raise NotImplementedError("your turn")
```

```{code-cell} ipython3
:tags: [hide-input]

from gpo_full.course.exercises import Exercise

exercise = Exercise(draw=lambda rng: (rng.uniform(1, 2),), properties={"2 x": lambda answer, x: answer(x) == 2 * x}, mistakes={})
```

```{code-cell} ipython3
### BEGIN SOLUTION
def my_double(x):
    return 2 * x
### END SOLUTION
```

```{code-cell} ipython3
print(exercise.check(my_double))
```

```{code-cell} ipython3
four = my_double(2)
print(four)
```

```{code-cell} ipython3
:tags: [hide-input]

assert four == 4
```

```{code-cell} ipython3
print("the end")
```
"""


def code(notebook: Any) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_a_notebook_with_nothing_filled_in_runs_to_its_end() -> None:
    notebook = student_notebook(jupytext.reads(SMALL, "md:myst"), "04_small")
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert printed == "your turn\nthe end\n"
    assert "assert four == 4" not in code(notebook)  # a folded test that needs the solution


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_the_export_differs_from_the_lesson_in_solutions_only(path: Path, tmp_path: Path) -> None:
    (target,) = export([path], tmp_path)
    first = target.read_bytes()
    export([path], tmp_path)
    assert target.read_bytes() == first
    exported, source = code(json.loads(first)), code(jupytext.read(path))
    solutions = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", "\n".join(source), re.DOTALL)
    shown = "\n".join(exported)
    assert "SOLUTION" not in shown
    assert ".verify(" not in shown
    assert all(text.strip() not in shown for text in solutions)
    assert [cell for cell in source if cell in exported] == exported  # what stays is unchanged and in its order
    gone = [cell for cell in source if cell not in exported]
    assert all("BEGIN SOLUTION" in cell or "assert" in cell or ".verify(" in cell for cell in gone)
    assert shown.count('NotImplementedError("your turn")') == len(solutions)
    assert all(not cell.get("outputs") for cell in json.loads(first)["cells"])


def test_the_command_writes_every_lesson(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "students")]) == 0
    out, err = capsys.readouterr()
    assert [Path(line).stem for line in out.split()] == [path.stem for path in lesson_files()]
    assert err == 'they open in Jupyter: pip install "gpo-toolkit[book]" jupyterlab\n'
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([str(tmp_path / "file")]) == 2
