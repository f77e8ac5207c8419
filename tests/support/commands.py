"""`gpo` in this process, which costs no import, and as the command itself."""

__all__ = ["Outcome", "gpo", "gpo_json", "gpo_process", "refused", "results_of", "stand_in"]

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gpo_full.cli.entry import main
from tests.support.places import ROOT

# What a command says on stderr while it works, more of it on a slow machine.
PROGRESS = re.compile(r"gpo [a-z ]+: loading torch \.\.\.|.*: \d+(/\d+)?, \d+ s")


class Outcome(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def gpo(*words: object, code: int | None = None) -> Outcome:
    """The entry point in this process, held to an exit code where one is given."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    assert code in (None, ended.value.code), err.getvalue()
    return Outcome(ended.value.code, out.getvalue(), err.getvalue())


def gpo_process(*words: object, folder: Path = ROOT, program: str = sys.executable, **environment: str) -> Outcome:
    """The command itself, in a folder, by another program than Python where one is given."""
    command, told = [program, "-m", "gpo_full.cli", *map(str, words)], {"PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder,
                          env=os.environ | told, check=False)  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def gpo_json(*words: object, run: Callable[..., Outcome] = gpo) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.returncode == 0, result.stderr
    assert not [line for line in result.stderr.splitlines() if not PROGRESS.fullmatch(line)]
    found: dict[str, Any] = json.loads(result.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert found["schema"] == 1
    return found


def refused(*words: object, run: Callable[..., Outcome] = gpo) -> str:
    """Bad input: exit 2, one line on stderr, nothing on stdout, no traceback."""
    result = run(*words)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def stand_in(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    """Let a shell script take the place of Python in the commands that a command starts."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def results_of(module: str, folder: Path) -> Any:
    """What a module of this folder leaves in `results.json`, run in a process of its own."""
    done = subprocess.run([sys.executable, "-m", f"tests.support.{module}", str(folder)], cwd=ROOT, capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())
