"""Values for the parameters of losses, as the command line gives them: `--param NAME=VALUE`."""

__all__ = ["add_param_option", "read_parameters"]

import argparse
from collections.abc import Iterable

from gpo_theory.errors import InputError


def add_param_option(parser: argparse.ArgumentParser, of: str = "the loss") -> None:
    """Declare `--param NAME=VALUE`, repeatable, a value of a named parameter of `of`."""
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE",
                        help=f"value of a named parameter of {of}, as in tau=0.1 or tau=1/10; repeatable")  # fmt: skip


def read_parameters(
    texts: Iterable[str], option: str = "--param", form: str = "NAME=VALUE, as in tau=0.1"
) -> dict[str, str]:
    """Return {"tau": "0.1"} for ["tau=0.1"]; InputError, which names `option`, for another form or a name given twice.

    >>> read_parameters(["tau=0.1"])
    {'tau': '0.1'}
    """
    values: dict[str, str] = {}
    for text in texts:
        name, _, value = map(str.strip, text.partition("="))
        if not name or not value:
            raise InputError(f"{option} {text!r} is not of the form {form}")
        if name in values:
            raise InputError(f"{option} {name} is given twice")
        values[name] = value
    return values
