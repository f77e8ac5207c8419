"""The forward pass over all pairs with the reference's weights, in parts that several processes share."""

__all__ = ["Computed", "ReferencePass", "computed_parts", "discard_parts", "write_part"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from gpo_full.checkpoints.sharded import is_sharded
from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import prompt_keys_of, sizes_of
from gpo_full.data.tensor_files import Array, memory_mapped, tensor_writer
from gpo_full.engine.log_probabilities import token_log_probabilities
from gpo_full.engine.model_plan import Plan, evaluating
from gpo_full.engine.packing import pack
from gpo_full.output import progress
from gpo_theory.errors import InputError

# Tokens per forward pass: enough for large matrix products, few enough that activations take little memory.
BATCH_TOKENS = 4096
# Pairs of a part that are in memory at a time.
ROWS = 4096


class Computed(NamedTuple):
    """The log-probabilities of some pairs; the field names are those of the tensors in a part's file."""

    which: Array  # [P] int64: indices into the rows of the pass
    lengths: Array  # [P, 2] int64: tokens of the chosen and the rejected response
    per_token: Array  # [sum of lengths]: log pi_ref of each token, in nats, response by response


@dataclass(frozen=True)
class ReferencePass:
    """A forward pass of `model` as it is, its adapter included, in the layout of `plan` and under `autocast`.

    With a sharded model every process must make the same number of forward calls: `largest` is the maximum over
    processes.
    """

    model: nn.Module
    plan: Plan
    autocast: Callable[[], AbstractContextManager[Any]]
    largest: Callable[[int], int] = int

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def numerics(self) -> dict[str, Any]:
        """Return what the values depend on apart from weights and tokens, for the key of the store."""
        config: Any = self.model.config
        return {"dtype": str(self.dtype()), "device": self.device.type, "layout": self.plan.layout,
                "attention": config.get_text_config()._attn_implementation}  # fmt: skip

    def dtype(self) -> torch.dtype:
        """Return the type in which the model computes: autocast's, else that of its weights."""
        with self.autocast():
            if torch.is_autocast_enabled(self.device.type):
                return torch.get_autocast_dtype(self.device.type)
        return next(parameter.dtype for parameter in self.model.parameters())

    def __call__(self, pairs: Sequence[Pair], rows: Array, part: int = 0, parts: int = 1) -> Iterator[Computed]:
        """Compute part number `part` of `parts` of the given rows of `pairs`, the prompt of the largest pair first."""
        sizes = sizes_of(pairs)[rows]
        order = _part(_by_prompt(prompt_keys_of(pairs)[rows], sizes), sizes, part, parts).tolist()
        idle_calls = self._idle_calls(pairs, rows, order)
        shown = order if part else progress(order, "reference pass", len(order))
        with evaluating(self.model), self.autocast():
            for which, together in _batches((which, pairs[rows[which]]) for which in shown):
                yield Computed(np.array(which), *self._of_batch(together))
            for _ in range(idle_calls):
                self._of_batch([pairs[rows[0]]])

    def _idle_calls(self, pairs: Sequence[Pair], rows: Array, order: Sequence[int]) -> int:
        """Return how many forward calls this process must add to those of its own batches."""
        if not is_sharded(self.model):
            return 0
        mine = sum(1 for _ in _batches((which, pairs[rows[which]]) for which in order))
        return self.largest(mine) - mine

    def _of_batch(self, pairs: Sequence[Pair]) -> tuple[Array, Array]:
        batch = pack(pairs, self.plan.layout).to(self.device)
        values = token_log_probabilities(self.model, batch, fused_head=self.plan.fused_head)
        # Within a response, entries are in the order of its tokens, which a stable sort by response keeps.
        in_order = values[batch.prediction_index[batch.response_index.argsort(stable=True)]]
        return batch.lengths.cpu().numpy(), in_order.cpu().numpy()


def write_part(path: Path, part: int, parts: int, computed: Iterable[Computed], *, keep: bool) -> None:
    """Write one of `parts` of a pass beside `path`, for `computed_parts`; with `keep`, only if it does not exist."""
    if keep and _of_part(path, part, parts).exists():
        return
    with tensor_writer(_of_part(path, part, parts)) as writer:
        for batch in computed:
            for name, values in batch._asdict().items():
                writer.append(name, values)


def computed_parts(path: Path, parts: int) -> Iterator[Computed]:
    """Read all parts that `write_part` wrote beside `path`. Raises InputError if one is damaged."""
    for part in range(parts):
        file = _of_part(path, part, parts)
        try:
            tensors, _ = memory_mapped(file)
        except ValueError:
            raise InputError(f"reference part {str(file)!r} is damaged; delete it to compute it again") from None
        end = 0
        for start in range(0, len(tensors.get("which", ())), ROWS):
            lengths = tensors["lengths"][start : start + ROWS]
            begin, end = end, end + int(lengths.sum())
            yield Computed(tensors["which"][start : start + ROWS], lengths, tensors["per_token"][begin:end])


def discard_parts(path: Path) -> None:
    """Delete the parts that `write_part` wrote beside `path`, whatever their number."""
    for part in path.parent.glob(f"{path.stem}.*-of-*{path.suffix}"):
        part.unlink()


def _of_part(path: Path, part: int, parts: int) -> Path:
    return path.with_suffix(f".{part + 1}-of-{parts}.safetensors")


def _by_prompt(prompts: Array, sizes: Array) -> Array:
    """Return an order of the rows in which those of a prompt are adjacent, the prompt of the largest row first."""
    _, which = np.unique(prompts, return_inverse=True)
    largest = np.zeros(which.max() + 1, sizes.dtype)
    np.maximum.at(largest, which, sizes)
    order: Array = np.lexsort((-sizes, which, -largest[which]))
    return order


def _part(order: Array, sizes: Array, part: int, parts: int) -> Array:
    """Return one of `parts` contiguous parts of the order, with about the same number of tokens each."""
    ends = sizes[order].cumsum()
    middles = ends - sizes[order] / 2
    chosen: Array = order[(middles * parts / ends[-1]).astype(int) == part]
    return chosen


def _batches(rows: Iterable[tuple[int, Pair]]) -> Iterator[tuple[list[int], list[Pair]]]:
    """Divide rows into batches of at most BATCH_TOKENS; a prompt or response of several pairs is counted once."""
    which: list[int] = []
    pairs: list[Pair] = []
    packed: dict[tuple[int, ...], int] = {}  # tokens of each prompt and response in the batch
    for row, pair in rows:
        parts = {pair.prompt: len(pair.prompt)} | {pair.prompt + each: len(each) for each in pair.responses}
        if pairs and sum((packed | parts).values()) > BATCH_TOKENS:
            yield which, pairs
            which, pairs, packed = [], [], {}
        which.append(row)
        pairs.append(pair)
        packed |= parts
    if pairs:
        yield which, pairs
