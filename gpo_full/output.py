"""How a command speaks: JSON for machines on stdout, progress for people on stderr."""

__all__ = ["print_json", "progress"]

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def print_json(payload: Mapping[str, Any]) -> None:
    """Print `payload` as one JSON object that carries `"schema": 1`; NaN and infinity are errors."""
    print(json.dumps({"schema": 1, **payload}, allow_nan=False))


def progress(items: Iterable[T], label: str, total: int | None = None, after: float = 2.0) -> Iterator[T]:
    """Yield `items`, reporting on stderr about once a second when the work outlasts `after` seconds."""
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - start > after and now - last > 1.0:
            of = f"/{total}" if total else ""
            print(f"{label}: {done}{of}, {now - start:.0f} s", file=sys.stderr, flush=True)
            last = now
        yield item
