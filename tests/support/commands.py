"""`gpo` in this process, which costs no import, and as the command itself."""

__all__ = ["Outcome", "gpo", "gpo_json", "gpo_process", "refused"]

import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from gpo_full.cli.entry import main
from tests.support.places import ROOT


@dataclass(frozen=True)
class Outcome:
    returncode: int
    stdout: str
    stderr: str


def gpo(*arguments: str) -> Outcome:
    """The entry point in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return Outcome(ended.value.code, out.getvalue(), err.getvalue())


def gpo_process(*arguments: str) -> Outcome:
    """The command itself."""
    done = subprocess.run([sys.executable, "-m", "gpo_full.cli", *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def gpo_json(*arguments: str, run: Callable[..., Outcome] = gpo) -> dict:
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found = json.loads(result.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert found["schema"] == 1
    return found


def refused(*arguments: str, run: Callable[..., Outcome] = gpo) -> str:
    """Bad input: exit 2, one line on stderr, nothing on stdout, no traceback."""
    result = run(*arguments)
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr
