"""Preference pairs split by what they are about, so that what is tested was never trained on."""

__all__ = ["Side", "Split", "split_pairs"]

import hashlib
import random
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpo_full.data.files import REQUIRED, BadRow
from gpo_full.data.hub import fingerprint, is_on_disk, numbered_rows
from gpo_theory.errors import InputError, nearest

Row = dict[str, Any]
# The draw is the same for every run: another seed for the order of training must not bring other test pairs.
_SEED = 0


@dataclass(frozen=True)
class _Rule:
    """How a row is read: the column that says what it is about, and the template of its prompt, if it has none."""

    by: str
    prompt: str | None

    @property
    def columns(self) -> set[str]:
        return {self.by, *re.findall(r"\{(\w+)\}", self.prompt or "")}


class Side:
    """The rows of one side of a split, in the order of the data, read from it as often as they are asked for."""

    def __init__(self, data: Any, rule: _Rule, numbers: Iterable[int]) -> None:
        """`numbers` are those of the rows in the data, ascending."""
        self._data, self._rule, self._numbers = data, rule, array("q", numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Row]:
        wanted = iter(self._numbers)
        next_one = next(wanted, None)
        for number, row in numbered_rows(self._data, self._rule.columns):
            if next_one is None:
                return
            if number == next_one:
                try:
                    yield _row(row, self._rule)[1]
                except BadRow as reason:
                    raise InputError(f"row {number} was another when the data was split: {reason}") from None
                next_one = next(wanted, None)

    @property
    def is_on_disk(self) -> bool:
        """Whether the data is."""
        return is_on_disk(self._data)

    def contents_hash(self) -> str:
        """A hash of the data, of which of its rows these are, and of how they are read."""
        digest = hashlib.sha256(f"{fingerprint(self._data)} {self._rule}".encode())
        digest.update(self._numbers.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Rows of `prompt`, `chosen` and `rejected`; `held_out` are the column's values whose rows are in `test`."""

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
    """Split data (what `open_data` returns, or a list of rows) by a column: `share` of its values are for testing.

    Splitting by row would leak: the same response, or the same question, stands in many pairs. The values are drawn at
    random. `prompt` is a template such as "{topic}: " that makes each row's prompt of its other columns; without it a
    row keeps its own, if any. No response is in two test pairs, so that an interval over test pairs does not count one
    text many times. Of each row a few numbers are kept in memory. InputError for a row that cannot be used (unless
    `skip`), or a column with fewer than two values.

    >>> rows = [{"topic": t, "chosen": f"{t} yes", "rejected": f"{t} no"} for t in ("tea", "sea", "cats")]
    >>> split = split_pairs(rows, "topic", prompt="{topic}?")
    >>> [row["prompt"] for row in split.train], split.held_out
    (['tea?', 'sea?'], ('cats',))
    """
    if not 0 < share < 1:
        raise InputError(f"test share {share:g} must be above 0 and below 1")
    rule = _Rule(by, prompt)
    found = _look_through(data, rule, skip)
    groups = sorted(found.values)
    if len(groups) < 2:
        raise InputError(f"column {by!r} has {len(groups)} value(s); splitting by it needs two")
    rng = random.Random(_SEED)
    rng.shuffle(groups)
    held_out = groups[: min(len(groups) - 1, max(1, round(share * len(groups))))]
    places = {found.values[value] for value in held_out}
    test = array("q", (i for i, value in enumerate(found.of_row) if value in places))
    rng.shuffle(test)
    train = (number for number, value in zip(found.numbers, found.of_row, strict=True) if value not in places)
    tested = (found.numbers[i] for i in sorted(_once(test, found.responses)))
    return Split(Side(data, rule, train), Side(data, rule, tested), tuple(held_out), len(groups), found.skipped)


@dataclass
class _Found:
    """Of each usable row its number, the place of its value in `values`, and a hash of both responses."""

    values: dict[str, int]
    numbers: "array[int]"
    of_row: "array[int]"
    responses: tuple["array[int]", "array[int]"]
    skipped: int = 0


def _look_through(data: Any, rule: _Rule, skip: bool) -> _Found:
    found = _Found({}, array("q"), array("q"), (array("q"), array("q")))
    for number, row in numbered_rows(data, rule.columns):
        try:
            value, kept = _row(row, rule)
        except BadRow as reason:
            if not skip:
                raise InputError(f"row {number}: {reason}") from None
            found.skipped += 1
            continue
        found.numbers.append(number)
        found.of_row.append(found.values.setdefault(value, len(found.values)))
        for name, hashes in zip(REQUIRED, found.responses, strict=True):
            digest = hashlib.blake2b(str(kept[name]).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "little", signed=True))
    return found


def _row(row: Any, rule: _Rule) -> tuple[str, Row]:
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


def _once(places: Sequence[int], responses: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of rows without any that repeats a response of an earlier one."""
    seen: set[int] = set()
    kept = []
    for place in places:
        both = {hashes[place] for hashes in responses}
        if not seen & both:
            seen |= both
            kept.append(place)
    return kept
