"""Prompts on which policies are compared, each with what its answers are judged against."""

__all__ = ["Task", "read_tasks"]

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def read_tasks(path: str | Path, limit: int | None = None) -> list[Task]:
    """Read JSONL with `prompt` and (unless a reward model judges) `target` in each row; InputError names a bad row."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from None
    tasks: list[Task] = []
    for number, line in enumerate(lines, 1):
        if len(tasks) == limit:
            break
        if line.strip():
            tasks.append(_task(f"{path}: row {number}", line))
    if not tasks:
        raise InputError(f"{str(path)!r} has no rows")
    return tasks


def _task(where: str, line: str) -> Task:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not JSON") from None
    if not isinstance(row, dict):
        raise InputError(f"{where} is not an object with `prompt` and `target`")
    prompt, target = (row.get(key) for key in ("prompt", "target"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{where}: 'prompt' is missing, empty or not text")
    return Task(prompt, target if isinstance(target, str) and target.strip() else None, where)
