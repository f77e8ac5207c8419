"""`gpo analyze`: everything derived and proved about one loss."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import json

from gpo_full.cli.options.export import add_table_options, write_file, write_tables
from gpo_full.cli.options.parameters import add_param_option, read_parameters
from gpo_full.output import print_json, show

EXAMPLE = 'gpo analyze "log(1+exp(-x))" --json'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo analyze`."""
    parser.add_argument("loss", metavar="LOSS", help="a catalogue name, an alias or a formula in x")
    add_param_option(parser)
    parser.add_argument("--certificate", metavar="FILE", help="write the proofs, for `gpo verify FILE`")
    add_table_options(parser)


def run(args: argparse.Namespace) -> int:
    """Analyse one loss and print it."""
    from gpo_theory import analyze, find_loss
    from gpo_theory.choosing.matching import convention
    from gpo_theory.report.certificate_file import certificate_document
    from gpo_theory.report.tables import of_analyses

    analysis = analyze(find_loss(args.loss, read_parameters(args.param)))
    if args.certificate is not None:
        text = json.dumps(certificate_document(analysis), indent=1, allow_nan=False) + "\n"
        write_file("--certificate", args.certificate, text)
    write_tables(args, of_analyses([analysis]))
    if args.json:
        print_json(analysis.as_dict())
        return 0
    note = convention(args.loss)
    show(analysis, *([f"convention: {note}"] if note else []))
    return 0
