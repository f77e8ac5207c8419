"""Preferences: the matrix p_ij = P(response i is preferred to response j), of Bradley-Terry form or not."""

__all__ = ["Preferences"]

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from gpo_theory.errors import InputError
from toy_models.inputs import read_number


@dataclass(frozen=True, eq=False)
class Preferences:
    """A preference matrix: p_ij = P(i preferred to j), p_ij + p_ji = 1, p_ii = 1/2.

    `matrix` has shape (K, K), float64. `rewards` (K,) are those of the Bradley-Terry model
    p_ij = sigmoid(r_i - r_j), up to an additive constant, and None where no rewards give the matrix.
    Raises InputError where the matrix is not of this form. Source: Tang et al. 2024 (arXiv 2402.05749), section 2,
    for p; Bradley and Terry 1952 for the model.

    >>> Preferences.from_rewards([0.0, 1.0]).matrix[1, 0].item()
    0.731...
    >>> Preferences([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]]).rewards is None      # rock, paper, scissors
    True
    """

    matrix: Tensor
    rewards: Tensor | None = None

    def __init__(self, matrix: Tensor | Sequence[Sequence[float]]) -> None:
        checked = _checked(matrix)
        object.__setattr__(self, "matrix", checked)
        object.__setattr__(self, "rewards", _bradley_terry_rewards(checked))

    @classmethod
    def from_rewards(cls, rewards: Tensor | Sequence[float]) -> Self:
        """Return the Bradley-Terry preferences sigmoid(r_i - r_j) of rewards r of shape (K,)."""
        r = torch.as_tensor(rewards, dtype=torch.float64)
        if r.ndim != 1 or len(r) < 2:
            raise InputError(f"rewards must be a list of at least 2 numbers, not {r.tolist()}")
        if not r.isfinite().all():
            first = int((~r.isfinite()).nonzero()[0])
            raise InputError(f"reward {first + 1} of {len(r)} is {r[first].item()}, not a finite number")
        preferences = cls.__new__(cls)
        # The rewards are kept, because a saturated sigmoid cannot be inverted.
        object.__setattr__(preferences, "rewards", r)
        object.__setattr__(preferences, "matrix", torch.sigmoid(r[:, None] - r[None, :]))
        return preferences

    @classmethod
    def from_csv(cls, path: Path | str) -> Self:
        """Return the preferences of a CSV file without header: K rows of K decimals or fractions."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"cannot read preferences from {str(path)!r}: {error}") from None
        if not rows:
            raise InputError(f"{str(path)!r} is empty; needed: K rows of K numbers")
        return cls([_row(path, number, row, len(rows)) for number, row in enumerate(rows, 1)])

    def require_size(self, size: int) -> None:
        """Raise InputError unless there are `size` responses."""
        if len(self.matrix) != size:
            raise InputError(f"preferences between {len(self.matrix)} responses for a model with {size}")


def _row(path: Path | str, number: int, row: list[str], size: int) -> list[float]:
    if len(row) != size:
        raise InputError(f"{str(path)!r}, row {number}: {len(row)} numbers in a file of {size} rows; needed: {size}")
    try:
        return [read_number(cell) for cell in row]
    except InputError as error:
        raise InputError(f"{str(path)!r}, row {number}: {error}") from None


def _checked(matrix: Tensor | Sequence[Sequence[float]]) -> Tensor:
    try:
        p = torch.as_tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"preferences must be a square matrix of numbers: {error}") from None
    if p.ndim != 2 or p.shape[0] != p.shape[1] or p.shape[0] < 2:
        raise InputError(f"preferences must be a square matrix of at least 2 rows, not of shape {tuple(p.shape)}")
    if not ((p >= 0) & (p <= 1)).all():
        i, j = (~((p >= 0) & (p <= 1))).nonzero()[0].tolist()
        raise InputError(f"preference p[{i + 1},{j + 1}] = {p[i, j].item():g} is not in [0, 1]")
    excess = (p + p.T - 1).abs()
    if excess.max() > 1e-9:
        i, j = divmod(int(excess.argmax()), len(p))
        if i == j:
            raise InputError(f"preference p[{i + 1},{i + 1}] = {p[i, i].item():g} must be 1/2")
        raise InputError(f"preferences p[{i + 1},{j + 1}] = {p[i, j].item():g} and p[{j + 1},{i + 1}] = "
                         f"{p[j, i].item():g} must add to 1")  # fmt: skip
    return p


def _bradley_terry_rewards(p: Tensor) -> Tensor | None:
    """Invert p_ij = sigmoid(r_i - r_j): the logits must be differences of one vector, here their row means."""
    logits = torch.logit(p)
    if not logits.isfinite().all():
        return None
    rewards = logits.mean(dim=1)
    residual = (logits - (rewards[:, None] - rewards[None, :])).abs().max()
    return rewards if residual <= 1e-9 else None
