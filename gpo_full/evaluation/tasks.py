"""Prompts on which policies are compared, each with what its answers are judged against."""

__all__ = ["Task", "read_tasks"]

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpo_full.data.columns import REQUIRED, BadRow, Columns, check_implicit_prompt
from gpo_full.data.exchanges import CONVERSATION, exchange_of
from gpo_full.data.file_formats import read_rows
from gpo_full.other_libraries import in_one_line
from gpo_theory.errors import InputError

# In place of the answers that rows of training have.
_ANSWER = '[{{"role": "assistant", "content": "{}"}}]'


@dataclass(frozen=True)
class Task:
    """A prompt, a text or messages, and the human's answer, None if the file has none; `where` names its row."""

    prompt: Any
    target: str | None
    where: str

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
    names that the file has, or to templates, as `Columns` does. InputError names a bad row.
    """
    columns = Columns(names or {}, required=("prompt",), also=("target",), allowed=("prompt", "target", "system"))
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
    try:
        if "prompt" not in found:
            check_implicit_prompt(found)
        if not isinstance(prompt, str | list) or not (prompt.strip() if isinstance(prompt, str) else prompt):
            raise BadRow("'prompt' is missing, empty, or neither text nor messages")
        as_texts = isinstance(prompt, str) and CONVERSATION.match(prompt)  # messages that were written as a text
        answers = {key: _ANSWER.format(key) if as_texts else key for key in REQUIRED}
        prompt = exchange_of({**found, **answers}).prompt
    except (BadRow, InputError) as reason:
        raise InputError(f"{where}: {reason}") from None
    return Task(prompt, target if isinstance(target, str) and target.strip() else None, where)
