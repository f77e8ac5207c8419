"""The options of a run as its folder keeps them, so that resuming it needs nothing but the folder."""

__all__ = ["options_to_record", "take_recorded"]

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpo_theory.errors import InputError

# Options that say what to do with a run, and not what it is.
_OF_A_CALL = {"output", "resume", "allow_change", "json", "dry_run", "reference_only", "gpo"}
_DATA, _PATHS = ("data", "eval_data"), ("model", "prompts", "reward")
# Options of several NAME=VALUE, of which each may be given anew.
_NAMED = ("set", "param", "columns")
# Options that exclude each other.
_EITHER = {"steps": "epochs", "epochs": "steps", "test_by": "eval_data", "eval_data": "test_by"}


def options_to_record(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that were given, as JSON; paths are absolute, as the next call may be from another folder.

    >>> options_to_record(argparse.Namespace(beta=0.1, bf16=None, set=[], seed=0, output="run", json=True))
    {'beta': 0.1, 'seed': 0}
    """
    given = {name: value for name, value in vars(args).items() if name not in _OF_A_CALL and _is_given(value)}
    paths = {name: str(Path(given[name]).resolve()) for name in _PATHS if name in given and Path(given[name]).exists()}
    if "reference_store" in given:  # may not exist yet
        paths["reference_store"] = str(Path(given["reference_store"]).expanduser().resolve())
    return given | paths | {name: _absolute(given[name]) for name in _DATA if name in given}


def take_recorded(args: argparse.Namespace, recorded: Mapping[str, Any]) -> None:
    """Fill in the options that `args` does not give; code that a run names is never taken from a file: InputError."""
    given = {name for name, value in vars(args).items() if _is_given(value)}
    for name, value in recorded.items():
        if name in _NAMED and hasattr(args, name):
            own = getattr(args, name) or []
            names = {each.partition("=")[0] for each in own}
            kept = [each for each in value if each.partition("=")[0] not in names]
            for each in kept:
                if each.startswith("sample_reward="):  # what --reward sets
                    _check_no_code(each.partition("=")[2])
            setattr(args, name, kept + own)
        elif hasattr(args, name) and name not in given and _EITHER.get(name) not in given:
            if name == "reward":
                _check_no_code(value)
            setattr(args, name, value)


def _check_no_code(reward: str) -> None:
    if not Path(reward).is_dir():
        raise InputError(f"the run names code, --reward {reward!r}, which is only run if it is typed: give it again")


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != []


def _absolute(data: str) -> str:
    """Return FILE, or FOLDER:SPLIT, as an absolute path; anything else, as the name of a data set, as it is."""
    if Path(data).exists():
        return str(Path(data).resolve())
    name, colon, split = data.partition(":")
    return f"{Path(name).resolve()}{colon}{split}" if name and Path(name).exists() else data
