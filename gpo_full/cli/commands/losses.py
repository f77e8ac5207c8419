"""`gpo losses`: the catalogue."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse

from gpo_full.cli.options.export import add_table_options, write_tables
from gpo_full.output import print_json, show

EXAMPLE = "gpo losses --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo losses`."""
    add_table_options(parser)


def run(args: argparse.Namespace) -> int:
    """List every catalogue loss with its formula, parameters and source."""
    from gpo_theory.catalogue import ALIASES, LOSSES
    from gpo_theory.report.result import describe
    from gpo_theory.report.tables import of_losses

    listed = of_losses(LOSSES.values())
    write_tables(args, listed)
    if args.json:
        print_json({"losses": [describe(loss) for loss in LOSSES.values()]})
        return 0
    from rich.table import Table
    from rich.text import Text

    head, *rows = listed.texts()
    table = Table(*head, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    aliases = ", ".join(f"{alias} = {name}" for alias, name in ALIASES.items())
    show(table, "x = beta * rho, rho in nats", f"aliases: {aliases}")
    return 0
