"""Limits on computing time and memory: past them the answer is UNKNOWN with what was proved so far, never a hang."""

__all__ = ["OutOfTimeError", "cap_memory", "limited", "spend"]

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


class OutOfTimeError(Exception):
    """The time allowed for an analysis is used up."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Allow `seconds` of this thread's CPU time for what runs inside; an outer, nearer limit stays."""
    token = _deadline.set(min(_deadline.get(), time.thread_time() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def spend() -> None:
    """Raise OutOfTimeError once the limit is reached; called wherever work can grow with the formula."""
    if time.thread_time() > _deadline.get():
        raise OutOfTimeError


def cap_memory(gigabytes: float = 6.0) -> None:
    """Let this process have so much memory and no more: what needs more ends in MemoryError, which is UNKNOWN."""
    import resource

    wanted = int(gigabytes * 2**30)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or soft > wanted:
        with suppress(OSError, ValueError):  # a system that knows no such limit
            resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
