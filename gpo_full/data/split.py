"""A training and a test part of preference data, split by the values of a column (topic, prompt), not by row."""

__all__ = ["Side", "Split", "split_pairs"]

import hashlib
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpo_full.data.columns import REQUIRED, BadRow, Columns
from gpo_full.data.sources import fingerprint, is_on_disk, numbered_rows
from gpo_full.data.tensor_files import Array
from gpo_theory.errors import InputError, nearest

# Fixed, so that runs with different training seeds have the same test pairs.
_SEED = 0


@dataclass(frozen=True)
class _Rule:
    """How a row is read: the column to split by, and what the data calls the others."""

    by: str
    columns: Columns


class Side:
    """The rows of one part of a split, in the order of the data; each iteration reads the data again."""

    def __init__(self, data: Any, rule: _Rule, numbers: Iterable[int]) -> None:
        """`numbers` are the row numbers in the data, from 1, ascending."""
        self._data, self._rule, self._numbers = data, rule, array("q", numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Any]:
        rows = iter(numbered_rows(self._data, self._rule.columns))
        for wanted in self._numbers:
            row = next((row for number, row in rows if number == wanted), BadRow("it is missing"))
            try:
                _value_and_responses(row, self._rule)
                yield row
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
    value_count: int  # of the whole column
    skipped: int

    def __str__(self) -> str:
        skipped = f", {self.skipped} rows skipped" if self.skipped else ""
        return (f"{len(self.train)} pairs to train on; {len(self.test)} to test on, of {len(self.held_out)} of "
                f"{self.value_count} values{skipped}: {', '.join(self.held_out)}")  # fmt: skip


def split_pairs(
    data: Any, by: str, share: float = 0.3, *, columns: Mapping[str, str] | None = None, skip: bool = False
) -> Split:
    """Split data (what `open_data` returns, or a list of rows) by column `by`; a `share` of its values is held out.

    The values are drawn at random. A split by row would leak, because many pairs have the same response or the same
    question. `columns` maps the names of pairs to those of the data, as for `PairReader`; the rows stay as they are.
    No response occurs in two test pairs, so that an interval over test pairs does not count one text many times. Memory
    is a few numbers per row. Raises InputError for a row that cannot be used (unless `skip`), or a column with fewer
    than two values.

    >>> rows = [{"topic": t, "chosen": f"{t} yes", "rejected": f"{t} no"} for t in ("tea", "sea", "cats")]
    >>> split = split_pairs(rows, "topic", columns={"prompt": "{topic}?"})
    >>> [row["topic"] for row in split.train], split.held_out
    (['tea', 'sea'], ('cats',))
    """
    if not 0 < share < 1:
        raise InputError(f"test share {share:g} must be above 0 and below 1")
    rule = _Rule(by, Columns(columns or {}, also=(by,)))
    numbers, rows, skipped = _indexed(data, rule, skip)
    values = sorted(numbers)
    if len(values) < 2:
        raise InputError(f"column {by!r} has {len(values)} value(s); splitting by it needs two")
    rng = random.Random(_SEED)
    rng.shuffle(values)
    held_out = values[: min(len(values) - 1, max(1, round(share * len(values))))]
    is_test = np.isin(rows[:, 1], [numbers[value] for value in held_out])
    test = np.flatnonzero(is_test).tolist()
    rng.shuffle(test)
    tested = sorted(_without_repeats(test, rows[:, 2:]))
    return Split(Side(data, rule, rows[~is_test, 0]), Side(data, rule, rows[tested, 0]), tuple(held_out), len(values),
                 skipped)  # fmt: skip


def _indexed(data: Any, rule: _Rule, skip: bool) -> tuple[dict[str, int], Array, int]:
    """Index the usable rows: return the number of each value of the column, how many rows were skipped, and [N, 4].

    The four numbers of a row are its number in the data, the number of its value, and the hashes of both responses.
    """
    numbers: dict[str, int] = {}
    rows, skipped = array("q"), 0
    for number, row in numbered_rows(data, rule.columns):
        try:
            value, responses = _value_and_responses(row, rule)
        except BadRow as reason:
            if not skip:
                raise InputError(f"row {number}: {reason}") from None
            skipped += 1
            continue
        rows.extend((number, numbers.setdefault(value, len(numbers)), *map(_hash, responses)))
    return numbers, np.array(rows, "q").reshape(-1, 4), skipped


def _hash(response: Any) -> int:
    digest = hashlib.blake2b(str(response).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _value_and_responses(row: Any, rule: _Rule) -> tuple[str, list[Any]]:
    """Return the value of the column, and both responses. Raises BadRow if the row cannot be used."""
    pair = rule.columns.renamed(row)
    for name in REQUIRED:
        if not pair.get(name):
            raise BadRow(f"{name!r} is missing or empty{nearest(name, map(str, pair))}")
    value = row.get(rule.by)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{rule.by!r} is missing, empty or not text{nearest(rule.by, map(str, row))}")
    return value, [pair[name] for name in REQUIRED]


def _without_repeats(rows: Iterable[int], responses: Array) -> list[int]:
    """Return the rows without those that repeat a response of an earlier one."""
    seen: set[int] = set()
    kept = []
    for row in rows:
        both = {*responses[row].tolist()}
        if seen.isdisjoint(both):
            seen |= both
            kept.append(row)
    return kept
