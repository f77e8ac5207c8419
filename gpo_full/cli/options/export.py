"""Files that a command writes beside its answer: each is whole or absent, and each failure is one line."""

__all__ = ["add_table_options", "write_file", "write_tables", "writing"]

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gpo_full.files import atomic_file
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from gpo_theory.report.tables import Table


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Declare `--latex FILE` and `--csv FILE`."""
    parser.add_argument("--latex", metavar="FILE", help="write the table as LaTeX (packages amsmath and booktabs)")
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV, a row per loss")


def write_tables(args: argparse.Namespace, table: "Table") -> None:
    """Write the files that `--latex` and `--csv` ask for."""
    if args.latex is not None:
        write_file("--latex", args.latex, table.latex())
    if args.csv is not None:
        write_file("--csv", args.csv, table.csv())


def write_file(option: str, path: str, text: str) -> None:
    """Write the file that `option` asks for, as `writing` does."""
    with writing(option, path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def writing(option: str, path: str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it at the end; InputError that names `option` if that fails."""
    try:
        with atomic_file(path) as temporary:
            yield temporary
    except (OSError, ValueError) as error:  # a ValueError: a format that matplotlib does not have
        raise InputError(f"{option} {path!r} cannot be written: {getattr(error, 'strerror', None) or error}") from None
