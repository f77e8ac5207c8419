"""An order of training in which the pairs of a prompt follow one another, so that batches share what they share."""

__all__ = ["PromptSampler"]

from collections.abc import Iterator

import numpy as np
import torch

from gpo_full.data.tensor_files import Array


class PromptSampler(torch.utils.data.Sampler[int]):
    """Prompts at random, anew in each epoch, and after each prompt its rows in their order.

    `prompts` [N] holds the prompt of each row, as a number. The order depends on `seed` and epoch alone, so a resumed
    run and every rank draw the same.

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
