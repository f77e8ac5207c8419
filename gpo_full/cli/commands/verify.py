"""`gpo verify`: replay a certificate file, in an arithmetic that shares nothing with the provers."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
from pathlib import Path
from typing import Any

from gpo_full.output import print_json
from gpo_full.strict_json import NotJson, parse_json
from gpo_theory.certificate import CLAIMS
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
    """Replay every verdict of the file and print what was verified; a rejected file is exit code 2 with its fault."""
    if not args.seconds > 0:
        raise InputError(f"--seconds {args.seconds} must be above 0")
    content = _read(args.file)
    document: dict[str, Any] | None = None
    fault: str | None = None
    try:
        document = _replayed(content, args.seconds)
    except (InputError, NotJson) as error:
        fault = " ".join(str(error).split())
    if args.json:
        print_json({"file": args.file, "accepted": fault is None, **_verified(document), "fault": fault})
    if document is None:
        raise InputError(f"{args.file!r} is rejected: {fault}")
    if not args.json:
        _print(document)
    return 0


def _verified(document: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the replay has shown, and the rest of the file, which it does not look at."""
    if document is None:
        return {"formula": None, "parameters": {}, "claims": {}, "constants": {}, "witnesses": {}, "not_verified": {}}
    loss, claims = document["loss"], document["claims"]
    of = {name: {claim: claims[claim][name] for claim in CLAIMS if claims[claim][name] is not None}
          for name in ("verdict", "value", "witness", "because")}  # fmt: skip
    rest = {"name": loss["name"], "reference": loss["reference"], "because": of["because"]}
    return {"formula": loss["formula"], "parameters": loss["parameters"], "claims": of["verdict"],
            "constants": of["value"], "witnesses": of["witness"],
            "not_verified": {**rest, "versions": document["versions"]}}  # fmt: skip


def _print(document: dict[str, Any]) -> None:
    found = _verified(document)
    values = "".join(f", {name} = {value}" for name, value in found["parameters"].items())
    print(f"f(x) = {found['formula']}{values}")
    width = max(map(len, CLAIMS))
    for claim, verdict in found["claims"].items():
        value, witness = found["constants"].get(claim), dict(found["witnesses"].get(claim, {}))
        kind = witness.pop("kind", "")
        shown = f"{kind}: " + ", ".join(f"{key} = {text}" for key, text in witness.items()) if kind else ""
        if value is not None:
            shown = value["exact"] or f"about {value['float']:.9g}"
        print(f"{claim:<{width}}  {verdict:<8}  {shown}".rstrip())
    name = ascii(str(found["not_verified"]["name"]))
    print(f"not verified: the name {name}, the reference, the reasons and the versions")


def _read(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{name!r} cannot be read: {error.strerror}") from None


def _replayed(content: bytes, seconds: float) -> dict[str, Any]:
    """Return the document once every verdict in it is replayed."""
    from gpo_theory.budget import OutOfTimeError, limited
    from gpo_theory.kernel.certificates import verify

    if len(content) > LARGEST:
        raise InputError(f"it has more than {LARGEST} bytes")
    document: dict[str, Any] = parse_json(content)
    try:
        with limited(seconds):
            verify(document)
        return document
    except OutOfTimeError:
        raise InputError(f"it is not replayed within {seconds:g} CPU-seconds") from None
    except RecursionError:
        raise InputError("it is nested too deeply") from None
