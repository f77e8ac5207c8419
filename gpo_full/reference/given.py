"""Reference log-probabilities that come with the data, instead of a pass over it."""

__all__ = ["given_reference", "distance_from"]

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gpo_full.data.pairs import Pair
from gpo_full.data.table import lengths_of, numbers_of
from gpo_full.margin import margin_of_tokens
from gpo_full.reference.store import ReferenceStore
from gpo_theory.errors import InputError


def given_reference(pairs: Sequence[Pair], margin: str) -> Tensor | None:
    """Return log pi_ref of both responses, [N, 2] in nats (`"sum"`) or nats per token (`"mean"`), if the data has it.

    All pairs must have it, or none: InputError.
    """
    sums = numbers_of(pairs)[:, 2:]
    there = ~np.isnan(sums[:, 0])
    if not there.any():
        return None
    if not there.all():
        raise InputError(f"{there.sum()} of {len(there)} pairs bring the reference's log-probabilities: all must, or "
                         "none")  # fmt: skip
    return margin_of_tokens(torch.tensor(sums), torch.from_numpy(lengths_of(pairs)), margin)


def distance_from(store: ReferenceStore, pairs: Sequence[Pair]) -> float:
    """Return how far what `pairs` bring is from the store at most, in nats per token of a response."""
    given = given_reference(pairs, "mean")
    assert given is not None
    return float((given - store.response_log_probabilities(pairs, "mean")).abs().max())
