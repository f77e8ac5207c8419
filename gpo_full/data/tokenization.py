"""From one row of data to token ids: texts or chat messages, tokenized, truncated, with their common prefix."""

__all__ = ["TokenizedRow", "tokenize_row"]

import inspect
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple

from gpo_full.data.columns import KEYS, TEMPLATE, BadRow
from gpo_full.data.exchanges import KNOWN_ROLES, NO_PROMPT, Exchange, Messages, common_prefix, exchange_of
from gpo_theory.errors import InputError

Ids = list[int]
# The time that a chat template writes, so that the same data are the same pairs on every day: the date which the
# template of Llama 3 writes where it is told none.
TIME = datetime(2024, 7, 26)
# What was changed in a row, as the summary of the data names it.
TWO_BEGINNINGS = "with a second beginning-of-sequence token"
SPECIAL = "with special tokens written in their texts"
CLOCK = f"with the chat template's time written as {TIME:%d %b %Y}"
RUNNING_CLOCK = "with a time of the chat template's that other days change"
PROMPT_CHANGES = "with a prompt that the chat template writes otherwise when an answer follows"
NO_ARGUMENTS = "with tool_calls whose arguments the chat template does not write"
OTHER_OPENING = "whose answers do not begin as the chat template's generation prompt ends"
NO_END = "whose answers the chat template ends without a special token"
AFTER_END = "with text that the chat template writes after the end of the answers"
_CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")


class TokenizedRow(NamedTuple):
    """The token ids of a `Pair`, and how they were made.

    `truncated` are the texts that were cut, "prompt" and "response" (once for each), `mended` what else was changed,
    `used` the columns that reached the ids, beside those of KEYS.
    """

    prefix: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt_length: int
    truncated: tuple[str, ...]
    mended: tuple[str, ...]
    used: tuple[str, ...]


def tokenize_row(row: Mapping[str, Any], tokenizer: Any, max_length: int, max_prompt_length: int) -> TokenizedRow:
    """Tokenize prompt + chosen and prompt + rejected of a row, by the rules of `PairReader`.

    Raises BadRow if the row cannot be used, InputError if its columns or the tokenizer's chat template cannot.
    """
    texts = all(isinstance(row.get(key), str | None) for key in KEYS)
    if not texts and not getattr(tokenizer, "chat_template", None):
        raise InputError("the data holds lists of messages, but the tokenizer has no chat template")
    row, begun = _without_inner_beginning(row, bos := tokenizer.bos_token or "")
    exchange = exchange_of(row, bos)
    mended, used = [*exchange.said, *[TWO_BEGINNINGS] * begun], [*exchange.used]
    if isinstance(exchange.chosen, str):
        prompt_ids, chosen, rejected = _encoded_texts(tokenizer, exchange)
    else:
        template = _Template(tokenizer, row)
        prompt_ids, chosen, rejected = template.encoded(exchange)
        used += template.used
        mended += template.mended
    bos_id = tokenizer.bos_token_id
    once = [_with_one_beginning(ids, bos_id) for ids in (prompt_ids, chosen, rejected)]
    mended += [TWO_BEGINNINGS] * (once[1] != chosen and not begun)
    mended += [SPECIAL] * _has_special_tokens(tokenizer, exchange)
    prompt_ids, chosen, rejected = once
    if prompt_ids in ([], [bos_id]) and exchange.prompt is None:
        raise BadRow(NO_PROMPT)
    if chosen == rejected:
        how = "as tokens" if isinstance(exchange.chosen, str) else "after the chat template"
        raise BadRow(f"chosen and rejected are equal {how}, though their texts differ")
    return TokenizedRow(*_truncated(prompt_ids, (chosen, rejected), bos_id, max_length, max_prompt_length),
                        mended=tuple(mended), used=tuple(used))  # fmt: skip


def _has_special_tokens(tokenizer: Any, exchange: Exchange) -> bool:
    """Return whether messages have special tokens in their texts, or plain responses some before their end.

    Plain texts may be what a chat template wrote, with the tokens that begin and end its messages.
    """
    if isinstance(exchange.chosen, str):
        marks = [mark for mark in (tokenizer.eos_token, tokenizer.pad_token) if mark]
        return any(mark in text.rstrip().removesuffix(tokenizer.eos_token or "") for mark in marks
                   for text in (exchange.chosen, exchange.rejected))  # fmt: skip
    texts = [message.get("content") or "" for part in exchange[:3] for message in part]
    return any(mark in text for mark in _special_tokens(tokenizer) for text in texts)


@lru_cache(maxsize=1)
def _special_tokens(tokenizer: Any) -> tuple[str, ...]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    marks = [*tokenizer.all_special_tokens, *(each.content for each in added if each.special)]
    return tuple(dict.fromkeys(str(mark) for mark in marks if str(mark).strip()))


def _without_inner_beginning(row: Mapping[str, Any], bos: str) -> tuple[Mapping[str, Any], bool]:
    """Return a row of texts without the beginning of a sequence that its responses have although a prompt is before."""
    inner = [key for key in KEYS[1:] if bos and isinstance(row.get(key), str) and row[key].startswith(bos)]
    if not inner or not isinstance(row.get("prompt"), str):
        return row, False
    return {**row, **{key: row[key].removeprefix(bos) for key in inner}}, True


def _with_one_beginning(ids: Ids, bos: int | None) -> Ids:
    """Return the ids with one beginning-of-sequence token where a text has it and the tokenizer adds another."""
    return ids[common_prefix(ids[1:], [bos] * len(ids)) :] if ids[:1] == [bos] else ids


def _encoded_texts(tokenizer: Any, exchange: Exchange) -> tuple[Ids, Ids, Ids]:
    """Return the token ids of the prompt, and of prompt + response + end of sequence for both responses."""
    end = tokenizer.eos_token_id

    def whole(text: str) -> Ids:
        if end is not None and text.rstrip().endswith(tokenizer.eos_token):
            text = text.rstrip()  # as a chat template writes a line's end behind it
        ids = list(tokenizer(text, verbose=False)["input_ids"])
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    prompt = exchange.prompt
    chosen, rejected = (whole((prompt or "") + response) for response in (exchange.chosen, exchange.rejected))
    if prompt is None:
        return chosen[: common_prefix(chosen, rejected)], chosen, rejected
    return list(tokenizer(prompt, verbose=False)["input_ids"]), chosen, rejected


class _Template:
    """The tokenizer's chat template with what the columns `tools` and `chat_template_kwargs` of a row give it.

    `used` are those of the two that reach it, `mended` says what is changed in it.
    """

    def __init__(self, tokenizer: Any, row: Mapping[str, Any]) -> None:
        tools, options = (_of_json(row, *each) for each in zip(TEMPLATE, (list, dict), strict=True))
        self._tokenizer, self._options = tokenizer, {"tools": tools or None, **(options or {})}
        taken = inspect.signature(tokenizer.apply_chat_template).parameters if options else {}
        for name in {*taken} & {*self._options} - {"tools", "documents", "chat_template"}:
            raise BadRow(f"'chat_template_kwargs' may not set {name!r}, which the tokenization of pairs sets")
        named = self._options.pop("chat_template", None)
        try:
            template = tokenizer.get_chat_template(named, self._options["tools"])
        except ValueError:
            names = ", ".join(sorted(tokenizer.chat_template))
            raise InputError(f"the tokenizer has several chat templates, {names}, and none is called default: keep one "
                             "as its chat_template, or name one in the column 'chat_template_kwargs' as "
                             '{"chat_template": NAME}') from None  # fmt: skip
        self._template, fixed = _CLOCK.subn(lambda found: repr(TIME.strftime(found[2])), template)
        self.mended = [CLOCK] * bool(fixed) + [RUNNING_CLOCK] * ("strftime_now(" in self._template)
        self.used = [TEMPLATE[1]] * (bool(options) and (bool(named) or any(map(self.reads, options))))

    def reads(self, name: str) -> bool:
        """Return whether the template has the word `name`."""
        return re.search(rf"\b{re.escape(name)}\b", self._template) is not None

    def encoded(self, exchange: Exchange) -> tuple[Ids, Ids, Ids]:
        """Return the token ids of the prompt with what begins an answer, and of both conversations."""
        prompt, *responses = exchange.prompt, exchange.chosen, exchange.rejected
        conversations = [[*prompt, *response] for response in responses]
        texts = [self._text(each) for each in conversations]
        opening, before = self._text(prompt, generate=True), self._text(prompt).rstrip()
        if not all(text.startswith(before) for text in texts):
            self.mended.append(PROMPT_CHANGES)
        elif not all(text.startswith(opening.rstrip()) for text in texts):
            self.mended.append(OTHER_OPENING)
        self._check_written(conversations, texts)
        self._check_ends(conversations, texts)
        ids = [self._tokenizer(text, add_special_tokens=False, verbose=False) for text in (opening, *texts)]
        prompt_ids, chosen, rejected = (list(each["input_ids"]) for each in ids)
        return prompt_ids, chosen, rejected

    def _check_written(self, conversations: list[Messages], texts: list[str]) -> None:
        """Note which columns, messages and fields of messages are not in the texts of two conversations.

        What the template writes of a field is what changes without it. BadRow if tool calls are left out.
        """
        def changes(change: Callable[[Mapping[str, Any]], Mapping[str, Any]], **options: Any) -> bool:
            try:
                return [self._text([*map(change, each)], **options) for each in conversations] != texts
            except BadRow:  # it cannot do without
                return True

        if self._options["tools"] and changes(dict, tools=None):
            self.used.insert(0, TEMPLATE[0])
        messages = conversations[0] + conversations[1]
        fields = {name for message in messages for name, value in message.items() if value not in (None, "", [], {})}
        left = [name for name in sorted(fields - {"role", "content"}) if not changes(partial(_without, name))]
        if "tool_calls" in left:
            raise BadRow("a message has tool_calls, and the chat template writes none")
        self.mended += [f"with messages whose {name!r} the chat template does not write" for name in left]
        without = partial(_without, "arguments")
        if "tool_calls" in fields and [*map(without, messages)] != messages and not changes(without):
            self.mended.append(NO_ARGUMENTS)
        roles = {each["role"] for said in zip(conversations, texts, strict=True) for each in _left_out(*said)}
        self.mended += [f"with messages of {role!r} whose text the chat template does not write as it is"
                        for role in sorted(roles)]  # fmt: skip
        strange = {each["role"] for each in messages} - KNOWN_ROLES
        self.mended += [f"with messages of {role!r}, a role that the chat template does not name"
                        for role in sorted(strange) if not self.reads(role)]  # fmt: skip

    def _check_ends(self, conversations: list[Messages], texts: list[str]) -> None:
        """Note answers without an end, which a policy would not learn to end, and what is written after an end."""
        marks, ends = re.compile("|".join(map(re.escape, _special_tokens(self._tokenizer))) or "(?!)"), []
        for messages, text in zip(conversations, texts, strict=True):
            answer = (messages[-1].get("content") or "").strip()
            ends += [marks.split(text.rpartition(answer)[2])] if answer and answer in text else []
        self.mended += [NO_END] * any(len(parts) == 1 for parts in ends)
        self.mended += [AFTER_END] * any(part.strip() for parts in ends for part in parts[1:])

    def _text(self, messages: Any, *, generate: bool = False, **options: Any) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=generate, tokenize=False, chat_template=self._template,
                **{**self._options, **options}))  # fmt: skip
        except MemoryError:
            raise
        except Exception as error:  # a template is a program: it raises what it likes
            raise BadRow(f"the chat template raises: {' '.join(str(error).split()) or type(error).__name__}") from None


def _without(name: str, value: Any) -> Any:
    """Return a message without a field; without the arguments of its tool calls, wherever they stand."""
    if isinstance(value, list):
        return [_without(name, each) for each in value]
    if not isinstance(value, Mapping):
        return value
    inside = ("tool_calls", "function") if name == "arguments" else ()
    return {key: _without(name, each) if key in inside else each for key, each in value.items() if key != name}


def _left_out(messages: Messages, text: str) -> Messages:
    """Return the messages whose content is not in a text, white space apart, nor as JSON."""
    text = "".join(text.split())
    contents = [each.get("content") or "" for each in messages]
    forms = [(each, json.dumps(each, ensure_ascii=False)[1:-1]) for each in contents]
    return [message for message, written in zip(messages, forms, strict=True)
            if not any("".join(form.split()) in text for form in written)]  # fmt: skip


def _of_json(row: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return the list or the object in a column, or in the JSON text there; None if it is empty."""
    value = row.get(name)
    try:
        value = json.loads(value) if isinstance(value, str) and value.strip() else value or None
    except ValueError:
        raise BadRow(f"{name!r} is a text that is not JSON") from None
    if value is not None and not isinstance(value, kind):
        raise BadRow(f"{name!r} must be {'a list' if kind is list else 'an object'}, not {type(value).__name__}")
    return value


def _truncated(
    prompt_ids: Ids, sequences: tuple[Ids, Ids], bos: int | None, max_length: int, max_prompt_length: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, tuple[str, ...]]:
    """Find the common prefix and the end of the prompt in it, and apply the truncation rule."""
    shared = common_prefix(*sequences)
    prompt_length = common_prefix(sequences[0][:shared], prompt_ids)
    if prompt_length == 0:
        raise BadRow("prompt and responses share no token from which the first response token could be predicted")
    truncated = ["prompt"] if prompt_length > max_prompt_length else []
    if truncated:
        start = 1 if sequences[0][0] == bos and max_prompt_length > 1 else 0
        removed = prompt_length - max_prompt_length
        chosen, rejected = (sequence[:start] + sequence[start + removed :] for sequence in sequences)
        sequences, prompt_length, shared = (chosen, rejected), max_prompt_length, shared - removed
    truncated += ["response"] * sum(len(sequence) > max_length for sequence in sequences)
    chosen, rejected = (sequence[:max_length] for sequence in sequences)
    if chosen == rejected:
        raise BadRow(f"the responses are equal within max_length={max_length} tokens")
    return tuple(chosen[:shared]), tuple(chosen[shared:]), tuple(rejected[shared:]), prompt_length, tuple(truncated)
