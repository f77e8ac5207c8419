"""Values for the parameters of losses, as the command line gives them: `--param NAME=VALUE`."""

__all__ = ["read_parameters"]

from collections.abc import Iterable

from gpo_theory.errors import InputError


def read_parameters(pairs: Iterable[str]) -> dict[str, str]:
    """Return {"tau": "0.1"} for ["tau=0.1"]; raises InputError for anything else, and for a name given twice.

    >>> read_parameters(["tau=0.1"])
    {'tau': '0.1'}
    """
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InputError(f"--param {pair!r} is not of the form NAME=VALUE, as in tau=0.1")
        if name in values:
            raise InputError(f"--param {name} is given twice")
        values[name] = value
    return values
