"""The pass over pairs with the reference's weights, in parts that several processes share."""

__all__ = ["Computed", "ReferencePass", "computed_parts", "discard_parts", "write_part"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from gpo_full.checkpoints.sharded import is_sharded
from gpo_full.data.pairs import Pair
from gpo_full.data.table import prompts_of, sizes_of
from gpo_full.data.tensor_stream import Array, mapped, streamed
from gpo_full.engine.log_probabilities import token_log_probabilities
from gpo_full.engine.model_plan import Plan, evaluating
from gpo_full.engine.packing import pack
from gpo_full.output import progress
from gpo_theory.errors import InputError

# Tokens in a forward pass of the reference.
BATCH_TOKENS = 4096
# Pairs of a part that are read at a time.
ROWS = 4096


class Computed(NamedTuple):
    """Some pairs: which of those that were asked for, tokens of their responses [P, 2], and their values in nats."""

    which: Array
    lengths: Array
    per_token: Array


class ReferencePass:
    """A forward pass of `model`, its adapter off, in the layout of `plan` and under `autocast`.

    Of a sharded model every process must make as many calls as the others: `most(n)` is the largest of their numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        autocast: Callable[[], AbstractContextManager[Any]],
        most: Callable[[int], int] = int,
    ) -> None:
        self.model, self.plan, self.autocast, self.most = model, plan, autocast, most
        self.device = next(model.parameters()).device

    def numerics(self) -> dict[str, Any]:
        """Return what the values depend on beside weights and tokens."""
        config: Any = self.model.config
        return {"dtype": str(self.dtype()), "device": self.device.type, "layout": self.plan.layout,
                "attention": config.get_text_config()._attn_implementation}  # fmt: skip

    def dtype(self) -> torch.dtype:
        """Return the precision that it computes in."""
        with self.autocast():
            if torch.is_autocast_enabled(self.device.type):
                return torch.get_autocast_dtype(self.device.type)
        return next(parameter.dtype for parameter in self.model.parameters())

    def __call__(self, pairs: Sequence[Pair], rows: Array, part: int = 0, parts: int = 1) -> Iterator[Computed]:
        """Compute one of `parts` of some rows of `pairs`, prompt by prompt, that of the largest pair first."""
        sizes = sizes_of(pairs)[rows]
        order = _part(_by_prompt(prompts_of(pairs)[rows], sizes), sizes, part, parts).tolist()
        more = self._more(pairs, rows, order)
        shown = order if part else progress(order, "reference pass", len(order))
        adapter_off = self.model.disable_adapter if hasattr(self.model, "disable_adapter") else nullcontext
        with evaluating(self.model), adapter_off(), self.autocast():  # type: ignore[operator]
            for which, together in _batches((which, pairs[rows[which]]) for which in shown):
                yield Computed(np.array(which), *self._of_batch(together))
            for _ in range(more):
                self._of_batch([pairs[rows[0]]])

    def _more(self, pairs: Sequence[Pair], rows: Array, order: Sequence[int]) -> int:
        """How many calls more than its own batches need this process must make."""
        if not is_sharded(self.model):
            return 0
        mine = sum(1 for _ in _batches((which, pairs[rows[which]]) for which in order))
        return self.most(mine) - mine

    def _of_batch(self, pairs: Sequence[Pair]) -> tuple[Array, Array]:
        batch = pack(pairs, self.plan.layout).to(self.device)
        values = token_log_probabilities(self.model, batch, fused_head=self.plan.fused_head)
        # Entries are in the order of a response's tokens; a stable sort by owner lines responses up.
        in_order = values[batch.entry[batch.owner.argsort(stable=True)]]
        return batch.lengths.cpu().numpy(), in_order.cpu().numpy()


def write_part(path: Path, part: int, parts: int, computed: Iterable[Computed], *, keep: bool) -> None:
    """Write one of `parts` of a pass beside `path`, for `computed_parts`; with `keep`, only if it is not there yet."""
    if keep and _of_part(path, part, parts).exists():
        return
    with streamed(_of_part(path, part, parts)) as stream:
        for batch in computed:
            for name, values in batch._asdict().items():
                stream.append(name, values)


def computed_parts(path: Path, parts: int) -> Iterator[Computed]:
    """Read all parts that were written beside `path`; InputError if one is damaged."""
    for part in range(parts):
        file = _of_part(path, part, parts)
        try:
            tensors, _ = mapped(file)
        except ValueError:
            raise InputError(f"reference part {str(file)!r} is damaged; delete it to compute it again") from None
        end = 0
        for start in range(0, len(tensors.get("which", ())), ROWS):
            lengths = tensors["lengths"][start : start + ROWS]
            begin, end = end, end + int(lengths.sum())
            yield Computed(tensors["which"][start : start + ROWS], lengths, tensors["per_token"][begin:end])


def discard_parts(path: Path) -> None:
    """Delete what `write_part` has left beside `path`, for any number of processes."""
    for part in path.parent.glob(f"{path.stem}.*-of-*{path.suffix}"):
        part.unlink()


def _of_part(path: Path, part: int, parts: int) -> Path:
    return path.with_suffix(f".{part + 1}-of-{parts}.safetensors")


def _by_prompt(prompts: Array, sizes: Array) -> Array:
    """An order in which the rows of a prompt follow one another, the prompt of the largest row first."""
    _, which = np.unique(prompts, return_inverse=True)
    largest = np.zeros(which.max() + 1, sizes.dtype)
    np.maximum.at(largest, which, sizes)
    order: Array = np.lexsort((-sizes, which, -largest[which]))
    return order


def _part(order: Array, sizes: Array, part: int, parts: int) -> Array:
    """One of `parts` stretches of the order, of about as many tokens each."""
    ends = sizes[order].cumsum()
    middles = ends - sizes[order] / 2
    stretch: Array = order[(middles * parts / ends[-1]).astype(int) == part]
    return stretch


def _batches(drawn: Iterable[tuple[int, Pair]]) -> Iterator[tuple[list[int], list[Pair]]]:
    """Cut before BATCH_TOKENS are exceeded, a prompt and a response that several pairs have counted once."""
    which: list[int] = []
    pairs: list[Pair] = []
    laid: dict[tuple[int, ...], int] = {}
    for row, pair in drawn:
        parts = {pair.prompt: len(pair.prompt)} | {pair.prompt + each: len(each) for each in pair.responses}
        if pairs and sum((laid | parts).values()) > BATCH_TOKENS:
            yield which, pairs
            which, pairs, laid = [], [], {}
        which.append(row)
        pairs.append(pair)
        laid |= parts
    if pairs:
        yield which, pairs
