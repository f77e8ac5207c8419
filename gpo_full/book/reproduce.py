"""The main job: run the controlled experiment, draw it, execute the lessons, build the book, gather the numbers."""

__all__ = ["run"]

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpo_full.book.book import build_book
from gpo_full.course.execution import execute
from gpo_full.course.lessons import lesson_files, page_files
from gpo_full.course.values import collect
from gpo_full.files import write_whole
from gpo_full.versions import versions_of

_VERSIONED = ("gpo-toolkit", "torch", "transformers", "sympy", "numpy", "scipy", "sphinx", "myst-nb")
LESSON_SCALES = ("smoke", "cpu")


def run(scale: str, output: Path, policy: str | None = None, reward: str | None = None, workers: int = 1) -> Path:
    """Run everything at `scale`, leave `output/results.json` (returned), `output/experiment` and `output/book`.

    The lessons show the experiment at scale "cpu" or "smoke" with the project's own models. At scale "full", or with a
    `policy` or a `reward` of the user's own (`gpo_full.experiment.inputs.workload`), there are the experiment's result,
    figures and numbers alone, without lessons and book. Stages are cached, so a second run repeats only what is
    missing; `workers` runs of the experiment are done at a time. At scale "smoke" nothing is fetched. Progress with the
    time passed goes to stderr.
    """
    from gpo_full.experiment.plots import write_figures
    from gpo_full.experiment.run import default_folder, run_experiment

    say = _clock()
    with _stage(say, f"controlled experiment at scale {scale}"):
        found = run_experiment(scale, default_folder(scale, policy, reward), policy=policy, reward=reward,
                               workers=workers)  # fmt: skip
        found.save(output / "experiment" / "result.json")
        figures = write_figures(found, output / "experiment")
    if scale in LESSON_SCALES and policy is None and reward is None:
        return _with_book(scale, output, say)
    results = _write_results(scale, found.values("experiment"), output / "results.json")
    say(f"done: {results} and {len(figures)} figures in {output / 'experiment'}")
    return results


def _with_book(scale: str, output: Path, say: Callable[[str], None]) -> Path:
    pages = (*lesson_files(), *page_files())
    found = hashlib.sha256((output / "experiment" / "result.json").read_bytes()).hexdigest()
    with _stage(say, f"{len(pages)} lessons and pages"):
        notebooks = execute(pages, output / "lessons", {"GPO_SCALE": scale}, {"gpo_full.experiment.run": found}, say)
    with _stage(say, "book"):
        index = build_book(notebooks, output / "book")
    results = _write_results(scale, _values(notebooks), output / "results.json")
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


def _write_results(scale: str, values: list[dict[str, Any]], target: Path) -> Path:
    payload = {"schema": 1, "scale": scale, "versions": versions_of(_VERSIONED), "values": values}
    write_whole(target, json.dumps(payload, indent=1, allow_nan=False) + "\n")
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
