"""`gpo prepare`: fetch and verify the policy, the golden reward and the data."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import json

from gpo_full.experiment.inputs.preparation import PARTS, prepare
from gpo_full.output import print_json

EXAMPLE = "gpo prepare"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo prepare`."""
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part (may be repeated)")


def run(args: argparse.Namespace) -> int:
    """Prepare what is missing and print where each part is."""
    parts = args.part or list(PARTS)
    folders = prepare(parts)
    manifests = {
        part: json.loads((folder / "manifest.json").read_text(encoding="utf-8")) for part, folder in folders.items()
    }
    if args.json:
        print_json({part: {"folder": str(folder), **manifests[part]} for part, folder in folders.items()})
        return 0
    for part, folder in folders.items():
        source = manifests[part]["source"]
        what = source if isinstance(source, str) else ", ".join(f"{n} {s}" for s, n in source["examples"].items())
        print(f"{part:<7} {folder}  ({what})")
    return 0
