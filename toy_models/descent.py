"""Gradient descent and flow of a toy policy on the regulariser or on any GPO loss, many configurations at once."""

__all__ = ["Trace", "descend", "flow", "measure"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gpo_theory import to_torch
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from toy_models import objectives
from toy_models.bandit import Bandit
from toy_models.inputs import positive
from toy_models.mixture import GaussianMixture
from toy_models.preferences import Preferences

Losses = Loss | Sequence[Loss] | None


@dataclass(frozen=True, eq=False)
class Trace:
    """The record of a descent at T steps, over configurations of shape (...).

    `step` (T,) counts steps from 0 (for a flow it is time); `kl` = KL(pi||pi_ref) in nats, `regularizer` =
    E_mu[rho^2 / 2] in nats^2, with mu the behaviour policy at that step, and the minimised `objective` have shape
    (T, ...); `parameters` (T, ..., P).
    """

    step: Tensor
    kl: Tensor
    regularizer: Tensor
    objective: Tensor
    parameters: Tensor


class Measured(NamedTuple):
    """KL(pi||pi_ref) in nats, E_mu[rho^2 / 2] in nats^2 and the objective of a batch of policies, each (...)."""

    kl: Tensor
    regularizer: Tensor
    objective: Tensor


def measure(model: Bandit | GaussianMixture, parameters: Tensor, loss: Losses = None, *, beta: float | Tensor = 1.0,
            preferences: Preferences | None = None) -> Measured:  # fmt: skip
    """Return the exact KL, regulariser and objective of the policies with these parameters (..., P).

    The objective is E_mu[rho^2 / 2] without a loss, else E_mu[p f(beta rho) + (1 - p) f(-beta rho)]. With a sequence
    of F losses the first batch dimension has length F and entry i is evaluated under loss i. The behaviour policy is
    held fixed in the gradient, also where it is the policy itself.

    >>> measure(Bandit([0.5, 0.5]), torch.tensor([1.0, -1.0], dtype=torch.float64)).regularizer.item()
    1.0
    """
    return _measure(model, parameters, _objective(loss, preferences, len(model.log_reference)), positive("beta", beta))


def descend(model: Bandit | GaussianMixture, start: Tensor, loss: Losses = None, *, beta: float | Tensor = 1.0,
            preferences: Preferences | None = None, lr: float = 0.05, steps: int = 2000,
            watch: Callable[[Iterable[int]], Iterable[int]] = iter) -> Trace:  # fmt: skip
    """Return the trace of plain gradient descent theta <- theta - lr * grad, with `steps` + 1 records.

    `start` (..., P) comes from `model.start` and broadcasts against `beta` and, in its first dimension, against the
    losses, so that all configurations are one tensor program: a start of (1, 1, S, P), beta of (1, B, 1) and F losses
    give a trace of (steps + 1, F, B, S). `watch` wraps the range of steps, for a progress bar. Raises InputError for
    options that do not fit together, and when a value or a gradient is not finite.

    >>> bandit = Bandit([0.7, 0.29, 0.01])
    >>> trace = descend(bandit, bandit.start([0.01, 0.5, 0.49]), lr=0.05, steps=2)
    >>> bool(trace.kl[1] > trace.kl[0]), bool(trace.regularizer[1] < trace.regularizer[0])
    (True, True)
    """
    positive("lr", lr)
    if steps < 0:
        raise InputError(f"steps must be at least 0, not {steps}")
    objective = _objective(loss, preferences, len(model.log_reference))
    scale = positive("beta", beta)
    parameters = _expanded(start, scale, loss)
    records = torch.empty(steps + 1, 3, *parameters.shape[:-1], dtype=torch.float64)
    path = torch.empty(steps + 1, *parameters.shape, dtype=torch.float64)
    for step in watch(range(steps + 1)):
        measured, gradient = _gradient(model, parameters, objective, scale)
        records[step], path[step] = torch.stack(measured), parameters
        if not (records[step].isfinite().all() and gradient.isfinite().all()):
            cause = f"; use an lr below {lr:g}" if step else ": the loss or the start is out of its domain"
            raise InputError(f"descent left the finite numbers at step {step}{cause}")
        parameters = parameters - lr * gradient
    return Trace(torch.arange(steps + 1), records[:, 0], records[:, 1], records[:, 2], path)


def flow(model: Bandit | GaussianMixture, start: Tensor, loss: Losses = None, *, beta: float | Tensor = 1.0,
         preferences: Preferences | None = None, time: float = 100.0, points: int = 201) -> Trace:  # fmt: skip
    """Return the trace of gradient flow d theta / dt = -grad at `points` equally spaced times from 0 to `time`.

    Shapes and options as in `descend`; solved by scipy's LSODA to a relative error of 1e-8.

    >>> bandit = Bandit([0.5, 0.5])                                        # here d rho / dt = -rho
    >>> trace = flow(bandit, torch.tensor([1.0, 0.0], dtype=torch.float64), time=2.0, points=2)
    >>> round((trace.regularizer[1] / trace.regularizer[0]).log().item(), 6)
    -4.0
    """
    from scipy.integrate import solve_ivp

    objective = _objective(loss, preferences, len(model.log_reference))
    scale = positive("beta", beta)
    positive("time", time)
    first = _expanded(start, scale, loss)
    times = torch.linspace(0, time, points, dtype=torch.float64)

    def velocity(_: float, theta: object) -> object:
        return -_gradient(model, torch.as_tensor(theta).reshape(first.shape), objective, scale)[1].flatten().numpy()

    solution = solve_ivp(velocity, (0, time), first.flatten().numpy(), "LSODA", times.numpy(), rtol=1e-8, atol=1e-10)
    if not solution.success:
        raise InputError(f"gradient flow stopped early: {solution.message}")
    path = torch.as_tensor(solution.y.T.copy()).reshape(points, *first.shape)
    records = torch.stack([torch.stack(_gradient(model, theta, objective, scale)[0]) for theta in path])
    return Trace(times, records[:, 0], records[:, 1], records[:, 2], path)


_Objective = Callable[[Bandit | GaussianMixture, Tensor, Tensor | None, Tensor], Tensor]


def _objective(loss: Losses, preferences: Preferences | None, size: int) -> _Objective:
    """Return the function (model, log_ratio, mu, beta) -> (...) to be minimised."""
    if loss is None:
        if preferences is not None:
            raise InputError("preferences need a loss: the regulariser does not use them")
        return lambda model, log_ratio, mu, beta: _regularizer(model, log_ratio, mu)
    if preferences is None:
        raise InputError("a loss needs preferences")
    preferences.require_size(size)
    matrix = preferences.matrix
    functions = [] if isinstance(loss, Loss) else [to_torch(one) for one in loss]

    def each(x: Tensor) -> Tensor:
        """Return every loss at its own scaled margins, (2, F, ..., M): x and -x."""
        return torch.stack([f(own) for f, own in zip(functions, x.unbind(1), strict=True)], 1)

    values = to_torch(loss) if isinstance(loss, Loss) else each

    def gpo(model: Bandit | GaussianMixture, log_ratio: Tensor, mu: Tensor | None, beta: Tensor) -> Tensor:
        first, second, weight = model.draws(mu)
        margin = log_ratio[..., first] - log_ratio[..., second]
        return objectives.gpo(values, margin, matrix[first, second], weight, beta)

    return gpo


def _regularizer(model: Bandit | GaussianMixture, log_ratio: Tensor, mu: Tensor | None) -> Tensor:
    if mu is not None:
        return objectives.variance(log_ratio, mu)
    first, second, weight = model.draws(None)
    return objectives.regularizer(log_ratio[..., first] - log_ratio[..., second], weight)


def _measure(model: Bandit | GaussianMixture, parameters: Tensor, objective: _Objective, beta: Tensor) -> Measured:
    log_policy = model.log_policy(parameters)
    mu = torch.softmax(log_policy.detach(), dim=-1) if model.on_policy else model.mu
    log_ratio = log_policy - model.log_reference
    return Measured(objectives.kl(log_policy, model.log_reference), _regularizer(model, log_ratio, mu),
                    objective(model, log_ratio, mu, beta))  # fmt: skip


def _gradient(model: Bandit | GaussianMixture, parameters: Tensor, objective: _Objective,
              beta: Tensor) -> tuple[Measured, Tensor]:  # fmt: skip
    parameters = parameters.detach().requires_grad_()
    measured = _measure(model, parameters, objective, beta)
    # Configurations are independent, so the gradient of the sum holds the gradient of each.
    (gradient,) = torch.autograd.grad(measured.objective.sum(), parameters)
    return Measured(*(value.detach() for value in measured)), gradient


def _expanded(start: Tensor, beta: Tensor, loss: Losses) -> Tensor:
    """Return the start expanded to the shape of the whole batch."""
    # Empty tensors broadcast to the shape without taking memory.
    batch = start[..., :0].to(torch.float64) + beta[..., None].expand(*beta.shape, 0)
    if loss is not None and not isinstance(loss, Loss):
        if not loss:
            raise InputError("the list of losses is empty")
        if batch.ndim > 1 and batch.shape[0] not in (1, len(loss)):
            raise InputError(f"the first dimension of the start and of beta is that of the {len(loss)} losses: "
                             f"it must be 1 or {len(loss)}, not {batch.shape[0]}")  # fmt: skip
        batch = batch + torch.empty(len(loss), *(1,) * (batch.ndim - 2), 0)
    return start.detach().to(torch.float64).expand(*batch.shape[:-1], start.shape[-1])
