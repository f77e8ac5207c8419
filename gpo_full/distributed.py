"""The few things that the processes of a run tell each other; with one process, each is the value itself."""

__all__ = ["ALONE", "summed", "concatenated", "stacked", "largest", "first", "together"]

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

# Long enough for any pass over data, or any save, that one rank makes while the others wait.
PATIENCE = timedelta(days=7)


class _Alone:
    """What the functions here ask of an accelerator, of one process."""

    num_processes, process_index, is_main_process = 1, 0, True


ALONE = _Alone()


class OtherRankFailed(RuntimeError):
    """Another process of the run failed, and says there why."""


def summed(accelerator: Any, values: Tensor) -> Tensor:
    """Return the sum over ranks; it stays on the device."""
    total: Tensor = values if accelerator.num_processes == 1 else accelerator.reduce(values, "sum")
    return total


def concatenated(accelerator: Any, values: Tensor) -> Tensor:
    """Return the vectors of all ranks, whose lengths may differ, one behind the other."""
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
    """Return the largest of the ranks' numbers, which no device has to be waited for.

    RuntimeError if another rank is gone, at once, or says nothing until the timeout.
    """
    if accelerator.num_processes == 1:
        return value
    told = torch.tensor([value])
    distributed.all_reduce(told, distributed.ReduceOp.MAX, _hosts(distributed.group.WORLD), async_op=True).wait(timeout)
    return int(told)


@functools.cache
def _hosts(world: Any) -> Any:
    """A group whose members talk by gloo, from host to host, and wait as long as it takes."""
    return distributed.new_group(backend="gloo", timeout=PATIENCE)


@contextmanager
def first(accelerator: Any, what: str) -> Iterator[None]:
    """The first rank goes through the block alone, then all others together, however long the first one takes.

    The process group's own timeout, which ends a run of which a rank hangs, would end a long pass over data too. Where
    the first rank fails, the others raise OtherRankFailed instead of entering.
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
    """Leave the block together: where it raised on any rank every rank raises, at once and not after a timeout."""
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
