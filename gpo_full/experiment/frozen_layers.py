"""The frozen lower layers of a model, computed once for each batch that many runs share."""

__all__ = ["remembered_trunk"]

import hashlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch

Memory = MutableMapping[bytes, torch.Tensor]


@contextmanager
def remembered_trunk(model: Any, first: int, memory: Memory) -> Iterator[None]:
    """Let the layers below `first`, which must be frozen, look up what they once made of the same batch.

    `memory` keeps the hidden states [R, L, D] under a hash of what enters (embeddings and positions), so runs of
    models whose lower layers are equal may share it. A value looked up is the value that was computed, bit by bit.
    """
    decoder = model.get_decoder()
    whole = decoder.layers
    if any(parameter.requires_grad for layer in whole[:first] for parameter in layer.parameters()):
        raise ValueError(f"layers below {first} are trained, so their output cannot be remembered")
    decoder.layers = torch.nn.ModuleList([_Trunk(whole[:first], memory), *whole[first:]])
    try:
        yield
    finally:
        decoder.layers = whole


class _Trunk(torch.nn.Module):
    def __init__(self, layers: torch.nn.ModuleList, memory: Memory) -> None:
        super().__init__()
        self.layers = layers
        self.memory = memory

    @torch.no_grad()
    def forward(self, states: torch.Tensor, **settings: Any) -> torch.Tensor:
        key = _key(states, *settings["position_embeddings"])
        if key not in self.memory:
            for layer in self.layers:
                states = layer(states, **settings)
            self.memory[key] = states
        return self.memory[key]


def _key(*tensors: torch.Tensor) -> bytes:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
