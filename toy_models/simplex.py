"""Probability vectors and positive numbers, checked."""

__all__ = ["log_probabilities", "positive", "probabilities"]

from collections.abc import Sequence

import torch
from torch import Tensor

from gpo_theory.errors import InputError


def probabilities(values: Tensor | Sequence[float], what: str) -> Tensor:
    """Return values (..., K) of at least 0 that sum to 1, as float64; InputError names `what` otherwise.

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
