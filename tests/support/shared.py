"""What takes seconds for each loss of the catalogue, its analysis and its code, computed once for all processes of a session."""

__all__ = ["FOLDER", "share"]

import fcntl
import os
import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

# The variable of the environment that names the folder of the session.
FOLDER = "GPO_TESTS_SHARED"


def share() -> None:
    """Let this process and its forks leave what they compute in the session's folder, and take from there what it has.

    To be called before the modules that import these functions by name. A process without the folder computes for itself.
    """
    if FOLDER not in os.environ:
        return
    from gpo_theory import analysis
    from gpo_theory.catalogue import LOSSES
    from gpo_theory.lowering import accurate_code

    folder = Path(os.environ[FOLDER])
    formulas = {loss.f.primitive(): name for name, loss in LOSSES.items()}

    def name_of(loss: Any) -> str | None:
        return loss.name if LOSSES.get(loss.name) == loss else None

    analysis._analysis = _shared(analysis._analysis, name_of, folder / "analysis")
    accurate_code.program_of = _shared(accurate_code.program_of, formulas.get, folder / "code")


def _shared(compute: Any, name_of: Callable[[Any], str | None], folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)

    @lru_cache(maxsize=512)
    def shared(of: Any, *rest: Any) -> Any:
        name = name_of(of)
        return compute(of, *rest) if name is None else _once(folder / f"{name} {rest}", lambda: compute(of, *rest))

    return shared


def _once(path: Path, compute: Callable[[], Any]) -> Any:
    """Return the object in a file, which the first process that asks for it computes while others wait."""
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if text := file.read():
            return pickle.loads(text)  # noqa: S301  # written by this session
        found = compute()
        pickle.dump(found, file)
        return found
