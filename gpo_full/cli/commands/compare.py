"""`gpo compare`: the analyses of several losses side by side."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from gpo_full.cli.options.export import add_table_options, write_tables
from gpo_full.cli.options.parameters import add_param_option, read_parameters
from gpo_full.output import print_json, progress, show, width

if TYPE_CHECKING:
    from rich.table import Table

    from gpo_theory.report.tables import Table as Facts

EXAMPLE = 'gpo compare dpo slic "log(1+exp(-2*x))"'
LABELS, COLUMN = 20, 20  # characters: the column of names, and the least width of a loss's column


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo compare`."""
    parser.add_argument("losses", metavar="LOSS", nargs="+", help="catalogue names, aliases or formulas in x")
    add_param_option(parser, "every loss that has it")
    add_table_options(parser)


def run(args: argparse.Namespace) -> int:
    """Analyse the losses and print their facts, a column per loss."""
    from gpo_theory import analyze
    from gpo_theory.catalogue import find_losses
    from gpo_theory.choosing.matching import convention
    from gpo_theory.report.tables import of_analyses

    losses = [loss for loss, _ in find_losses(args.losses, read_parameters(args.param))]
    analyses = [analyze(loss) for loss in progress(losses, "losses analysed", len(losses))]
    table = of_analyses(analyses)
    write_tables(args, table)
    if args.json:
        print_json({"analyses": [analysis.as_dict() for analysis in analyses]})
        return 0
    notes = dict.fromkeys(filter(None, map(convention, args.losses)))
    risen = (f"{each.loss.name}: {text}" for each in analyses for text in each.warnings)
    show(*_side_by_side(table), *(f"convention: {note}" for note in notes), *(f"warning: {text}" for text in risen))
    return 0


def _side_by_side(facts: "Facts") -> Iterator["Table | str"]:
    """Yield tables of as many losses as fit the terminal's width, with an empty line between them."""
    from rich.table import Table
    from rich.text import Text

    at_once = max(1, (width() - LABELS) // COLUMN)
    for start in range(0, len(facts.rows), at_once):
        head, *rows = replace(facts, rows=facts.rows[start : start + at_once]).flipped().texts()
        shown = Table(box=None, pad_edge=False)
        for cell in head:
            shown.add_column(Text(cell))
        for name, *cells in rows:
            shown.add_row(Text(name, style="bold"), *map(Text, cells))
        yield shown
        if start + at_once < len(facts.rows):
            yield ""
