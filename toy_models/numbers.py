"""Numbers as people write them: decimals and fractions, separated by commas."""

__all__ = ["read_number", "read_numbers"]

import re
from fractions import Fraction

from gpo_theory.errors import InputError

# A short exponent, because Fraction("1e999999999") would fill the memory.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?(/\d+)?")


def read_number(text: str) -> float:
    """Return the float nearest to a decimal or a fraction; InputError for anything else.

    >>> read_number("1/4"), read_number("-2.5e-1")
    (0.25, -0.25)
    """
    text = text.strip()
    if len(text) > 100 or not _NUMBER.fullmatch(text):
        raise InputError(f"{text[:40]!r} is not a number; allowed: decimals such as 0.25 and fractions such as 1/3")
    numerator, _, denominator = text.partition("/")
    if denominator and int(denominator) == 0:
        raise InputError(f"{text!r} divides by zero")
    return float(Fraction(numerator) / int(denominator or 1))


def read_numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of a list separated by commas; InputError names the one that is none.

    >>> read_numbers("1/2, 0.5")
    (0.5, 0.5)
    """
    return tuple(map(read_number, text.split(",")))
