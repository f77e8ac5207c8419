"""Prompts on which policies are compared, each with what its answers are judged against."""

__all__ = ["Task", "read_tasks"]

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpo_full.data.columns import REQUIRED, BadRow, Columns, check_implicit_prompt, told_unused
from gpo_full.data.exchanges import exchange_of
from gpo_full.data.file_formats import read_rows
from gpo_full.other_libraries import in_one_line
from gpo_theory.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A prompt, a text or messages, and the human's answer, None if the file has none; `where` names its row.

    `used` are the columns that the prompt was made of beside its own.
    """

    prompt: Any
    target: str | None
    where: str
    used: tuple[str, ...] = ()

    def as_text(self, tokenizer: Any) -> "Task":
        """Return the task with the text that the policy reads: messages by the tokenizer's chat template, one BOS."""
        text, bos = self.prompt, tokenizer.bos_token
        if not isinstance(text, str):
            with in_one_line(f"{self.where}: the chat template"):
                text = tokenizer.apply_chat_template(text, add_generation_prompt=True, tokenize=False)
        adds = bos is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        return replace(self, prompt=text.removeprefix(bos) if adds else text)

    def judged_against(self, reward: Any) -> str:
        """Return the second argument of `reward` for this task: the prompt for a reward model, else the target."""
        if getattr(reward, "reads_prompt", False):
            return str(self.prompt)
        if self.target is None:
            raise InputError(f"{self.where}: 'target' is missing, empty or not text")
        return self.target


def read_tasks(path: str | Path, limit: int | None = None, names: Mapping[str, str] | None = None) -> list[Task]:
    """Read a file with `prompt` and (unless a reward model judges) `target` in each row, in any format of `read_rows`.

    A prompt is a text or messages, after the text of a column `system`, as in training. `names` maps these to the
    names that the file has, or to templates, as `Columns` does. InputError names a bad row; a warning names columns
    that are not used, and counts texts among messages.
    """
    columns = Columns(names or {}, required=("prompt",), also=("target",), allowed=("prompt", "target", "system"))
    tasks: list[Task] = []
    seen = dict[str, None]()
    for number, row in read_rows(path, columns):
        if len(tasks) == limit:
            break
        tasks.append(_task(f"{path}: row {number}", row, columns))
        seen |= dict.fromkeys(row)
    if not tasks:
        raise InputError(f"{str(path)!r} has no rows")
    texts = sum(isinstance(task.prompt, str) for task in tasks)
    if 0 < texts < len(tasks):
        _log.warning("%s: %d of %d prompts are texts, without the chat template that the others have", path, texts,
                     len(tasks))  # fmt: skip
    if unused := columns.unused(seen, {name for task in tasks for name in task.used}):
        _log.warning("%s: %s", path, ", ".join(told_unused(unused)))
    return tasks


def _task(where: str, row: Any, columns: Columns) -> Task:
    if not isinstance(row, Mapping | BadRow):
        raise InputError(f"{where} is not an object with `prompt` and `target`")
    try:
        found = columns.renamed(row)
    except BadRow as reason:
        raise InputError(f"{where} is {reason}" if isinstance(row, BadRow) else f"{where}: {reason}") from None
    prompt, target = (found.get(key) for key in ("prompt", "target"))
    try:
        if "prompt" not in found:
            check_implicit_prompt(found)
        if not isinstance(prompt, str | list) or not (prompt.strip() if isinstance(prompt, str) else prompt):
            raise BadRow("'prompt' is missing, empty, or neither text nor messages")
        exchange = exchange_of({**found, **{key: key for key in REQUIRED}})
    except (BadRow, InputError) as reason:
        raise InputError(f"{where}: {reason}") from None
    return Task(exchange.prompt, target if isinstance(target, str) and target.strip() else None, where, exchange.used)
