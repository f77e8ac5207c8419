"""The columns of preference data: which are read, what they are called in the data, and which may hold the prompt."""

__all__ = ["BadRow", "Columns", "check_implicit_prompt", "lower_scores", "told_unused"]

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpo_theory.errors import InputError, misspelt, nearest

KEYS = ("prompt", "chosen", "rejected")
REQUIRED = ("chosen", "rejected")
# Instructions that go before the prompt; a row has one of these columns.
SYSTEM = ("system", "system_prompt", "system_message")
# What a chat template gets beside the messages, named as in TRL.
TEMPLATE = ("tools", "chat_template_kwargs")
# Columns of numbers that a row may have; TRL's names for the reference's log-probabilities.
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
OPTIONAL_COLUMNS = ("weight", "p", *REFERENCE_COLUMNS)
# Names of ours that the data may call otherwise.
OURS = (*KEYS, "system", *TEMPLATE, *OPTIONAL_COLUMNS)
# Columns that a text-only training cannot use, in the singular.
MEDIA = {"image", "audio", "video"}
# A name with one of these words, in the singular, is that of a column which may hold the prompt or a part of it ...
CARRIERS = {"prompt", "question", "instruction", "input", "query", "context", "message", "conversation", "history",
            "dialog", "dialogue", "document", "passage", "problem", "post", "article", "user", "human", "request",
            "task", "text", "content", "body", "title", "turn", "chat", "utterance", "ask", "scenario",
            "command"}  # fmt: skip
# ... unless one of these says that it holds something about it, or about the responses.
ABOUT = {"id", "hash", "source", "type", "length", "len", "token", "count", "num", "score", "rating", "category",
         "label", "lang", "language", "model", "name", "date", "time", "url", "chosen", "rejected", "response",
         "answer", "completion", "output", "idx", "index"}  # fmt: skip
# Words in the name of a column that says which of two responses is the better one, and of one that rates a response.
VERDICTS = {"winner", "better", "best", "preferred", "preference", "verdict", "choice", "safer", "swap", "swapped",
            "flip", "flipped", "tie", "tied"}  # fmt: skip
RATINGS = {"score", "rating", "reward", "grade"}
_FIELD = re.compile(r"\{(\w+)\}")
# Fields as other template languages write them.
_OTHER_FIELD = re.compile(r"(?:\{\{\s*|\$\{|\{\s+|%\()(\w+)(?:\s*\}\}|\s*\}|\)s)")


class BadRow(Exception):
    """A row cannot be used; the message is the reason."""


@dataclass(frozen=True)
class Columns:
    """Which columns of the data are read, and what it calls them.

    `names` maps a name of ours, `allowed`, to a column of the data, or to a template of several: `{"prompt":
    "question"}`, `{"prompt": "{instruction}\\n{input}"}`. `required` are ours, `also` others of the data that are
    read. Raises InputError for a name that is not ours.

    >>> Columns({"prompt": "{topic}: "}).renamed({"topic": "tea", "chosen": "yes", "rejected": "no"})
    {'chosen': 'yes', 'rejected': 'no', 'prompt': 'tea: '}
    """

    names: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = REQUIRED
    also: tuple[str, ...] = ()
    allowed: tuple[str, ...] = OURS

    def __post_init__(self) -> None:
        if not isinstance(self.names, Mapping):
            raise InputError(f"columns={self.names!r} must be a mapping, as in {{'prompt': 'question'}}")
        for ours, theirs in self.names.items():
            twice = [other for other in KEYS if other != ours in KEYS and self.names.get(other) == theirs]
            if twice:
                raise InputError(f"columns: {theirs!r} is given as {ours!r} and as {twice[0]!r}")
            if ours not in self.allowed:
                raise InputError(f"columns: {ours!r} is none of {', '.join(self.allowed)}"
                                 f"{nearest(str(ours), self.allowed)}")  # fmt: skip
            if not isinstance(theirs, str) or not theirs.strip():
                raise InputError(f"columns: {ours!r} must be the name of a column or a template, not {theirs!r}")
            if other := _OTHER_FIELD.search(theirs):
                raise InputError(f"columns: {ours!r}: a template has a column as {{{other[1]}}}, not {other[0]}")

    @property
    def sources(self) -> set[str]:
        """The columns of the data that `names` reads."""
        return {name for theirs in self.names.values() for name in _FIELD.findall(theirs) or [theirs]}

    def reads(self, name: str) -> bool:
        """Return whether the value of the data's column `name` can matter."""
        known = (*OURS, *SYSTEM, *self.required, *self.also)
        return name in known or name in self.sources or _is_media(name) or _may_hold_prompt(name) or _judges(name)

    def check(self, path: Path, header: Sequence[str]) -> None:
        """Raise InputError for a table that has a column twice, or lacks one that is required or mapped."""
        for name, count in Counter(header).items():
            if count > 1:
                raise InputError(f"{path}: column {name!r} appears twice")
        for name in self.sources - {*header}:
            raise InputError(f"{path}: column {name!r} is missing{nearest(name, header)}")
        for name in dict.fromkeys(("prompt", *self.required)):
            if name not in header and name not in self.names:
                reason = missing(name, header)
                if name in self.required or "is it" in reason:
                    raise InputError(f"{path}: column {reason}; there are {', '.join(map(repr, header))}")

    def renamed(self, row: Any) -> Mapping[str, Any]:
        """Return a row of the data under our names; raises BadRow if a column that is mapped is not there."""
        if isinstance(row, BadRow):
            raise row
        if not isinstance(row, Mapping):
            raise BadRow(f"must be an object with {', '.join(KEYS)}, not {type(row).__name__}")
        if not self.names:
            return row
        kept = {name: value for name, value in row.items() if name not in self.sources and name not in self.names}
        return kept | {ours: _taken(row, theirs) for ours, theirs in self.names.items()}

    def check_verdict(self, row: Any, before: dict[str, Any]) -> None:
        """Raise InputError if a column that may say which response is better has another value than in the rows before.

        That is, where `names` takes the chosen or the rejected one from the same column in every row.
        """
        mapped = [self.names[name] for name in REQUIRED if name in self.names]
        for name, value in row.items() if mapped and isinstance(row, Mapping) else ():
            judges = name not in self.sources and {*_words(str(name))} & VERDICTS
            if judges and isinstance(value, str | int | float) and value != before.setdefault(name, value):
                raise InputError(f"column {name!r} is {before[name]!r} and {value!r}, and may say which response is "
                                 f"the better one, while 'columns' takes it from {mapped[0]!r} in every row: put the "
                                 "better one in a column of its own, or leave that column out")  # fmt: skip

    def unused(self, seen: Collection[str], used: Collection[str]) -> list[str]:
        """Return the columns in `seen` that no pair was made of; `used` are those of SYSTEM and TEMPLATE that were."""
        known = {*KEYS, *OPTIONAL_COLUMNS, *used} - {*self.names} | self.sources | {*self.also}
        return [name if name.strip() else repr(name) for name in seen if name not in known]


def _taken(row: Mapping[str, Any], theirs: str) -> Any:
    """Return the value of a column, or a template filled with the texts of several."""
    for name in (fields := _FIELD.findall(theirs)) or [theirs]:
        if name not in row:
            raise BadRow(f"column {name!r} is missing{nearest(name, map(str, row))}")
        if fields and not isinstance(row[name], str | int | float | None):
            raise BadRow(f"column {name!r} must be a text to stand in {theirs!r}, not {type(row[name]).__name__}")
    if not fields:
        return row[theirs]
    last = f"{{{fields[-1]}}}"
    if row[fields[-1]] in (None, "") and theirs.endswith(last):
        theirs = theirs.removesuffix(last).rstrip()  # what would separate the last field from the others
    return _FIELD.sub(lambda found: "" if row[found[1]] is None else str(row[found[1]]), theirs)


def missing(name: str, names: Collection[str]) -> str:
    """Return that the column `name` is missing, with the name that is a misspelling of it, or how to map another."""
    # prompt_id is no misspelling.
    others = [other for other in names if other not in OURS and not _may_hold_prompt(other)]
    near = misspelt(name, [other for other in others if name not in _words(other) or other.lower() == name])
    return f"{name!r} is missing{near}" + ("" if near else f"; `columns={{'{name}': 'NAME'}}` takes another column")


def _words(name: str) -> list[str]:
    """Return the words of a name in the singular: ["user", "question"] of userQuestions."""
    return [word.removesuffix("s") for word in re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())]


def _may_hold_prompt(name: str) -> bool:
    words = {*_words(name)}  # a name in other letters is not understood
    return (bool(words & CARRIERS) or not name.isascii()) and not words & ABOUT and name not in (*OURS, *SYSTEM)


def _is_media(name: str) -> bool:
    words = {*_words(name)}
    return "pixel_value" in name or (bool(words & MEDIA) and not words & (ABOUT - {"url", "name"}))


def _judges(name: str) -> bool:
    """Return whether a column may rate a response, or say which of two is the better one."""
    words = {*_words(name)}
    return bool(words & VERDICTS or (words & RATINGS and words & {*REQUIRED}))


def told_unused(names: Sequence[str]) -> list[str]:
    """Return what the summary says of columns that are not used: first those that may matter.

    >>> for each in told_unused(["id", "context", "winner"]):
    ...     print(each)
    not used, though it may belong to the prompt: context
    not used, though it may say which response is better: winner
    not used: id
    """
    prompts = [name for name in names if _may_hold_prompt(name)]
    verdicts = [name for name in names if {*_words(name)} & (VERDICTS | {"label"}) and name not in prompts]
    kinds = {", though it may belong to the prompt": prompts,
             ", though it may say which response is better": verdicts,
             "": [name for name in names if name not in prompts + verdicts]}  # fmt: skip
    return [f"not used{why}: {', '.join(which)}" for why, which in kinds.items() if which]


def lower_scores(row: Mapping[str, Any]) -> list[str]:
    """Return what the summary says of a chosen response that the data rates below the rejected one."""
    said = []
    for name in row:
        other = str(name).replace("chosen", "rejected")
        if name != other and {*_words(name)} & RATINGS:
            with suppress(KeyError, TypeError, ValueError):
                said += [f"whose {name!r} is below {other!r}"] * (float(row[name]) < float(row[other]))
    return said


def refuse_media(row: Mapping[str, Any]) -> None:
    """Raise InputError for a row with images, sound or video."""
    for name, value in row.items():
        if _is_media(name) and isinstance(value, str | list | Mapping | bytes) and value:
            raise InputError(f"column {name!r} is not empty, and training is on text alone; remove the column to train "
                             "on the texts without it")  # fmt: skip


def check_implicit_prompt(row: Mapping[str, Any], shared: Sequence[Any] = ()) -> None:
    """Raise InputError if a row without a prompt has columns that may hold it, beside what `shared` repeats.

    `shared` are the texts, messages and conversations of both responses; none if those are plain texts, in which case
    a system prompt without a prompt is refused too.
    """
    held = [name for name, value in row.items() if (_may_hold_prompt(name) or (name in SYSTEM and not shared))
            and isinstance(value, str | list) and value and value not in shared]  # fmt: skip
    if held:
        # One that is empty here may be filled in other rows.
        carriers = [name for name in row if _may_hold_prompt(name) and isinstance(row[name], str | list)] or held
        texts = len(carriers) > 1 and all(isinstance(row[name], str) for name in carriers)
        theirs = "\\n".join(f"{{{name}}}" for name in carriers) if texts else carriers[0]
        raise InputError(f"there is no column 'prompt', and {', '.join(map(repr, held))} may hold it: name it, as in "
                         f"`columns={{'prompt': '{theirs}'}}`")  # fmt: skip
