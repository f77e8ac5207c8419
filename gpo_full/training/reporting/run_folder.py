"""The folder of a training run, and what is written into it beside checkpoints: a line per interval and per event."""

__all__ = ["RunFolder", "check_output", "leaving_nothing"]

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.files import atomic_file
from gpo_full.run_files import LOGS, METRICS_FILE, NON_FINITE_FILE, RUN_FILE
from gpo_full.strict_json import NotJson, parse_json
from gpo_theory.errors import InputError


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run; nothing is written unless `writes`, which is True on one rank."""

    path: Path
    writes: bool = True

    @contextmanager
    def started(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Write the settings to run.json; if what runs here fails and leaves nothing else, they are as before."""
        record = self.path / RUN_FILE
        before, is_new = record.read_bytes() if record.exists() else b"", not record.exists()
        there = None if is_new else self._sizes()
        self._write(RUN_FILE, json.dumps(settings, indent=1, sort_keys=True) + "\n")
        try:
            yield
        except Exception:
            if self.writes and there == self._sizes():
                record.write_bytes(before)
            if is_new and self.writes and not any(map(_is_of_a_run, self.path.iterdir())):
                for name in (RUN_FILE, *LOGS):
                    (self.path / name).unlink(missing_ok=True)
            raise

    def _sizes(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.path.iterdir() if path.name != RUN_FILE}

    def settings(self) -> dict[str, Any]:
        """Return what run.json holds; InputError if it is damaged."""
        try:
            found = parse_json((self.path / RUN_FILE).read_bytes(), finite=False)
        except NotJson:
            found = None
        if not isinstance(found, dict):
            raise InputError(f"{str(self.path / RUN_FILE)!r} is damaged; the run cannot be resumed")
        return found

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Append an object, which holds its step, to one of LOGS."""
        if self.writes:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")

    def objects(self, name: str) -> list[Any]:
        """Return the objects of one of LOGS, none if it is missing."""
        path = self.path / name
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def non_finite_batch(self, batch: Mapping[str, Any]) -> Path:
        """Write the batch that ended the run, and return where."""
        self._write(NON_FINITE_FILE, json.dumps(batch, allow_nan=False) + "\n")
        return self.path / NON_FINITE_FILE

    def keep_until(self, step: int) -> None:
        """Remove the lines of steps after `step`, which a resumed run writes again, and a line that a crash cut off."""
        for path in (self.path / name for name in LOGS) if self.writes else ():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            if kept or path.name == METRICS_FILE:
                self._write(path.name, "".join(kept))
            else:
                path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Wait until the lines are on the disk; CheckpointNotSaved if they cannot be written."""
        try:
            for name in LOGS:
                if (self.path / name).exists():
                    checkpoint.sync(self.path / name)
        except OSError as error:
            raise checkpoint.CheckpointNotSaved(f"{self.path.name} could not be written: {error}") from error

    def _write(self, name: str, text: str) -> None:
        if self.writes:
            with atomic_file(self.path / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def check_output(output: Path, *, resume: bool) -> None:
    """Raise InputError unless a run can be started in `output`, new or empty, or be resumed there."""
    if resume:
        if not (output / RUN_FILE).is_file():
            raise InputError(f"{str(output)!r} holds no run to resume ({RUN_FILE} is missing)")
    elif output.exists() and (not output.is_dir() or not all(map(_is_of_a_dead_start, output.iterdir()))):
        raise InputError(f"output {str(output)!r} is not an empty folder; choose another, or --resume")
    if output.is_symlink() and not output.exists():
        raise InputError(f"output {str(output)!r} is a link to {os.readlink(output)!r}, which is not there")
    above = next(path for path in (output, *output.resolve().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"output {str(output)!r} cannot be made: {str(above)!r} is no folder that can be written")


@contextmanager
def leaving_nothing(output: Path) -> Iterator[None]:
    """Empty `output` again, new or empty before, if what runs here ends without a metric, an event or a checkpoint."""
    existed = output.exists()
    try:
        yield
    finally:
        if output.is_dir() and not any(map(_is_of_a_run, output.iterdir())):
            with suppress(checkpoint.FolderInUse), checkpoint.sole_writer(output):
                for path in output.iterdir():
                    if path.name != checkpoint.LOCK:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
            with suppress(OSError):  # another run has begun in it
                if not existed:
                    output.rmdir()


def _is_of_a_run(path: Path) -> bool:
    return path.name.startswith("checkpoint-") or (path.name in (*LOGS, NON_FINITE_FILE) and path.stat().st_size > 0)


def _is_of_a_dead_start(path: Path) -> bool:
    """Whether a run left this that was killed before it wrote run.json; the next writer removes it."""
    return path.name == checkpoint.LOCK or path.name.startswith(checkpoint.TEMPORARIES)
