"""Prompts and responses that a model has read: keys and values are kept, so a response costs only its own tokens."""

__all__ = ["ReadPrompts", "ReadResponses", "read_prompts", "read_responses", "shared_layers"]

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from gpo_full.evaluation.cache import cache_argument

# Architectures whose decoder runs its layers unchanged on hidden states given as `inputs_embeds`.
_PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Responses read together: few, so that those of a chunk have like lengths and little is padding.
_CHUNK = 16


@dataclass(frozen=True)
class ReadPrompts:
    """A batch of B prompts as one model read them, padded on the left to width W.

    `mask` [B, W]; `last` [B, 1], the position of each prompt's last token; `logits` [B, V] for the first response
    token; `states`, (keys, values) per layer; `after_shared`, the hidden states [B, W, D] after the lowest `shared`
    layers, which other models have too (None if there are none).
    """

    mask: torch.Tensor
    last: torch.Tensor
    logits: torch.Tensor
    states: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    shared: int = 0
    after_shared: torch.Tensor | None = None

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
    model: Any, prompts: Sequence[Sequence[int]], shared: int = 0, known: ReadPrompts | None = None
) -> ReadPrompts:
    """Run `model` on `prompts`, lists of token ids.

    With `shared` > 0 the hidden states after the lowest `shared` layers are kept. `known` is the same prompts so read
    by a model whose lowest layers are equal (`shared_layers`): those layers are then not computed again.
    """
    from transformers import DynamicCache

    if known is not None and known.after_shared is not None:
        lowest, mask, inputs = known.states[: known.shared], known.mask, {"inputs_embeds": known.after_shared}
    else:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        lowest, inputs = (), {"input_ids": ids}
    cache = DynamicCache()
    with _without_lowest(model, len(lowest)), _states_after(model, shared) as kept:
        logits = model(attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=True,
                       logits_to_keep=1, **inputs, **cache_argument(model, cache)).logits[:, -1]  # fmt: skip
    states = (*lowest, *((layer.keys, layer.values) for layer in cache.layers[len(lowest) :]))
    return ReadPrompts(mask, mask.sum(1, keepdim=True) - 1, logits, states, shared, kept[0] if kept else None)


@dataclass(frozen=True)
class ReadResponses:
    """Responses as one model read them: `logs`, log pi(. | prompt, y_<t) in nats, one [length, V] for each response.

    `after_shared` are the hidden states after the lowest `shared` layers, chunk by chunk.
    """

    logs: list[torch.Tensor]
    shared: int = 0
    after_shared: tuple[torch.Tensor, ...] = ()


@torch.no_grad()
def read_responses(
    model: Any, read: ReadPrompts, responses: Sequence[tuple[int, Sequence[int]]], shared: int = 0,
    known: ReadResponses | None = None,
) -> ReadResponses:  # fmt: skip
    """Run `model` on `responses`, (row of its prompt in `read`, token ids); `shared`, `known` as in `read_prompts`."""
    order = sorted(range(len(responses)), key=lambda i: (len(responses[i][1]), i))
    chunks = [order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK)]
    computed = known.after_shared if known is not None and known.shared else (None,) * len(chunks)
    first = known.shared if known is not None else 0
    logs: dict[int, torch.Tensor] = {}
    after_shared = []
    for chunk, states in zip(chunks, computed, strict=True):
        found, kept = _read_chunk(model, read, [responses[i] for i in chunk], shared, first, states)
        logs.update(zip(chunk, found, strict=True))
        after_shared += kept
    return ReadResponses([logs[i] for i in range(len(responses))], shared, tuple(after_shared))


def _read_chunk(
    model: Any, read: ReadPrompts, responses: Sequence[tuple[int, Sequence[int]]], shared: int, first: int,
    computed: torch.Tensor | None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:  # fmt: skip
    """Return log-probabilities and, with `shared` > 0, the hidden states [n, longest response, D] after those layers.

    The layers below `first` are not run: `computed` are their hidden states.
    """
    rows = torch.tensor([row for row, _ in responses], device=model.device)
    width = max(len(tokens) for _, tokens in responses)
    # Padding is on the right here, where no token of the response sees it.
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for _, tokens in responses], device=model.device)
    mask = torch.cat([read.mask[rows], read.mask.new_ones(len(rows), width)], 1)
    positions = read.last[rows] + torch.arange(1, width + 1, device=model.device)
    inputs = {"input_ids": ids} if computed is None else {"inputs_embeds": computed}
    with _without_lowest(model, first), _states_after(model, shared) as kept:
        decoder, cache = model.get_decoder(), read.cache(rows, first)
        states = decoder(attention_mask=mask, position_ids=positions, use_cache=True, **inputs,
                         **cache_argument(decoder, cache)).last_hidden_state  # fmt: skip
    # One matrix product for all responses, without the padding.
    wanted = torch.cat([states[i, : len(tokens) - 1] for i, (_, tokens) in enumerate(responses)])
    following = model.get_output_embeddings()(wanted).split([len(tokens) - 1 for _, tokens in responses])
    opening = read.logits[rows].float().log_softmax(-1)
    logs = [torch.cat([opening[i : i + 1], rest.float().log_softmax(-1)]) for i, rest in enumerate(following)]
    return logs, kept


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


@contextmanager
def _without_lowest(model: Any, count: int) -> Iterator[None]:
    """Take the `count` lowest layers out of the decoder of `model`."""
    if count == 0:  # which an architecture that names its layers otherwise allows, too
        yield
        return
    decoder = model.get_decoder()
    whole = decoder.layers
    decoder.layers = whole[count:]
    try:
        yield
    finally:
        decoder.layers = whole


@contextmanager
def _states_after(model: Any, count: int) -> Iterator[list[torch.Tensor]]:
    """Collect the hidden states after the `count` lowest layers; nothing if `count` is 0."""
    kept: list[torch.Tensor] = []
    with ExitStack() as hooks:
        if count:
            layer = model.get_decoder().layers[count]
            hooks.enter_context(layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])))
        yield kept
