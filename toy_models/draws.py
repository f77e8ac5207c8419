"""The pairs of responses that the data hold, and how likely each is."""

__all__ = ["Draws", "all_pairs"]

from typing import NamedTuple

import torch
from torch import Tensor


class Draws(NamedTuple):
    """The M pairs that the data hold: `first` and `second` (M,) indices, `weight` (..., M) probabilities."""

    first: Tensor
    second: Tensor
    weight: Tensor


def all_pairs(mu: Tensor) -> Draws:
    """Return the unordered pairs of two independent draws from mu (..., K), equal ones included.

    >>> all_pairs(torch.tensor([0.5, 0.5])).weight.tolist()
    [0.25, 0.5, 0.25]
    """
    first, second = torch.triu_indices(mu.shape[-1], mu.shape[-1])
    return Draws(first, second, mu[..., first] * mu[..., second] * torch.where(first == second, 1.0, 2.0))
