"""What a row means: a prompt and two responses, all texts or all lists of messages, each part in one place."""

__all__ = ["Exchange", "common_prefix", "exchange_of", "is_plain"]

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, NamedTuple

from gpo_full.data.columns import KEYS, SYSTEM, BadRow, check_implicit_prompt, missing, refuse_media
from gpo_full.data.file_formats import MAX_CHARACTERS
from gpo_full.strict_json import NotJson, parse_json

NO_PROMPT = "there is no 'prompt', and without a prompt, chosen and rejected must begin alike"
# The beginning of a list of messages that was written as a text, as pandas does when it saves CSV.
CONVERSATION = re.compile(r"""\s*\[?\s*\{\s*["'](role|content|from|value)["']\s*:""")
_JSON = re.compile(r'\s*["\[{]')
# Roles as ShareGPT has them, and those of chat templates, which are written small; others keep their names.
ROLES = {"human": "user", "gpt": "assistant", "observation": "tool"}
KNOWN_ROLES = frozenset(["user", "assistant", "system", "developer", "tool", "function", "ipython"])
# Roles whose messages may be empty: no instructions, a tool that returned nothing.
SYSTEM_ROLES = ("system", "developer")
MAY_BE_EMPTY = (*SYSTEM_ROLES, "tool")
# How a turn begins in the texts of HH.
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
# Columns that a message names.
MOST_NAMED = 12
# A shorter text begins both responses by chance.
LEAST_REPEATED = 8

Messages = list[Mapping[str, Any]]


# What the summary of the data says of responses that begin with the prompt.
REPEATED = "with a prompt that both responses repeat"
REPEATED_ONCE = "with a prompt that one of the responses repeats, trained as a part of it"
WITHIN = "with a prompt that both responses have further on"
TURNS = "whose responses have turns of others than the assistant, which are trained as parts of them"
AS_JSON = "whose responses are JSON, trained as texts"
BEGUN_ALIKE = f"with a prompt of less than {LEAST_REPEATED} characters with which both responses begin, left in them"


class Exchange(NamedTuple):
    """Prompt and responses; `said` is what the summary says of the row, `used` are columns of SYSTEM."""

    prompt: Any
    chosen: Any
    rejected: Any
    said: tuple[str, ...] = ()
    used: tuple[str, ...] = ()


def exchange_of(row: Mapping[str, Any], bos: str = "") -> Exchange:
    """Return what a row means, by the rules of `PairReader`; `bos` is the text of the beginning of a sequence.

    Raises BadRow if it cannot be used, InputError if its columns cannot: media, or a prompt that may be elsewhere.
    """
    refuse_media(row)
    row = {**row, **{key: parsed for key in KEYS if (parsed := _conversation(row.get(key))) is not None}}
    values: list[Any] = [_value(row, key) for key in KEYS]
    prompt, chosen, rejected = values
    if type(chosen) is not type(rejected):
        raise BadRow("prompt, chosen and rejected must be all texts or all lists of messages")
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal")
    name, system = next(((name, row[name]) for name in SYSTEM if _is_text(row.get(name), name)), ("", ""))
    used = (name,) if name else ()
    said = ""
    if isinstance(prompt, list) and isinstance(chosen, str):
        said, *texts_left = _once(prompt[-1].get("content") or "", chosen, rejected)
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in texts_left)
    if isinstance(chosen, list):
        split = _split_messages(row, prompt, chosen, rejected)
        prompt = _after_system(system, split.prompt)
        return split._replace(prompt=prompt, used=used, said=(*split.said, *[said] * bool(said)))
    as_json = (AS_JSON,) * all(isinstance(_of_json(text), str | list | dict) for text in (chosen, rejected))
    if prompt is None:
        check_implicit_prompt(row)
        return Exchange(None, chosen, rejected, (TURNS,) * _has_turns(chosen, rejected) + as_json)
    plain = prompt.removeprefix(bos)
    said, chosen, rejected = _once(plain, chosen, rejected)
    if system and not plain.lstrip().startswith(system.strip()):
        prompt = f"{bos if plain != prompt else ''}{system}\n\n{plain}"
    return Exchange(prompt, chosen, rejected, (*[said] * bool(said), *as_json), used)


def is_plain(value: Any) -> bool:
    """Return whether a value is a text, and no conversation that is written as JSON; BadRow for another form of one."""
    return isinstance(value, str) and _conversation(value) is None


def _of_json(text: str) -> Any:
    """Return the value of a text that is JSON, None of another."""
    with suppress(NotJson):
        return parse_json(text.encode("utf-8", "replace")) if _JSON.match(text) else None


def _conversation(text: Any) -> Any:
    """Return the messages that a text is, as JSON; None if it is none. BadRow if it looks like some in another form."""
    if not isinstance(text, str):
        return None
    value = _of_json(text)
    messages = value if isinstance(value, list) else [value]
    if messages and all(isinstance(each, dict) and ({"role", "from"} & {*each}) and
                        ({"content", "value", "tool_calls"} & {*each}) for each in messages):  # fmt: skip
        return value
    if value is None and CONVERSATION.match(text):
        raise BadRow("holds conversations written as texts that are no JSON; JSONL and Parquet hold lists of messages")
    return None


def _once(prompt: str, chosen: str, rejected: str) -> tuple[str, str, str]:
    """Return what the summary says of two responses, and both without a prompt that they repeat."""
    starts = [_repeated(prompt, text) for text in (chosen, rejected)]
    said = _said_of(prompt, (chosen, rejected), starts)
    return (said, chosen[starts[0] :], rejected[starts[1] :]) if said == REPEATED else (said, chosen, rejected)


def _has_turns(chosen: str, rejected: str) -> bool:
    """Return whether texts of HH have turns of the user after they differ; BadRow if they differ within one."""
    shared = chosen[: common_prefix(chosen, rejected)]
    if shared.rfind(_HUMAN) > shared.rfind(_ASSISTANT):
        raise BadRow("chosen and rejected differ before the assistant answers")
    return any(_HUMAN in text[len(shared) :] for text in (chosen, rejected))


def _said_of(prompt: str, texts: tuple[str, str], starts: list[int]) -> str:
    """Return what the summary says of two responses whose repetitions of the prompt end at `starts`."""
    if len(prompt) < LEAST_REPEATED:
        return BEGUN_ALIKE if all(starts) else ""
    words = " ".join(prompt.split())
    within = words and all(words in " ".join(text.split()) for text in texts)
    return REPEATED if all(starts) else REPEATED_ONCE if any(starts) else WITHIN if within else ""


def _repeated(prompt: str, text: str) -> int:
    """Return where in a text its repetition of the prompt ends, white space apart; 0 if it does not begin with one."""
    if text.startswith(prompt):
        end = len(prompt)
        inside = len(prompt) < LEAST_REPEATED and text[end - 1].isalnum() and text[end : end + 1].isalnum()
        return 0 if inside or not text[end:].strip() else end  # 11 begins with 1, but does not repeat it
    words, found = prompt.split(), re.finditer(r"\S+", text)
    for word in words[:-1]:
        if (next(found, None) or ("",))[0] != word:
            return 0
    last = next(found, None)
    if not words or last is None or not last[0].startswith(words[-1]):
        return 0
    end = last.start() + len(words[-1])
    if prompt[-1].isspace():
        end += len(text[end:]) - len(text[end:].lstrip())
    return end if text[end:].strip() else 0


def common_prefix(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the number of items in the longest common prefix.

    >>> common_prefix([1, 2, 3], [1, 2, 4])
    2
    """
    length = min(len(first), len(second))
    return next((i for i in range(length) if first[i] != second[i]), length)


# --- values ---


def _value(row: Mapping[str, Any], key: str) -> str | Messages | None:
    """Return the text or the messages under `key`, checked; None if there is no prompt."""
    if key not in row:
        reason = missing(key, [name for name in row if isinstance(name, str)])
        if key == "prompt" and "is it" not in reason:
            return None
        for name, held in row.items():
            if isinstance(held, list) and held and isinstance(held[0], Mapping) and key in held[0]:
                raise BadRow(f"the rows are in the list {name!r}: save that list alone")
        there = ", ".join(repr(name) for name in [*row][:MOST_NAMED]) + (", ..." if len(row) > MOST_NAMED else "")
        raise BadRow(f"key {reason}; there are {there or 'none'}")
    value: Any = row[key]
    if isinstance(value, str):
        _check_text(value, key)
        return value
    if isinstance(value, Mapping) and {"role", "from"} & {*value}:
        value = [value]
    if isinstance(value, Mapping) and value and all(str(name).isdigit() for name in value):
        raise BadRow(f"{key!r} holds a value for each row, as pandas writes columns: save the rows, by "
                     "to_json(orient='records', lines=True)")  # fmt: skip
    if not isinstance(value, list):
        raise BadRow(f"{key!r} must be a text or a list of messages, not {type(value).__name__}")
    if not value:
        raise BadRow(f"{key!r} is empty")
    return [_message(each, key) for each in value]


def _is_text(value: Any, name: str) -> bool:
    """Return whether there is a text under `name`; raises BadRow for another value."""
    if value is not None and not isinstance(value, str):
        raise BadRow(f"{name!r} must be a text, not {type(value).__name__}")
    if value:
        _check_text(value, name, blank=True)
    if value and not is_plain(value):
        raise BadRow(f"{name!r} is a message written as a text; it must be the message's text")
    return bool(value and value.strip())


def _check_text(value: str, name: str, *, blank: bool = False) -> None:
    if not blank and not value.strip():
        raise BadRow(f"{name!r} is empty")
    if len(value) > MAX_CHARACTERS:
        raise BadRow(f"{name!r} has more than {MAX_CHARACTERS} characters")
    if "\0" in value:
        raise BadRow(f"{name!r} contains a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{name!r} contains a lone surrogate, which UTF-8 cannot encode") from None


def _message(message: Any, key: str) -> Any:
    """Return a message with a role and, unless it calls tools, a content that is a text; its other fields stay."""
    if isinstance(message, str):
        raise BadRow(f"{key!r} must hold messages with a role and a content, not texts")
    if isinstance(message, Mapping) and "from" in message and "role" not in message:
        rest = {name: value for name, value in message.items() if name not in ("from", "value")}
        message = {"role": message["from"], "content": message.get("value"), **rest}
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise BadRow(f"{key!r} must hold messages with a role and a content")
    small = message["role"].lower()
    if (role := ROLES.get(small, small)) in KNOWN_ROLES:
        message = {**message, "role": role}
    if "content" not in message and not message.get("tool_calls"):
        raise BadRow(f"{key!r} must hold messages with a role and a content, not with {', '.join(map(repr, message))}")
    content, role = message.get("content"), message["role"]
    if isinstance(content, list):
        content = "".join(_part(part, key) for part in content)
        message = {**message, "content": content}
    calls = bool(message.get("tool_calls"))
    if not isinstance(content, str) and not (content is None and calls):
        raise BadRow(f"{key!r} must hold messages whose content is a text, not {type(content).__name__}")
    if not calls and role not in MAY_BE_EMPTY and not (content or "").strip():
        raise BadRow(f"a message of role {role!r} in {key!r} is empty")
    _check_text(content or "", key, blank=True)
    return message


def _part(part: Any, key: str) -> str:
    """Return the text of a part of a message's content."""
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, Mapping) else part
        raise BadRow(f"{key!r} holds a message with a part {kind!r:.60}, and training is on text alone")
    return str(part["text"])


# --- messages ---


def _split_messages(row: Mapping[str, Any], prompt: Any, chosen: Messages, rejected: Messages) -> Exchange:
    """Return prompt and responses of which each message stands in one, the responses those of the assistant."""
    if not isinstance(prompt, list):
        opening = _shared(chosen, rejected)
        shared = chosen[:opening]
        if prompt is None:
            check_implicit_prompt(row, [chosen, rejected, shared, *(message.get("content") for message in shared)])
            if not shared:
                raise BadRow(NO_PROMPT)
        elif shared and not _repeat(shared, prompt):
            raise BadRow("'prompt' is none of the user's messages with which both responses begin, or has more text")
        repeated = prompt is not None and bool(shared)
        prompt = shared or [{"role": "user", "content": prompt}]
    else:
        lengths = range(min(len(prompt), len(chosen), len(rejected)), 0, -1)
        opening = next((n for n in lengths if prompt[-n:] == chosen[:n] == rejected[:n]), 0)
        if not opening:
            prompt, opening = _with_their_system(prompt, chosen, rejected)
        repeated = opening > 0
        if not repeated and prompt[-1]["role"] == "user" == chosen[0]["role"] == rejected[0]["role"]:
            raise BadRow("'prompt' ends with a message of the user, and the responses begin with another")
    chosen, rejected = chosen[opening:], rejected[opening:]
    # What both say before the assistant answers belongs to the prompt.
    while chosen and rejected and chosen[0] == rejected[0] and chosen[0]["role"] != "assistant":
        prompt, chosen, rejected = [*prompt, chosen[0]], chosen[1:], rejected[1:]
    if prompt[-1]["role"] == "assistant":
        raise BadRow("'prompt' ends with a message of the assistant; a response answers the user or a tool")
    for key, response in (("chosen", chosen), ("rejected", rejected)):
        for which, at in (("first", 0), ("last", -1)):
            role = response[at]["role"] if response else "nobody"
            if role != "assistant":
                raise BadRow(f"the {which} message of the response in {key!r} is of {role!r}, not of 'assistant'")
    turns = any(message["role"] != "assistant" for message in (*chosen, *rejected))
    return Exchange(prompt, chosen, rejected, (REPEATED,) * repeated + (TURNS,) * turns)


def _with_their_system(prompt: Messages, chosen: Messages, rejected: Messages) -> tuple[Messages, int]:
    """Return the prompt behind the system messages with which both conversations begin, and where it ends in them."""
    systems, theirs = ([*takewhile(lambda each: each["role"] in SYSTEM_ROLES, part)] for part in (prompt, chosen))
    whole = [*theirs, *prompt[len(systems) :]]
    if not theirs or theirs != rejected[: len(theirs)]:
        return prompt, 0
    if not chosen[: len(whole)] == whole == rejected[: len(whole)] or (systems and systems != theirs):
        raise BadRow("the responses begin with a system message, and do not go on with the messages of 'prompt'")
    return whole, len(whole)


def _shared(chosen: Messages, rejected: Messages) -> int:
    """Return how many messages both conversations begin with, up to the last that is not the assistant's."""
    shared = common_prefix(chosen, rejected)
    if shared and shared == min(len(chosen), len(rejected)):
        raise BadRow("one of the conversations is the beginning of the other")
    while shared and chosen[shared - 1]["role"] == "assistant":
        shared -= 1
    return shared


def _repeat(messages: Messages, prompt: str) -> bool:
    """Return whether messages say a prompt: one of the user does, or begins or ends with it, or all do together."""
    said, words = [" ".join((each.get("content") or "").split()) for each in messages], " ".join(prompt.split())
    long = len(words) >= LEAST_REPEATED
    of_user = [text for text, each in zip(said, messages, strict=True) if each["role"] == "user"]
    return words == " ".join(said) or any(
        text == words or (long and (text.startswith(words) or text.endswith(words))) for text in of_user
    )


def _after_system(system: str, prompt: Messages) -> Messages:
    """Return the prompt after a message with the text of the column `system`, unless it begins with that one."""
    if not system:
        return prompt
    first = prompt[0]
    if first["role"] == "system" and (first.get("content") or "").strip() not in ("", system.strip()):
        raise BadRow("the prompt begins with a system message, and the column of the system prompt has another text")
    return [{"role": "system", "content": system}, *prompt[first["role"] == "system" :]]
