"""`gpo beta`: the beta of one loss that is equivalent to a known beta of another, in the sense of `--by`."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse

from gpo_full.output import print_json
from gpo_theory.errors import InputError

EXAMPLE = "gpo beta --from dpo --beta 0.1 --to ipo"
SAME = {
    "strength": "regularises as strongly: beta R = {:.6g} on both sides",
    "target": "asks for the same margin of a pair preferred with probability {p}: {:.6g} nats",
    "tail": "weighs a pair the same at the margin where x = {at} for {source}: f'(x)/f'(0) = {:.6g}",
    "weight": "weighs the pairs the same in the mean over the margins: f'(x)/f'(0) = {:.6g}",
}
HOLDS = {"exact": "exactly, at every p", "second": "to second order in the margin", "one_p": "at this p only",
         "one_margin": "at this margin only", "these_margins": "over these margins only"}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo beta`."""
    parser.add_argument("--from", dest="source", required=True, metavar="LOSS", help="the loss whose beta is known")
    parser.add_argument("--to", dest="target", required=True, metavar="LOSS", help="the loss whose beta is wanted")
    parser.add_argument("--beta", type=float, required=True, help="the known beta, above 0")
    parser.add_argument("--by", default="strength", metavar="strength|target|tail|weight",
                        help="what is matched: the strength R (default), the optimal margin at --p, the weight of "
                        "a pair at --at, or the mean weight over --margins")  # fmt: skip
    parser.add_argument("--p", metavar="P", help="for --by target: probability of the preferred response, above 1/2")
    parser.add_argument("--at", metavar="X", help="for --by tail: the scaled margin beta rho of the loss --from")
    parser.add_argument("--margins", type=float, nargs="+", metavar="NATS",
                        help="for --by weight: the margins rho that the known loss reached on some pairs")  # fmt: skip
    parser.add_argument("--mean-length", type=float, metavar="N",
                        help="mean response length in tokens, for a margin averaged over tokens (trl-ipo)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the matched beta and where the match is exact, or the reason why there is none (exit code 2)."""
    from dataclasses import replace

    from gpo_full.cli.options.messages import with_options
    from gpo_theory import match_beta
    from gpo_theory.catalogue import ALIASES

    match = match_beta(args.source, args.target, args.beta, args.mean_length, by=args.by, p=args.p, at=args.at,
                       margins=args.margins)  # fmt: skip
    if match.refusal is not None:
        match = replace(match, refusal=with_options(match.refusal))
    if args.json:
        print_json(match.as_dict())
    if match.refusal is not None:
        also = f" ({ALIASES[match.target]})" if match.target in ALIASES else ""
        raise InputError(f"no beta of {match.target}{also} matches: {match.refusal}")
    if not args.json:
        same = SAME[match.by].format(match.matched, p=args.p, at=args.at, source=match.source)
        print(f"beta = {match.beta_to:.6g} for {match.target} does what beta = {match.beta_from:.6g} does for "
              f"{match.source}: it {same}, {HOLDS[match.order or '']}")  # fmt: skip
        print(f"convention: {match.convention}")
    return 0
