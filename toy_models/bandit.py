"""The softmax bandit: K responses, a policy that is the softmax of K logits, every expectation an exact sum."""

__all__ = ["Bandit"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gpo_theory.errors import InputError, nearest
from toy_models.inputs import log_probabilities, probabilities
from toy_models.objectives import Draws, all_pairs

_NAMED = ("reference", "policy", "uniform")


@dataclass(frozen=True, eq=False)
class Bandit:
    """A bandit with K responses, a reference policy pi_ref and the law of the training pairs.

    pi_theta = softmax(theta), theta of shape (..., K). `reference` (K,) is positive and sums to 1. Either both
    responses of a pair are drawn independently from `behaviour` ("reference", the default, "policy", "uniform" or
    K probabilities), or the pair is drawn uniformly from `pairs`, unordered and counted from 0.
    Raises InputError for anything else. Source: the notation of Tang et al. 2024 (arXiv 2402.05749), section 2.

    >>> bandit = Bandit([0.7, 0.29, 0.01], behaviour="uniform")
    >>> bandit.log_policy(torch.zeros(3)).exp().tolist()
    [0.333..., 0.333..., 0.333...]
    """

    reference: Tensor | Sequence[float]
    behaviour: Tensor | Sequence[float] | str | None = None
    pairs: Sequence[tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        size = len(self.log_reference)
        if self.pairs is not None:
            if self.behaviour is not None:
                raise InputError("a bandit takes a behaviour or a list of pairs, not both")
            _check_pairs(self.pairs, size)
        if isinstance(self.behaviour, str) and self.behaviour not in _NAMED:
            raise InputError(f"unknown behaviour {self.behaviour!r}; allowed: {', '.join(_NAMED)} or {size} "
                             f"probabilities{nearest(self.behaviour, _NAMED)}")  # fmt: skip
        if self.mu is not None and self.mu.shape != (size,):
            raise InputError(f"behaviour has {len(self.mu)} probabilities; needed: {size}, as many as the reference")

    @cached_property
    def log_reference(self) -> Tensor:
        """log pi_ref, shape (K,)."""
        return log_probabilities(self.reference, "reference")

    @cached_property
    def mu(self) -> Tensor | None:
        """The behaviour policy mu, shape (K,); None where pairs are listed or the policy itself samples."""
        if self.pairs is not None:
            return None
        if self.behaviour is None:
            return self.log_reference.exp()
        if not isinstance(self.behaviour, str):
            return probabilities(self.behaviour, "behaviour")
        named = {"reference": self.log_reference.exp(), "policy": None,
                 "uniform": torch.full_like(self.log_reference, 1 / len(self.log_reference))}  # fmt: skip
        return named[self.behaviour]

    @property
    def on_policy(self) -> bool:
        """Whether the policy itself samples the pairs."""
        return self.pairs is None and self.mu is None

    def start(self, probabilities: Tensor | Sequence[float]) -> Tensor:
        """Return logits of the policy with these positive probabilities, (..., K) to (..., K)."""
        logits = log_probabilities(probabilities, "initial")
        if logits.shape[-1:] != self.log_reference.shape:
            raise InputError(f"initial has {logits.shape[-1]} probabilities; needed: {len(self.log_reference)}, "
                             "as many as the reference")  # fmt: skip
        return logits

    def log_policy(self, parameters: Tensor) -> Tensor:
        """Return log pi_theta from logits theta, (..., K) to (..., K)."""
        return torch.log_softmax(parameters, dim=-1)

    def draws(self, mu: Tensor | None) -> Draws:
        """Return the pairs of the data and their probabilities when mu (..., K) samples, or the listed pairs."""
        if self.pairs is None:
            assert mu is not None
            return all_pairs(mu)
        first, second = torch.tensor(self.pairs).T
        return Draws(first, second, torch.full((len(first),), 1 / len(first), dtype=torch.float64))

    def connected(self) -> bool:
        """Whether the pairs of the data connect all responses, so that the population optimum is unique."""
        if self.pairs is None:
            return self.mu is None or bool((self.mu > 0).all())
        reached, frontier = set[int](), {0}
        while frontier:
            reached |= frontier
            frontier = {b for pair in self.pairs for a, b in (pair, pair[::-1]) if a in reached} - reached
        return len(reached) == len(self.log_reference)


def _check_pairs(pairs: Sequence[tuple[int, int]], size: int) -> None:
    if not pairs:
        raise InputError("the list of pairs is empty")
    for i, j in pairs:
        if not (0 <= i < size and 0 <= j < size):
            raise InputError(f"pair {i + 1}-{j + 1} names a response beyond the {size} of the bandit")
        if i == j:
            raise InputError(f"pair {i + 1}-{j + 1} compares a response with itself")
    if len({frozenset(pair) for pair in pairs}) < len(pairs):
        raise InputError(f"a pair is listed twice among {', '.join(f'{i + 1}-{j + 1}' for i, j in pairs)}")
