"""`gpo check`: numerical tests of the user's own torch function. The one command that imports code the user names."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.cli.options.parameters import add_param_option, read_parameters
from gpo_full.output import announce, print_json, show
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from gpo_theory.checking.check import Report

EXAMPLE = 'gpo check torch.nn.functional:softplus --loss "log(1+exp(x))"'
EVIDENCE = "numerical evidence, not proof: `gpo analyze` proves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo check`."""
    parser.add_argument("function", metavar="MODULE:FUNCTION",
                        help="a function of a tensor x = beta * rho that returns one loss per margin; the module is "
                        "your own code: it is imported from the path or this folder, AND RUN")  # fmt: skip
    parser.add_argument("--loss", metavar="LOSS",
                        help="what it should compute: a catalogue name, an alias or a formula in x (default: only its "
                        "own properties are tested)")  # fmt: skip
    add_param_option(parser, "--loss")
    parser.add_argument("--skip", action="append", default=[], metavar="TEST", help="leave a test out; repeatable")
    parser.add_argument("--seed", type=int, default=0, help="of the random margins, batches and upstream gradients")
    parser.add_argument("--margins", type=int, default=10_000, help="how many random margins (default: 10000)")


def run(args: argparse.Namespace) -> int:
    """Test the function and print what was found: exit code 0 for nothing, 1 for a finding."""
    announce("check")
    from gpo_theory import find_loss
    from gpo_theory.checking.check import check_loss

    values = read_parameters(args.param)
    if values and args.loss is None:
        raise InputError("--param gives values to the parameters of --loss, which is missing")
    loss = None if args.loss is None else find_loss(args.loss, values)
    report = check_loss(_load(args.function), loss, skip=args.skip, seed=args.seed,
                        margins=args.margins)  # fmt: skip
    name = None if loss is None else loss.name
    if args.json:
        print_json({"function": args.function, "loss": name, "passed": not report.findings, "evidence": EVIDENCE,
                    **report.as_dict()})  # fmt: skip
    else:
        _print(f"{args.function} {'alone' if name is None else f'against {name}'}", report)
    return 1 if report.findings else 0


def _print(title: str, report: "Report") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("test", "", "what was seen", box=None, pad_edge=False)
    for test in report.tests:
        seen = dict.fromkeys(f"{found.place}: {found.message}" for found in report.findings if found.test == test)
        table.add_row(test, Text("finding", style="red") if seen else Text("nothing found", style="green"),
                      Text("\n".join(seen)))  # fmt: skip
    cut_short = [f"not finished because of a finding: {', '.join(report.unfinished)}"] if report.unfinished else []
    for test in report.inherent:
        table.add_row(test, "of the loss", Text("the formula has it too: nothing that the code got wrong"))
    show(title, table, *cut_short, f"{report.margins} random margins, seed {report.seed}; {EVIDENCE}")


def _load(text: str) -> Any:
    """Import the user's function; InputError for whatever the module raises."""
    name, colon, attribute = text.partition(":")
    if not (name and colon and attribute):
        raise InputError(f"{text!r} is not of the form MODULE:FUNCTION, as in my_losses:my_loss")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise InputError(f"{text!r} cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise InputError(f"{text!r} is {type(found).__name__}, not a function of a tensor")
    _check_signature(text, found)
    return found


def _check_signature(text: str, function: Any) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # a callable without a signature
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise InputError(f"{text!r} takes {signature}; needed: a function of one tensor, the scaled margins "
                         f"x = beta * rho ({error})") from None  # fmt: skip
