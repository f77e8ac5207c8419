"""Sampling from a causal language model: batched, seeded, with a key-value cache that drops finished rows."""

__all__ = ["Sample", "batches_of", "continue_prompts", "sample", "stop_tokens", "uniform_numbers"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gpo_full.evaluation.cache import cache_argument, with_room
from gpo_full.evaluation.prompts import ReadPrompts, read_prompts
from gpo_full.output import progress

# Tokens whose probabilities are added up together: near the square root of a vocabulary of 49,152.
_BLOCK = 256


@dataclass(frozen=True)
class Sample:
    """One sampled response: its `text`, its `tokens` (end-of-sequence included), and whether it ended by itself."""

    text: str
    tokens: tuple[int, ...]
    ended: bool


def sample(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, per_prompt: int = 1, max_new_tokens: int = 32,
    seed: int = 0, batch_size: int = 64, label: str = "sampling",
) -> list[tuple[Sample, ...]]:  # fmt: skip
    """Draw `per_prompt` responses y ~ pi(. | prompt) at temperature 1 for each prompt, in the order of `prompts`."""
    tokens: list[list[int]] = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    uniforms = uniform_numbers(len(prompts), per_prompt, max_new_tokens, seed)
    found: dict[int, tuple[Sample, ...]] = {}
    batches = batches_of(tokens, max(1, batch_size // per_prompt))
    for batch in progress(batches, label, len(batches)):
        read = read_prompts(model, [tokens[i] for i in batch])
        drawn = continue_prompts(model, tokenizer, read, uniforms[batch])
        found.update(zip(batch, drawn, strict=True))
    return [found[i] for i in range(len(prompts))]


def batches_of(tokens: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Return the indices of `tokens` in batches of at most `size`, sorted by length so that little is padding."""
    order = sorted(range(len(tokens)), key=lambda i: (len(tokens[i]), i))
    return [order[i : i + size] for i in range(0, len(order), size)]


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end a response: the model's own and the tokenizer's end-of-sequence."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    listed = declared if isinstance(declared, list) else [declared]
    return frozenset(int(t) for t in (*listed, tokenizer.eos_token_id) if t is not None)


def uniform_numbers(prompts: int, per_prompt: int, length: int, seed: int) -> torch.Tensor:
    """Return the numbers in [0, 1) that decide each token, [prompts, per_prompt, length].

    Each response has its own, so it depends on neither the batch size nor its neighbours (up to rounding of the
    logits), and two models sampled with one seed are coupled through the same numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(prompts, per_prompt, length, generator=generator, dtype=torch.float64)


@torch.no_grad()
def continue_prompts(model: Any, tokenizer: Any, read: ReadPrompts, uniforms: torch.Tensor) -> list[tuple[Sample, ...]]:
    """Draw n responses to each of B prompts already read; `uniforms` [B, n, longest response] decide the tokens."""
    model.eval()
    per_prompt, longest = uniforms.shape[1], uniforms.shape[2]
    stops = stop_tokens(model, tokenizer)
    rows = torch.arange(len(uniforms) * per_prompt, device=model.device)
    draws, prompt = uniforms.flatten(0, 1).to(model.device), rows // per_prompt
    cache = with_room(read.cache(prompt), longest)
    mask, position, logits = read.mask[prompt], read.last[prompt], read.logits[prompt]
    tokens: list[list[int]] = [[] for _ in rows]
    for step in range(longest):
        chosen = _inverse_cdf(logits, draws[rows, step])
        for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
            tokens[row].append(token)
        unfinished = torch.tensor([place for place, token in enumerate(chosen.tolist()) if token not in stops],
                             dtype=torch.long, device=model.device)  # fmt: skip
        if len(unfinished) == 0 or step + 1 == longest:
            break
        if len(unfinished) < len(rows):
            cache.batch_select_indices(unfinished)
            rows, mask, position, chosen = rows[unfinished], mask[unfinished], position[unfinished], chosen[unfinished]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        position = position + 1
        logits = model(input_ids=chosen[:, None], attention_mask=mask, position_ids=position,
                       logits_to_keep=1, **cache_argument(model, cache)).logits[:, -1]  # fmt: skip
    samples = [_sample(tokenizer, row, stops) for row in tokens]
    return [tuple(samples[i : i + per_prompt]) for i in range(0, len(samples), per_prompt)]


def _sample(tokenizer: Any, tokens: list[int], stops: frozenset[int]) -> Sample:
    ended = tokens[-1] in stops
    text = str(tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)).strip()
    return Sample(text, tuple(tokens), ended)


def _inverse_cdf(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return the first token whose cumulative probability exceeds the uniform number of its row.

    The sums of blocks find the block, and the sums within it the token: one pass over the vocabulary, not several.
    """
    weights = logits.float().softmax(-1)
    blocks = torch.nn.functional.pad(weights, (0, -weights.shape[-1] % _BLOCK)).view(len(weights), -1, _BLOCK)
    upto = torch.nn.functional.pad(blocks.sum(-1, dtype=torch.float64).cumsum(-1), (1, 0))
    threshold = uniform[:, None] * upto[:, -1:]
    block = torch.searchsorted(upto[:, 1:].contiguous(), threshold, right=True).clamp(max=blocks.shape[1] - 1)
    chosen = blocks.take_along_dim(block[..., None], 1)[:, 0]
    inside = upto.gather(1, block) + chosen.double().cumsum(-1)
    token = block * _BLOCK + torch.searchsorted(inside, threshold, right=True).clamp(max=_BLOCK - 1)
    return token.squeeze(1).clamp(max=weights.shape[-1] - 1)
