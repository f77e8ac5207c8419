"""Errors of a user's input: each is one line that quotes the input and says what is allowed.

A message names an argument of a function as a call would give it, `mean_length=N`, between backticks; the command line
prints the option in its place.
"""

__all__ = ["DomainError", "InputError", "ParseError", "misspelt", "nearest"]

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A value that the user gave cannot be used; the command line prints it as one line and exits with code 2."""


class ParseError(InputError):
    """A text is not a formula of the grammar."""


class DomainError(InputError):
    """A formula is not defined on all of R."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean 'y'?` for the allowed name closest to `name`, or an empty text.

    >>> nearest("logstic", ["hinge", "logistic"])
    "; did you mean 'logistic'?"
    >>> nearest("zzz", ["hinge"])
    ''
    """
    close = _closest(name, allowed)
    return f"; did you mean {close!r}?" if close else ""


def misspelt(name: str, found: Iterable[str]) -> str:
    """Return a question after the name in `found` closest to `name`, which is not there, or an empty text.

    >>> misspelt("chosen", ["prompt", "choosen"])
    "; is it what is called 'choosen'?"
    """
    close = _closest(name, found)
    return f"; is it what is called {close!r}?" if close else ""


def _closest(name: str, names: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(name, list(names), n=1)), None)
