"""`gpo verify`: replay a certificate file, in an arithmetic that shares nothing with the provers."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gpo_full.output import print_json
from gpo_theory.errors import InputError

EXAMPLE = "gpo verify dpo.json"
LARGEST = 16 * 2**20  # bytes: many times what the longest proof of the catalogue needs
SECONDS = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo verify`."""
    parser.add_argument("file", metavar="FILE", help="a certificate that `gpo analyze LOSS --certificate FILE` wrote")
    parser.add_argument("--seconds", type=float, default=SECONDS,
                        help=f"reject what is not replayed within this CPU time (default: {SECONDS:g})")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Replay every verdict of the file and print them; a rejected file is exit code 2 with its fault."""
    if not args.seconds > 0:
        raise InputError(f"--seconds {args.seconds} must be above 0")
    content = _read(args.file)
    claims: dict[str, str] = {}
    fault: str | None = None
    try:
        claims = _verdicts(content, args.seconds)
    except InputError as error:
        fault = " ".join(str(error).split())
    if args.json:
        print_json({"file": args.file, "accepted": fault is None, "claims": claims, "fault": fault})
    if fault is not None:
        print(f"gpo verify: error: {args.file!r} is rejected: {fault}", file=sys.stderr)
        return 2
    if not args.json:
        width = max(map(len, claims))
        print("\n".join(f"{claim:<{width}}  {verdict}" for claim, verdict in claims.items()))
    return 0


def _read(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{name!r} cannot be read: {error.strerror}") from None


def _verdicts(content: bytes, seconds: float) -> dict[str, str]:
    from gpo_theory.budget import OutOfTimeError, limited
    from gpo_theory.kernel.certificates import verify

    document = _parse(content)
    try:
        with limited(seconds):
            return verify(document)
    except OutOfTimeError:
        raise InputError(f"it is not replayed within {seconds:g} CPU-seconds") from None
    except RecursionError:
        raise InputError("it is nested too deeply") from None


def _parse(content: bytes) -> Any:
    """Read JSON strictly: no key twice, no NaN, no more than `LARGEST` bytes."""
    if len(content) > LARGEST:
        raise InputError(f"it has more than {LARGEST} bytes")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InputError(f"it is not UTF-8 (byte {error.start + 1})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"it is not JSON ({error.msg}, line {error.lineno}, column {error.colno})") from None
    except InputError:
        raise
    except (RecursionError, ValueError):  # nested too deeply, or an integer of too many digits
        raise InputError("it is not JSON of a reasonable size") from None


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        names = [key for key, _ in items]
        raise InputError(f"the key {next(key for key in names if names.count(key) > 1)!r} appears twice")
    return found


def _no_constant(text: str) -> None:
    raise InputError(f"{text} is no JSON number")
