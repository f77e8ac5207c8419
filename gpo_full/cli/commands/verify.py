"""`gpo verify`: replay a certificate file, in an arithmetic that shares nothing with the provers."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
from pathlib import Path

from gpo_full.output import print_json
from gpo_full.strict_json import NotJson, parse_json
from gpo_theory.errors import InputError

EXAMPLE = "gpo verify dpo.json"
LARGEST = 16 * 2**20  # bytes: many times what the longest proof of the catalogue needs
SECONDS = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo verify`."""
    parser.add_argument("file", metavar="FILE", help="a certificate that `gpo analyze LOSS --certificate FILE` wrote")
    parser.add_argument("--seconds", type=float, default=SECONDS,
                        help=f"reject what is not replayed within this CPU time (default: {SECONDS:g})")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Replay every verdict of the file and print them; a rejected file is exit code 2 with its fault."""
    if not args.seconds > 0:
        raise InputError(f"--seconds {args.seconds} must be above 0")
    content = _read(args.file)
    claims: dict[str, str] = {}
    fault: str | None = None
    try:
        claims = _verdicts(content, args.seconds)
    except (InputError, NotJson) as error:
        fault = " ".join(str(error).split())
    if args.json:
        print_json({"file": args.file, "accepted": fault is None, "claims": claims, "fault": fault})
    if fault is not None:
        raise InputError(f"{args.file!r} is rejected: {fault}")
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

    if len(content) > LARGEST:
        raise InputError(f"it has more than {LARGEST} bytes")
    document = parse_json(content)
    try:
        with limited(seconds):
            return verify(document)
    except OutOfTimeError:
        raise InputError(f"it is not replayed within {seconds:g} CPU-seconds") from None
    except RecursionError:
        raise InputError("it is nested too deeply") from None
