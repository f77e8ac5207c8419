"""The error of a mixture's quadrature."""

__all__ = ["quadrature_error"]

from dataclasses import replace

import torch
from torch import Tensor

from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from toy_models.descent import measure
from toy_models.mixture import GaussianMixture
from toy_models.preferences import Preferences


def quadrature_error(model: GaussianMixture, parameters: Tensor, loss: Loss | None = None, *, beta: float = 1.0,
                     preferences: Preferences | None = None) -> Tensor:  # fmt: skip
    """Return an estimate of the largest absolute error of the KL, the regulariser and the objective, shape (...).

    It is the largest change when the grid's step is doubled, plus the policy's mass outside the grid: much larger than
    the error for smooth f, of its order for f with a kink. Parameters have shape (..., 2C). Raises InputError where the
    grid cannot be coarsened.

    >>> mixture = GaussianMixture()
    >>> quadrature_error(mixture, mixture.start([-1.0, 2.0], [0.0, 0.0])).item() < 1e-12
    True
    """
    try:
        coarse = replace(model, step=2 * model.step)
    except InputError as error:
        raise InputError(f"no error estimate at step {model.step:g}, since at twice that {error}") from None
    thinned = None if preferences is None else Preferences(preferences.matrix[::2, ::2])
    fine = measure(model, parameters, loss, beta=beta, preferences=preferences)
    wide = measure(coarse, parameters, loss, beta=beta, preferences=thinned)
    change = (torch.stack(fine) - torch.stack(wide)).abs().amax(dim=0)
    return change + (1 - model.log_policy(parameters).exp().sum(-1)).abs()
