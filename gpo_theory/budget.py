"""Limits on computing time and memory: past them the answer is UNKNOWN with what was proved so far, never a hang."""

__all__ = ["OutOfTimeError", "in_time", "limited", "memory_limit", "spend"]

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class _Limit:
    """The reading of a thread's clock at which its time is up, and the wall clock before which that cannot be."""

    end: float = float("inf")
    not_before: float = float("inf")


_limit: ContextVar[_Limit] = ContextVar("limit", default=_Limit())  # noqa: B039 - one without an end never changes


class OutOfTimeError(Exception):
    """The time allowed for an analysis is used up."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Allow `seconds` of this thread's CPU time for what runs inside; an outer limit that ends earlier stays."""
    token = _limit.set(_Limit(min(_limit.get().end, time.thread_time() + seconds), not_before=0))
    try:
        yield
    finally:
        _limit.reset(token)


def spend() -> None:
    """Raise OutOfTimeError once the limit is reached; called in every loop whose length depends on the formula."""
    limit = _limit.get()
    if time.perf_counter() < limit.not_before:  # a thread's clock is a system call, and runs no faster than this one
        return
    left = limit.end - time.thread_time()
    if left < 0:
        raise OutOfTimeError
    limit.not_before = time.perf_counter() + left


def in_time(derive: Callable[[], T], otherwise: T, seconds: float = float("inf")) -> T:
    """Return the result of `derive`, or `otherwise` where it exceeds the limit on time or on memory.

    The limit is `seconds` of CPU time, or an outer one that ends earlier.

    >>> in_time(lambda: 1, 0)
    1
    """
    try:
        with limited(seconds):
            return derive()
    except (OutOfTimeError, MemoryError):
        return otherwise


@contextmanager
def memory_limit(gigabytes: float = 6.0) -> Iterator[None]:
    """Limit this process's address space, in GiB, for what runs inside; beyond it MemoryError is raised.

    The default is twenty times what the analyses of the catalogue take (measured: 0.25 GiB).
    """
    import resource

    wanted = int(gigabytes * 2**30)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY and soft <= wanted:
        wanted = soft
    with suppress(OSError, ValueError):  # a system that knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
