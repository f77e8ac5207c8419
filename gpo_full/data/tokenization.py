"""From one row of data to token ids: texts or chat messages, tokenized, truncated, with their common prefix."""

__all__ = ["TokenizedRow", "common_prefix", "tokenize_row"]

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gpo_full.data.file_formats import KEYS, MAX_CHARACTERS, BadRow
from gpo_theory.errors import InputError, misspelt

Ids = list[int]
_NO_PROMPT = "without a prompt, chosen and rejected must begin alike"


class TokenizedRow(NamedTuple):
    """The token ids of a `Pair`, and which of its texts were truncated: "prompt", "response" (once for each)."""

    prefix: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt_length: int
    truncated: tuple[str, ...]


def tokenize_row(row: Any, tokenizer: Any, max_length: int, max_prompt_length: int) -> TokenizedRow:
    """Tokenize prompt + chosen and prompt + rejected of a row, by the rules of `read_pairs`.

    Raises BadRow if the row cannot be used, InputError if it holds messages and the tokenizer has no chat template.
    """
    if isinstance(row, BadRow):
        raise row
    prompt, chosen, rejected = (_value(row, key) for key in KEYS)
    if len({type(value) for value in (prompt, chosen, rejected) if value is not None}) > 1:
        raise BadRow("prompt, chosen and rejected must be all texts or all lists of messages")
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal")
    if prompt is None and isinstance(chosen, list) and isinstance(rejected, list):
        prompt, chosen, rejected = _shared_messages(chosen, rejected)
    encode = _encode_text if isinstance(chosen, str) else _encode_messages
    prompt_ids, sequences = encode(tokenizer, prompt, (chosen, rejected))
    if prompt_ids == [tokenizer.bos_token_id] and prompt is None:
        raise BadRow(_NO_PROMPT)
    return _truncated(prompt_ids, sequences, tokenizer.bos_token_id, max_length, max_prompt_length)


def common_prefix(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the number of items in the longest common prefix.

    >>> common_prefix([1, 2, 3], [1, 2, 4])
    2
    """
    length = min(len(first), len(second))
    return next((i for i in range(length) if first[i] != second[i]), length)


def _shared_messages(chosen: list[Any], rejected: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Split two conversations into the messages that both begin with, and the rest of each."""
    shared = common_prefix(chosen, rejected)
    if not shared:
        raise BadRow(_NO_PROMPT)
    if shared == min(len(chosen), len(rejected)):
        raise BadRow("one of the conversations is the beginning of the other")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _value(row: Any, key: str) -> str | list[Any] | None:
    """Return the text or the messages under `key`, checked; None if there is no prompt."""
    if not isinstance(row, Mapping):
        raise BadRow(f"must be an object with {', '.join(KEYS)}, not {type(row).__name__}")
    if key not in row:
        near = misspelt(key, [name for name in row if isinstance(name, str) and name not in KEYS])
        if key == "prompt" and not near:
            return None
        raise BadRow(f"key {key!r} is missing{near}")
    value: Any = row[key]
    if isinstance(value, str):
        _check_text(value, key)
        return value
    if isinstance(value, list):
        _check_messages(value, key)
        return value
    raise BadRow(f"{key!r} must be a text or a list of messages, not {type(value).__name__}")


def _check_text(value: str, name: str) -> None:
    if not value.strip():
        raise BadRow(f"{name!r} is empty")
    if len(value) > MAX_CHARACTERS:
        raise BadRow(f"{name!r} has more than {MAX_CHARACTERS} characters")
    if "\0" in value:
        raise BadRow(f"{name!r} contains a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{name!r} contains a lone surrogate, which UTF-8 cannot encode") from None


def _check_messages(value: list[Any], key: str) -> None:
    if not value:
        raise BadRow(f"{key!r} is empty")
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise BadRow(f"{key!r} must hold messages with a role and a content")
        if not isinstance(message.get("content"), str):
            raise BadRow(f"{key!r} must hold messages whose content is a text")
        _check_text(message["content"], key)


def _encode_text(tokenizer: Any, prompt: Any, responses: tuple[Any, Any]) -> tuple[Ids, tuple[Ids, Ids]]:
    """Return the token ids of the prompt, and of each prompt + response + end of sequence."""
    end = tokenizer.eos_token_id

    def whole(text: str) -> Ids:
        ids = list(tokenizer(text, verbose=False)["input_ids"])
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    chosen, rejected = (whole((prompt or "") + response) for response in responses)
    if prompt is None:
        return chosen[: common_prefix(chosen, rejected)], (chosen, rejected)
    return list(tokenizer(prompt, verbose=False)["input_ids"]), (chosen, rejected)


def _encode_messages(tokenizer: Any, prompt: Any, responses: tuple[Any, Any]) -> tuple[Ids, tuple[Ids, Ids]]:
    """Return the same as `_encode_text`, by the tokenizer's chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("the data holds lists of messages, but the tokenizer has no chat template")

    def ids(messages: list[Any], generate: bool) -> Ids:
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=generate, tokenize=True)
        return list(encoded["input_ids"])

    chosen, rejected = (ids([*prompt, *response], False) for response in responses)
    return ids(prompt, True), (chosen, rejected)


def _truncated(
    prompt_ids: Ids, sequences: tuple[Ids, Ids], bos: int | None, max_length: int, max_prompt_length: int
) -> TokenizedRow:
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
    return TokenizedRow(tuple(chosen[:shared]), tuple(chosen[shared:]), tuple(rejected[shared:]), prompt_length,
                        tuple(truncated))  # fmt: skip
