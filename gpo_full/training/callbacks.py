"""What acts between the steps of a run: signals that stop it, its logging rule, progress lines on stderr."""

__all__ = ["Interrupted", "Interruption", "Logging", "ProgressLines"]

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from transformers import TrainerCallback

from gpo_full.run_files import EVENTS_FILE, METER
from gpo_full.training.start.launch import check_distribution

_log = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """A signal ended the training after a step, whose checkpoint is saved; the exit code is 128 + the signal."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(128 + number)
        self.number, self.step = number, step

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name} after step {self.step}, which is saved"


class Interruption(TrainerCallback):  # type: ignore[misc]
    """SIGTERM or SIGINT ends the training after the step, with a checkpoint; a second signal ends the process at once.

    `agreed` maps the number of this rank's signal (0 for none) to one that all ranks share: they must stop at the same
    step.
    """

    def __init__(self, agreed: Callable[[int], int]) -> None:
        self._agreed, self._received = agreed, 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals; only the main thread can, elsewhere this does nothing."""
        self._received = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def first(number: int, frame: Any) -> None:
            self._received = number
            before.close()  # the second signal does what it did before

        with ExitStack() as before:
            for number in (signal.SIGTERM, signal.SIGINT):
                before.callback(signal.signal, number, signal.getsignal(number) or signal.SIG_DFL)
                signal.signal(number, first)
            yield

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop, if a signal has come to any rank."""
        if self.number():
            control.should_save = control.should_training_stop = True

    def number(self) -> int:
        """Return the signal that came to any rank, 0 if none did; every rank must ask."""
        return self._agreed(self._received)


class Logging(TrainerCallback):  # type: ignore[misc]
    """When a GPOTrainer logs, and what it restores of its metrics when a training starts or resumes."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        found = check_distribution(trainer.model_wrapped, trainer.accelerator)
        if state.global_step > 0 and METER in state.stateful_callbacks:
            trainer.steps.restore(state.stateful_callbacks[METER])
        if args.automatic_logging:
            state.logging_steps = args.logging_interval(state.max_steps)
        trainer.folder.keep_until(state.global_step)
        if found["processes"] > 1 and state.is_world_process_zero:
            _log.warning("%(processes)d processes: %(model)s, %(parameters)s parameters", found)
            trainer.folder.append(EVENTS_FILE, {"step": state.global_step, "event": "distributed", **found})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True  # the last interval, also if it is shorter


class ProgressLines(TrainerCallback):  # type: ignore[misc]
    """A line on stderr about once a second, of a training that takes more than two, and one for each sampling."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.start = self.last = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs, now = kwargs["logs"], time.monotonic()
        if "sample_kl" in logs and state.is_world_process_zero:
            print(f"step {state.global_step}/{state.max_steps}: samples: KL {logs['sample_kl']:.4g} nats, win rate "
                  f"{logs['sample_win_rate']:.3f} [{logs['sample_win_low']:.3f}, {logs['sample_win_high']:.3f}]",
                  file=sys.stderr, flush=True)  # fmt: skip
        if "loss" in logs and now - self.start > 2 and now - self.last > 1:
            self.last = now
            shown = ", ".join(f"{name} {logs[name]:.4g}" for name in ("loss", "margin", "accuracy"))
            print(f"step {state.global_step}/{state.max_steps}: {shown}", file=sys.stderr, flush=True)
