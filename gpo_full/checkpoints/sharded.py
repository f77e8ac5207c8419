"""Checkpoints of sharded tensors: each rank writes its shards, and any number of ranks reads them.

Shards are safetensors files, each with a JSON file of the shapes and offsets. `torch.distributed.checkpoint` keeps this
index in a pickle; its safetensors storage keeps no whole shapes, so that a missing file shortens a tensor unnoticed.
"""

__all__ = ["write_shards", "SavedShards", "full_state_dict", "load_model", "is_sharded", "sharded_copy"]

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from gpo_full.checkpoints.atomic import Checkpoint, DamagedCheckpoint


def write_shards(folder: Path, name: str, state: Mapping[str, Tensor], rank: int, ranks: int) -> list[Path]:
    """Write this rank's shards of `state` as NAME-RANK-of-RANKS.{safetensors,json}, and return the paths.

    Tensors that are not sharded are written by the first rank.
    """
    tensors, places = {}, {}
    for key, value in state.items():
        local, _, offset = _local(value)
        if local.numel() and (isinstance(value, DTensor) or rank == 0):
            tensors[key] = local.detach().cpu().contiguous()
            places[key] = {"shape": list(value.shape), "offset": list(offset)}
    stem = folder / f"{name}-{rank:05}-of-{ranks:05}"
    save_file(tensors, stem.with_suffix(".safetensors"))
    stem.with_suffix(".json").write_text(json.dumps(places, sort_keys=True), encoding="utf-8")
    return [stem.with_suffix(".safetensors"), stem.with_suffix(".json")]


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter is sharded over ranks."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def sharded_copy(model: nn.Module, accelerator: Any) -> nn.Module:
    """Return a copy of a model, sharded over ranks as `accelerator` (FSDP2) shards the model that it trains."""
    from accelerate.utils import fsdp2_prepare_model

    shards: nn.Module = fsdp2_prepare_model(accelerator, copy.deepcopy(model))
    return shards


def full_state_dict(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """Return the state dict in whole tensors on the CPU where `keep`, else {}; every rank must call it."""
    tied = {*(getattr(model, "all_tied_weights_keys", None) or ())}
    state = {}
    for name, value in model.state_dict().items():
        if name not in tied:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            if keep:
                state[name] = whole.detach().cpu()
    return state


def load_model(found: Checkpoint, model: nn.Module) -> None:
    """Load the weights of a checkpoint into `model`, sharded or not; of a model with an adapter, the adapter's alone.

    Raises DamagedCheckpoint if they are another model's.
    """
    saved, state = SavedShards(found, "model"), model.state_dict()
    if hasattr(model, "peft_config"):
        adapter = f".{model.active_adapter}."
        saved = SavedShards(found, "adapter_model")
        state = {name.replace(adapter, "."): value for name, value in state.items() if adapter in name}
    tied = {*(getattr(model, "all_tied_weights_keys", None) or ())}
    unmatched = sorted(saved.shapes.keys() ^ ({*state} - tied) - (tied & saved.shapes.keys()))
    if unmatched:
        raise DamagedCheckpoint(f"the checkpoint's weights are not this model's: {', '.join(unmatched[:5])}")
    with torch.no_grad():
        for name in saved.shapes:
            state[name].copy_(saved.read(name, state[name]))


class SavedShards:
    """The tensors of a checkpoint's files NAME-*-of-*, or of unsharded files NAME*.safetensors, by key."""

    def __init__(self, found: Checkpoint, name: str) -> None:
        self.name = f"{found.path.name}: {name}"
        self.shapes: dict[str, tuple[int, ...]] = {}  # of the whole tensors
        self._shards: dict[str, list[tuple[Path, tuple[int, ...]]]] = {}  # file and offset of each shard
        stems = sorted(each[: -len(".json")] for each in found.names if each.startswith(f"{name}-") and "-of-" in each
                       and each.endswith(".json") and each[: -len("json")] + "safetensors" in found.names)  # fmt: skip
        for stem in stems:
            for key, place in found.json(f"{stem}.json").items():
                self._add(key, found.path / f"{stem}.safetensors", place["shape"], place["offset"])
        for each in () if stems else sorted(found.names):
            if each.startswith(name) and each.endswith(".safetensors"):
                with safe_open(found.path / each, framework="pt") as file:
                    for key in file.keys():  # noqa: SIM118
                        shape = file.get_slice(key).get_shape()
                        self._add(key, found.path / each, shape, [0] * len(shape))

    def _add(self, key: str, path: Path, shape: Sequence[int], offset: Sequence[int]) -> None:
        self.shapes.setdefault(key, tuple(shape))
        self._shards.setdefault(key, []).append((path, tuple(offset)))

    def read(self, key: str, like: Tensor | None = None) -> Tensor:
        """Return the whole tensor or, if `like` is sharded, the same sharding of it, reading this rank's part only.

        Raises DamagedCheckpoint if the shape is not that of `like`, or a part of the tensor is in no file.
        """
        whole = self.shapes[key]
        if like is not None and tuple(like.shape) != whole:
            raise DamagedCheckpoint(f"{self.name}: {key} has shape {list(whole)}, not {list(like.shape)}")
        if not isinstance(like, DTensor):
            return self._region(key, whole, (0,) * len(whole))
        _, shape, offset = _local(like)
        local = self._region(key, tuple(shape), tuple(offset)).to(like.device)
        return DTensor.from_local(local, like.device_mesh, like.placements, run_check=False, shape=like.shape,
                                  stride=like.stride())  # fmt: skip

    def _region(self, key: str, shape: tuple[int, ...], offset: tuple[int, ...]) -> Tensor:
        """Return the part of a tensor of this shape at this offset, assembled from the shards."""
        region: Tensor | None = None
        covered = torch.zeros(shape, dtype=torch.bool)
        for path, shard_offset in self._shards[key]:
            with safe_open(path, framework="pt") as file:
                stored: Any = file.get_slice(key)
                into, out_of = _overlap(shape, offset, tuple(stored.get_shape()), shard_offset)
                part = stored[out_of] if out_of else file.get_tensor(key)
            region = torch.empty(shape, dtype=part.dtype) if region is None else region
            region[into] = part
            covered[into] = True
        if region is None or not bool(covered.all()):
            raise DamagedCheckpoint(f"{self.name}: a part of {key} is in no file")
        return region


def _local(value: Tensor) -> tuple[Tensor, Sequence[int], Sequence[int]]:
    """Return this rank's part of a tensor, its shape and its offset in the whole tensor."""
    if not isinstance(value, DTensor):
        return value, value.shape, (0,) * value.dim()
    shape, offset = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
    return value.to_local(), shape, offset


def _overlap(
    shape: Sequence[int], offset: Sequence[int], other: Sequence[int], other_offset: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the intersection of two boxes, given by shape and offset, in the coordinates of each."""
    low = [max(a, b) for a, b in zip(offset, other_offset, strict=True)]
    high = [max(x, min(a + m, b + n)) for x, a, m, b, n in zip(low, offset, shape, other_offset, other, strict=True)]
    edges = [*zip(low, high, strict=True)]
    return (tuple(slice(x - a, y - a) for (x, y), a in zip(edges, offset, strict=True)),
            tuple(slice(x - b, y - b) for (x, y), b in zip(edges, other_offset, strict=True)))  # fmt: skip
