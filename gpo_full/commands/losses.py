"""`gpo losses`: the catalogue."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse

EXAMPLE = "gpo losses --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo losses`."""
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """List every catalogue loss with its formula, parameters and source."""
    from gpo_full.output import print_json
    from gpo_theory.analysis import describe
    from gpo_theory.catalogue import ALIASES, LOSSES

    if args.json:
        print_json({"losses": [describe(loss) for loss in LOSSES.values()]})
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("loss", "f(x), x = beta * rho", "parameters", "source", box=None, pad_edge=False)
    for loss in LOSSES.values():
        parameters = ", ".join(f"{name}={value}" for name, value in loss.parameters.items())
        table.add_row(loss.name, loss.formula, parameters, loss.reference)
    console = Console(markup=False)
    console.print(table)
    console.print("aliases: " + ", ".join(f"{alias} = {name}" for alias, name in ALIASES.items()))
    return 0
