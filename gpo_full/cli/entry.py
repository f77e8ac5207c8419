"""`gpo`, the one command: each subcommand lives in `gpo_full.cli.commands` and is imported only when it runs."""

__all__ = ["main"]

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import takewhile
from typing import Any, NoReturn

from gpo_full.cli.options.messages import with_options
from gpo_theory.budget import memory_limit
from gpo_theory.errors import InputError, nearest

# One line each, so that `gpo --help` imports no subcommand.
COMMANDS = {
    "losses": "list the catalogue of losses",
    "analyze": "derive and prove everything about one loss",
    "compare": "set the analyses of several losses side by side",
    "beta": "convert a beta from one loss to another",
    "design": "find a loss with wished-for properties, or a proof that there is none",
    "verify": "replay a certificate that `gpo analyze` wrote",
    "check": "test a torch function of the scaled margin (runs your code)",
    "toy": "run a toy model: bandit or mixture",
    "prepare": "fetch and verify the policy, the golden reward and the data",
    "train": "fine-tune a language model on preference pairs",
    "sweep": "train every loss at every beta with every seed",
    "evaluate": "compare a trained policy with its reference",
    "diagnose": "say from a run's metrics what the theory says is happening",
    "reproduce": "run everything and build the book",
}
# Commands that run provers on a formula or a certificate that anybody may have written: their memory is limited.
PROVING = {"analyze", "beta", "compare", "design", "verify"}
# Options that count something, in whichever command.
COUNTS = ("batch_size", "limit", "max_new_tokens", "steps", "threads", "workers")
EXTRAS = {"torch": "toy", "transformers": "lm", "accelerate": "lm", "peft": "lm", "gguf": "lm", "safetensors": "lm",
          "pyarrow": "lm", "ray": "sweep",
          "matplotlib": "book", "plotly": "book", "nbclient": "book", "sphinx": "book", "jupytext": "book"}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and for which a formula that begins with a minus is a value."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        # An unknown option is reported before the required ones that are missing because of it.
        options = () if self._subparsers is not None else takewhile(lambda word: word != "--", args or ())
        seen = set[str]()
        for word in options:
            name = word.split("=", 1)[0]
            if name.startswith("--") and name not in self._option_string_actions:
                self.error(f"unknown option {name}{self._nearest_option(name)}")
            # argparse would take the last.
            if name in seen and type(self._option_string_actions[name]) is argparse._StoreAction:
                self.error(f"{name} is given twice, and takes one value")
            seen |= {name} & {*self._option_string_actions}
        return super().parse_known_args(args, namespace)

    def _nearest_option(self, name: str) -> str:
        """Return a hint at the declared option nearest by its letters or its initials (--lr, --learning-rate)."""
        declared = [option for option in self._option_string_actions if option.startswith("--")]
        name = name.replace("_", "-")
        shared = [option for option in declared if _initials(option) == name[2:] or _initials(name) == option[2:]]
        return nearest(shared[0] if shared else name, declared)

    def _parse_optional(self, arg_string: str):  # type: ignore[no-untyped-def]
        # argparse takes anything that begins with '-' for an option; here only declared options are.
        name = arg_string.split("=", 1)[0]
        if arg_string.startswith("-") and name not in self._option_string_actions and not name.startswith("--"):
            return None
        return super()._parse_optional(arg_string)


def _initials(option: str) -> str:
    return "".join(word[:1] for word in option[2:].split("-"))


def _top_level() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: gpo COMMAND ... | gpo COMMAND --help | gpo --version [--verbose] | gpo --completion bash|zsh|fish\n\n"
        "Generalized Preference Optimization: one scalar function f of the scaled margin x = beta * rho.\n\n"
        f"commands:\n{lines}\n\nexample: gpo analyze \"log(1+exp(-x))\"\n"
    )


def _version(verbose: bool) -> str:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    lines = [f"gpo-toolkit {version('gpo-toolkit')}"]
    for package in ("sympy", "python-flint", *EXTRAS) if verbose else ():
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} not installed (extra: {EXTRAS[package]})")
    return "\n".join([*lines, f"Python {platform.python_version()} on {platform.system()}"] if verbose else lines)


def _command(name: str) -> Any:
    return importlib.import_module(f"gpo_full.cli.commands.{name}")


def _add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options of a command, and --json, which every command has."""
    _command(name).add_arguments(parser)
    if parser._subparsers is None:  # else each toy declares it
        parser.add_argument("--json", action="store_true", help="print JSON for machines")


def _run(name: str, rest: Sequence[str]) -> int:
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}; allowed: {', '.join(COMMANDS)}{nearest(name, COMMANDS)}")
    module = _command(name)
    parser = _Parser(prog=f"gpo {name}", description=COMMANDS[name], epilog=f"example: {module.EXAMPLE}",
                     allow_abbrev=False)  # fmt: skip
    _add_arguments(parser, name)
    args = parser.parse_args(rest, argparse.Namespace(gpo=main))  # `gpo sweep` runs `gpo train` in its workers
    for count in COUNTS:
        value = getattr(args, count, None)
        if isinstance(value, int) and value < 1:
            raise InputError(f"--{count.replace('_', '-')} {value} must be at least 1")
    with memory_limit() if name in PROVING else nullcontext():
        return int(module.run(args))


def main(argv: Sequence[str] | None = None) -> None:
    """Run `gpo` on `argv` and exit: 0 on success, 2 with one line on stderr for input that cannot be used."""
    if "_ARGCOMPLETE" in os.environ:
        from gpo_full.cli.completion import complete

        complete(COMMANDS, _add_arguments)
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_top_level(), end="")
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(_version("--verbose" in words[1:]))
        sys.exit(0)
    try:
        if words[0] == "--completion":
            from gpo_full.cli.completion import script

            print(script(*words[1:2] or [""]), end="")
            sys.exit(0)
        code = _run(words[0], words[1:])
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except InputError as error:
        message = with_options(" ".join(str(error).split()))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "gpo_theory", "toy_models", "gpo_full"):
            raise
        wanted = f"install the extra: pip install 'gpo-toolkit[{EXTRAS[package]}]'" if package in EXTRAS else str(error)
        message = f"{package} is not installed; {wanted}"
    except MemoryError:
        message = "this needs more memory than is allowed"
    except KeyboardInterrupt:
        print(f"gpo {words[0]}: interrupted", file=sys.stderr)
        sys.exit(130)
    print(f"gpo {words[0]}: error: {message}", file=sys.stderr)
    sys.exit(2)
