"""Limits on computing time and memory: past them the answer is UNKNOWN with what was proved so far, never a hang."""

__all__ = ["OutOfTimeError", "in_time", "limited", "memory_limit", "spend"]

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


class OutOfTimeError(Exception):
    """The time allowed for an analysis is used up."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Allow `seconds` of this thread's CPU time for what runs inside; an outer limit that ends earlier stays."""
    token = _deadline.set(min(_deadline.get(), time.thread_time() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def spend() -> None:
    """Raise OutOfTimeError once the limit is reached; called in every loop whose length depends on the formula."""
    if time.thread_time() > _deadline.get():
        raise OutOfTimeError


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
