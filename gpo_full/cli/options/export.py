"""What a command writes beside its answer: each file whole or absent, each failure one line."""

__all__ = ["add_table_options", "write_file", "write_tables"]

import argparse
from typing import TYPE_CHECKING

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
    """Write a file beside its place and rename it into it; raises InputError where that cannot be done."""
    from gpo_full.files import atomic_file

    try:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option} {path!r} cannot be written: {error.strerror}") from None
