"""A training and a test part of preference data, split by the values of a column (topic, prompt), not by row."""

__all__ = ["Side", "Split", "split_pairs"]

import hashlib
import random
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpo_full.data.file_formats import REQUIRED, BadRow
from gpo_full.data.sources import fingerprint, is_on_disk, numbered_rows
from gpo_theory.errors import InputError, nearest

Row = dict[str, Any]
# Fixed, so that runs with different training seeds have the same test pairs.
_SEED = 0


@dataclass(frozen=True)
class _Rule:
    """How a row is read: the column to split by, and a template for its prompt, if it has none."""

    by: str
    prompt: str | None

    @property
    def columns(self) -> set[str]:
        return {self.by, *re.findall(r"\{(\w+)\}", self.prompt or "")}


class Side:
    """The rows of one part of a split, in the order of the data; each iteration reads the data again."""

    def __init__(self, data: Any, rule: _Rule, numbers: Iterable[int]) -> None:
        """`numbers` are the row numbers in the data, from 1, ascending."""
        self._data, self._rule, self._numbers = data, rule, array("q", numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Row]:
        rows = iter(numbered_rows(self._data, self._rule.columns))
        for wanted in self._numbers:
            row = next((row for number, row in rows if number == wanted), BadRow("it is missing"))
            try:
                yield _row(row, self._rule)[1]
            except BadRow as reason:
                raise InputError(f"row {wanted} has changed since the data was split: {reason}") from None

    @property
    def is_on_disk(self) -> bool:
        """Whether the data is on disk (`sources.is_on_disk`)."""
        return is_on_disk(self._data)

    def contents_hash(self) -> str:
        """Return a hash of the data, the row numbers and the way in which rows are read."""
        digest = hashlib.sha256(f"{fingerprint(self._data)} {self._rule}".encode())
        digest.update(self._numbers.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Two parts of a data set; the rows with one of the values `held_out` of the column are in `test`."""

    train: Side
    test: Side
    held_out: tuple[str, ...]
    values: int
    skipped: int

    def __str__(self) -> str:
        skipped = f", {self.skipped} rows skipped" if self.skipped else ""
        return (f"{len(self.train)} pairs to train on; {len(self.test)} to test on, of {len(self.held_out)} of "
                f"{self.values} values{skipped}: {', '.join(self.held_out)}")  # fmt: skip


def split_pairs(data: Any, by: str, share: float = 0.3, *, prompt: str | None = None, skip: bool = False) -> Split:
    """Split data (what `open_data` returns, or a list of rows) by column `by`; a `share` of its values is held out.

    The values are drawn at random. A split by row would leak, because many pairs have the same response or the same
    question. `prompt` is a template such as "{topic}: " for each row's prompt; without it a row keeps its own, if any.
    No response occurs in two test pairs, so that an interval over test pairs does not count one text many times. Memory
    is a few numbers per row. Raises InputError for a row that cannot be used (unless `skip`), or a column with fewer
    than two values.

    >>> rows = [{"topic": t, "chosen": f"{t} yes", "rejected": f"{t} no"} for t in ("tea", "sea", "cats")]
    >>> split = split_pairs(rows, "topic", prompt="{topic}?")
    >>> [row["prompt"] for row in split.train], split.held_out
    (['tea?', 'sea?'], ('cats',))
    """
    if not 0 < share < 1:
        raise InputError(f"test share {share:g} must be above 0 and below 1")
    rule = _Rule(by, prompt)
    found = _indexed(data, rule, skip)
    groups = sorted(found.values)
    if len(groups) < 2:
        raise InputError(f"column {by!r} has {len(groups)} value(s); splitting by it needs two")
    rng = random.Random(_SEED)
    rng.shuffle(groups)
    held_out = groups[: min(len(groups) - 1, max(1, round(share * len(groups))))]
    tested_values = {found.values[value] for value in held_out}
    test = array("q", (i for i, value in enumerate(found.value_of_row) if value in tested_values))
    rng.shuffle(test)
    rows = zip(found.numbers, found.value_of_row, strict=True)
    train = (number for number, value in rows if value not in tested_values)
    tested = (found.numbers[i] for i in sorted(_without_repeats(test, found.responses)))
    return Split(Side(data, rule, train), Side(data, rule, tested), tuple(held_out), len(groups), found.skipped)


@dataclass
class _Index:
    """An index of the usable rows."""

    values: dict[str, int]  # value of the column: its number
    numbers: "array[int]"  # per row: its number in the data
    value_of_row: "array[int]"  # per row: the number of its value
    responses: tuple["array[int]", "array[int]"]  # per row: hashes of both responses
    skipped: int = 0


def _indexed(data: Any, rule: _Rule, skip: bool) -> _Index:
    found = _Index({}, array("q"), array("q"), (array("q"), array("q")))
    for number, row in numbered_rows(data, rule.columns):
        try:
            value, kept = _row(row, rule)
        except BadRow as reason:
            if not skip:
                raise InputError(f"row {number}: {reason}") from None
            found.skipped += 1
            continue
        found.numbers.append(number)
        found.value_of_row.append(found.values.setdefault(value, len(found.values)))
        for name, hashes in zip(REQUIRED, found.responses, strict=True):
            digest = hashlib.blake2b(str(kept[name]).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "little", signed=True))
    return found


def _row(row: Any, rule: _Rule) -> tuple[str, Row]:
    """Return the value of the column, and the row with its prompt. Raises BadRow if it cannot be used."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, Mapping):
        raise BadRow("must be an object")

    def text(name: str) -> str:
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise BadRow(f"{name!r} is missing, empty or not text{nearest(name, map(str, row))}")
        return str(row[name])

    for name in REQUIRED:
        if not row.get(name):
            raise BadRow(f"{name!r} is missing or empty{nearest(name, map(str, row))}")
    if rule.prompt is None:
        return text(rule.by), dict(row)
    return text(rule.by), {**row, "prompt": re.sub(r"\{(\w+)\}", lambda found: text(found[1]), rule.prompt)}


def _without_repeats(rows: Sequence[int], responses: Sequence[Sequence[int]]) -> list[int]:
    """Return the rows without those that repeat a response of an earlier one."""
    seen: set[int] = set()
    kept = []
    for row in rows:
        both = {hashes[row] for hashes in responses}
        if not seen & both:
            seen |= both
            kept.append(row)
    return kept
