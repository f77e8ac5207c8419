"""`gpo design`: from wished-for properties to a loss that has them, or to a proof that none can."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
from typing import TYPE_CHECKING

from gpo_full.output import print_json, show
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from fractions import Fraction

    from gpo_theory.choosing.wishes import Wish

EXAMPLE = "gpo design --strength 1/2 --target 2 --convex --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo design`."""
    parser.add_argument("--strength", metavar="R", help="R = |f''(0)/f'(0)|, a number such as 1/2")
    parser.add_argument("--target", metavar="X", help="the minimiser x*(1), above 0, or none for a loss without one")
    for side in ("right", "left"):
        parser.add_argument(f"--{side}-tail", metavar="CLASS[:N]",
                            help=f"class of -f' in the {side} tail, as in zero, exponential:1 (rate) or "
                                 "power:2 (order)")  # fmt: skip
    parser.add_argument("--convex", action="store_true", help="convex on R")
    parser.add_argument("--bt-exact", metavar="C", help="Bradley-Terry exact with this constant")


def run(args: argparse.Namespace) -> int:
    """Print a loss whose analysis proves all wishes, or why no loss can; exit code 2 if neither is found."""
    from gpo_theory.choosing.design import find_design

    found = find_design(_wish(args))
    if args.json:
        print_json(found.as_dict())
    elif found.analysis is not None:
        show(found.analysis)
    for proposition, because in found.excluded_by if not args.json else ():
        print(f"no loss has all of this, by {proposition}: {because}")
    if found.analysis is None and not found.excluded_by:
        raise InputError(found.refusal or
                         "none of the families searched has all of this, and nothing known excludes it")  # fmt: skip
    return 0


def _wish(args: argparse.Namespace) -> "Wish":
    from gpo_theory.choosing.wishes import TailWish, Wish, read_number

    def number(name: str, text: str | None) -> "Fraction | None":
        return None if text is None else read_number(name, text)

    target = args.target if args.target == "none" else number("--target", args.target)
    right, left = (text and TailWish.read(text) for text in (args.right_tail, args.left_tail))
    return Wish(number("--strength", args.strength), target, right, left, args.convex,
                number("--bt-exact", args.bt_exact))  # fmt: skip
