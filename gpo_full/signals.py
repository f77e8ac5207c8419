"""Signals that end a command as an exception does, so that what it has begun is tidied up."""

__all__ = ["signals_as_exits"]

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def signals_as_exits(*numbers: int) -> Iterator[None]:
    """Raise SystemExit(128 + number) where one of these signals arrives; only the main thread can."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    with ExitStack() as before:
        for number in numbers if threading.current_thread() is threading.main_thread() else ():
            before.callback(signal.signal, number, signal.signal(number, stop) or signal.SIG_DFL)
        yield
