"""The main job: prepare, run the controlled experiment, execute the lessons, build the book, gather the numbers."""

__all__ = ["run"]

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpo_full.book import build_book
from gpo_full.files import atomic_file
from gpo_full.lessons import execute, lesson_files
from gpo_full.results import collect

_VERSIONED = ("gpo-toolkit", "torch", "transformers", "sympy", "numpy", "scipy", "sphinx", "myst-nb")
_SCALE = "GPO_SCALE"  # what a lesson reads to know at which scale the experiment was run


def run(scale: str, output: Path) -> Path:
    """Run everything at `scale` ("cpu" or "smoke"), leave `output/book` and `output/results.json`, return the latter.

    The experiment's stages are cached, so a second run repeats only the lessons and the book. At scale "smoke"
    nothing is fetched and no large model is used. Progress with the time passed goes to stderr.
    """
    from gpo_full import experiment

    say = _clock()
    lessons = lesson_files()
    if scale != "smoke":
        from gpo_full.preparation import prepare

        with _stage(say, "prepare the policy, the golden reward and the data"):
            prepare()
    with _stage(say, f"controlled experiment at scale {scale}"):
        experiment.run(scale, experiment.default_folder(scale))
    notebooks = []
    for number, lesson in enumerate(lessons, 1):
        with _stage(say, f"lesson {number}/{len(lessons)}: {lesson.stem}"):
            notebooks.append(execute(lesson, output / "lessons", {_SCALE: scale}))
    with _stage(say, "book"):
        index = build_book(notebooks, output / "book")
    results = _write_results(scale, notebooks, output / "results.json")
    say(f"done: {index} and {results}")
    return results


def _clock() -> Callable[[str], None]:
    start = time.monotonic()

    def say(text: str) -> None:
        passed = int(time.monotonic() - start)
        print(f"[{passed // 60:2d}:{passed % 60:02d}] {text}", file=sys.stderr, flush=True)

    return say


@contextmanager
def _stage(say: Callable[[str], None], name: str) -> Iterator[None]:
    start = time.monotonic()
    say(f"{name} ...")
    yield
    say(f"{name}: {time.monotonic() - start:.0f} s")


def _write_results(scale: str, notebooks: list[Path], target: Path) -> Path:
    payload = {"schema": 1, "scale": scale, "versions": _versions(), "values": _values(notebooks)}
    with atomic_file(target) as temporary:
        temporary.write_text(json.dumps(payload, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return target


def _values(notebooks: list[Path]) -> list[dict[str, Any]]:
    values = []
    for notebook in notebooks:
        found = collect(json.loads(notebook.read_text(encoding="utf-8")))
        values += [{**asdict(value), "lesson": notebook.stem} for value in found]
    repeated = {v["id"] for v in values if [w["id"] for w in values].count(v["id"]) > 1}
    if repeated:
        raise ValueError(f"values published by more than one lesson: {', '.join(sorted(repeated))}")
    return values


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
