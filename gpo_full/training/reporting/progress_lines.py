"""The training's progress as plain lines, for terminals and log files alike."""

__all__ = ["ProgressLines"]

import sys
import time
from typing import Any

from transformers import TrainerCallback, TrainingArguments


class ProgressLines(TrainerCallback):  # type: ignore[misc]
    """One line on stderr about every second, once the training outlasts two, and one for each sampling."""

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.start = self.last = time.monotonic()

    def on_log(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        logs, now = kwargs["logs"], time.monotonic()
        if "sample_kl" in logs and state.is_world_process_zero:
            print(f"step {state.global_step}/{state.max_steps}: samples: KL {logs['sample_kl']:.4g} nats, win rate "
                  f"{logs['sample_win_rate']:.3f} [{logs['sample_win_low']:.3f}, {logs['sample_win_high']:.3f}]",
                  file=sys.stderr, flush=True)  # fmt: skip
        if "loss" in logs and now - self.start > 2 and now - self.last > 1:
            self.last = now
            shown = ", ".join(f"{name} {logs[name]:.4g}" for name in ("loss", "margin", "accuracy"))
            print(f"step {state.global_step}/{state.max_steps}: {shown}", file=sys.stderr, flush=True)
