"""Trackers get each metric of metrics.jsonl once, at its step, also over a resume; without being asked, nothing."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from transformers import TrainerCallback

from gpo_full import GPOConfig
from gpo_full.training.reporting.trackers import checked_trackers
from gpo_theory import InputError
from tests.support.tiny_models import tiny_model
from tests.support.trainings import objects, trained, trainer

SAVED = {"save_strategy": "steps", "save_steps": 2, "max_steps": 5}


class Points(TrainerCallback):  # type: ignore[misc]
    """A tracker in this process: what it was given, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, Any]]] = []
        self.names: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.names.append(args.run_name)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self.seen.append((state.global_step, dict(kwargs["logs"])))
        if args.output_dir.endswith("broken") and state.global_step == 3:
            raise KeyboardInterrupt  # after the point of step 3, and before a checkpoint holds it


def run(folder: Path, name: str, *, resume: bool = False, **options: Any) -> Points:
    points = Points()
    made = trainer(folder, tiny_model(), run=name, **SAVED | options)
    made.add_callback(points)
    made.train(resume_from_checkpoint=resume or None)
    return points


def broken(folder: Path, **options: Any) -> None:
    """A run that was interrupted after step 3, whose last checkpoint is that of step 2."""
    with pytest.raises(KeyboardInterrupt):
        run(folder, "broken", **options)
    (folder / "broken").rename(folder / "run")


def test_a_tracker_sees_every_metric_in_order_at_its_step(tmp_path: Path) -> None:
    points = run(tmp_path, "run", logging_steps=2)
    written = objects(tmp_path)
    assert [step for step, _ in points.seen] == [2, 4, 5]  # the last interval is partial
    for (step, logs), row in zip(points.seen, written, strict=True):
        assert row.items() <= (logs | {"step": step}).items()
    assert points.names == ["run"]


@pytest.mark.slow
def test_a_resumed_run_goes_on_after_its_checkpoint_under_a_name_of_its_own(tmp_path: Path) -> None:
    broken(tmp_path)
    points = run(tmp_path, "run", resume=True)
    assert [step for step, _ in points.seen] == [3, 4, 5]
    assert points.names == ["run-from-step-2"]
    assert [row["step"] for row in objects(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_resumed_run_may_have_other_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "run")
    monkeypatch.setattr("gpo_full.training.reporting.trackers.find_spec", lambda name: object())
    monkeypatch.setattr("transformers.trainer.get_reporting_integration_callbacks", lambda names: [])
    assert trained(tmp_path, tiny_model(), resume=True, report_to="trackio", **SAVED).state.global_step == 5


@pytest.mark.parametrize("asked", ["none", ["none"], [], None])
def test_nothing_is_sent_unless_asked(asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://localhost")  # for the Trainer, as good as asking
    args = GPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to=asked)
    assert (args.report_to, args.push_to_hub, args.trackio_space_id) == ([], False, None)
    assert GPOConfig(output_dir=str(tmp_path), use_cpu=True).report_to == []


@pytest.mark.parametrize(("asked", "reason"), [
    ("tensorbord", r"report_to='tensorbord'; allowed: none, tensorboard, trackio, wandb.*did you mean 'tensorboard'"),
    (["none", "all"], "report_to='none'"),
    ("all", "report_to='all'; allowed: none"),
    (["wandb"], "report_to='wandb': wandb is not installed; pip install wandb"),
])  # fmt: skip
def test_a_tracker_that_cannot_be_is_refused(asked: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("gpo_full.training.reporting.trackers.find_spec", lambda name: None)
    with pytest.raises(InputError, match=reason):
        checked_trackers(asked)


class Writer:
    """TensorBoard's writer, and what its dashboard shows: a writer with a purge_step hides the points from it on."""

    shown: ClassVar[dict[tuple[str, int], float]] = {}
    folders: ClassVar[list[str]] = []

    def __init__(self, log_dir: str, purge_step: int) -> None:
        self.folders.append(log_dir)
        for tag, step in [point for point in self.shown if point[1] >= purge_step]:
            del self.shown[tag, step]

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        assert (tag, step) not in self.shown
        self.shown[tag, step] = value

    def add_text(self, *_: Any) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


def test_tensorboard_gets_each_step_once_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = ModuleType("torch.utils.tensorboard")
    stub.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stub)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: True)
    monkeypatch.setattr("gpo_full.training.reporting.trackers.find_spec", lambda name: object())
    monkeypatch.setattr(Writer, "shown", {})
    monkeypatch.setattr(Writer, "folders", [])
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    broken(tmp_path, report_to="tensorboard")
    Writer.shown["train/loss", 3] = -1.0  # what the crash took away: must be replaced
    run(tmp_path, "run", resume=True, report_to="tensorboard")
    assert Writer.folders == [str(tmp_path / name / "runs") for name in ("broken", "run")]
    rows = objects(tmp_path)
    for name in rows[0].keys() - {"step", "epoch"}:
        points = {step: value for (tag, step), value in Writer.shown.items() if tag == f"train/{name}"}
        assert points == {row["step"]: row[name] for row in rows}, name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_each_step_once_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    broken(tmp_path, report_to="tensorboard", learning_rate=0.1)
    run(tmp_path, "run", resume=True, report_to="tensorboard", learning_rate=0.1)
    found = accumulator.EventAccumulator(str(tmp_path / "run" / "runs"))
    found.Reload()
    rows = objects(tmp_path)
    for name in ("loss", "margin", "accuracy", "grad_norm", "flat_right", "regularizer"):
        points = [(event.step, event.value) for event in found.Scalars(f"train/{name}")]
        assert [step for step, _ in points] == [1, 2, 3, 4, 5]
        assert [value for _, value in points] == pytest.approx([row[name] for row in rows], rel=1e-6)
