"""Prompts on which policies are compared, each with what its answers are judged against."""

__all__ = ["Task", "read_tasks"]

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo_full.data.columns import BadRow, Columns
from gpo_full.data.file_formats import read_rows
from gpo_theory.errors import InputError


@dataclass(frozen=True)
class Task:
    """A prompt and the human's answer to it, None if the file has none; `where` names its row in errors."""

    prompt: str
    target: str | None
    where: str

    def judged_against(self, reward: Any) -> str:
        """Return the second argument of `reward` for this task: the prompt for a reward model, else the target."""
        if getattr(reward, "reads_prompt", False):
            return self.prompt
        if self.target is None:
            raise InputError(f"{self.where}: 'target' is missing, empty or not text")
        return self.target


def read_tasks(path: str | Path, limit: int | None = None, names: Mapping[str, str] | None = None) -> list[Task]:
    """Read a file with `prompt` and (unless a reward model judges) `target` in each row, in any format of `read_rows`.

    `names` maps these to the names that the file has, or to templates, as `Columns` does. InputError names a bad row.
    """
    columns = Columns(names or {}, required=("prompt",), also=("target",), allowed=("prompt", "target"))
    tasks: list[Task] = []
    for number, row in read_rows(path, columns):
        if len(tasks) == limit:
            break
        tasks.append(_task(f"{path}: row {number}", row, columns))
    if not tasks:
        raise InputError(f"{str(path)!r} has no rows")
    return tasks


def _task(where: str, row: Any, columns: Columns) -> Task:
    if not isinstance(row, Mapping | BadRow):
        raise InputError(f"{where} is not an object with `prompt` and `target`")
    try:
        found = columns.renamed(row)
    except BadRow as reason:
        raise InputError(f"{where} is {reason}" if isinstance(row, BadRow) else f"{where}: {reason}") from None
    prompt, target = (found.get(key) for key in ("prompt", "target"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{where}: 'prompt' is missing, empty or not text")
    return Task(prompt, target if isinstance(target, str) and target.strip() else None, where)
