"""The README's examples print what it says they print."""

import doctest
import re
import shlex
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.support.commands import gpo_json, gpo_process
from tests.support.places import ROOT

README = ROOT / "README.md"
# Commands shown with their output: "    $ gpo ..." followed by indented lines.
SHOWN = re.findall(r"^    \$ (gpo .*)\n((?:    (?!\$).+\n)+)", README.read_text(encoding="utf-8"), re.MULTILINE)


def test_python_examples() -> None:
    results = doctest.testfile(str(README), module_relative=False)
    assert results.attempted >= 4
    assert results.failed == 0


@pytest.mark.slow
@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_command_prints_what_is_shown(command: str, output: str) -> None:
    ran = gpo_process(*shlex.split(command)[1:])
    assert ran.returncode == 0
    assert ran.stdout == re.sub(r"^    ", "", output, flags=re.MULTILINE)


@pytest.mark.slow
def test_the_toy_sentence() -> None:
    """The regulariser falls at every step while the KL first rises."""
    command = next(line for line in README.read_text(encoding="utf-8").splitlines() if "$ gpo toy bandit" in line)
    trace = gpo_json(*shlex.split(command)[2:], run=gpo_process)
    assert all(after < before for before, after in pairwise(trace["regularizer"]))
    assert trace["kl"][1] > trace["kl"][0]
    highest = max(trace["kl"])
    said = f"from {trace['kl'][0]:.2f} nats at step 0 to {highest:.2f} at step {trace['kl'].index(highest)}"
    assert said in " ".join(README.read_text(encoding="utf-8").split())


@pytest.mark.slow
def test_a_stranger_s_commands_need_no_torch() -> None:
    """What `pip install .` brings is enough for the first commands: they run where torch cannot be imported."""
    commands = [shlex.split(command)[1:] for command, _ in SHOWN if command.startswith("gpo beta")]
    assert len(commands) == 2
    for words in commands:
        code = f"import sys; sys.modules['torch'] = None; from gpo_full.cli.entry import main; sys.exit(main({words!r}))"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "convention: " in ran.stdout


def test_the_explorer_is_where_make_book_puts_the_book() -> None:
    (output,) = re.findall(r"^book:.*\n.*--output (\S+)", (README.parent / "Makefile").read_text(encoding="utf-8"), re.M)
    assert f"`{output}/book/explorer.html`" in README.read_text(encoding="utf-8")


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (README.parent / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`?make\s(\w+)", README.read_text(encoding="utf-8")))
    assert named <= targets
    assert {"setup", "reproduce", "test", "check", "book", "lab", "clean"} <= targets
