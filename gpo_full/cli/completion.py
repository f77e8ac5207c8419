"""Completion of `gpo`'s words at the TAB key, by argcomplete."""

__all__ = ["SHELLS", "complete", "script"]

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from gpo_theory.errors import InputError, nearest

SHELLS = ("bash", "zsh", "fish")
# Arguments that take a loss.
_LOSSES = {"loss", "losses", "source", "target"}


def script(shell: str) -> str:
    """Return what a shell evaluates to complete `gpo`: `eval "$(gpo --completion bash)"`."""
    from argcomplete.shell_integration import shellcode

    if shell not in SHELLS:
        raise InputError(f"--completion {shell!r}; allowed: {', '.join(SHELLS)}{nearest(shell, SHELLS)}")
    return str(shellcode(["gpo"], True, shell))


def complete(commands: Iterable[str], add_arguments: Callable[[argparse.ArgumentParser, str], None]) -> None:
    """Print the possible next words for the shell and exit; `add_arguments` declares those of a command."""
    import argcomplete

    parser = argparse.ArgumentParser(prog="gpo")
    chosen = parser.add_subparsers()
    for name in commands:
        add_arguments(chosen.add_parser(name), name)
    for subparser in chosen.choices.values():
        for action in subparser._actions:
            if action.dest in _LOSSES:
                action.completer = _losses  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _losses(**_: Any) -> list[str]:
    from gpo_theory.catalogue import ALIASES, LOSSES

    return [*LOSSES, *ALIASES]
