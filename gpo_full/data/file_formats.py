"""Readers of files of JSON, CSV and Parquet: numbered rows, or the reason why a row cannot be read."""

__all__ = ["is_data", "read_rows", "stem_of"]

import bz2
import csv
import gzip
import importlib
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from gpo_full.data.arrow_tables import parquet_rows
from gpo_full.data.columns import BadRow, Columns
from gpo_full.strict_json import NotJson, parse_json
from gpo_theory.errors import InputError

# What to do with a row that cannot be used.
BAD_ROWS = ("fail", "skip")
# A longer text is taken for a broken file: it exceeds the context of every model.
MAX_CHARACTERS = 1_000_000
# Bytes of a JSON array that are read at a time, and of the largest element: three longest texts, all of it escapes.
PIECE, MAX_ELEMENT = 1 << 20, 18 * MAX_CHARACTERS
# Where an element of a JSON array may end: a whole string (the end of which may not be read yet), or one mark.
_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)
_LFS = b"version https://git-lfs.github.com/spec/"
_UTF8_MARK = b"\xef\xbb\xbf"
# Other formats, by suffix, and what they are.
_NAMES = {"an Excel sheet": ".xlsx .xls .ods", "an Arrow file": ".arrow .feather", "YAML": ".yaml .yml", "ORC": ".orc",
          "a pickle, which can run code": ".pkl .pickle .pt .pth", "an array of NumPy": ".npy .npz", "XML": ".xml",
          "an archive": ".zip .tar .tgz .7z .rar", "a database": ".db .sqlite .sqlite3 .duckdb", "Avro": ".avro",
          "a file of tensors": ".safetensors .gguf .h5", "a document": ".html .htm .md .pdf .docx"}  # fmt: skip
OTHERS = {suffix: name for name, suffixes in _NAMES.items() for suffix in suffixes.split()}

# Files beside data that describe it, or a model.
DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json",
                "metadata.json"}  # fmt: skip

Rows = Iterator[tuple[int, Any]]


def read_rows(path: str | Path, columns: Columns | None = None) -> Rows:
    """Yield the number of each row, from 1, and its value, or a BadRow with the reason if it cannot be read.

    The suffix tells the format: `.csv` and `.tsv` (UTF-8 with a header, which is not counted), `.parquet` (needs
    pyarrow; of columns that `columns` does not read only the names are yielded, with None), `.jsonl`, `.ndjson`,
    `.json` and none (UTF-8: one object per line, blank lines counted but not yielded, or one array of objects, read
    piece by piece). All but Parquet may be compressed: `.gz`, `.bz2`, `.xz`, and `.zst` (needs pyarrow).
    Raises InputError if the file cannot be read, has another format, or lacks a required column.
    """
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(_LFS):
            raise InputError(f"{str(path)!r} is a pointer of Git LFS, not the data: `git lfs pull` fetches it")
        yield from reader_of(path)(path, columns or Columns())
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)!r} cannot be read: {why}") from None


def reader_of(path: Path) -> Callable[[Path, Columns], Rows]:
    """Return the reader of the format that the suffix of `path` tells; InputError if there is none."""
    suffix = _suffix(path)
    if suffix in READERS:
        return READERS[suffix]
    # A name of the user's own, such as pairs.v2; of a file that is not there, the reader says so.
    if suffix not in OTHERS and (not path.is_file() or _head(path)[:1] in (b"{", b"[", b"")):
        return _json
    allowed = f"{', '.join(filter(None, READERS))}, all but .parquet also compressed ({', '.join(OPENERS)})"
    raise InputError(f"{str(path)!r} is {OTHERS.get(suffix, 'no JSON, and its suffix tells no format')}; data is read "
                     f"from {allowed}")  # fmt: skip


def is_data(path: Path) -> bool:
    """Return whether the name of a file is that of rows of data, and none of those that describe a data set."""
    suffix = _suffix(path)
    return suffix in READERS and suffix != "" and path.name not in DESCRIPTIONS


def stem_of(path: Path) -> str:
    """Return the name of a file without the suffixes of format and compression: pairs.train of pairs.train.csv.gz."""
    return _uncompressed(path).stem


def _suffix(path: Path) -> str:
    """Return the suffix that tells the format, in small letters; empty for none."""
    return _uncompressed(path).suffix.lower()


def _uncompressed(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in OPENERS else path


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], OPENERS.get(path.suffix.lower(), open)(path, "rb"))


def _zstd(path: Path, mode: str) -> Any:
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
    except ModuleNotFoundError:
        raise InputError(f"{str(path)!r} is compressed by zstd, which needs pyarrow (extra: lm)") from None
    return io.BufferedReader(pyarrow.input_stream(path, compression="zstd"))


# --- JSON ---


def _json(path: Path, columns: Columns) -> Rows:
    head = _head(path)
    for mark, what in (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\x1f\x8b", "compressed by gzip (.gz)"):
        if head.startswith(mark):
            raise InputError(f"{str(path)!r} is {what}; JSON is UTF-8")
    if re.match(rb"\{\s*\n", head):
        raise InputError(f"{str(path)!r} is one JSON object over several lines; data is one per line, or an array")
    yield from _array(path) if head.startswith(b"[") else _json_lines(path)


def _head(path: Path) -> bytes:
    """Return what a file begins with, without byte order mark and blanks."""
    with _opened(path) as file:
        return file.read(PIECE).removeprefix(_UTF8_MARK).lstrip()


def _json_lines(path: Path) -> Rows:
    with _opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _value(line.removeprefix(_UTF8_MARK) if number == 1 else line)


def _value(text: bytes) -> Any:
    """Return the value of a line or an element, or the BadRow that says why it has none."""
    if text.startswith(_UTF8_MARK):
        return BadRow("begins with a byte order mark; save the file as UTF-8 without one")
    try:
        return parse_json(text.rstrip(b"\r\n"))
    except NotJson as error:
        return BadRow(str(error))


def _array(path: Path) -> Rows:
    """Yield the elements of a JSON array, of which no more than one and a piece of the file are in memory."""
    with _opened(path) as file:
        elements = (text.strip() for text in _elements(path, file))
        yield from enumerate(map(_value, filter(None, elements)), 1)


def _elements(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Yield the text of each element; `start` is where it begins, `at` how far it was looked at."""
    text, start, at, depth = b"", 0, 0, 0
    while piece := file.read(PIECE):
        text, start, at = text[start:] + piece, 0, at - start
        if len(text) > MAX_ELEMENT + PIECE:
            raise InputError(f"{str(path)!r} is a JSON array with an element of more than {MAX_ELEMENT} bytes")
        for found in _MARK.finditer(text, at):
            at, mark = found.end(), found[0]
            if mark == b'"':  # the string continues in the next piece
                at = found.start()
                break
            ends = depth == 1 and mark in (b",", b"]")
            if ends:
                yield text[start : found.start()]
            if ends or (depth == 0 and mark == b"["):
                start = at
            depth += (mark in (b"[", b"{")) - (mark in (b"]", b"}"))
        else:
            at = len(text)
    if depth or text[start:].strip():
        raise InputError(f"{str(path)!r} is a JSON array that {'has no end' if depth else 'more text follows'}")


# --- CSV ---


def _csv(path: Path, columns: Columns) -> Rows:
    before = csv.field_size_limit(MAX_CHARACTERS + 1)
    try:
        # utf-8-sig: spreadsheets write a byte order mark. surrogateescape: rows that are not UTF-8 are BadRows.
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            delimiter = "\t" if _suffix(path) == ".tsv" else ","
            rows = _fields(csv.reader(file, delimiter=delimiter, strict=True))
            header = next(rows, [])
            if isinstance(header, BadRow):
                raise InputError(f"{path}: header: {header}")
            other = re.search(r"[;|\t]", header[0]) if len(header) == 1 else None
            if other and "chosen" in header[0]:
                raise InputError(f"{path}: fields are separated by {other[0]!r}, not by {delimiter!r}")
            columns.check(path, header)
            for number, fields in enumerate(rows, 1):
                if fields != []:
                    yield number, _row_of_fields(header, fields)
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


def _row_of_fields(header: list[str], fields: "list[str] | BadRow") -> Any:
    if isinstance(fields, BadRow):
        return fields
    if fields == header:
        return BadRow("repeats the header, as where files were joined")
    if len(fields) != len(header):
        return BadRow(f"has {len(fields)} fields, the header {len(header)}")
    return dict(zip(header, fields, strict=True))


READERS = {".jsonl": _json, ".ndjson": _json, ".json": _json, "": _json, ".csv": _csv, ".tsv": _csv,
           ".parquet": parquet_rows}  # fmt: skip
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd}
