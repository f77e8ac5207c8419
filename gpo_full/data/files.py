"""Files of preference pairs, JSONL, CSV or Parquet by their suffix: numbered rows, or why one cannot be read."""

__all__ = ["BadRow", "read_rows"]

import csv
import gzip
import importlib
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpo_full.strict_json import NotJson, parse_json
from gpo_theory.errors import InputError, misspelt

KEYS = ("prompt", "chosen", "rejected")
REQUIRED = ("chosen", "rejected")
# What becomes of a row that cannot be used.
BAD_ROWS = ("fail", "skip")
# Numbers that a row may hold; those of the reference by the names that TRL gives them.
REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
NUMBERS = ("weight", "p", *REFERENCES)
# A longer text is a broken file, not a preference: no context window holds it.
MAX_CHARACTERS = 1_000_000
# How a conversation looks that was written into a table of texts.
CONVERSATION = re.compile(r"""\s*\[\s*\{\s*["'](role|content)["']\s*:""")

Rows = Iterator[tuple[int, Any]]


class BadRow(Exception):
    """Why a row cannot be used."""


def read_rows(path: str | Path, also: Collection[str] = ()) -> Rows:
    """Yield the number of each row, from 1, and its value, or a BadRow that says why there is none.

    By its suffix the file is CSV (`.csv`: UTF-8, a header, rows numbered below it), Parquet (`.parquet`, which needs
    pyarrow), or else JSONL (UTF-8, one object per line, blank lines numbered but not yielded; `.gz` is unpacked).
    Of a table, prompt, chosen, rejected, the NUMBERS and the columns `also` are kept.
    A table without a column that is needed, and a file that cannot be opened, raise InputError.
    """
    suffix = Path(path).suffix.lower()
    try:
        yield from READERS.get(suffix, _json_lines)(Path(path), {*KEYS, *NUMBERS, *also})
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)!r} cannot be read: {why}") from None


def _json_lines(path: Path, columns: Collection[str]) -> Rows:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _value_or_reason(line.rstrip(b"\r\n"))


def _value_or_reason(line: bytes) -> Any:
    try:
        return _parse(line)
    except BadRow as reason:
        return reason


def _parse(line: bytes) -> Any:
    if line.startswith(b"\xef\xbb\xbf"):
        raise BadRow("begins with a byte order mark; save the file as UTF-8 without one")
    try:
        return parse_json(line)
    except NotJson as error:
        raise BadRow(str(error)) from None


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _csv(path: Path, columns: Collection[str]) -> Rows:
    before = csv.field_size_limit(MAX_CHARACTERS + 1)
    try:
        # Spreadsheets begin a file with a byte order mark; bytes that are no UTF-8 are found per row.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = _fields(reader)
            if isinstance(header, BadRow):
                raise InputError(f"{path}: header: {header}")
            _check_columns(path, header or [])
            number = 0
            while (fields := _fields(reader)) is not None:
                number += 1
                if fields != []:
                    yield number, _labelled(header or [], fields, columns)
    finally:
        csv.field_size_limit(before)


def _fields(reader: Any) -> "list[str] | BadRow | None":
    """Return the next row's fields, why there are none, or None at the end of the file."""
    try:
        fields: list[str] = next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        return BadRow(f"not CSV ({error})")
    try:
        "".join(fields).encode("utf-8")
    except UnicodeEncodeError:
        return BadRow("not UTF-8")
    return fields


def _labelled(header: list[str], fields: "list[str] | BadRow", columns: Collection[str]) -> Any:
    if isinstance(fields, BadRow):
        return fields
    if len(fields) != len(header):
        return BadRow(f"has {len(fields)} fields, the header {len(header)}")
    row = {name: field for name, field in zip(header, fields, strict=True) if name in columns}
    if all(CONVERSATION.match(row[name]) for name in KEYS if name in row):
        return BadRow("holds conversations written as texts; JSONL and Parquet hold lists of messages")
    return row


def _parquet(path: Path, columns: Collection[str]) -> Rows:
    try:
        pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ModuleNotFoundError:
        raise InputError(f"{str(path)!r} is Parquet, which needs pyarrow (extra: lm)") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            batches = file.iter_batches(1024, columns=[name for name in names if name in columns])
            yield from enumerate((row for batch in batches for row in _values(batch)), 1)
    except pyarrow.ArrowException as error:
        raise InputError(f"{str(path)!r} is not Parquet that can be read: {str(error).splitlines()[0]}") from None


def _values(batch: Any) -> Iterator[Any]:
    """The rows of a batch; its texts are whatever bytes their writer put there."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for at in range(len(batch)):
            try:
                yield from batch.slice(at, 1).to_pylist()
            except UnicodeDecodeError:
                yield BadRow("not UTF-8")


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Refuse a table without responses, with a column twice, or whose prompt is only misspelt."""
    again = _twice(names)
    if again is not None:
        raise InputError(f"{path}: column {again!r} appears twice")
    for name in KEYS:
        near = misspelt(name, [other for other in names if other not in KEYS])
        if name not in names and (name in REQUIRED or near):
            raise InputError(f"{path}: column {name!r} is missing{near}")


READERS = {".csv": _csv, ".parquet": _parquet}
