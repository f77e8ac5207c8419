"""Rows of Arrow: of Parquet files, and of tables in memory, without the nulls that Arrow adds."""

__all__ = ["arrow_rows", "parquet_rows", "without_nulls"]

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpo_full.data.columns import BadRow, Columns
from gpo_theory.errors import InputError


def parquet_rows(path: Path, columns: Columns) -> Iterator[tuple[int, Any]]:
    """Yield the number of each row of a Parquet file, from 1, and its value or a BadRow, as `read_rows` does."""
    try:
        pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ModuleNotFoundError:
        raise InputError(f"{str(path)!r} is Parquet, which needs pyarrow (extra: lm)") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns.check(path, names)
            unread = dict.fromkeys(names)
            batches = file.iter_batches(1024, columns=list(filter(columns.reads, names)))
            rows = (row if isinstance(row, BadRow) else unread | row for row in arrow_rows(batches))
            yield from enumerate(rows, 1)
    except pyarrow.ArrowException as error:
        raise InputError(f"{str(path)!r} is not Parquet that can be read: {str(error).splitlines()[0]}") from None


def arrow_rows(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the rows of Arrow batches, a BadRow for each whose texts are not UTF-8: Parquet does not check them."""
    for batch in batches:
        try:
            yield from map(without_nulls, batch.to_pylist())
        except UnicodeDecodeError:
            for at in range(len(batch)):
                try:
                    yield from map(without_nulls, batch.slice(at, 1).to_pylist())
                except UnicodeDecodeError:
                    yield BadRow("not UTF-8")


def without_nulls(row: Any) -> Any:
    """Return a row of Arrow without the keys that are null within its lists and objects; its own columns stay.

    Arrow gives every object of a column the keys of all of them, which a chat template would take for defined.
    """
    return {name: _stripped(value) for name, value in row.items()}


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    if isinstance(value, dict):
        return {key: _stripped(each) for key, each in value.items() if each is not None}
    return value
