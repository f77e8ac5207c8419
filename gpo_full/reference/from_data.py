"""Reference log-probabilities that the data states, so that no pass over it is needed."""

__all__ = ["reference_from_data", "largest_difference"]

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import optional_columns_of, response_lengths_of
from gpo_full.margin import margin_of_tokens
from gpo_full.reference.store import ReferenceStore
from gpo_theory.errors import InputError


def reference_from_data(pairs: Sequence[Pair], margin: str) -> Tensor | None:
    """Return the stated log pi_ref, [N, 2] in nats (`"sum"`) or nats per token (`"mean"`); None if no pair has it.

    Raises InputError if some pairs state it and others do not.
    """
    sums = optional_columns_of(pairs)[:, 2:]
    stated = ~np.isnan(sums[:, 0])
    if not stated.any():
        return None
    if not stated.all():
        raise InputError(f"{stated.sum()} of {len(stated)} pairs bring the reference's log-probabilities: all must, or "
                         "none")  # fmt: skip
    return margin_of_tokens(torch.tensor(sums), torch.from_numpy(response_lengths_of(pairs)), margin)


def largest_difference(store: ReferenceStore, pairs: Sequence[Pair]) -> float:
    """Return the largest difference between what `pairs` state and the store, in nats per token of a response."""
    stated = reference_from_data(pairs, "mean")
    assert stated is not None
    return float((stated - store.response_log_probabilities(pairs, "mean")).abs().max())
