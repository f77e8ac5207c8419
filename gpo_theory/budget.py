"""A limit on computing time: past it the answer is UNKNOWN with what was proved so far, never a hang."""

__all__ = ["OutOfTimeError", "limited", "spend"]

import time
from collections.abc import Iterator
from contextlib import contextmanager
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
