"""Trackers through the Trainer's own integrations: only those that are named, and one point per metric and step."""

__all__ = ["TRACKERS", "checked_trackers", "follow"]

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from gpo_theory.errors import InputError, nearest

# Name -> packages, any of which will do.
TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}


def checked_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """Return the trackers that `report_to` names; InputError for an unknown one, or one that is not installed.

    >>> checked_trackers("none")
    []
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if names == ["none"]:
        return []
    for name in names:
        if name not in TRACKERS:
            allowed = ("none", *TRACKERS)
            raise InputError(f"report_to={name!r}; allowed: {', '.join(allowed)}{nearest(str(name), allowed)}")
        if not any(find_spec(package) for package in TRACKERS[name]):
            package = TRACKERS[name][0]
            raise InputError(f"report_to={name!r}: {package} is not installed; pip install {package}")
    return names


def follow(trainer: Any) -> None:
    """Let the trackers of a Trainer show each step once, also after a resume.

    TensorBoard writes to `output_dir/runs` (or TENSORBOARD_LOGGING_DIR), where a resumed run replaces the points after
    its first step. The others cannot remove points, so there a resumed run is one of its own, named by that step.
    """
    if any(isinstance(callback, TensorBoardCallback) for callback in trainer.callback_handler.callbacks):
        trainer.pop_callback(TensorBoardCallback)
        trainer.add_callback(_TensorBoard())
    # Before the trackers, which read the name when training starts.
    trainer.callback_handler.callbacks.insert(0, _Name())


class _TensorBoard(TensorBoardCallback):  # type: ignore[misc]
    logging_dir: str | None
    tb_writer: Any

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logging_dir = self.logging_dir or os.path.join(args.output_dir, "runs")
        if self.tb_writer is None and state.is_world_process_zero:
            self.tb_writer = self._SummaryWriter(log_dir=self.logging_dir, purge_step=state.global_step + 1)
        super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "train_runtime" in logs:  # the summary is of the last step, whose epoch is shown already
            logs = {name: value for name, value in logs.items() if name != "epoch"}
        super().on_log(args, state, control, logs=logs, **kwargs)


class _Name(TrainerCallback):  # type: ignore[misc]
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        name = args.run_name or Path(args.output_dir).name
        args.run_name = f"{name}-from-step-{state.global_step}" if state.global_step else name
