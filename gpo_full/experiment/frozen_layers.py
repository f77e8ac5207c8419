"""The outputs of a model's frozen lower layers, computed once for each batch that many runs share."""

__all__ = ["cached_frozen_layers"]

import hashlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch

Cache = MutableMapping[bytes, torch.Tensor]


@contextmanager
def cached_frozen_layers(model: Any, first: int, outputs: Cache) -> Iterator[None]:
    """Replace the layers below `first`, which must be frozen, by a look-up of their output for the same batch.

    `outputs` keeps hidden states [R, L, D] under a hash of the input (embeddings and positions), so runs of models
    whose lower layers are equal may share it. Values are bitwise those that the layers compute.

    Raises ValueError if a layer below `first` has a parameter that is trained.
    """
    decoder = model.get_decoder()
    whole = decoder.layers
    if any(parameter.requires_grad for layer in whole[:first] for parameter in layer.parameters()):
        raise ValueError(f"layers below {first} are trained, so their output cannot be cached")
    decoder.layers = torch.nn.ModuleList([_CachedLayers(whole[:first], outputs), *whole[first:]])
    try:
        yield
    finally:
        decoder.layers = whole


class _CachedLayers(torch.nn.Module):
    def __init__(self, layers: torch.nn.ModuleList, outputs: Cache) -> None:
        super().__init__()
        self.layers = layers
        self.outputs = outputs

    @torch.no_grad()
    def forward(self, states: torch.Tensor, **settings: Any) -> torch.Tensor:
        key = _key(states, *settings["position_embeddings"])
        if key not in self.outputs:
            for layer in self.layers:
                states = layer(states, **settings)
            self.outputs[key] = states
        return self.outputs[key]


def _key(*tensors: torch.Tensor) -> bytes:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
