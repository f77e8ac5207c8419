"""TAB offers commands, options and losses, in a real shell's way and in bash itself."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpo_full.cli.completion import SHELLS
from gpo_full.cli.entry import COMMANDS
from gpo_theory import LOSSES

GPO = str(Path(sys.executable).with_name("gpo"))


def offered(line: str) -> set[str]:
    """What bash is told after TAB at the end of `line`, through the protocol of its `complete -F`."""
    function = f"""
eval "$({shlex.quote(GPO)} --completion bash)"
COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; COMP_KEY=9; COMP_WORDS=($COMP_LINE); COMP_CWORD=1
_python_argcomplete gpo
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "PATH": os.pathsep.join((str(Path(GPO).parent), os.environ["PATH"]))}
    ran = subprocess.run(["bash", "-c", function], capture_output=True, text=True, check=False, env=environment)
    return {word.strip() for word in ran.stdout.split("\n") if word.strip()}


def test_commands() -> None:
    assert set(COMMANDS) <= offered("gpo ")
    assert offered("gpo ana") == {"analyze"}


def test_options() -> None:
    assert {"--loss", "--beta", "--output"} <= offered("gpo train --")


@pytest.mark.parametrize("line", ["gpo analyze ", "gpo beta --from ", "gpo train --loss "])
def test_losses(line: str) -> None:
    assert {*LOSSES, "dpo", "ipo"} <= offered(line)


@pytest.mark.parametrize("shell", SHELLS)
def test_script(shell: str) -> None:
    ran = subprocess.run([GPO, "--completion", shell], capture_output=True, text=True, check=True)
    assert "gpo" in ran.stdout


def test_other_shells_are_refused() -> None:
    ran = subprocess.run([GPO, "--completion", "zhs"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "'zhs'; allowed: bash, zsh, fish; did you mean 'zsh'?" in ran.stderr
