"""Prompts and responses that a model has read: keys and values are kept, so a response costs only its own tokens."""

__all__ = ["ReadPrompts", "ReadResponses", "read_prompts", "read_responses", "shared_layers"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

# Architectures whose decoder runs its layers unchanged on hidden states given as `inputs_embeds`.
_PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Responses read together: few, so that those of a chunk have like lengths and little is padding.
_CHUNK = 16


@dataclass(frozen=True)
class ReadPrompts:
    """A batch of B prompts as one model read them, padded on the left to width W.

    `mask` [B, W]; `last` [B, 1], the position of each prompt's last token; `logits` [B, V] for the first response
    token; `states`, (keys, values) per layer; `entering`, the hidden states [B, W, D] that enter layer `first`.
    """

    mask: torch.Tensor
    last: torch.Tensor
    logits: torch.Tensor
    states: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    first: int = 0
    entering: torch.Tensor | None = None

    def cache(self, rows: torch.Tensor, first: int = 0) -> Any:
        """Return a fresh key-value cache of the given rows, which may repeat, for the layers from `first` on."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.states):
            if layer < first:  # only its length is used, which an empty tensor would not have
                keys, values = keys[:, :1, :, :1], values[:, :1, :, :1]
            cache.update(keys[rows], values[rows], layer)
        return cache


@torch.no_grad()
def read_prompts(
    model: Any, prompts: Sequence[Sequence[int]], keep: int = 0, below: ReadPrompts | None = None
) -> ReadPrompts:
    """Run `model` on `prompts`, lists of token ids.

    `keep` > 0 also keeps the hidden states that enter layer `keep`. `below` is the same prompts read with such a `keep`
    by a model whose layers below it are equal (`shared_layers`): those layers are then not computed again.
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    if below is not None and below.entering is not None:
        with _upper_layers(model, below.first):
            logits = _last_logits(model, below.mask, cache, inputs_embeds=below.entering)
        states = below.states[: below.first] + _states(cache, below.first)
        return ReadPrompts(below.mask, below.last, logits, states)
    width, device = max(map(len, prompts)), model.device
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    with _entering(model, keep) as kept:
        logits = _last_logits(model, mask, cache, input_ids=ids)
    last = mask.sum(1, keepdim=True) - 1
    return ReadPrompts(mask, last, logits, _states(cache, 0), keep, kept[0] if kept else None)


@dataclass(frozen=True)
class ReadResponses:
    """Responses as one model read them: `logs`, log pi(. | prompt, y_<t) in nats, one [length, V] for each response.

    `entering` are the hidden states that enter layer `first`, chunk by chunk.
    """

    logs: list[torch.Tensor]
    first: int = 0
    entering: tuple[torch.Tensor, ...] = ()


@torch.no_grad()
def read_responses(
    model: Any, read: ReadPrompts, responses: Sequence[tuple[int, Sequence[int]]], keep: int = 0,
    below: ReadResponses | None = None,
) -> ReadResponses:  # fmt: skip
    """Run `model` on `responses`, (row of the prompt in `read`, token ids); `keep` and `below` as in `read_prompts`."""
    order = sorted(range(len(responses)), key=lambda i: (len(responses[i][1]), i))
    chunks = [order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK)]
    given = below.entering if below is not None and below.entering else (None,) * len(chunks)
    logs: dict[int, torch.Tensor] = {}
    entering = []
    for chunk, lower in zip(chunks, given, strict=True):
        first = below.first if below is not None and lower is not None else 0
        found, kept = _read_chunk(model, read, [responses[i] for i in chunk], keep, first, lower)
        logs.update(zip(chunk, found, strict=True))
        entering += kept
    return ReadResponses([logs[i] for i in range(len(responses))], keep, tuple(entering))


def _read_chunk(
    model: Any, read: ReadPrompts, responses: Sequence[tuple[int, Sequence[int]]], keep: int, first: int,
    lower: torch.Tensor | None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:  # fmt: skip
    """Return log-probabilities and, if kept, the hidden states [n, longest response, D] that enter layer `keep`."""
    rows = torch.tensor([row for row, _ in responses], device=model.device)
    width = max(len(tokens) for _, tokens in responses)
    # Padding is on the right here, where no token of the response sees it.
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for _, tokens in responses], device=model.device)
    mask = torch.cat([read.mask[rows], read.mask.new_ones(len(rows), width)], 1)
    positions = read.last[rows] + torch.arange(1, width + 1, device=model.device)
    inputs = {"input_ids": ids} if lower is None else {"inputs_embeds": lower}
    with _upper_layers(model, first), _entering(model, keep) as kept:
        states = model.get_decoder()(attention_mask=mask, position_ids=positions, use_cache=True,
                                     past_key_values=read.cache(rows, first), **inputs).last_hidden_state  # fmt: skip
    # One matrix product for all responses, without the padding.
    wanted = torch.cat([states[i, : len(tokens) - 1] for i, (_, tokens) in enumerate(responses)])
    following = model.get_output_embeddings()(wanted).split([len(tokens) - 1 for _, tokens in responses])
    opening = read.logits[rows].float().log_softmax(-1)
    logs = [torch.cat([opening[i : i + 1], rest.float().log_softmax(-1)]) for i, rest in enumerate(following)]
    return logs, list(kept)


@torch.no_grad()
def shared_layers(model: Any, other: Any) -> int:
    """Return how many leading layers (embeddings included) are equal in both models; 0 where that cannot be used."""
    kinds = set(getattr(model.config, "layer_types", None) or ("full_attention",))
    if model.config.model_type not in _PLAIN or model.config.model_type != other.config.model_type or len(kinds) > 1:
        return 0
    mine, theirs = model.get_decoder(), other.get_decoder()
    if len(mine.layers) != len(theirs.layers) or not _equal(mine.embed_tokens, theirs.embed_tokens):
        return 0
    pairs = zip(mine.layers, theirs.layers, strict=True)
    return next((i for i, (a, b) in enumerate(pairs) if not _equal(a, b)), len(mine.layers) - 1)


def _equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(p.shape == q.shape and p.dtype == q.dtype and bool((p == q).all()) for p, q in pairs)


def _last_logits(model: Any, mask: torch.Tensor, cache: Any, **inputs: torch.Tensor) -> torch.Tensor:
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = model(attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1,
                **inputs)  # fmt: skip
    return out.logits[:, -1]  # type: ignore[no-any-return]


def _states(cache: Any, first: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    return tuple((layer.keys, layer.values) for layer in cache.layers[first:])


@contextmanager
def _upper_layers(model: Any, first: int) -> Iterator[None]:
    """Restrict the decoder of `model` to its layers from `first` on."""
    decoder = model.get_decoder()
    whole = decoder.layers
    decoder.layers = whole[first:]
    try:
        yield
    finally:
        decoder.layers = whole


@contextmanager
def _entering(model: Any, layer: int) -> Iterator[list[torch.Tensor]]:
    """Collect the hidden states that enter `layer`; nothing for layer 0."""
    kept: list[torch.Tensor] = []
    if layer == 0:
        yield kept
        return
    handle = model.get_decoder().layers[layer].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    try:
        yield kept
    finally:
        handle.remove()
