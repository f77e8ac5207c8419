"""Communication between the processes of a run; with a single process, each function returns its argument."""

__all__ = ["ALONE", "summed", "concatenated", "stacked", "largest", "first", "together"]

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

# The timeout while one rank reads data or saves and the others wait: longer than any such pass takes.
PATIENCE = timedelta(days=7)


class _Alone:
    """Stands for an accelerate.Accelerator with one process."""

    num_processes, process_index, is_main_process = 1, 0, True


ALONE = _Alone()


class OtherRankFailed(RuntimeError):
    """Another process of the run failed; its own error says why."""


def summed(accelerator: Any, values: Tensor) -> Tensor:
    """Return the sum over ranks, on the device."""
    total: Tensor = values if accelerator.num_processes == 1 else accelerator.reduce(values, "sum")
    return total


def concatenated(accelerator: Any, values: Tensor) -> Tensor:
    """Return the concatenation of the vectors of all ranks; their lengths may differ."""
    if accelerator.num_processes == 1:
        return values
    count = accelerator.gather(torch.tensor([len(values)], device=values.device))
    padded = accelerator.gather(accelerator.pad_across_processes(values))
    return torch.cat([part[:n] for part, n in zip(padded.chunk(len(count)), count.tolist(), strict=True)])


def stacked(accelerator: Any, value: Tensor) -> Tensor:
    """Return the values of all ranks, [ranks, ...], on the CPU."""
    if accelerator.num_processes == 1:
        return value[None]
    gathered: Tensor = accelerator.gather(value[None].to(accelerator.device)).cpu()
    return gathered


def largest(accelerator: Any, value: int, timeout: timedelta = PATIENCE) -> int:
    """Return the maximum over ranks of a number on the host, without waiting for a device.

    Raises RuntimeError at once if another rank has died, or at the timeout if it does not answer.
    """
    if accelerator.num_processes == 1:
        return value
    most = torch.tensor([value])
    distributed.all_reduce(most, distributed.ReduceOp.MAX, _hosts(distributed.group.WORLD), async_op=True).wait(timeout)
    return int(most)


@functools.cache
def _hosts(world: Any) -> Any:
    """A gloo process group between hosts, with the timeout PATIENCE."""
    return distributed.new_group(backend="gloo", timeout=PATIENCE)


@contextmanager
def first(accelerator: Any, what: str) -> Iterator[None]:
    """Run the block on the main process alone, then on all others together.

    The others wait with the timeout PATIENCE, for that of the process group, which ends a run with a hanging rank,
    would end a long pass over data too. If the main process fails, the others raise OtherRankFailed instead of entering
    the block.
    """
    if not accelerator.is_main_process and largest(accelerator, 0):
        raise OtherRankFailed(f"{what} on the first rank, which says why")
    failed = 1
    try:
        yield
        failed = 0
    finally:
        if accelerator.is_main_process:
            largest(accelerator, failed)


@contextmanager
def together(accelerator: Any, what: str) -> Iterator[None]:
    """Run the block on all ranks; if it raises on one of them, every rank raises at once, not after a timeout."""
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    failed = largest(accelerator, int(error is not None))
    if error is not None:
        raise error
    if failed:
        raise OtherRankFailed(f"{what} on another rank, which says why")
