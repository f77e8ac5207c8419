"""What the Trainer's loaders draw from: pairs by row, each with its reference, and the collator that packs them."""

__all__ = ["Rows", "Collator", "pairs_of", "real_rows"]

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpo_full.data.pairs import Pair, PairSummary, read_pairs
from gpo_full.data.pairs_on_disk import PairTable, pair_table
from gpo_full.data.sources import is_on_disk
from gpo_full.distributed import first
from gpo_full.engine.packing import pack
from gpo_full.training.config import GPOConfig
from gpo_theory.errors import InputError

_log = logging.getLogger(__name__)


class Rows(torch.utils.data.Dataset[tuple[int, Pair, Tensor]]):
    """Pairs by row, and their reference log-probabilities, [N, 2]."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.reference = torch.zeros(len(pairs), 2)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[int, Pair, Tensor]:
        return index, self.pairs[index], self.reference[index]


@dataclass(frozen=True)
class Collator:
    """Packs rows in a layout of `pack`; `row` and `reference` come with them, `weight` and `p` where one is not 1."""

    layout: str

    def __call__(self, rows: Sequence[tuple[int, Pair, Tensor]]) -> dict[str, Any]:
        row, pairs, reference = zip(*rows, strict=True)
        batch = pack(pairs, self.layout)
        return {**batch.tensors(), "sizes": batch.sizes, "reference": torch.stack(reference), "row": torch.tensor(row),
                **_numbers(pairs, reference[0].dtype)}  # fmt: skip


def _numbers(pairs: Sequence[Pair], dtype: torch.dtype) -> dict[str, Tensor]:
    both = {"weight": [pair.weight for pair in pairs], "p": [pair.p for pair in pairs]}
    return {name: torch.tensor(values, dtype=dtype) for name, values in both.items() if {*values} != {1.0}}


def pairs_of(name: str, data: Any, tokenizer: Any, args: GPOConfig) -> tuple[Sequence[Pair], PairSummary | None]:
    """Return the pairs of `data` (pairs already, or what `read_pairs` takes) and what was left out of them.

    Those of a file, of a folder of files or of a data set that `datasets` keeps on disk come in a table on disk, which
    the first process writes.
    """
    if isinstance(data, PairTable):
        return data, data.summary
    if isinstance(data, Sequence) and not isinstance(data, str) and data and isinstance(data[0], Pair):
        return list(data), None
    if isinstance(data, Mapping):
        raise InputError(f"{name} data must be one set of pairs, not a mapping of several")
    if tokenizer is None:
        raise InputError(f"{name} data is text: processing_class must be its tokenizer")
    rules: Any = {"max_length": args.max_length, "max_prompt_length": args.max_prompt_length or 1,
                  "bad_rows": args.bad_rows}  # fmt: skip
    pairs: Sequence[Pair]
    if is_on_disk(data):
        with first(args.distributed_state, f"{name} data cannot be read"):
            pairs = table = pair_table(data, tokenizer, **rules)
        summary = table.summary
    else:
        pairs, summary = read_pairs(data, tokenizer, **rules)
    if str(summary) != str(PairSummary(summary.rows, summary.rows)):
        _log.warning("%s data: %s", name, summary)
    return pairs, summary


def real_rows(accelerator: Any, size: int, pairs: int, *, drop_last: bool = False) -> int:
    """Return how many of the `size` rows just drawn, the first ones, are not there a second time, of `pairs` an epoch.

    Ranks must take the same number of steps, so the end of an epoch is filled up with rows from its beginning; they
    are behind all others, in the order of ranks, and count in no loss and no mean.
    """
    # accelerate's own count of the remainder is wrong in an epoch that is gone on with.
    remainder = pairs % (size * accelerator.num_processes)
    if accelerator.num_processes == 1 or drop_last or not remainder:
        return size
    if not accelerator.gradient_state.end_of_dataloader:
        return size
    real: int = min(size, max(0, remainder - accelerator.process_index * size))
    return real
