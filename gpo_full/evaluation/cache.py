"""A key-value cache allocated for the tokens to come, so that adding a token does not copy those before it.

transformers' StaticCache does the same, but attends to its whole length from the first token on and cannot drop rows.
"""

__all__ = ["cache_argument", "with_room"]

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """Return `cache` by the name of the model's argument: cache from transformers 5.24 on, past_key_values before."""
    return {"cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values": cache}


def with_room(cache: Any, tokens: int) -> Any:
    """Reserve room for `tokens` more in the DynamicLayers of `cache`; layers of other classes stay as they are."""
    cache.layers = [_Roomy(layer, tokens) if type(layer) is DynamicLayer and layer.is_initialized else layer
                    for layer in cache.layers]  # fmt: skip
    return cache


class _Roomy(DynamicLayer):  # type: ignore[misc]
    """`keys` and `values` [B, H, length, D] are the filled part of tensors that are `tokens` longer."""

    def __init__(self, layer: DynamicLayer, tokens: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.keys.dtype, layer.keys.device, True
        self._whole = [torch.nn.functional.pad(each, (0, 0, 0, tokens)) for each in (layer.keys, layer.values)]
        self._show(layer.keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = self.keys.shape[-2]
        length = start + key_states.shape[-2]
        for whole, more in zip(self._whole, (key_states, value_states), strict=True):
            whole[..., start:length, :] = more
        self._show(length)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        length = self.keys.shape[-2]
        self._whole = [each[indices] for each in self._whole]
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (each[..., :length, :] for each in self._whole)
