"""Preference pairs: rows of text in TRL's prompt/chosen/rejected form become token ids with one shared prefix."""

__all__ = ["Pair", "PairReader", "PairSummary", "common_prefix", "read_pairs"]

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpo_full.data.files import BAD_ROWS, KEYS, MAX_CHARACTERS, BadRow, read_rows
from gpo_full.data.numbers import NOTHING_SAID, PairNumbers, numbers_of_row
from gpo_theory.errors import InputError, misspelt, nearest


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, as token ids.

    `prefix` is the longest common token prefix of the two whole texts. Its first `prompt_length` tokens are the
    prompt; what is left of it belongs to both responses, which continue with `chosen` and `rejected`. `numbers` say how
    it counts.

    >>> pair = Pair(prefix=(5, 6, 7), chosen=(8, 2), rejected=(9, 2), prompt_length=2)
    >>> pair.responses
    ((7, 8, 2), (7, 9, 2))
    """

    prefix: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt_length: int
    numbers: PairNumbers = NOTHING_SAID

    def __post_init__(self) -> None:
        self.numbers.checked()
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
    def prompt(self) -> tuple[int, ...]:
        """The prompt, without what the responses share beyond it."""
        return self.prefix[: self.prompt_length]

    @property
    def size(self) -> int:
        """The number of distinct tokens, the shared prefix counted once."""
        return len(self.prefix) + len(self.chosen) + len(self.rejected)

    @property
    def length(self) -> int:
        """The number of tokens of the longer of the two sequences."""
        return len(self.prefix) + max(len(self.chosen), len(self.rejected))

    @property
    def digest(self) -> bytes:
        """The sha256 of the pair's token ids, 32 bytes; its numbers do not count."""
        sizes = self.prompt_length, len(self.prefix), len(self.chosen), len(self.rejected)
        numbers = [*sizes, *self.prefix, *self.chosen, *self.rejected]
        return _sha256(numbers)

    @property
    def prompt_key(self) -> int:
        """A number that pairs of one prompt share, of 64 bits: two prompts may have the same, by a rare chance."""
        return int.from_bytes(_sha256(self.prompt)[:8], "little", signed=True)


def _sha256(numbers: Sequence[int]) -> bytes:
    return hashlib.sha256(np.array(numbers, "<i8").tobytes()).digest()


@dataclass(frozen=True)
class PairSummary:
    """What became of the rows: how many were read, kept and skipped (by reason), and how many texts were cut.

    `weighted`, `uncertain` and `referred` count the pairs with a weight or a `p` that is not 1, and with a reference.
    """

    rows: int
    kept: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    prompts_truncated: int = 0
    responses_truncated: int = 0
    weighted: int = 0
    uncertain: int = 0
    referred: int = 0

    def __str__(self) -> str:
        parts = [f"{self.kept} of {self.rows} pairs"]
        parts += [f"{count} skipped ({reason})" for reason, count in self.skipped.items()]
        parts += [f"{self.prompts_truncated} prompts cut"] if self.prompts_truncated else []
        parts += [f"{self.responses_truncated} responses cut"] if self.responses_truncated else []
        parts += [f"{self.weighted} with a weight"] if self.weighted else []
        parts += [f"{self.uncertain} with a probability p"] if self.uncertain else []
        parts += [f"{self.referred} with the reference's log-probabilities"] if self.referred else []
        return ", ".join(parts)


def read_pairs(
    source: str | Path | Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    max_length: int = 1024,
    max_prompt_length: int = 512,
    bad_rows: str = "fail",
) -> tuple[list[Pair], PairSummary]:
    """Read preference pairs and turn each into token ids.

    `source` is the path of a file, JSONL, CSV (`.csv`) or Parquet (`.parquet`), as `read_rows` reads them, or an
    iterable of mappings such as a list of dicts or a `datasets.Dataset`. A row has `prompt`, `chosen` and `rejected`:
    three texts, or three lists of `{"role", "content"}` messages, which go through the tokenizer's chat template.
    It may have the numbers of `PairNumbers`: `weight`, `p`, and `ref_chosen_logps` with `ref_rejected_logps`, as TRL
    calls them. Other keys are ignored.

    Without `prompt` it is what both begin with: the longest common prefix, of texts in tokens, of conversations in
    whole messages. What the responses themselves begin with then counts as prompt; the summed margin is the same, a
    length-averaged one is not.

    prompt + chosen and prompt + rejected are tokenised whole, so a token that straddles the border is the one the
    model would meet; the tokenizer's end-of-sequence token closes each response of plain text.

    Truncation: the prompt keeps its last `max_prompt_length` tokens (and a leading beginning-of-sequence token); then
    prompt + response keeps its first `max_length` tokens. As `max_prompt_length < max_length`, no response becomes
    empty; two that become equal make a bad row.

    A row that cannot be used raises InputError with its number (from 1) and the reason, or with `bad_rows="skip"` is
    counted in the summary. No usable row at all is an error either way.
    """
    reader = PairReader(source, tokenizer, max_length=max_length, max_prompt_length=max_prompt_length,
                        bad_rows=bad_rows)  # fmt: skip
    return list(reader), reader.summary


class PairReader:
    """The pairs that `read_pairs` returns, one at a time; when they are through, `summary` counts the rows."""

    def __init__(
        self,
        source: str | Path | Iterable[Mapping[str, Any]],
        tokenizer: Any,
        *,
        max_length: int,
        max_prompt_length: int,
        bad_rows: str,
    ) -> None:
        if bad_rows not in BAD_ROWS:
            raise InputError(f"bad_rows={bad_rows!r}; allowed: {', '.join(BAD_ROWS)}{nearest(str(bad_rows), BAD_ROWS)}")
        if not 1 <= max_prompt_length < max_length:
            raise InputError(f"max_prompt_length={max_prompt_length} must be at least 1 and below "
                             f"max_length={max_length}")  # fmt: skip
        self._source, self._skips = source, bad_rows == "skip"
        self._rules = tokenizer, max_length, max_prompt_length
        self.summary = PairSummary(0, 0)

    def __iter__(self) -> Iterator[Pair]:
        source = self._source
        label = str(source) if isinstance(source, str | Path) else "data"
        kept, skipped, cut, told = 0, Counter[str](), Counter[str](), Counter[str]()
        for number, row in read_rows(source) if isinstance(source, str | Path) else enumerate(source, 1):
            try:
                pair, pair_cut = _pair(row, *self._rules)
            except BadRow as reason:
                if not self._skips:
                    raise InputError(f"{label}: row {number}: {reason}") from None
                skipped[str(reason)] += 1
                continue
            kept += 1
            cut.update(pair_cut)
            told.update(_told(pair.numbers))
            yield pair
        rows = kept + sum(skipped.values())
        if not kept:
            raise InputError(f"{label}: no usable pair in {rows} rows{_first_reason(skipped)}")
        self.summary = PairSummary(rows, kept, dict(skipped), cut["prompt"], cut["response"], **told)


def _told(numbers: PairNumbers) -> list[str]:
    """The fields of a PairSummary that count a pair of these numbers."""
    said = {"weighted": numbers.weight != 1, "uncertain": numbers.p != 1, "referred": numbers.reference is not None}
    return [name for name, there in said.items() if there]


def _first_reason(skipped: Counter[str]) -> str:
    return f"; most often: {skipped.most_common(1)[0][0]}" if skipped else ""


def _pair(row: Any, tokenizer: Any, max_length: int, max_prompt_length: int) -> tuple[Pair, list[str]]:
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
    border, sequences = encode(tokenizer, prompt, (chosen, rejected))
    if border == [tokenizer.bos_token_id] and prompt is None:
        raise BadRow(_NO_PROMPT)
    pair, cut = _cut(border, sequences, tokenizer.bos_token_id, max_length, max_prompt_length)
    numbers = numbers_of_row(row)
    if cut and numbers.reference:
        raise BadRow(f"its {cut[0]} is cut, and the reference's log-probabilities are of the whole")
    return replace(pair, numbers=numbers), cut


_NO_PROMPT = "without a prompt, chosen and rejected must begin alike"


def _shared_messages(chosen: list[Any], rejected: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the messages that both conversations begin with, and what is left of each."""
    shared = common_prefix(chosen, rejected)
    if not shared:
        raise BadRow(_NO_PROMPT)
    if shared == min(len(chosen), len(rejected)):
        raise BadRow("one of the conversations is the beginning of the other")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _value(row: Any, key: str) -> str | list[Any] | None:
    if not isinstance(row, Mapping):
        raise BadRow(f"must be an object with {', '.join(KEYS)}, not {type(row).__name__}")
    if key not in row:
        near = misspelt(key, [name for name in row if isinstance(name, str) and name not in KEYS])
        if key == "prompt" and not near:
            return None
        raise BadRow(f"key {key!r} is missing{near}")
    value = row[key]
    if isinstance(value, str):
        return _text(value, key)
    if isinstance(value, list):
        return _messages(value, key)
    raise BadRow(f"{key!r} must be a text or a list of messages, not {type(value).__name__}")


def _text(value: str, name: str) -> str:
    if not value.strip():
        raise BadRow(f"{name!r} is empty")
    if len(value) > MAX_CHARACTERS:
        raise BadRow(f"{name!r} has more than {MAX_CHARACTERS} characters")
    if "\0" in value:
        raise BadRow(f"{name!r} contains a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{name!r} contains a lone surrogate, which no encoding holds") from None
    return value


def _messages(value: list[Any], key: str) -> list[Any]:
    if not value:
        raise BadRow(f"{key!r} is empty")
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise BadRow(f"{key!r} must hold messages with a role and a content")
        if not isinstance(message.get("content"), str):
            raise BadRow(f"{key!r} must hold messages whose content is a text")
        _text(message["content"], key)
    return value


Encoded = tuple[list[int], tuple[list[int], list[int]]]


def _encode_text(tokenizer: Any, prompt: Any, responses: tuple[Any, Any]) -> Encoded:
    end = tokenizer.eos_token_id

    def whole(text: str) -> list[int]:
        ids = list(tokenizer(text, verbose=False)["input_ids"])
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    chosen, rejected = (whole((prompt or "") + response) for response in responses)
    if prompt is None:
        return chosen[: common_prefix(chosen, rejected)], (chosen, rejected)
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
    shared = common_prefix(*sequences)
    prompt_length = common_prefix(sequences[0][:shared], border)
    if prompt_length == 0:
        raise BadRow("prompt and responses share no token from which the first response token could be predicted")
    cut = ["prompt"] if prompt_length > max_prompt_length else []
    if cut:
        head = 1 if sequences[0][0] == bos and max_prompt_length > 1 else 0
        gap = prompt_length - max_prompt_length
        sequences = (_without(sequences[0], head, gap), _without(sequences[1], head, gap))
        prompt_length, shared = max_prompt_length, shared - gap
    cut += ["response"] * sum(len(sequence) > max_length for sequence in sequences)
    chosen, rejected = (sequence[:max_length] for sequence in sequences)
    if chosen == rejected:
        raise BadRow(f"the responses are equal within max_length={max_length} tokens")
    try:
        pair = Pair(tuple(chosen[:shared]), tuple(chosen[shared:]), tuple(rejected[shared:]), prompt_length)
    except InputError as error:
        raise BadRow(str(error)) from None
    return pair, cut


def _without(sequence: list[int], start: int, count: int) -> list[int]:
    return sequence[:start] + sequence[start + count :]


def common_prefix(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return how many items both begin with.

    >>> common_prefix([1, 2, 3], [1, 2, 4])
    2
    """
    length = min(len(first), len(second))
    return next((i for i in range(length) if first[i] != second[i]), length)
