"""Exceptions of other libraries as errors of one line."""

__all__ = ["in_one_line"]

from collections.abc import Iterator
from contextlib import contextmanager

from gpo_theory.errors import InputError


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Raise an InputError of one line, `what` and then the library's own words, for whatever a library raises.

    For calls in which only code of other libraries runs, on what a user gave. A package that is not installed stays a
    ModuleNotFoundError.

    >>> with in_one_line("optim='sgdd'"):
    ...     raise KeyError("sgdd")
    Traceback (most recent call last):
    gpo_theory.errors.InputError: optim='sgdd': KeyError: 'sgdd'
    """
    try:
        yield
    except (InputError, ModuleNotFoundError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        kind = "" if len(lines) and " " in lines[0] else f"{type(error).__name__}: "
        raise InputError(f"{what}: {kind}{' '.join(lines[:2])}".rstrip(": ")) from error
