"""Values for the parameters of losses, as the command line gives them: `--param NAME=VALUE`."""

__all__ = ["find_losses", "read_parameters"]

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gpo_theory.errors import InputError, nearest

if TYPE_CHECKING:
    from gpo_theory import Loss


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


def find_losses(texts: Sequence[str], values: Mapping[str, str]) -> list[tuple["Loss", dict[str, str]]]:
    """Return each loss with those of the given values that it has a parameter for, and these.

    InputError for a value that no loss has a parameter for.

    >>> [(loss.name, own) for loss, own in find_losses(["dpo", "exp(-a*x)"], {"a": "2"})]
    [('logistic', {}), ('exp(-a*x)', {'a': '2'})]
    """
    from gpo_theory import LOSSES, find_loss
    from gpo_theory.catalogue import ALIASES

    found = []
    for text in texts:
        name = ALIASES.get(text, text)
        words = LOSSES[name].parameters if name in LOSSES else re.findall(r"\b[A-Za-z]\w*", text)
        own = {word: values[word] for word in words if word in values}
        found.append((find_loss(text, own), own))
    for parameter in values:
        if not any(parameter in own for _, own in found):
            known = {name for loss, _ in found for name in loss.parameters}
            raise InputError(f"--param {parameter}: none of the losses has such a parameter{nearest(parameter, known)}")
    return found
