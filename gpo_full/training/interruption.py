"""SIGTERM and SIGINT during training: finish the step, save, leave; a second signal leaves at once."""

__all__ = ["Interrupted", "Interruption"]

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback


class Interrupted(SystemExit):
    """A signal ended the training after a step, whose checkpoint is saved; the exit code is 128 + the signal."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(128 + number)
        self.number, self.step = number, step

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name} after step {self.step}, which is saved"


class Interruption(TrainerCallback):  # type: ignore[misc]
    """Remembers the first signal, and asks the Trainer to save and stop at the end of the step.

    `agreed` is what the ranks make of the numbers of their signals (0 for none): they must stop at the same step.
    """

    def __init__(self, agreed: Callable[[int], int]) -> None:
        self._agreed, self._received = agreed, 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals over; only the main thread can."""
        self._received = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}

        def first(number: int, frame: Any) -> None:
            self._received = number
            restore()  # the second signal does what it did before

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        for number in before:
            signal.signal(number, first)
        try:
            yield
        finally:
            restore()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop, if a signal has come to any rank."""
        if self.number():
            control.should_save = control.should_training_stop = True

    def number(self) -> int:
        """Return the signal that came to any rank, 0 if none did; every rank must ask."""
        return self._agreed(self._received)
