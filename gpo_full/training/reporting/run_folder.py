"""What a training run writes beside its checkpoints: a line per logging interval, a line per event."""

__all__ = ["RunFolder"]

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.diagnosis.log import EVENTS, RUN_FILE
from gpo_full.files import atomic_file

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"
NON_FINITE_FILE = "non_finite_batch.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run; nothing is written unless `writes`, which is so on one rank."""

    path: Path
    writes: bool = True

    def run(self, settings: Mapping[str, Any]) -> None:
        """Write `run.json`, what the run was begun with."""
        if self.writes:
            with atomic_file(self.path / RUN_FILE) as temporary:
                temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Add an object to `metrics.jsonl`; it holds the step."""
        self._append(METRICS_FILE, record)

    def event(self, event: Mapping[str, Any]) -> None:
        """Add an object to `events.jsonl`; it holds the step."""
        self._append(EVENTS, event)

    def samples(self, record: Mapping[str, Any]) -> None:
        """Add an object to `samples.jsonl`; it holds the step."""
        self._append(SAMPLES_FILE, record)

    def non_finite_batch(self, batch: Mapping[str, Any]) -> Path:
        """Write the batch that ended the run, and return where."""
        path = self.path / NON_FINITE_FILE
        if self.writes:
            with atomic_file(path) as temporary:
                temporary.write_text(json.dumps(batch, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def keep_until(self, step: int) -> None:
        """Drop the metrics, events and samples after `step`: a resumed run writes them again."""
        if not self.writes:
            return
        for path in (self.path / METRICS_FILE, self.path / EVENTS, self.path / SAMPLES_FILE):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            if kept or path.name == METRICS_FILE:
                with atomic_file(path) as temporary:
                    temporary.write_text("".join(kept), encoding="utf-8")
            else:
                path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Wait until the lines are on the disk."""
        try:
            for name in (METRICS_FILE, EVENTS, SAMPLES_FILE):
                if (self.path / name).exists():
                    checkpoint.sync(self.path / name)
        except OSError as error:
            raise checkpoint.CheckpointNotSaved(f"{self.path.name} could not be written: {error}") from error

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        if self.writes:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
