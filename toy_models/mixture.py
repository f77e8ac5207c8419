"""A mixture of Gaussians with free means and weights; every expectation is a quadrature on a grid."""

__all__ = ["GaussianMixture"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gpo_theory.errors import InputError, nearest
from toy_models.inputs import log_probabilities
from toy_models.objectives import Draws, all_pairs

_NAMED = ("reference", "policy")
_MAX_INTERVALS = 100_000  # of the grid: 0.8 MB for each float64 density


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Policies on the real line: mixtures of C Gaussians of variance 1 with free means and weight logits.

    pi_ref is the mixture with `reference_means` and `reference_weights`; both responses of a pair are drawn
    independently from `behaviour`: "reference", "policy" or (mean, variance) of a Gaussian. Densities are taken on
    the grid low, low + step, ..., high; probabilities are density times step (the trapezoidal rule, whose error for
    smooth integrands falls faster than any power of the step). Parameters have shape (..., 2C): means, then logits.
    The defaults are this project's own specification, not the paper's, whose parameters are not known. Raises
    InputError for anything else, and for a grid that misses more than 1e-6 of the mass.

    >>> mixture = GaussianMixture(behaviour=(2.0, 1.0))
    >>> start = mixture.start(means=[-2.0, 2.0], logits=[3.0, 0.0])
    >>> round(mixture.log_policy(start).exp().sum().item(), 12)
    1.0
    """

    reference_means: Sequence[float] = (-2.0, 2.0)
    reference_weights: Sequence[float] = (0.5, 0.5)
    behaviour: tuple[float, float] | str = "reference"
    low: float = -14.0
    high: float = 14.0
    step: float = 0.01

    def __post_init__(self) -> None:
        _check_grid(self.low, self.high, self.step)
        if len(self.reference_means) != len(self.reference_weights):
            raise InputError(f"{len(self.reference_means)} reference means but {len(self.reference_weights)} weights")
        _check_behaviour(self.behaviour)
        lost = max(abs(1 - mass.sum().item()) for mass in (self.log_reference.exp(), self._mass))
        if not lost <= 1e-6:
            raise InputError(f"the grid [{self.low:g}, {self.high:g}] with step {self.step:g} misses {lost:.1g} of the "
                             "reference's or the behaviour's mass; widen or refine it")  # fmt: skip

    @cached_property
    def grid(self) -> Tensor:
        """The K responses at which densities are taken, shape (K,)."""
        return torch.linspace(self.low, self.high, round((self.high - self.low) / self.step) + 1, dtype=torch.float64)

    @cached_property
    def log_reference(self) -> Tensor:
        """log(pi_ref * step) on the grid, shape (K,)."""
        logits = log_probabilities(self.reference_weights, "reference weights")
        return self.log_policy(self.start(self.reference_means, logits))

    @cached_property
    def _mass(self) -> Tensor:
        """Density times step of the behaviour policy, not normalised; that of pi_ref where it is no Gaussian."""
        if isinstance(self.behaviour, str):
            return self.log_reference.exp()
        mean, variance = self.behaviour
        return torch.exp(-(self.grid - mean).square() / (2 * variance)) * self.step / math.sqrt(2 * math.pi * variance)

    @cached_property
    def mu(self) -> Tensor | None:
        """Probabilities of the behaviour policy on the grid, shape (K,); None where the policy itself samples."""
        return None if self.behaviour == "policy" else self._mass / self._mass.sum()

    @property
    def on_policy(self) -> bool:
        """Whether the policy itself samples the pairs."""
        return self.mu is None

    def start(self, means: Tensor | Sequence[float], logits: Tensor | Sequence[float]) -> Tensor:
        """Return parameters (..., 2C) from means and logits (..., C)."""
        m, z = (torch.as_tensor(values, dtype=torch.float64) for values in (means, logits))
        if m.ndim < 1 or m.shape[-1:] != z.shape[-1:]:
            raise InputError(f"means {m.tolist()} and logits {z.tolist()} must be equally many")
        if not (m.isfinite().all() and z.isfinite().all()):
            raise InputError(f"means {m.tolist()} and logits {z.tolist()} must be finite")
        return torch.cat((m + torch.zeros_like(z), z + torch.zeros_like(m)), dim=-1)

    def log_policy(self, parameters: Tensor) -> Tensor:
        """Return log(pi_theta * step) on the grid, (..., 2C) to (..., K)."""
        means, logits = parameters.chunk(2, dim=-1)
        log_weight = torch.log_softmax(logits, dim=-1) + math.log(self.step / math.sqrt(2 * math.pi))
        return torch.logsumexp(log_weight[..., None] - (self.grid - means[..., None]).square() / 2, dim=-2)

    def draws(self, mu: Tensor | None) -> Draws:
        """Return all pairs of grid points and their probabilities when mu (..., K) samples."""
        assert mu is not None
        return all_pairs(mu)

    def connected(self) -> bool:
        """Whether the pairs of the data connect all responses: yes, a Gaussian has mass everywhere."""
        return True


def _check_grid(low: float, high: float, step: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high and step > 0):
        raise InputError(f"the grid needs low < high and step > 0, not {low:g}, {high:g}, {step:g}")
    intervals = (high - low) / step
    if intervals > _MAX_INTERVALS or abs(intervals - round(intervals)) > 1e-6 or round(intervals) < 2:
        raise InputError(f"the grid [{low:g}, {high:g}] with step {step:g} has {intervals:g} intervals; "
                         f"needed: a whole number from 2 to {_MAX_INTERVALS}")  # fmt: skip


def _check_behaviour(behaviour: tuple[float, float] | str) -> None:
    if isinstance(behaviour, str):
        if behaviour not in _NAMED:
            raise InputError(f"unknown behaviour {behaviour!r}; allowed: {', '.join(_NAMED)} or mean,variance"
                             f"{nearest(behaviour, _NAMED)}")  # fmt: skip
    elif len(behaviour) != 2 or not all(map(math.isfinite, behaviour)) or behaviour[1] <= 0:
        raise InputError(f"behaviour must be a mean and a positive variance, not {behaviour}")
