"""Numbers and probabilities that a user gives: read from text, and checked."""

__all__ = ["log_probabilities", "positive", "probabilities", "read_number", "read_numbers"]

import re
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from gpo_theory.errors import InputError

# A decimal, or one over an integer; an exponent of two digits, because Fraction("1e999999999") would fill the memory.
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


def probabilities(values: Tensor | Sequence[float], what: str) -> Tensor:
    """Return values (..., K) of at least 0 that sum to 1 within 1e-9, as float64; InputError names `what` otherwise.

    >>> probabilities([0.25, 0.75], "behaviour").tolist()
    [0.25, 0.75]
    """
    p = torch.as_tensor(values, dtype=torch.float64)
    if p.ndim < 1 or not (p.isfinite() & (p >= 0)).all():
        raise InputError(f"{what} must be probabilities of at least 0, not {p.tolist()}")
    total = p.sum(-1, keepdim=True)
    if ((total - 1).abs() > 1e-9).any():
        raise InputError(f"{what} probabilities {p.tolist()} sum to {total.flatten()[0].item():.10g}, not 1")
    return p / total


def log_probabilities(values: Tensor | Sequence[float], what: str) -> Tensor:
    """Return the logarithms of positive probabilities (..., K) that sum to 1; InputError names `what` otherwise."""
    p = probabilities(values, what)
    if p.shape[-1] < 2:
        raise InputError(f"{what} must list at least 2 probabilities, not {p.tolist()}")
    if not (p > 0).all():
        raise InputError(f"{what} probabilities must all be positive, not {p.tolist()}: a log-ratio would be infinite")
    return p.log()


def positive(name: str, value: float | Tensor) -> Tensor:
    """Return a positive finite value as float64; InputError names it otherwise."""
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if not (tensor.isfinite() & (tensor > 0)).all():
        raise InputError(f"{name} must be positive, not {tensor.tolist()}")
    return tensor
