"""The language-model head: log p(target | source) in chunks, without keeping logits, and its gradient."""

__all__ = ["CHUNK", "at_sources_only", "log_probabilities_head", "log_probabilities_of"]

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from gpo_full.engine.packing import Batch
from gpo_full.kernels.autocast import autocast_dtype
from gpo_full.kernels.matmul import product

# Positions per chunk. Peak memory is twice CHUNK * vocabulary * 4 bytes: 200 MB at a vocabulary of 49,152.
CHUNK = 512
# Gradients in the logits that are kept for backward, as numbers (256 MiB in float32); those beyond are recomputed.
KEPT = 2**26


def log_probabilities_head(head: nn.Module, batch: Batch, chunk: int) -> Callable[[Tensor], Tensor]:
    """Return a forward for `head` that computes log p(target | source), [1, T] in nats, instead of logits."""
    original = head.forward

    def linear(hidden: Tensor) -> Tensor:
        assert isinstance(head, nn.Linear)
        rows = _at_sources(hidden, batch)
        # Under no_grad, `ctx.needs_input_grad` is still true for parameters.
        weight, bias = (x if x is None or torch.is_grad_enabled() else x.detach() for x in (head.weight, head.bias))
        values: Tensor = _LinearLogProbabilities.apply(rows, weight, bias, batch.target, chunk, KEPT)  # type: ignore[no-untyped-call]
        return values[None]

    def of_chunk(hidden: Tensor, target: Tensor) -> Tensor:
        return log_probabilities_of(original(hidden), target)

    def any_head(hidden: Tensor) -> Tensor:
        chunks = zip(torch.split(_at_sources(hidden, batch), chunk), torch.split(batch.target, chunk), strict=True)
        return torch.cat([checkpoint(of_chunk, *each, use_reentrant=False) for each in chunks])[None]

    return linear if type(head) is nn.Linear and "forward" not in head.__dict__ else any_head


def _at_sources(hidden: Tensor, batch: Batch) -> Tensor:
    return hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch.source)


def at_sources_only(original: Callable[[Tensor], Tensor], batch: Batch) -> Callable[[Tensor], Tensor]:
    """Return a forward that computes `original` at the source positions only, [1, T, vocabulary]."""

    def selected(hidden: Tensor) -> Tensor:
        return original(_at_sources(hidden, batch)[None])

    return selected


def log_probabilities_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return log softmax(logits)[target], [T], of logits [T, vocabulary]; sums are taken in float32 or float64."""
    logits = _accumulation(logits)
    return logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(1)


class _LinearLogProbabilities(torch.autograd.Function):
    """log softmax(hidden W' + b)[target], chunk by chunk.

    With z the logits, d log p_t / d z = onehot_t - softmax(z), so forward can compute d log p_t / d hidden and
    keep it for backward, [T, width], instead of z, [T, vocabulary]. Only a head that is itself trained needs d log p /
    d z in backward: the first `kept` numbers of it are kept, the others recomputed.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, chunk: int, kept: int
    ) -> Tensor:
        hidden, weight, bias = _autocast(hidden), _autocast(weight), None if bias is None else _autocast(bias)
        differentiated, trained = any(ctx.needs_input_grad[:3]), any(ctx.needs_input_grad[1:3])
        hidden_gradient = torch.empty_like(hidden) if differentiated else None
        values, logit_gradients = [], []
        for start in range(0, len(target), chunk):
            part = slice(start, start + chunk)
            value, gradient = _of_chunk(hidden[part], weight, bias, target[part], differentiated=differentiated)
            values.append(value)
            if hidden_gradient is not None:
                hidden_gradient[part] = product(gradient, weight.T)
            kept -= gradient.numel()
            if trained and kept >= 0:
                logit_gradients.append(gradient)
        ctx.chunk = chunk
        ctx.save_for_backward(hidden_gradient, target, *((hidden, weight, bias, *logit_gradients) if trained else ()))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, target, *trained = ctx.saved_tensors
        to_hidden = hidden_gradient * incoming[:, None].to(hidden_gradient.dtype)
        if not trained:
            return to_hidden, None, None, None, None, None
        hidden, weight, bias, *logit_gradients = trained
        to_weight = torch.zeros(weight.shape, dtype=_accumulation(weight[:0]).dtype, device=weight.device)
        to_bias = None if bias is None else torch.zeros_like(to_weight[:, 0])
        for at, start in enumerate(range(0, len(target), ctx.chunk)):
            part = slice(start, start + ctx.chunk)
            if at < len(logit_gradients):
                gradient = logit_gradients[at]
            else:
                _, gradient = _of_chunk(hidden[part], weight, bias, target[part], differentiated=True)
            to_rows = hidden[part] * incoming[part, None].to(hidden.dtype)
            to_weight = _added(to_weight, gradient.T, to_rows)
            if to_bias is not None:
                to_bias += incoming[part].to(to_bias.dtype) @ gradient.to(to_bias.dtype)
        return to_hidden, to_weight, to_bias, None, None, None


def _added(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return total + left @ right; of half-precision factors on CUDA, the product is not rounded before it is added."""
    if total.dtype == left.dtype:
        return total.addmm_(left, right)
    if total.is_cuda:
        return torch.addmm(total, left, right, out_dtype=total.dtype)
    return total.add_(left @ right)


def _of_chunk(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *, differentiated: bool
) -> tuple[Tensor, Tensor]:
    """Return log p of each target, [T], and its gradient in the logits, onehot - p, [T, vocabulary].

    The gradient is not computed, and the second tensor has no meaning, unless `differentiated`.
    """
    logits, target = _accumulation(product(hidden, weight, bias)), target[:, None]
    logits -= logits.amax(1, keepdim=True)
    picked = logits.gather(1, target)
    total = logits.exp_().sum(1, keepdim=True)
    if differentiated:
        logits.div_(-total).scatter_add_(1, target, torch.ones_like(total))
    return (picked - total.log())[:, 0], logits.to(weight.dtype)


def _accumulation(tensor: Tensor) -> Tensor:
    """Return `tensor` in the precision in which sums are taken: float64 unchanged, anything else as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _autocast(tensor: Tensor) -> Tensor:
    return tensor.to(autocast_dtype(tensor))
