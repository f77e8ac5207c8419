"""A hash of all that a model computes with: weights, configuration, and the adapter that is active."""

__all__ = ["PROVENANCE", "weights_hash"]

import hashlib
import json
from typing import Any

import torch
from torch import nn

# Fields of a model's configuration, and of an adapter's, that do not change what is computed.
PROVENANCE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache",
               "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version", "revision",
               "task_type"}  # fmt: skip


def weights_hash(model: nn.Module) -> str:
    """Return a sha256 of the model's weights and configuration, those of its active adapter included.

    A LoRA adapter whose product is still 0, as a new one's is, computes nothing and does not enter.
    """
    adapted: Any = getattr(model, "get_base_model", None)
    inner: Any = model if adapted is None else adapted()
    digest = hashlib.sha256(_json(inner.config))
    idle, active = _adapters(inner) if hasattr(model, "peft_config") else ((), {})
    if active:
        digest.update(json.dumps(active, sort_keys=True).encode())
        for name in sorted({key.rpartition(" ")[2] for key in active}):
            digest.update(_json(inner.peft_config[name]))
    for name, tensor in sorted(inner.state_dict().items()):
        if f"{name}.".startswith(idle):
            continue
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name.replace('.base_layer', '')} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _json(config: Any) -> bytes:
    """The fields of a configuration that change what is computed; a set has no order of its own."""
    fields = {name: value for name, value in config.to_dict().items() if name not in PROVENANCE}
    return json.dumps(fields, sort_keys=True, default=lambda x: sorted(x) if isinstance(x, set) else str(x)).encode()


def _adapters(inner: nn.Module) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return how the names of adapters' tensors begin that have no effect, and the factor of those that have one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    idle: list[str] = []
    active: dict[str, Any] = {}
    for path, layer in inner.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        for adapter in {name for kind in layer.adapter_layer_names for name in getattr(layer, kind, ())}:
            if _has_effect(layer, adapter):
                active[f"{path} {adapter}"] = getattr(layer, "scaling", {}).get(adapter)
            else:
                idle += [f"{path}.{kind}.{adapter}." for kind in layer.adapter_layer_names]
    return tuple(idle), active


def _has_effect(layer: Any, adapter: str) -> bool:
    if layer.disable_adapters or adapter not in layer.active_adapters:
        return False
    second = getattr(layer, "lora_B", {})
    # A variant, such as DoRA, computes something else; AdaLoRA has parameters in place of modules.
    plain = adapter in second and isinstance(second[adapter], nn.Module) and adapter not in layer.lora_variant
    return not plain or any(bool(each.any()) for each in second[adapter].parameters())
