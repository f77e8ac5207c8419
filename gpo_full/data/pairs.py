"""The value `Pair`, two responses to one prompt as token ids, and the reader that makes pairs of the rows of data."""

__all__ = ["Pair", "PairReader", "PairSummary", "read_pairs"]

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpo_full.data.columns import OPTIONAL_COLUMNS, REFERENCE_COLUMNS, BadRow, Columns, lower_scores, told_unused
from gpo_full.data.exchanges import is_plain
from gpo_full.data.file_formats import BAD_ROWS
from gpo_full.data.sources import numbered_rows
from gpo_full.data.tokenization import TokenizedRow, tokenize_row
from gpo_theory.errors import InputError, nearest


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, as token ids, with the values of a row's optional columns.

    `prefix` is the longest common token prefix of prompt + chosen and prompt + rejected. Its first `prompt_length`
    tokens are the prompt; the rest of it belongs to both responses. `chosen` and `rejected` are not whole responses but
    what follows the shared prefix in each; the whole ones are `responses`.

    `weight` w and `p`, the probability that the chosen response is the better one, make the pair's loss
    w (p f(x) + (1-p) f(-x)). `reference_log_probabilities` are log pi_ref of the chosen and the rejected response, in
    nats, summed over tokens, if the data states them. Raises InputError if a value is out of its range.

    >>> pair = Pair(prefix=(5, 6, 7), chosen=(8, 2), rejected=(9, 2), prompt_length=2)
    >>> pair.responses
    ((7, 8, 2), (7, 9, 2))
    """

    prefix: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt_length: int
    weight: float = 1.0
    p: float = 1.0
    reference_log_probabilities: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight {self.weight!r} is not a finite number of at least 0")
        if not 0 <= self.p <= 1:
            raise InputError(f"p {self.p!r} is not a probability")
        for name, value in zip(REFERENCE_COLUMNS, self.reference_log_probabilities or (), strict=False):
            if not -math.inf < value <= 0:
                raise InputError(f"{name} {value!r} is not the logarithm of a probability")
        if not 1 <= self.prompt_length <= len(self.prefix):
            raise InputError(f"prompt_length {self.prompt_length} is not in 1..{len(self.prefix)}")
        if not all(self.responses):
            raise InputError("a response is empty")
        if self.chosen[:1] == self.rejected[:1]:
            raise InputError("the responses are equal, or share tokens beyond the prefix")

    @property
    def responses(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The token ids of both whole responses, chosen first."""
        shared = self.prefix[self.prompt_length :]
        return shared + self.chosen, shared + self.rejected

    @property
    def prompt(self) -> tuple[int, ...]:
        """The token ids of the prompt."""
        return self.prefix[: self.prompt_length]

    @property
    def size(self) -> int:
        """The number of tokens, the shared prefix counted once."""
        return len(self.prefix) + len(self.chosen) + len(self.rejected)

    @property
    def digest(self) -> bytes:
        """The sha256 of the token ids, 32 bytes; the optional columns do not enter."""
        sizes = self.prompt_length, len(self.prefix), len(self.chosen), len(self.rejected)
        return _sha256([*sizes, *self.prefix, *self.chosen, *self.rejected])

    @property
    def prompt_key(self) -> int:
        """A 64-bit hash of the prompt, by which pairs with the same prompt are found."""
        return int.from_bytes(_sha256(self.prompt)[:8], "little", signed=True)


def _sha256(ids: Sequence[int]) -> bytes:
    return hashlib.sha256(np.array(ids, "<i8").tobytes()).digest()


@dataclass(frozen=True)
class PairSummary:
    """How many rows were read, kept and skipped (by reason), and how many prompts and responses were truncated.

    `weighted` and `uncertain` count the pairs whose `weight` and `p` are not 1, `referred` those whose row states the
    reference's log-probabilities. `mended` counts the pairs of which something was changed, by what; `unused` are the
    columns of the data that no pair was made of.
    """

    rows: int
    kept: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    prompts_truncated: int = 0
    responses_truncated: int = 0
    weighted: int = 0
    uncertain: int = 0
    referred: int = 0
    mended: Mapping[str, int] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = {
            **{f"skipped ({reason})": count for reason, count in self.skipped.items()},
            "prompts cut": self.prompts_truncated, "responses cut": self.responses_truncated,
            "with a weight": self.weighted, "with a probability p": self.uncertain,
            "with the reference's log-probabilities": self.referred, **self.mended,
        }  # fmt: skip
        told = [f"{count} {what}" for what, count in counts.items() if count]
        return ", ".join([f"{self.kept} of {self.rows} pairs", *told, *told_unused(self.unused)])


def read_pairs(
    source: str | Path | Iterable[Any], tokenizer: Any, **options: Any
) -> tuple[list[Pair], PairSummary]:
    """Read all pairs of `source` into memory; the arguments are those of `PairReader`."""
    reader = PairReader(source, tokenizer, **options)
    return list(reader), reader.summary


@dataclass
class PairReader:
    """Reads preference pairs and turns each into token ids; iterate for the pairs, then `summary` counts the rows.

    `source` is the path of a file, as `read_rows` reads it, an iterable of mappings such as a list of dicts or a
    `datasets.Dataset`, or a table of pandas, polars or pyarrow. A row has `prompt`, `chosen` and `rejected`: three
    texts, or three lists of `{"role", "content"}` messages (or ShareGPT's `{"from", "value"}`), which go through the
    tokenizer's chat template with all their fields. `columns` maps these names to the data's own, or to templates of
    several: `{"prompt": "question"}`, `{"prompt": "{instruction}\\n{input}"}`.
    Optional columns are `weight`, `p`, and `ref_chosen_logps` with `ref_rejected_logps`, TRL's names of the reference's
    log-probabilities (see `Pair`); `system`, which goes before the prompt, as a message or as a text and an empty line;
    and for messages `tools` and `chat_template_kwargs`, values or JSON, for the chat template. Other columns are named
    in the summary as not used; one of images, sound or video that is not empty raises InputError.

    Without `prompt`, the prompt is the longest common prefix of both responses, of texts in tokens, of conversations in
    whole messages, and ends before an answer. What the responses themselves begin with
    then counts as prompt; the summed margin is the same, a length-averaged one is not. A column that may hold the
    prompt instead, such as `question`, raises InputError.

    A prompt that both responses repeat (UltraFeedback's layout: a text, and whole conversations; or texts that begin
    with a prompt of at least 8 characters) counts once, and so does a beginning-of-sequence token that a text has and
    the tokenizer adds; the summary counts both. A response to messages begins and ends with the assistant's.
    What the template leaves out is counted: texts of a role, fields, arguments of calls. A key that is null within a
    column of Arrow (Parquet, datasets), `tools` too, counts as absent, as Arrow adds such keys; JSON texts keep theirs.
    A chat template that writes the time gets a fixed one, so that a run is the same on every day.

    prompt + chosen and prompt + rejected are tokenized whole, so that a token which straddles the end of the prompt is
    the one the model would meet; the tokenizer's end-of-sequence token closes each response of plain text.

    Truncation: the prompt keeps its last `max_prompt_length` tokens (and a leading beginning-of-sequence token); then
    prompt + response keeps its first `max_length` tokens. As `max_prompt_length < max_length`, no response becomes
    empty; two that become equal make a bad row.

    With `bad_rows="fail"` a row that cannot be used raises InputError with its number (from 1) and the reason; with
    `"skip"` it is counted in the summary. Data without any usable row raises InputError either way.
    """

    source: str | Path | Iterable[Any]
    tokenizer: Any
    max_length: int = 1024
    max_prompt_length: int = 512
    bad_rows: str = "fail"
    columns: Mapping[str, str] | None = None
    summary: PairSummary = field(init=False, default=PairSummary(0, 0))

    def __post_init__(self) -> None:
        if self.bad_rows not in BAD_ROWS:
            raise InputError(f"bad_rows={self.bad_rows!r}; allowed: {', '.join(BAD_ROWS)}"
                             f"{nearest(str(self.bad_rows), BAD_ROWS)}")  # fmt: skip
        if not 1 <= self.max_prompt_length < self.max_length:
            raise InputError(f"max_prompt_length={self.max_prompt_length} must be at least 1 and below "
                             f"max_length={self.max_length}")  # fmt: skip

    def __iter__(self) -> Iterator[Pair]:
        label = str(self.source) if isinstance(self.source, str | Path) else "data"
        columns = Columns(self.columns or {})
        kept, skipped, truncated, mended, stated = 0, *(Counter[str]() for _ in range(4))
        seen, used, verdicts = dict[str, None](), set[str](), dict[str, Any]()
        with_prompt: bool | None = None  # of texts, in the rows before
        kinds = Counter[bool]()  # whether the responses are texts
        for number, row in numbered_rows(self.source, columns):
            seen |= dict.fromkeys(row if isinstance(row, Mapping) else ())
            columns.check_verdict(row, verdicts)
            try:
                renamed = columns.renamed(row)
                is_text, has = is_plain(renamed.get("chosen")), "prompt" in renamed
                if is_text and has is not with_prompt is not None:
                    raise BadRow(f"key 'prompt' is {'there' if has else 'missing'}, and the rows before "
                                 f"{'do not have' if has else 'have'} it")  # fmt: skip
                pair, found = _pair(renamed, self.tokenizer, self.max_length, self.max_prompt_length)
            except BadRow as reason:
                if self.bad_rows == "fail":
                    raise InputError(f"{label}: row {number}: {reason} (bad_rows=skip leaves such rows out)") from None
                skipped[str(reason)] += 1
                continue
            except InputError as error:  # of all rows: the columns, or the chat template
                raise InputError(f"{label}: row {number}: {error}") from None
            kept += 1
            if with_prompt is None and (is_text or has):
                with_prompt = has
            kinds[is_text and is_plain(renamed.get("prompt", ""))] += 1
            truncated.update(found.truncated)
            mended.update([*found.mended, *lower_scores(renamed)])
            used.update(found.used)
            stated["weighted"] += pair.weight != 1
            stated["uncertain"] += pair.p != 1
            stated["referred"] += pair.reference_log_probabilities is not None
            yield pair
        if len(kinds) > 1:
            mended["of texts, without the chat template that the others have"] = kinds[True]
        rows = kept + skipped.total()
        if not kept:
            most_often = f"; most often: {skipped.most_common(1)[0][0]}" if skipped else ""
            raise InputError(f"{label}: no usable pair in {rows} rows{most_often}")
        self.summary = PairSummary(rows, kept, dict(skipped), truncated["prompt"], truncated["response"], **stated,
                                   mended=dict(mended), unused=columns.unused(seen, used))  # fmt: skip


def _pair(
    row: Mapping[str, Any], tokenizer: Any, max_length: int, max_prompt_length: int
) -> tuple[Pair, TokenizedRow]:
    """Return the pair of a row, and how it was made."""
    found = tokenize_row(row, tokenizer, max_length, max_prompt_length)
    try:
        pair = Pair(*found[:4], **_optional_columns(row))
    except InputError as error:
        raise BadRow(str(error)) from None
    if found.truncated and pair.reference_log_probabilities:
        raise BadRow(f"its {found.truncated[0]} is cut, and the reference's log-probabilities are of the whole")
    return pair, found


def _optional_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Pair that a row states; a missing, empty or null column is not stated."""
    found: dict[str, Any] = {name: value for name in OPTIONAL_COLUMNS if (value := _number(row, name)) is not None}
    both = [found.pop(name) for name in REFERENCE_COLUMNS if name in found]
    if len(both) == 1:
        raise BadRow(f"{' and '.join(REFERENCE_COLUMNS)} go together")
    return found | ({"reference_log_probabilities": tuple(both)} if both else {})


def _number(row: Mapping[str, Any], name: str) -> float | None:
    """Return the number in a column, None if there is none; in CSV it is a text."""
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadRow(f"{name!r} must be a number, not {value!r:.60}") from None
