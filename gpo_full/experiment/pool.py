"""The runs of an experiment, several at a time, in processes that each keep what their runs share."""

__all__ = ["WorkerDied", "finished"]

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from gpo_full.experiment.grid import PlannedRun, base_of
from gpo_full.experiment.stages import Stage

if TYPE_CHECKING:
    from gpo_full.experiment.protocol import Protocol

_protocol: "Protocol"


class WorkerDied(RuntimeError):
    """A process was killed during a run; finished runs are kept."""


def finished(protocol: "Protocol", runs: Sequence[PlannedRun], workers: int) -> Iterator[tuple[PlannedRun, Stage]]:
    """Yield each run with its stage when it ends; the stages before the runs must be finished.

    One worker is this process. More are processes with an equal share of the cores, which print nothing and end with
    this one. If a run fails, those that have started are finished and kept before the error is raised. Raises
    WorkerDied if a process was killed.
    """
    if workers == 1:
        yield from ((one, protocol.train_and_evaluate(one)) for one in runs)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker,
                               (protocol.arguments, [*runs], threads))  # fmt: skip
    try:
        futures = {pool.submit(_work, one): one for one in runs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise WorkerDied("a worker process was killed, perhaps for lack of memory; finished runs are kept, and the "
                         "same command resumes from there") from None  # fmt: skip
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(arguments: tuple[Any, ...], runs: Sequence[PlannedRun], threads: int) -> None:
    import torch

    from gpo_full.experiment.protocol import Protocol

    global _protocol
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    _protocol = Protocol(*arguments)
    _protocol.pilot(base_of(runs))
    _protocol.plan(elapsed=0, runs=len(runs))


def _end_with_parent() -> None:
    """End this process when its parent does: a parent that is killed cannot end it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(one: PlannedRun) -> Stage:
    return _protocol.train_and_evaluate(one)
