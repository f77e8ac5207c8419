"""What the Trainer's loaders draw: pairs by row with their reference, in which order, and packed into batches."""

__all__ = ["Collator", "PromptSampler", "Rows", "batch_of", "check_sets", "pairs_of", "real_rows"]

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpo_full.config import GPOConfig
from gpo_full.data.pairs import Pair, PairSummary, read_pairs
from gpo_full.data.pairs_on_disk import PairTable, digests_of, optional_columns_of, pair_table
from gpo_full.data.sources import is_on_disk, open_data
from gpo_full.data.tensor_files import Array
from gpo_full.distributed import first
from gpo_full.engine.packing import Batch, pack
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
        numbers = {"weight": [pair.weight for pair in pairs], "p": [pair.p for pair in pairs]}
        return {**batch.tensors(), "sizes": batch.sizes, "reference": torch.stack(reference), "row": torch.tensor(row),
                **{name: torch.tensor(values, dtype=reference[0].dtype) for name, values in numbers.items()
                   if {*values} != {1.0}}}  # fmt: skip


def batch_of(inputs: Mapping[str, Any], layout: str) -> Batch:
    """Return the Batch in what a Collator of this layout returned."""
    return Batch(**{each.name: inputs[each.name] for each in fields(Batch) if each.name != "layout"}, layout=layout)


class PromptSampler(torch.utils.data.Sampler[int]):
    """The prompts in a random order, another in each epoch, and all rows of a prompt one after another.

    Batches then share what their pairs share. `prompts` [N] holds the prompt of each row, as a number. The order
    depends on `seed` and epoch alone, so a resumed run and every rank draw the same.

    >>> sampler = PromptSampler(np.array([7, 8, 7, 8, 8, 9]), seed=0)
    >>> list(sampler), len(sampler)
    ([5, 0, 2, 1, 3, 4], 6)
    """

    def __init__(self, prompts: Array, seed: int) -> None:
        _, which = np.unique(prompts, return_inverse=True)
        self._rows = np.argsort(which, kind="stable")
        self._ends = np.bincount(which).cumsum()
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of `epoch` from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        prompts = np.split(self._rows, self._ends[:-1])
        for which in np.random.default_rng([self.seed, self.epoch]).permutation(len(prompts)):
            yield from prompts[which].tolist()


def check_sets(train: Sequence[Pair], held_out: Mapping[str, Sequence[Pair]], *, from_reference: bool) -> None:
    """Warn of held-out pairs that are trained on; InputError if no pair of `train` could move a policy.

    A pair of weight 0 moves none, and one with p = 1/2 none that starts from its reference (`from_reference`).
    """
    if not train:  # evaluation alone
        return
    weight, p, *_ = optional_columns_of(train).T
    if np.all((weight == 0) | (from_reference & (p == 0.5))):
        raise InputError("every pair has weight 0 or p = 1/2, so that nothing would be trained")
    trained = digests_of(train).view("S32")[:, 0]
    for name, pairs in held_out.items():
        both = int(np.isin(digests_of(pairs).view("S32")[:, 0], trained).sum())
        if both:
            _log.warning("%s: %d of %d held-out pairs are trained on too", name, both, len(pairs))


def pairs_of(name: str, data: Any, tokenizer: Any, args: GPOConfig) -> tuple[Sequence[Pair], PairSummary | None]:
    """Return the pairs of `data` (pairs already, or what `read_pairs` takes) and the summary of reading them.

    A file, a folder of files or a data set that `datasets` keeps on disk is read once, by the first process, into a
    table on disk. A text names data as `open_data` reads it.
    """
    if isinstance(data, PairTable):
        return data, data.summary
    if isinstance(data, Sequence) and not isinstance(data, str) and data and isinstance(data[0], Pair):
        return list(data), None
    if isinstance(data, Mapping):
        raise InputError(f"{name} data must be one set of pairs, not a mapping of several: "
                         f"{', '.join(map(repr, data))}")  # fmt: skip
    if tokenizer is None:
        raise InputError(f"{name} data is text: processing_class must be its tokenizer")
    if isinstance(data, str | Path):
        data = open_data(f"{name} data", str(data), "test" if name == "eval" else "train")
    rules: Any = {"max_length": args.max_length, "max_prompt_length": args.max_prompt_length or 1,
                  "bad_rows": args.bad_rows, "columns": args.columns}  # fmt: skip
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
    """Return how many of the `size` rows just drawn are not padding; the others come last, in the order of ranks.

    Ranks must take the same number of steps, so the last batch of an epoch of `pairs` is filled up with rows from its
    beginning, which count in no loss and no mean.
    """
    # accelerate's own count of the remainder is wrong in an epoch that a resumed run enters in its middle.
    remainder = pairs % (size * accelerator.num_processes)
    even = accelerator.num_processes == 1 or drop_last or not remainder
    if even or not accelerator.gradient_state.end_of_dataloader:
        return size
    real: int = min(size, max(0, remainder - accelerator.process_index * size))
    return real
