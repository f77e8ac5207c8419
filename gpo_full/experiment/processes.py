"""Work in several processes, each with its share of the cores, that print nothing and end with this one."""

__all__ = ["WorkerDied", "executor", "mapped"]

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

_work: Callable[[Any], Any]


class WorkerDied(RuntimeError):
    """A process was killed during its work; finished stages are kept."""


def can_fork() -> bool:
    """Return whether a fork of this process can go on computing: on Linux, as long as no GPU is used."""
    return sys.platform == "linux" and not torch.cuda.is_available()


@contextmanager
def executor(workers: int, method: str, start: Callable[..., None], *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """Yield an executor whose processes, made by `method`, begin with `start(*arguments)`.

    What has begun is finished before an error leaves the block. Raises WorkerDied if a process was killed.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(method), _begin, (threads, start, arguments))
    try:
        yield pool
    except BrokenProcessPool:
        raise WorkerDied("a worker process was killed, perhaps for lack of memory; finished runs are kept, and the "
                         "same command resumes from there") from None  # fmt: skip
    finally:
        pool.shutdown(cancel_futures=True)


def mapped(work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """Yield `work(item)` for each item, in order: in forks of this process, or here where it cannot fork."""
    if workers == 1 or not can_fork():
        yield from map(work, items)
        return
    global _work
    _work = work  # which forks find here, though it cannot be pickled
    with executor(workers, "fork", _nothing) as pool:
        yield from pool.map(_call, items)


def _call(item: Any) -> Any:
    return _work(item)


def _nothing() -> None:
    pass


def _begin(threads: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    start(*arguments)


def _end_with_parent() -> None:
    """End this process when its parent does: a parent that is killed cannot end it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
