"""Preference pairs split by what they are about, so that what is tested was never trained on."""

__all__ = ["Split", "split_pairs"]

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpo_full.pair_files import REQUIRED, BadRow
from gpo_theory.errors import InputError, nearest

Row = dict[str, Any]
# The draw is the same for every run: another seed for the order of training must not bring other test pairs.
_SEED = 0


@dataclass(frozen=True)
class Split:
    """Rows of `prompt`, `chosen` and `rejected`; `held_out` are the column's values whose rows are in `test`."""

    train: list[Row]
    test: list[Row]
    held_out: tuple[str, ...]
    values: int
    skipped: int

    def __str__(self) -> str:
        skipped = f", {self.skipped} rows skipped" if self.skipped else ""
        return (f"{len(self.train)} pairs to train on; {len(self.test)} to test on, of {len(self.held_out)} of "
                f"{self.values} values{skipped}: {', '.join(self.held_out)}")  # fmt: skip


def split_pairs(
    rows: Iterable[tuple[int, Any]], by: str, share: float = 0.3, *, prompt: str | None = None, skip: bool = False
) -> Split:
    """Split numbered rows (`numbered_rows`) by their column `by`: `share` of its values, at random, are for testing.

    Splitting by row would leak: the same response, or the same question, stands in many pairs. `prompt` is a template
    such as "{topic}: " that makes each row's prompt of its other columns; without it a row keeps its own, if any. No
    response is in two test pairs, so that an interval over test pairs does not count one text many times. InputError
    for a row that cannot be used (unless `skip`), or a column with fewer than two values.

    >>> rows = [{"topic": t, "chosen": f"{t} yes", "rejected": f"{t} no"} for t in ("tea", "sea", "cats")]
    >>> split = split_pairs(enumerate(rows, 1), "topic", prompt="{topic}?")
    >>> [row["prompt"] for row in split.train], split.held_out
    (['tea?', 'sea?'], ('cats',))
    """
    if not 0 < share < 1:
        raise InputError(f"test share {share:g} must be above 0 and below 1")
    kept: list[tuple[str, Row]] = []
    skipped = 0
    for number, row in rows:
        try:
            kept.append(_row(row, by, prompt))
        except BadRow as reason:
            if not skip:
                raise InputError(f"row {number}: {reason}") from None
            skipped += 1
    groups = sorted({value for value, _ in kept})
    if len(groups) < 2:
        raise InputError(f"column {by!r} has {len(groups)} value(s); splitting by it needs two")
    rng = random.Random(_SEED)
    rng.shuffle(groups)
    held_out = groups[: min(len(groups) - 1, max(1, round(share * len(groups))))]
    test = [row for value, row in kept if value in held_out]
    rng.shuffle(test)
    train = [row for value, row in kept if value not in held_out]
    return Split(train, _once(test), tuple(held_out), len(groups), skipped)


def _row(row: Any, by: str, prompt: str | None) -> tuple[str, Row]:
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
    if prompt is None:
        return text(by), dict(row)
    return text(by), {**row, "prompt": re.sub(r"\{(\w+)\}", lambda found: text(found[1]), prompt)}


def _once(rows: list[Row]) -> list[Row]:
    """Return the rows without any that repeats a response of an earlier one."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        responses = {str(row[name]) for name in REQUIRED}
        if not seen & responses:
            seen |= responses
            kept.append(row)
    return kept
