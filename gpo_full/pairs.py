"""Preference pairs: rows of text in TRL's prompt/chosen/rejected form become token ids with one shared prefix."""

__all__ = ["Pair", "PairSummary", "read_pairs"]

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpo_theory.errors import InputError, nearest

KEYS = ("prompt", "chosen", "rejected")
BAD_ROWS = ("fail", "skip")
# A longer text is a broken file, not a preference: no context window holds it.
MAX_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, as token ids.

    `prefix` is the longest common token prefix of the two whole texts. Its first `prompt_length` tokens are the
    prompt; what is left of it belongs to both responses, which continue with `chosen` and `rejected`.

    >>> pair = Pair(prefix=(5, 6, 7), chosen=(8, 2), rejected=(9, 2), prompt_length=2)
    >>> pair.responses
    ((7, 8, 2), (7, 9, 2))
    """

    prefix: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt_length: int

    def __post_init__(self) -> None:
        if not 1 <= self.prompt_length <= len(self.prefix):
            raise InputError(f"prompt_length {self.prompt_length} is not in 1..{len(self.prefix)}")
        if not all(self.responses):
            raise InputError("a response is empty")
        if self.chosen[:1] == self.rejected[:1]:
            raise InputError("the responses are equal, or share tokens beyond the prefix")

    @property
    def responses(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The whole responses, chosen first, with what they share."""
        shared = self.prefix[self.prompt_length :]
        return shared + self.chosen, shared + self.rejected

    @property
    def size(self) -> int:
        """The number of distinct tokens, the shared prefix counted once."""
        return len(self.prefix) + len(self.chosen) + len(self.rejected)


@dataclass(frozen=True)
class PairSummary:
    """What became of the rows: how many were read, kept and skipped (by reason), and how many texts were cut."""

    rows: int
    kept: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    prompts_truncated: int = 0
    responses_truncated: int = 0

    def __str__(self) -> str:
        parts = [f"{self.kept} of {self.rows} pairs"]
        parts += [f"{count} skipped ({reason})" for reason, count in self.skipped.items()]
        parts += [f"{self.prompts_truncated} prompts cut"] if self.prompts_truncated else []
        parts += [f"{self.responses_truncated} responses cut"] if self.responses_truncated else []
        return ", ".join(parts)


class _BadRow(Exception):
    """Why a row cannot be used."""


def read_pairs(
    source: str | Path | Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    max_length: int = 1024,
    max_prompt_length: int = 512,
    bad_rows: str = "fail",
) -> tuple[list[Pair], PairSummary]:
    """Read preference pairs and turn each into token ids.

    `source` is the path of a JSONL file (UTF-8, one object per line, blank lines ignored) or an iterable of mappings
    such as a list of dicts or a `datasets.Dataset`. A row has `prompt`, `chosen` and `rejected`: three texts, or
    three lists of `{"role", "content"}` messages, which go through the tokenizer's chat template; other keys are
    ignored.

    prompt + chosen and prompt + rejected are tokenised whole, so a token that straddles the border is the one the
    model would meet; the tokenizer's end-of-sequence token closes each response of plain text.

    Truncation: the prompt keeps its last `max_prompt_length` tokens (and a leading beginning-of-sequence token); then
    prompt + response keeps its first `max_length` tokens. As `max_prompt_length < max_length`, no response becomes
    empty; two that become equal make a bad row.

    A row that cannot be used raises InputError with its number (from 1) and the reason, or with `bad_rows="skip"` is
    counted in the summary. No usable row at all is an error either way.
    """
    if bad_rows not in BAD_ROWS:
        raise InputError(f"bad_rows={bad_rows!r}; allowed: {', '.join(BAD_ROWS)}{nearest(str(bad_rows), BAD_ROWS)}")
    if not 1 <= max_prompt_length < max_length:
        raise InputError(f"max_prompt_length={max_prompt_length} must be at least 1 and below max_length={max_length}")
    label = str(source) if isinstance(source, str | Path) else "data"
    pairs, skipped, cut = [], Counter[str](), Counter[str]()
    for number, row in enumerate(_rows(source), 1):
        if isinstance(row, bytes) and not row.strip():
            continue
        try:
            values = _parse(row.rstrip(b"\r\n")) if isinstance(row, bytes) else row
            pair, pair_cut = _pair(values, tokenizer, max_length, max_prompt_length)
        except _BadRow as reason:
            if bad_rows == "fail":
                raise InputError(f"{label}: row {number}: {reason}") from None
            skipped[str(reason)] += 1
            continue
        pairs.append(pair)
        cut.update(pair_cut)
    rows = len(pairs) + sum(skipped.values())
    if not pairs:
        raise InputError(f"{label}: no usable pair in {rows} rows{_first_reason(skipped)}")
    return pairs, PairSummary(rows, len(pairs), dict(skipped), cut["prompt"], cut["response"])


def _first_reason(skipped: Counter[str]) -> str:
    return f"; most often: {skipped.most_common(1)[0][0]}" if skipped else ""


def _rows(source: str | Path | Iterable[Mapping[str, Any]]) -> Iterator[bytes | Mapping[str, Any]]:
    """Yield each line of a file, or each row as it is."""
    if not isinstance(source, str | Path):
        yield from source
        return
    try:
        with open(source, "rb") as lines:
            yield from lines
    except OSError as error:
        raise InputError(f"{str(source)!r} cannot be read: {error.strerror}") from None


def _parse(line: bytes) -> Any:
    if line.startswith(b"\xef\xbb\xbf"):
        raise _BadRow("begins with a byte order mark; save the file as UTF-8 without one")
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _BadRow(f"not UTF-8 (byte {error.start + 1} of the line)") from None
    except json.JSONDecodeError as error:
        raise _BadRow(f"not JSON ({error.msg}, column {error.colno})") from None
    except (RecursionError, ValueError) as error:
        raise _BadRow(f"not JSON that can be read ({type(error).__name__})") from None


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(items)
    if len(row) < len(items):
        key = next(key for key, count in Counter(key for key, _ in items).items() if count > 1)
        raise _BadRow(f"key {key!r} appears twice")
    return row


def _no_constant(text: str) -> None:
    raise _BadRow(f"not JSON ({text})")


def _pair(row: Any, tokenizer: Any, max_length: int, max_prompt_length: int) -> tuple[Pair, list[str]]:
    prompt, chosen, rejected = (_value(row, key) for key in KEYS)
    if len({type(value) for value in (prompt, chosen, rejected)}) > 1:
        raise _BadRow("prompt, chosen and rejected must be all texts or all lists of messages")
    if chosen == rejected:
        raise _BadRow("chosen and rejected are equal")
    encode = _encode_text if isinstance(prompt, str) else _encode_messages
    border, sequences = encode(tokenizer, prompt, (chosen, rejected))
    return _cut(border, sequences, tokenizer.bos_token_id, max_length, max_prompt_length)


def _value(row: Any, key: str) -> str | list[Any]:
    if not isinstance(row, Mapping):
        raise _BadRow(f"must be an object with {', '.join(KEYS)}, not {type(row).__name__}")
    if key not in row:
        near = nearest(key, [name for name in row if isinstance(name, str)])
        raise _BadRow(f"key {key!r} is missing{near}")
    value = row[key]
    if isinstance(value, str):
        return _text(value, key)
    if isinstance(value, list):
        return _messages(value, key)
    raise _BadRow(f"{key!r} must be a text or a list of messages, not {type(value).__name__}")


def _text(value: str, name: str) -> str:
    if not value.strip():
        raise _BadRow(f"{name!r} is empty")
    if len(value) > MAX_CHARACTERS:
        raise _BadRow(f"{name!r} has more than {MAX_CHARACTERS} characters")
    if "\0" in value:
        raise _BadRow(f"{name!r} contains a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _BadRow(f"{name!r} contains a lone surrogate, which no encoding holds") from None
    return value


def _messages(value: list[Any], key: str) -> list[Any]:
    if not value:
        raise _BadRow(f"{key!r} is empty")
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise _BadRow(f"{key!r} must hold messages with a role and a content")
        if not isinstance(message.get("content"), str):
            raise _BadRow(f"{key!r} must hold messages whose content is a text")
        _text(message["content"], key)
    return value


Encoded = tuple[list[int], tuple[list[int], list[int]]]


def _encode_text(tokenizer: Any, prompt: Any, responses: tuple[Any, Any]) -> Encoded:
    end = tokenizer.eos_token_id

    def whole(text: str) -> list[int]:
        ids = list(tokenizer(text, verbose=False)["input_ids"])
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    chosen, rejected = (whole(prompt + response) for response in responses)
    return list(tokenizer(prompt, verbose=False)["input_ids"]), (chosen, rejected)


def _encode_messages(tokenizer: Any, prompt: Any, responses: tuple[Any, Any]) -> Encoded:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("the data holds lists of messages, but the tokenizer has no chat template")

    def ids(messages: list[Any], generate: bool) -> list[int]:
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=generate, tokenize=True)
        return list(encoded["input_ids"])

    chosen, rejected = (ids([*prompt, *response], False) for response in responses)
    return ids(prompt, True), (chosen, rejected)


def _cut(
    border: list[int], sequences: tuple[list[int], list[int]], bos: int | None, max_length: int, max_prompt_length: int
) -> tuple[Pair, list[str]]:
    """Find the shared prefix and the prompt's end, and apply the truncation rule."""
    shared = _common(*sequences)
    prompt_length = _common(sequences[0][:shared], border)
    if prompt_length == 0:
        raise _BadRow("prompt and responses share no token from which the first response token could be predicted")
    cut = ["prompt"] if prompt_length > max_prompt_length else []
    if cut:
        head = 1 if sequences[0][0] == bos and max_prompt_length > 1 else 0
        gap = prompt_length - max_prompt_length
        sequences = (_without(sequences[0], head, gap), _without(sequences[1], head, gap))
        prompt_length, shared = max_prompt_length, shared - gap
    cut += ["response"] * sum(len(sequence) > max_length for sequence in sequences)
    chosen, rejected = (sequence[:max_length] for sequence in sequences)
    if chosen == rejected:
        raise _BadRow(f"the responses are equal within max_length={max_length} tokens")
    try:
        pair = Pair(tuple(chosen[:shared]), tuple(chosen[shared:]), tuple(rejected[shared:]), prompt_length)
    except InputError as error:
        raise _BadRow(str(error)) from None
    return pair, cut


def _without(sequence: list[int], start: int, count: int) -> list[int]:
    return sequence[:start] + sequence[start + count :]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(first), len(second))
    return next((i for i in range(length) if first[i] != second[i]), length)
