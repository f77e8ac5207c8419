"""The reference policy's log-probabilities on disk: computed in one pass, shared by all losses, betas and runs."""

__all__ = ["ReferenceStore", "open_store"]

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpo_full.checkpoints.sharded import is_sharded
from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import digests_of
from gpo_full.data.tensor_files import Array, memory_mapped, tensor_writer
from gpo_full.distributed import ALONE, first, largest, together
from gpo_full.engine.model_plan import Plan
from gpo_full.margin import margin_of_tokens
from gpo_full.reference.compute import Computed, ReferencePass, computed_parts, discard_parts, write_part
from gpo_full.reference.weights import weights_hash
from gpo_theory.errors import InputError

# Part of every key: raise it when the meaning of what is stored changes.
FORMAT = 2
# Pairs whose values are in memory at a time.
ROWS = 4096
# Allowed difference between recomputed and stored rows, in nats per token: above what another composition of the batch
# changes (rho by 3e-5 measured in float32, by 0.16 in bfloat16), below what other weights do.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}


@dataclass(frozen=True)
class ReferenceStore:
    """log pi_ref of every response token of some pairs, found by the pair's digest; the arrays are memory-mapped."""

    keys: Array  # [U, 32] uint8: `Pair.digest` of each pair, sorted
    starts: Array  # [U] int64: index in `per_token` of a pair's values, chosen response first
    lengths: Array  # [U, 2] int64: tokens of the chosen and the rejected response
    per_token: Array  # [sum of lengths], in nats

    def response_log_probabilities(self, pairs: Sequence[Pair], margin: str = "sum") -> Tensor:
        """Return log pi_ref(y | x), [P, 2] like the policy's. Raises KeyError if a pair is not in the store."""
        rows = self._rows(digests_of(pairs))
        parts = [self._of_rows(rows[start : start + ROWS], margin) for start in range(0, len(rows), ROWS)]
        return torch.cat(parts)

    def _rows(self, digests: Array) -> Array:
        # As strings of fixed length numpy compares and searches the 32 bytes as a whole.
        keys, wanted = (each.view("S32")[:, 0] for each in (self.keys, digests))
        rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        missing = np.flatnonzero(keys[rows] != wanted)
        if len(missing):
            raise KeyError(f"pair {missing[0] + 1} of {len(rows)} is not in the reference store")
        return rows

    def _of_rows(self, rows: Array, margin: str) -> Tensor:
        lengths = self.lengths[rows]
        spans = zip(self.starts[rows].tolist(), lengths.sum(1).tolist(), strict=True)
        values = np.concatenate([self.per_token[start : start + size] for start, size in spans])
        return _responses(torch.from_numpy(values), torch.from_numpy(lengths), margin)


def _responses(per_token: Tensor, lengths: Tensor, margin: str) -> Tensor:
    """Return the margin of each response, [P, 2]; `per_token` is response by response, as `lengths` [P, 2]."""
    response = torch.arange(lengths.numel()).repeat_interleave(lengths.flatten())
    sums = torch.zeros(lengths.numel(), dtype=torch.float64).index_add_(0, response, per_token.double())
    return margin_of_tokens(sums.view(-1, 2).to(per_token.dtype), lengths, margin)


def open_store(
    model: nn.Module,
    pairs: Sequence[Pair],
    folder: Path,
    *,
    plan: Plan | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    weights: str | None = None,
    accelerator: Any = ALONE,
) -> ReferenceStore:
    """Return the store of `pairs` under `model` as it is, its adapter included: read from `folder`, else computed.

    The file's name is a hash of the weights and configuration, the token ids of the pairs after truncation, the
    precision, the attention kernel and the layout of rows, and of nothing else: a sweep over losses and betas pays for
    one pass. The file is written whole or not at all. When it is read, its checksums are verified and three rows are
    recomputed; InputError is raised if they differ. All processes of `accelerator` must call this, with a folder that
    all of them see; they share the pass.
    """
    compute = ReferencePass(model, plan or Plan(), autocast, lambda calls: largest(accelerator, calls))
    keys, rows = np.unique(digests_of(pairs).view("S32")[:, 0], return_index=True)
    description = {"format": FORMAT, "weights": weights or weights_hash(model),
                   "rows": hashlib.sha256(keys.tobytes()).hexdigest(), **compute.numerics()}  # fmt: skip
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    path = folder / f"reference-{key[:32]}.safetensors"
    # Only the main process looks: a network file system may report for a while that a new file does not exist.
    is_new = largest(accelerator, int(accelerator.is_main_process and not path.exists())) > 0
    if is_new:
        # With a sharded model all processes must compute, even if the part of one of them is on disk.
        _make(path, key, keys, lambda *part: compute(pairs, rows, *part), accelerator, keep=not is_sharded(model))
    with first(accelerator, "the reference cannot be read"):
        store = _read(path, key)
    if not is_new:
        sample = rows[sorted({0, len(rows) // 2, len(rows) - 1})]
        with together(accelerator, "the reference cannot be checked"):
            _verify(store, path, [pairs[row] for row in sample], compute(pairs, sample), TOLERANCE[compute.dtype()])
    return store


def _make(
    path: Path, key: str, keys: Array, compute: Callable[..., Iterator[Computed]], accelerator: Any, *, keep: bool
) -> None:
    """Compute and write the store; of several processes each writes a part, and the main process joins them."""
    parts = accelerator.num_processes
    if parts == 1:
        _write(path, key, keys, compute())
        return
    marker = path.with_suffix(".begun")  # by its absence a process notices that it sees another folder
    with first(accelerator, "the reference store cannot be written"):
        if accelerator.is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    with together(accelerator, "the reference cannot be computed"):
        if not marker.exists():  # before hours of work
            raise InputError(f"reference store {str(path.parent)!r}: all processes must see one folder, with one model "
                             "and the same data")  # fmt: skip
        part = accelerator.process_index
        write_part(path, part, parts, compute(part, parts), keep=keep)
    with first(accelerator, "the parts of the reference cannot be joined"):
        if accelerator.is_main_process:
            _write(path, key, keys, computed_parts(path, parts))
            discard_parts(path)
            marker.unlink()


def _verify(
    store: ReferenceStore, path: Path, some: Sequence[Pair], recomputed: Iterator[Computed], tolerance: float
) -> None:
    for batch in recomputed:
        found = _responses(torch.from_numpy(batch.per_token), torch.from_numpy(batch.lengths), "mean")
        stored = store.response_log_probabilities([some[which] for which in batch.which], "mean")
        worst = float((stored - found).abs().max())
        if not worst <= tolerance:
            raise InputError(f"reference store {str(path)!r} is off by {worst:.2g} nats per token; "
                             "delete it to compute it again; or the model has a hook or a forward of its own, which "
                             "the store does not know: set reference_store to another folder")  # fmt: skip


def _write(path: Path, key: str, keys: Array, computed: Iterator[Computed]) -> None:
    starts, lengths = np.zeros(len(keys), "<i8"), np.zeros((len(keys), 2), "<i8")
    end = 0
    with tensor_writer(path) as writer:
        for batch in computed:
            sizes = batch.lengths.sum(1)
            lengths[batch.which] = batch.lengths
            starts[batch.which] = end + sizes.cumsum() - sizes
            end += len(batch.per_token)
            writer.append("per_token", batch.per_token)
        writer.append("keys", keys.view(np.uint8).reshape(-1, 32))
        writer.append("starts", starts)
        writer.append("lengths", lengths)
        writer.metadata["key"] = key


def _read(path: Path, key: str) -> ReferenceStore:
    broken = InputError(f"reference store {str(path)!r} is damaged; delete it to compute it again")
    try:
        tensors, metadata = memory_mapped(path)
        if metadata.get("key") != key:
            raise broken
        return ReferenceStore(**tensors)
    except (ValueError, TypeError):
        raise broken from None
