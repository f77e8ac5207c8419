"""Rows of data in files of every kind."""

__all__ = ["write_rows"]

import csv
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from tests.support.pairs import ROWS


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]] = ROWS, columns: Sequence[str] = ()) -> Path:
    """Write rows as CSV, Parquet or JSON lines, compressed or not, as the name ends; a table has `columns` or those of the first row."""
    rows = list(rows)
    columns = columns or list(rows[0])
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in columns}), path)
    else:
        raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path
