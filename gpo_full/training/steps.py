"""The optimizer steps of a run: which are applied, exact means over their pairs, and a record of the skipped ones."""

__all__ = ["NoGradient", "OpenStep", "Steps", "held_out_metrics"]

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpo_full.distributed import concatenated, summed
from gpo_full.run_files import EVENTS_FILE
from gpo_full.training.loss import MicroBatch
from gpo_full.training.reporting.length_bias import length_metrics
from gpo_full.training.reporting.metrics import COLUMNS, OF_TRAINING, Meter, NonFiniteLoss
from gpo_full.training.reporting.run_folder import RunFolder
from gpo_full.training.rows import Rows

# Skipped steps in a row after which the run is given up. A choice: one or two may be bad rows.
TOO_MANY = 3
# A mean |f'(x)| that is too large for the gradient to underflow: the square of 2^-40 is far above float32's 2^-149.
NOT_ROUNDED_AWAY = 2.0**-40
_log = logging.getLogger(__name__)


class NoGradient(ArithmeticError):
    """The gradient was exactly 0 although the loss asked for a change of the policy."""


@dataclass
class OpenStep:
    """What must be known of an optimizer step until its gradient is there.

    transformers' loop makes a step out of separate calls: it draws the micro-batches, asks for the loss of each, adds
    each to a running loss, and has the gradient norm at last. Whether the step is applied depends on all of them, so
    they are kept here in between: the running loss before the step, and the evaluated micro-batches. `flags`,
    [len(COLUMNS) + 2], are above 0 where a quantity is not finite on some rank; the last, where the gradient is 0
    although the mean of f'(x) is not.
    """

    number: int
    loss_before: Tensor
    micro_batches: list[MicroBatch] = field(default_factory=list)
    flags: Tensor | None = None


class Steps:
    """Judges each step on the device, and adds up the metrics of the applied ones.

    A step is skipped, that is not applied, if its loss, a metric or its gradient is not finite on any rank. The host
    reads the verdicts once per logging interval and once per save, with the sums, in one transfer from the device; only
    then are the skipped steps logged and written to events.jsonl. `applied` steps were applied since the last log; the
    last `skipped_in_a_row` ones were skipped.
    """

    def __init__(self, accelerator: Any, meter: Meter, folder: Callable[[], RunFolder], data: Rows) -> None:
        self._accelerator, self._meter, self._folder, self._data = accelerator, meter, folder, data
        self._unread: list[OpenStep] = []
        self.applied, self.skipped_in_a_row = 0, 0
        self._in_a_row = torch.zeros((), device=accelerator.device)

    def close(self, step: OpenStep, *, norm: Tensor, optimizer: Any, running_loss: Tensor) -> None:
        """Judge a step, whose gradient has norm `norm`, and count its pairs unless it is skipped.

        Then the next step of `optimizer` changes nothing, and `running_loss` becomes what it was before the step.
        """
        skipped = self._judge(step, norm)
        _skip_where(skipped, optimizer)

        def unless_skipped(value: Tensor) -> Tensor:
            return torch.where(skipped > 0, 0, value)

        for each in step.micro_batches:
            self._meter.add(unless_skipped(each.sums), unless_skipped(each.tokens))
        self._meter.add_gradient_norm(unless_skipped(norm), 1 - skipped)
        running_loss.copy_(torch.where(skipped > 0, step.loss_before, running_loss))

    def interval(self) -> tuple[dict[str, float], int, int]:
        """Return means over pairs since the last call, and how many steps were applied and skipped; start the next.

        Raises NonFiniteLoss if the third step in a row was skipped, having saved its batch; NoGradient if the gradient
        of a step was 0 although f'(x) was not, on average over its pairs.
        """
        means = self._meter.drain(lambda sums: _over_ranks(self._accelerator, sums))
        skipped = self._read()
        applied, self.applied = self.applied, 0
        return means, applied, skipped

    def state(self) -> tuple[dict[str, Any], int]:
        """Return what `restore` needs, as JSON, and how many steps since the last call were skipped.

        Raises NonFiniteLoss and NoGradient as `interval` does.
        """
        sums = self._meter.state(lambda sums: _over_ranks(self._accelerator, sums))
        skipped = self._read()
        # The keys are those of the checkpoints of earlier versions.
        return {**sums, "counted": self.applied, "fruitless": self.skipped_in_a_row}, skipped

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._meter.restore(state, first=self._accelerator.is_main_process)
        self.applied, self.skipped_in_a_row = state["counted"], state["fruitless"]
        self._in_a_row = torch.full_like(self._in_a_row, self.skipped_in_a_row)

    def _judge(self, step: OpenStep, norm: Tensor) -> Tensor:
        """Return 1 if the step is to be skipped, else 0: the same on every rank, on the device.

        After the third such step in a row all are skipped, until the host reads that and gives up.
        """
        sums = torch.stack([each.sums for each in step.micro_batches]).sum(0)
        broken = ~torch.cat([sums, norm.detach().double()[None]]).isfinite()
        slope = sums[COLUMNS.index("weight")].abs() / sums[COLUMNS.index("pairs")]
        nothing = (norm == 0) & (slope > NOT_ROUNDED_AWAY)
        step.flags = summed(self._accelerator, torch.cat([broken, nothing[None]]).float())
        skipped = step.flags.any() | (self._in_a_row >= TOO_MANY)
        self._in_a_row = torch.where(skipped, self._in_a_row + 1, 0)
        self._unread.append(step)
        return skipped.float()

    def _read(self) -> int:
        """Read the verdicts on the steps since the last time, and return how many were skipped."""
        steps, self._unread = self._unread, []
        if self._meter.steps == self.applied + len(steps):
            self.applied, self.skipped_in_a_row = self._meter.steps, 0 if steps else self.skipped_in_a_row
            return 0
        before = self.applied
        flags = torch.stack([step.flags for step in steps if step.flags is not None]).tolist()
        for step, each in zip(steps, flags, strict=True):
            broken = [name for name, flag in zip((*COLUMNS, "gradient"), each, strict=False) if flag]
            if each[-1]:
                raise NoGradient(f"step {step.number}: the gradient is exactly 0, and the loss is not flat at its "
                                 "pairs: what is trained takes no part in what the model computes, or the pairs "
                                 "contradict each other exactly")  # fmt: skip
            if broken:
                self._record_skipped(step, broken)
            else:
                self.applied, self.skipped_in_a_row = self.applied + 1, 0
        return before + len(steps) - self.applied

    def _record_skipped(self, step: OpenStep, broken: list[str]) -> None:
        """Record a skipped step; NonFiniteLoss for the third in a row."""
        self.skipped_in_a_row += 1
        rows = self._gathered(torch.cat([each.rows for each in step.micro_batches]))
        losses = self._gathered(torch.cat([each.values for each in step.micro_batches]).double())
        folder = self._folder()
        without_loss = [row for row, loss in zip(rows, losses, strict=True) if not math.isfinite(loss)]
        folder.append(EVENTS_FILE, {"step": step.number, "event": "not finite, not applied", "quantities": broken,
                                    "rows": rows, "rows_with_loss_not_finite": without_loss})  # fmt: skip
        if self.skipped_in_a_row < TOO_MANY:
            _log.warning("step %d is not applied: not finite: %s; rows %s", step.number, ", ".join(broken), rows)
            return
        path = folder.non_finite_batch({"step": step.number, "pairs": self._described(rows, losses)})
        raise NonFiniteLoss(f"not finite: {', '.join(broken)}, the third step in a row; the batch is in {path}")

    def _gathered(self, values: Tensor) -> list[Any]:
        found: list[Any] = concatenated(self._accelerator, values).tolist()
        return found

    def _described(self, rows: Iterable[int], losses: Iterable[float]) -> list[dict[str, Any]]:
        """Pairs as JSON, whose numbers, which need not be finite, are texts."""
        return [{"row": row, **asdict(self._data.pairs[row]), "loss": repr(loss),
                 "reference": [repr(value) for value in self._data.reference[row].tolist()]}
                for row, loss in zip(rows, losses, strict=True)]  # fmt: skip


def held_out_metrics(batches: Iterable[MicroBatch], accelerator: Any) -> dict[str, float]:
    """Return the metrics of held-out pairs, exact means over the pairs of all batches on all ranks.

    With them comes what preferring the longer response would score (`length_metrics`).
    """
    meter = Meter(accelerator.device)
    by_length = torch.zeros(5, dtype=torch.float64, device=accelerator.device)
    for each in batches:
        meter.add(each.sums, each.tokens)
        by_length += each.by_length
    means = meter.drain(lambda sums: _over_ranks(accelerator, sums))
    for name in OF_TRAINING:
        del means[name]
    return means | length_metrics(summed(accelerator, by_length).tolist())


def _over_ranks(accelerator: Any, sums: Tensor) -> Tensor:
    """The sums of a Meter over all ranks, of which each counted the same steps and gradient norms."""
    total = summed(accelerator, sums)
    if accelerator.num_processes > 1:
        total[-2:] /= accelerator.num_processes
    return total


def _skip_where(skipped: Tensor, optimizer: Any) -> None:
    """Let the next step of `optimizer` leave parameters and moments as they are where `skipped` is 1.

    A fused optimizer, the default, reads `skipped` on the device. Any other costs a transfer to the host.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = skipped
    elif bool(skipped):
        # No optimizer touches a parameter, or its moments, that has no gradient.
        optimizer.zero_grad(set_to_none=True)
