"""Readers of JSONL, CSV and Parquet files: numbered rows, or the reason why a row cannot be read."""

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
# What to do with a row that cannot be used.
BAD_ROWS = ("fail", "skip")
# Columns of numbers that a row may have; TRL's names for the reference's log-probabilities.
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
OPTIONAL_COLUMNS = ("weight", "p", *REFERENCE_COLUMNS)
# A longer text is taken for a broken file: it exceeds the context of every model.
MAX_CHARACTERS = 1_000_000
# The beginning of a list of messages that was written as a text, as pandas does when it saves CSV.
CONVERSATION = re.compile(r"""\s*\[\s*\{\s*["'](role|content)["']\s*:""")

Rows = Iterator[tuple[int, Any]]


class BadRow(Exception):
    """A row cannot be used; the message is the reason."""


def read_rows(path: str | Path, also: Collection[str] = ()) -> Rows:
    """Yield the number of each row, from 1, and its value, or a BadRow with the reason if it cannot be read.

    The suffix tells the format: CSV (`.csv`: UTF-8 with a header, which is not counted), Parquet (`.parquet`, needs
    pyarrow), else JSONL (UTF-8, one object per line, blank lines counted but not yielded, `.gz` decompressed).
    CSV and Parquet rows hold prompt, chosen, rejected, the OPTIONAL_COLUMNS and the columns `also`, no others.
    Raises InputError if the file cannot be opened or a required column is missing.
    """
    suffix = Path(path).suffix.lower()
    try:
        yield from READERS.get(suffix, _json_lines)(Path(path), {*KEYS, *OPTIONAL_COLUMNS, *also})
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)!r} cannot be read: {why}") from None


def _json_lines(path: Path, columns: Collection[str]) -> Rows:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _value(line.rstrip(b"\r\n"))


def _value(line: bytes) -> Any:
    """Return the value of a line, or the BadRow that says why it has none."""
    if line.startswith(b"\xef\xbb\xbf"):
        return BadRow("begins with a byte order mark; save the file as UTF-8 without one")
    try:
        return parse_json(line)
    except NotJson as error:
        return BadRow(str(error))


def _csv(path: Path, columns: Collection[str]) -> Rows:
    before = csv.field_size_limit(MAX_CHARACTERS + 1)
    try:
        # utf-8-sig: spreadsheets write a byte order mark. surrogateescape: rows that are not UTF-8 are BadRows.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = _fields(csv.reader(file, strict=True))
            header = next(rows, [])
            if isinstance(header, BadRow):
                raise InputError(f"{path}: header: {header}")
            _check_columns(path, header)
            for number, fields in enumerate(rows, 1):
                if fields != []:
                    yield number, _row_of_fields(header, fields, columns)
    finally:
        csv.field_size_limit(before)


def _fields(reader: Iterator[list[str]]) -> "Iterator[list[str] | BadRow]":
    """Yield the fields of each row, a BadRow for one that cannot be read."""
    while True:
        try:
            fields = next(reader)
            "".join(fields).encode("utf-8")
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(f"not CSV ({error})")
        except UnicodeEncodeError:
            yield BadRow("not UTF-8")
        else:
            yield fields


def _row_of_fields(header: list[str], fields: "list[str] | BadRow", columns: Collection[str]) -> Any:
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
            yield from enumerate((row for batch in batches for row in _batch_rows(batch)), 1)
    except pyarrow.ArrowException as error:
        raise InputError(f"{str(path)!r} is not Parquet that can be read: {str(error).splitlines()[0]}") from None


def _batch_rows(batch: Any) -> Iterator[Any]:
    """Yield the rows of a batch, a BadRow for each whose texts are not UTF-8: Parquet does not check what it stores."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for at in range(len(batch)):
            try:
                yield from batch.slice(at, 1).to_pylist()
            except UnicodeDecodeError:
                yield BadRow("not UTF-8")


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Raise InputError for a table without responses, with a column twice, or with a misspelt prompt column."""
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{path}: column {name!r} appears twice")
    for name in KEYS:
        near = misspelt(name, [other for other in names if other not in KEYS])
        if name not in names and (name in REQUIRED or near):
            raise InputError(f"{path}: column {name!r} is missing{near}")


READERS = {".csv": _csv, ".parquet": _parquet}
