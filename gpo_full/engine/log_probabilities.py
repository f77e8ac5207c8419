"""Log-probabilities of response tokens: one forward pass of packed rows, in which the head keeps no logits."""

__all__ = ["token_log_probabilities", "response_log_probabilities"]

from typing import Any

import torch
from torch import Tensor, nn

from gpo_full.engine.lm_head import CHUNK, at_sources_only, log_probabilities_head, log_probabilities_of
from gpo_full.engine.packing import Batch
from gpo_full.engine.partial_last_layer import last_layer_at_sources
from gpo_full.kernels.fast import fast_kernels
from gpo_full.kernels.layers import forward_replaced
from gpo_full.margin import margin_of_tokens


def token_log_probabilities(model: nn.Module, batch: Batch, *, fused_head: bool = True, chunk: int = CHUNK) -> Tensor:
    """Return the log-probability of each predicted token, [T], in nats, in float32 (float64 for a float64 model).

    The model is called as a whole, so that autocast and the hooks of its wrappers (DDP, FSDP) act. During the call its
    head computes log p(target | source) at the source positions, `chunk` of them at a time, instead of logits at every
    position: its peak memory is O(chunk * vocabulary), forward and backward.

    `fused_head=False` keeps the model's own head and what it does to its logits (soft caps, scales), at the source
    positions only and without chunks.
    """
    from accelerate.utils import extract_model_from_parallel

    inner: Any = extract_model_from_parallel(model, keep_fp32_wrapper=True)
    head = inner.get_output_embeddings()
    replaced = log_probabilities_head(head, batch, chunk) if fused_head else at_sources_only(head.forward, batch)
    # The last layer at sources calls what its parts compute by then, so the kernels come first.
    with forward_replaced(head, replaced), fast_kernels(inner), last_layer_at_sources(inner, batch):
        output = model(input_ids=batch.input_ids, use_cache=False, **_attention_inputs(inner, batch)).logits
    if fused_head:
        return output.view(-1)  # type: ignore[no-any-return]
    return log_probabilities_of(output.view(-1, output.shape[-1]), batch.target)


def response_log_probabilities(
    model: nn.Module, batch: Batch, margin: str = "sum", *, fused_head: bool = True, chunk: int = CHUNK
) -> Tensor:
    """Return log pi(y | x) of each response, [P, 2], chosen first: nats (`"sum"`) or nats per token (`"mean"`)."""
    per_token = token_log_probabilities(model, batch, fused_head=fused_head, chunk=chunk)
    return margin_of_tokens(batch.sums(per_token), batch.lengths, margin)


def _attention_inputs(inner: Any, batch: Batch) -> dict[str, Tensor]:
    if batch.layout == "apart":
        # Padding is on the right, which a causal layer does not see; a mask could only give rows without any key.
        return {"attention_mask": torch.ones_like(batch.block)}
    mask = batch.mask
    if inner.config.get_text_config()._attn_implementation == "eager":
        # Eager attention adds the mask to the scores.
        dtype = next(parameter.dtype for parameter in inner.parameters() if parameter.is_floating_point())
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
    return {"attention_mask": mask, "position_ids": batch.position_ids}
