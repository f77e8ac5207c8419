"""Stages of a long computation, each cached under a hash of its inputs and of the code that computes it."""

__all__ = ["Stage", "is_finished", "stage"]

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo_full.files import atomic_folder
from gpo_full.source_hash import code_hash

_RESULT = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A finished stage: its `payload`, the `folder` with its files, and what it took when it was computed."""

    name: str
    key: str
    folder: Path
    payload: dict[str, Any]
    cpu_seconds: float
    seconds: float
    cached: bool


def stage(
    root: Path, name: str, inputs: Mapping[str, Any], compute: Callable[..., dict[str, Any]],
    arguments: Callable[[], tuple[Any, ...]] = tuple, *, continued: bool = False,
) -> Stage:  # fmt: skip
    """Return the stage `name` from `root/name-KEY` if it is there, else computed by `compute(folder, *arguments())`.

    KEY is a hash of `inputs`, which must be JSON and identify the arguments, and of the code that can be reached from
    the module in which `compute` is written. The stage's folder appears whole or not at all, so an interrupted stage
    is computed again and a finished one never is. If it is `continued`, `compute` finds what it wrote before an
    interruption; then no two processes may compute one stage. Its seconds are those since it was last begun.
    """
    inputs, key, folder = _place(root, name, inputs, compute)
    if (folder / _RESULT).is_file():
        saved = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        return Stage(name, key, folder, saved["payload"], saved["cpu_seconds"], saved["seconds"], cached=True)
    cpu, wall = _cpu_seconds(), time.monotonic()
    with (_continued_folder if continued else atomic_folder)(folder) as temporary:
        payload = compute(temporary, *arguments())
        used, passed = _cpu_seconds() - cpu, time.monotonic() - wall
        saved = {"inputs": inputs, "payload": payload, "cpu_seconds": used, "seconds": passed}
        (temporary / _RESULT).write_text(json.dumps(saved, indent=1, allow_nan=False), encoding="utf-8")
    # Read back, so that a computed stage and a cached one are the same value.
    return Stage(name, key, folder, json.loads(json.dumps(payload)), used, passed, cached=False)


def is_finished(root: Path, name: str, inputs: Mapping[str, Any], compute: Callable[..., dict[str, Any]]) -> bool:
    """Return whether `stage` would find this stage."""
    return (_place(root, name, inputs, compute)[2] / _RESULT).is_file()


def _place(root: Path, name: str, inputs: Mapping[str, Any], compute: Any) -> tuple[dict[str, Any], str, Path]:
    """Return the inputs with the code's hash, the key, and the folder."""
    inputs = {**inputs, "code": code_hash([compute.__module__])}
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]
    return inputs, key, root / f"{name}-{key}"


@contextmanager
def _continued_folder(path: Path) -> Iterator[Path]:
    """Yield the folder that becomes `path` on success, as an interruption left it; an error removes it."""
    part = path.with_name(f".part-{path.name}")
    part.mkdir(parents=True, exist_ok=True)
    try:
        yield part
    except Exception:
        shutil.rmtree(part)
        raise
    os.replace(part, path)


def _cpu_seconds() -> float:
    """Return the CPU-seconds of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])
