"""The reference policy's log-probabilities: one pass, kept on disk, shared by every loss, beta and output folder."""

__all__ = ["ReferenceStore", "open_store", "weights_hash"]

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gpo_full.files import atomic_file
from gpo_full.log_probabilities import margin_of_tokens, token_log_probabilities
from gpo_full.model_plan import Plan, evaluating
from gpo_full.output import progress
from gpo_full.packing import pack
from gpo_full.pairs import Pair
from gpo_theory.errors import InputError

# Part of every key: a change of meaning of what is stored changes it.
FORMAT = 1
# Tokens in a forward pass of the reference.
BATCH_TOKENS = 4096
# How far, in nats per token, a recomputed row may be from the stored one.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
# What a configuration says about where it came from, not about what the model computes.
_PROVENANCE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


@dataclass(frozen=True)
class ReferenceStore:
    """log pi_ref of every response token of some pairs, found by the pair's token ids."""

    keys: dict[bytes, int]  # digest of a pair's token ids -> its row
    lengths: Tensor  # [N, 2] int64: tokens of the chosen and the rejected response
    per_token: Tensor  # [sum of lengths] in nats: row by row, chosen then rejected

    def response_log_probabilities(self, pairs: Sequence[Pair], margin: str = "sum") -> Tensor:
        """Return log pi_ref(y | x), [P, 2] like the policy's; a pair that is not in the store raises KeyError."""
        rows = [self.keys.get(_digest(pair)) for pair in pairs]
        if None in rows:
            raise KeyError(f"pair {rows.index(None) + 1} of {len(rows)} is not in the reference store")
        owner = torch.arange(self.lengths.numel()).repeat_interleave(self.lengths.flatten())
        sums = torch.zeros(self.lengths.numel(), dtype=torch.float64).index_add_(0, owner, self.per_token.double())
        chosen = torch.tensor(rows)
        return margin_of_tokens(sums.view(-1, 2)[chosen].to(self.per_token.dtype), self.lengths[chosen], margin)


def open_store(
    model: nn.Module,
    pairs: Sequence[Pair],
    folder: Path,
    *,
    plan: Plan | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    weights: str | None = None,
) -> ReferenceStore:
    """Return the store of `pairs` under `model` (its adapter, if any, switched off), from `folder` if it is there.

    The file's name is a hash of the weights and configuration, the token ids of the pairs (as they are after
    truncation), the precision, the attention kernel and the layout of rows, and of nothing else: a sweep over losses
    and betas pays for one pass. It is written whole or not at all. What is read is checked: its checksum, and three
    rows that are computed again; InputError if they differ.
    """
    plan = plan or Plan()
    unique = {_digest(pair): pair for pair in pairs}
    compute = _Pass(model, plan, autocast)
    description = {"format": FORMAT, "weights": weights or weights_hash(model), "rows": _digest_of(sorted(unique)),
                   **compute.numerics()}  # fmt: skip
    key = _digest_of([json.dumps(description, sort_keys=True).encode()])
    path = folder / f"reference-{key[:32]}.safetensors"
    if path.exists():
        store = _read(path, key)
        _verify(store, path, unique, compute)
        return store
    store = compute(unique)
    _write(store, path, key)
    return store


def weights_hash(model: nn.Module) -> str:
    """Return a sha256 of the model's weights and of its configuration; an adapter's own weights do not count."""
    adapted: Any = getattr(model, "get_base_model", None)
    inner: Any = model if adapted is None else adapted()
    digest = hashlib.sha256()
    config = {name: value for name, value in inner.config.to_dict().items() if name not in _PROVENANCE}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(inner.state_dict().items()):
        if "lora_" in name:
            continue
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name.replace('.base_layer', '')} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Pass:
    """A forward pass over pairs with the reference's weights."""

    def __init__(self, model: nn.Module, plan: Plan, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        self.model, self.plan, self.autocast = model, plan, autocast
        self.device = next(model.parameters()).device

    def numerics(self) -> dict[str, Any]:
        config: Any = self.model.config
        return {"dtype": str(self.dtype()), "device": self.device.type, "layout": self.plan.layout,
                "attention": config.get_text_config()._attn_implementation}  # fmt: skip

    def dtype(self) -> torch.dtype:
        with self.autocast():
            if torch.is_autocast_enabled(self.device.type):
                return torch.get_autocast_dtype(self.device.type)
        return next(parameter.dtype for parameter in self.model.parameters())

    def __call__(self, pairs: dict[bytes, Pair]) -> ReferenceStore:
        order = sorted(pairs, key=lambda digest: (-pairs[digest].size, digest))
        keys: dict[bytes, int] = {}
        parts, lengths = [], []
        adapter_off = self.model.disable_adapter if hasattr(self.model, "disable_adapter") else nullcontext
        with evaluating(self.model), adapter_off(), self.autocast():  # type: ignore[operator]
            for digests in progress(_batches(order, pairs), "reference pass"):
                batch = pack([pairs[digest] for digest in digests], self.plan.layout).to(self.device)
                values = token_log_probabilities(self.model, batch, fused_head=self.plan.fused_head)
                # Entries are in the order of a response's tokens; a stable sort by owner lines responses up.
                parts.append(values[batch.entry[batch.owner.argsort(stable=True)]].cpu())
                lengths.append(batch.lengths.cpu())
                keys.update({digest: len(keys) + i for i, digest in enumerate(digests)})
        return ReferenceStore(keys, torch.cat(lengths), torch.cat(parts))


def _batches(order: list[bytes], pairs: dict[bytes, Pair]) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    room = 0
    for digest in order:
        if not batches or pairs[digest].size > room:
            batches.append([])
            room = BATCH_TOKENS
        batches[-1].append(digest)
        room -= pairs[digest].size
    return batches


def _verify(store: ReferenceStore, path: Path, unique: dict[bytes, Pair], compute: _Pass) -> None:
    ordered = sorted(unique)
    sample = {digest: unique[digest] for digest in {ordered[0], ordered[len(ordered) // 2], ordered[-1]}}
    again = compute(sample)
    pairs = list(sample.values())
    difference = store.response_log_probabilities(pairs, "mean") - again.response_log_probabilities(pairs, "mean")
    worst = float(difference.abs().max())
    if not worst <= TOLERANCE[compute.dtype()]:
        raise InputError(f"reference store {str(path)!r} is off by {worst:.2g} nats per token; "
                         "delete it to compute it again")  # fmt: skip


def _write(store: ReferenceStore, path: Path, key: str) -> None:
    keys = torch.from_numpy(np.frombuffer(b"".join(store.keys), dtype=np.uint8).reshape(-1, 32).copy())
    tensors = {"keys": keys, "lengths": store.lengths, "per_token": store.per_token}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata={"key": key, "sha256": _checksum(tensors)})


def _read(path: Path, key: str) -> ReferenceStore:
    broken = InputError(f"reference store {str(path)!r} is damaged; delete it to compute it again")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ("keys", "lengths", "per_token")}
    except (SafetensorError, OSError):
        raise broken from None
    if metadata.get("key") != key or metadata.get("sha256") != _checksum(tensors):
        raise broken
    keys = {row.tobytes(): i for i, row in enumerate(tensors["keys"].numpy())}
    return ReferenceStore(keys, tensors["lengths"], tensors["per_token"])


def _checksum(tensors: dict[str, Tensor]) -> str:
    return _digest_of([tensors[name].numpy().tobytes() for name in sorted(tensors)])


def _digest(pair: Pair) -> bytes:
    sizes = [pair.prompt_length, len(pair.prefix), len(pair.chosen), len(pair.rejected)]
    return hashlib.sha256(np.array([*sizes, *pair.prefix, *pair.chosen, *pair.rejected], "<i8").tobytes()).digest()


def _digest_of(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
