"""The loss of a batch of pairs, as a function of log-probabilities, and what each pair contributes to it."""

__all__ = ["MicroBatch", "Objective", "PairLosses", "evaluate_pairs", "pair_losses"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import Plan
from gpo_full.training.reporting.length_bias import length_sums
from gpo_full.training.reporting.metrics import pair_metrics
from gpo_full.training.rows import batch_of
from gpo_theory import InputError, Loss, taylor, to_torch


@dataclass(frozen=True)
class Objective:
    """What a run minimises: the mean of f(beta rho) over pairs, rho summed or averaged over tokens (`margin`).

    `scale` multiplies the loss that is optimised and no metric. `slope_at_zero` is f'(0) and `curvature_at_zero`
    f''(0), None where it does not exist.
    """

    loss: Loss
    f: Any  # its torch function
    beta: float
    margin: str
    slope_at_zero: float | None
    curvature_at_zero: float | None
    scale: float = 1.0

    @classmethod
    def of(cls, loss: Loss, *, beta: float, margin: str, scale_gradient: bool = False) -> "Objective":
        """Return the objective of a loss; `scale_gradient` divides it by beta |f'(0)|.

        Raises InputError where that is asked for and f'(0) is 0 or does not exist.
        """
        _, slope, half = taylor(loss, 2)
        if scale_gradient and not (slope and slope.value):
            raise InputError(f"scale_gradient divides by |f'(0)|, and loss {loss.name!r} has no slope at 0")
        scale = 1 / (beta * abs(slope.value)) if scale_gradient and slope else 1.0
        return cls(loss, to_torch(loss), beta, margin, None if slope is None else slope.value,
                   None if half is None else 2 * half.value, scale)  # fmt: skip


class PairLosses(NamedTuple):
    """Of P pairs: the loss and its derivative by x, x = beta rho, each [P]; log(pi/pi_ref) of both responses [P, 2]."""

    values: Tensor
    slopes: Tensor
    x: Tensor
    log_ratios: Tensor  # in nats, chosen first


def pair_losses(
    log_probabilities: Tensor,
    reference: Tensor,
    *,
    f: Callable[[Tensor], Tensor],
    beta: float,
    weight: Tensor | None = None,
    p: Tensor | None = None,
) -> PairLosses:
    """Return w (p f(x) + (1-p) f(-x)) of each pair, where x = beta rho; without `weight` w is 1, without `p` p is 1.

    `log_probabilities` and `reference` [P, 2] are those of policy and reference for the chosen and the rejected
    response, in nats. rho is the log-ratio log(pi/pi_ref) of the chosen response minus that of the rejected one.

    >>> log_probabilities = torch.tensor([[-1.0, -3.0], [-2.0, -2.0]])
    >>> pair_losses(log_probabilities, torch.zeros(2, 2), f=lambda x: (1 - x) ** 2, beta=0.5).values.tolist()
    [0.0, 1.0]
    """
    log_ratios = log_probabilities - reference
    with torch.enable_grad():
        x = beta * (log_ratios[:, 0] - log_ratios[:, 1])
        x = x if x.requires_grad else x.requires_grad_()
        values = f(x) if p is None else p * f(x) + (1 - p) * f(-x)
        values = values if weight is None else weight * values
        (slopes,) = torch.autograd.grad(values.sum(), x, retain_graph=True)
    return PairLosses(values, slopes, x, log_ratios)


class MicroBatch(NamedTuple):
    """An evaluated batch of P pairs: their rows and losses, both [P], and sums over them."""

    rows: Tensor
    values: Tensor
    sums: Tensor  # of pair_metrics
    tokens: Tensor  # their number, without padding
    by_length: Tensor  # length_sums


def evaluate_pairs(model: nn.Module, inputs: Mapping[str, Any], objective: Objective, plan: Plan) -> MicroBatch:
    """Return the losses and metrics of a batch of the Collator's under `model`.

    Only the first `inputs["real"]` rows count; the others repeat some to fill the last batch.
    """
    batch, rows = batch_of(inputs, plan.layout), inputs["row"]
    real: Any = inputs.get("real", len(rows))
    weight, p = (inputs[name][:real] if name in inputs else None for name in ("weight", "p"))
    found = response_log_probabilities(model, batch, objective.margin, fused_head=plan.fused_head)
    pairs = pair_losses(found[:real], inputs["reference"][:real], f=objective.f, beta=objective.beta,
                        weight=weight, p=p)  # fmt: skip
    # The loss of a pair has slope w (2p-1) f'(0) at 0, and curvature w f''(0).
    w = 1 if weight is None else weight
    slope, curvature = objective.slope_at_zero, objective.curvature_at_zero
    sums = pair_metrics(pairs.values, pairs.slopes, pairs.x, pairs.log_ratios, knees=objective.f.knees,
                        slope_at_zero=slope and slope * w * (1 if p is None else 2 * p - 1),
                        curvature_at_zero=curvature and curvature * w)  # fmt: skip
    tokens = ((batch.pair > 0) & (batch.pair <= real)).sum()
    lengths = length_sums(pairs.log_ratios.detach(), batch.lengths[:real])
    return MicroBatch(rows[:real], pairs.values, sums, tokens, lengths)
