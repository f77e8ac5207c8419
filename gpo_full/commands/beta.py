"""`gpo beta`: the beta of one loss that regularises as strongly as a known beta of another."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse

EXAMPLE = "gpo beta --from dpo --beta 0.1 --to ipo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo beta`."""
    parser.add_argument("--from", dest="source", required=True, metavar="LOSS", help="the loss whose beta is known")
    parser.add_argument("--to", dest="target", required=True, metavar="LOSS", help="the loss whose beta is wanted")
    parser.add_argument("--beta", type=float, required=True, help="the known beta, above 0")
    parser.add_argument("--mean-length", type=float, metavar="N",
                        help="mean response length in tokens, for a margin averaged over tokens (trl-ipo)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Match the strengths and print the beta, or refuse with the reason (exit code 2)."""
    import sys

    from gpo_full.output import print_json
    from gpo_theory import match_beta

    match = match_beta(args.source, args.target, args.beta, args.mean_length)
    if args.json:
        print_json(match.as_dict())
    elif match.refusal is None:
        print(f"beta = {match.beta_to:.6g} for {match.target} regularises as strongly as beta = {match.beta_from:.6g} "
              f"for {match.source}: beta R = {match.matched:.6g} on both sides, "
              f"{'exactly' if match.order == 'exact' else 'to second order in the margin'}")  # fmt: skip
        print(f"convention: {match.convention}")
    if match.refusal is not None:
        print(f"gpo beta: error: no beta of {match.target} matches: {match.refusal}", file=sys.stderr)
        return 2
    return 0
