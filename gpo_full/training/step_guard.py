"""The step that must not be applied: a loss, a metric or a gradient that is not finite, on any rank."""

__all__ = ["Evaluated", "StepGuard", "skip_where"]

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpo_full.distributed import concatenated, summed
from gpo_full.training.reporting.metrics import COLUMNS, NonFiniteLoss
from gpo_full.training.reporting.run_folder import RunFolder
from gpo_full.training.rows import Rows

# Steps in a row that may come to nothing before the run is given up.
PATIENCE = 3
_log = logging.getLogger(__name__)


class Evaluated(NamedTuple):
    """A micro-batch of P pairs: their rows [P], f(beta rho) [P], the sums of COLUMNS, the number of tokens, and the
    sums of `length_sums`."""

    rows: Tensor
    values: Tensor
    sums: Tensor
    tokens: Tensor
    by_length: Tensor


class _Step(NamedTuple):
    number: int
    flags: Tensor  # [len(COLUMNS) + 1], above 0 where a quantity is not finite on some rank
    batches: Sequence[Evaluated]


class StepGuard:
    """Judges each step on the device; the host hears of it when it settles the steps so far, once a logging interval.

    `counted` steps were applied since the last log; the last `fruitless` ones were not.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self._unsettled: list[_Step] = []
        self.restore(0, 0)

    def restore(self, counted: int, fruitless: int) -> None:
        """Go on from what the counts were."""
        self.counted, self.fruitless = counted, fruitless
        self._in_a_row = torch.full((), float(fruitless), device=self._accelerator.device)

    def judge(self, number: int, batches: Sequence[Evaluated], norm: Tensor) -> Tensor:
        """Return 1 if the step `number` must come to nothing, else 0: the same on every rank, and still on the device.

        After the third such step in a row no other is applied either, until the host hears of it and gives up.
        """
        sums = torch.stack([batch.sums for batch in batches]).sum(0)
        broken = ~torch.cat([sums, norm.detach().double()[None]]).isfinite()
        flags = summed(self._accelerator, broken.float())
        skipped = flags.any() | (self._in_a_row >= PATIENCE)
        self._in_a_row = torch.where(skipped, self._in_a_row + 1, 0)
        self._unsettled.append(_Step(number, flags, batches))
        return skipped.float()

    def settle(self, applied: int, folder: RunFolder, data: Rows) -> int:
        """Hear of the steps since the last time, and return how many came to nothing; each is said and recorded.

        The device has `applied` steps since the last log. NonFiniteLoss for the third in a row, its batch saved.
        """
        steps, self._unsettled = self._unsettled, []
        if applied == self.counted + len(steps):
            self.counted, self.fruitless = applied, 0 if steps else self.fruitless
            return 0
        before = self.counted
        for step, flags in zip(steps, torch.stack([step.flags for step in steps]).tolist(), strict=True):
            broken = [name for name, flag in zip((*COLUMNS, "gradient"), flags, strict=True) if flag]
            if broken:
                self._drop(step, broken, folder, data)
            else:
                self.counted, self.fruitless = self.counted + 1, 0
        return before + len(steps) - self.counted

    def _drop(self, step: _Step, broken: list[str], folder: RunFolder, data: Rows) -> None:
        self.fruitless += 1
        rows = self._over_ranks(torch.cat([each.rows for each in step.batches]))
        losses = self._over_ranks(torch.cat([each.values for each in step.batches]).double())
        folder.event({"step": step.number, "event": "not finite, not applied", "quantities": broken, "rows": rows,
                      "rows_with_loss_not_finite": [row for row, loss in zip(rows, losses, strict=True)
                                                    if not math.isfinite(loss)]})  # fmt: skip
        if self.fruitless < PATIENCE:
            _log.warning("step %d is not applied: not finite: %s; rows %s", step.number, ", ".join(broken), rows)
            return
        path = folder.non_finite_batch(_batch(step.number, rows, losses, data))
        raise NonFiniteLoss(f"not finite: {', '.join(broken)}, the third step in a row; the batch is in {path}")

    def _over_ranks(self, values: Tensor) -> list[Any]:
        found: list[Any] = concatenated(self._accelerator, values).tolist()
        return found


def skip_where(skipped: Tensor, optimizer: Any) -> None:
    """Let the next step of `optimizer` leave parameters and moments as they are where `skipped` is 1.

    A fused optimizer, as is the default, looks itself, on the device. Any other costs a transfer at each step.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = skipped
    elif bool(skipped):
        # No optimizer touches a parameter, or its moments, that has no gradient.
        optimizer.zero_grad(set_to_none=True)


def _batch(step: int, rows: list[int], losses: list[float], data: Rows) -> dict[str, Any]:
    pairs = [{"row": row, **asdict(data.pairs[row]), "loss": repr(loss),
              "reference": [repr(value) for value in data.reference[row].tolist()]}
             for row, loss in zip(rows, losses, strict=True)]  # fmt: skip
    return {"step": step, "pairs": pairs}
