"""Trainings as jobs: started again if they were killed, with the outcome kept in a file."""

__all__ = ["Job", "Outcome"]

import io
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from gpo_full.files import write_whole
from gpo_full.run_files import RUN_FILE

# A run that was told to stop (SIGINT, SIGTERM) is resumed by the next sweep: it has saved, or had not yet started.
_TOLD_TO_STOP = (130, 143, -signal.SIGINT, -signal.SIGTERM)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: exit code (minus the signal that killed it), standard output, and the last line on stderr."""

    code: int
    printed: str
    message: str
    attempts: int


@dataclass(frozen=True)
class Job:
    """A call of `gpo train` with `words` that makes the folder `output`; the file `record` keeps its outcome."""

    words: tuple[str, ...]
    output: Path
    record: Path
    ATTEMPTS: ClassVar[int] = 3

    def outcome(self) -> Outcome | None:
        """Return how it ended, or None if it has not."""
        if not self.record.is_file():
            return None
        return Outcome(**json.loads(self.record.read_text(encoding="utf-8")))

    def starts(self) -> int:
        """Return how often it was started, over all processes."""
        begun = self.record.with_suffix(".begun")
        return begun.read_text(encoding="utf-8").count("\n") if begun.is_file() else 0

    def run(self, environment: Mapping[str, str], started: Callable[["subprocess.Popen[str]"], None]) -> Outcome:
        """Run in a process of its own, which is passed to `started`; if it is killed, start it again to resume."""
        for _ in range(self.ATTEMPTS):
            attempts, command = self._count_start(), [sys.executable, "-m", "gpo_full.cli", *self._arguments()]
            # In a process group of its own: a second Ctrl-C, from the terminal, would keep it from saving.
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                       env={**os.environ, **environment}, process_group=0)  # fmt: skip
            started(process)
            printed, errors = process.communicate()
            if process.returncode >= 0 or process.returncode in _TOLD_TO_STOP:
                break
        return self._keep(Outcome(process.returncode, printed, _last(errors), attempts))

    def run_here(self, gpo: Callable[[list[str]], None]) -> Outcome:
        """Run in this process; `gpo` is the command as a function of its words."""
        attempts, printed, errors, code = self._count_start(), io.StringIO(), io.StringIO(), 0
        with redirect_stdout(printed), redirect_stderr(errors):
            try:
                gpo(self._arguments())
            except SystemExit as error:
                code = int(error.code or 0)
            except Exception:
                traceback.print_exc()
                code = 1
        return self._keep(Outcome(code, printed.getvalue(), _last(errors.getvalue()), attempts))

    def _arguments(self) -> list[str]:
        begun = (self.output / RUN_FILE).is_file()
        return ["train", *self.words, "--json", *(["--resume"] if begun else [])]

    def _count_start(self) -> int:
        """Count this start in a file, which outlives the process, and return the number of starts."""
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with self.record.with_suffix(".begun").open("a", encoding="utf-8") as file:
            file.write("begun\n")
        return self.starts()

    def _keep(self, outcome: Outcome) -> Outcome:
        if outcome.code >= 0 and outcome.code not in _TOLD_TO_STOP:
            write_whole(self.record, json.dumps(asdict(outcome)) + "\n")
        return outcome


def _last(errors: str) -> str:
    """Return the last line, but for that with which a run begins."""
    lines = [line for line in errors.strip().splitlines() if not line.endswith("loading torch ...")]
    return (lines or [""])[-1]
