"""Lessons executed from top to bottom, each in a fresh kernel; what was executed once is kept until it would change."""

__all__ = ["LessonError", "execute"]

import asyncio
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpo_full.course.keys import lesson_key
from gpo_full.files import atomic_file, cache_root, write_whole

_TIMEOUT = 600  # seconds for one cell; a lesson is meant to take well under a minute in all
# Kernels at a time, if there are as many cores: each holds torch and starts `gpo`, up to 1 GiB together.
_AT_ONCE = 2


class _Loop(asyncio.SelectorEventLoop):
    """A loop without handlers of signals: nbclient's would end one kernel and leave the rest waiting for it.

    Without them an interrupt cancels all that runs, and nbclient ends each kernel whose execution is cancelled.
    """

    def add_signal_handler(self, *_: object) -> None:
        raise RuntimeError("this loop handles no signals")


class LessonError(RuntimeError):
    """A lesson raised, or its kernel died, while it was executed; nothing was written."""


def execute(lessons: Sequence[Path], output: Path, environment: Mapping[str, str], results: Mapping[str, str],
            say: Callable[[str], object] = print) -> list[Path]:  # fmt: skip
    """Execute lessons, two at a time, each in a fresh kernel; write `output/<name>.ipynb` and return the paths.

    `environment` adds to the kernels' environment. A cell that raises is a LessonError that quotes the cell.
    A lesson is executed only if its key (`gpo_full.course.keys.lesson_key`, which explains `results`) is new; else its
    outputs are copied from the cache. `say` is given a line of progress when a lesson is done. At the first failure the
    lessons in progress are stopped, and LessonError is raised.
    """
    cached = [cache_root() / "lessons" / f"{one.stem}-{lesson_key(one, environment, results)}.ipynb" for one in lessons]

    async def finish(lesson: Path, kept: Path, free: asyncio.Semaphore) -> Path:
        how = "from the cache"
        async with free:
            if not kept.is_file():
                start = time.monotonic()
                await _execute(lesson, kept, environment)
                how = f"{time.monotonic() - start:.0f} s"
        target = output / f"{lesson.stem}.ipynb"
        with atomic_file(target) as temporary:
            shutil.copyfile(kept, temporary)
        say(f"{lesson.stem}: {how}")
        return target

    async def finish_all() -> list[Path]:
        free = asyncio.Semaphore(min(_AT_ONCE, os.cpu_count() or 1))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(finish(*pair, free)) for pair in zip(lessons, cached, strict=True)]
        return [task.result() for task in tasks]

    try:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(finish_all())
    except* LessonError as several:
        failed = several.exceptions[0]
    raise failed


async def _execute(lesson: Path, target: Path, environment: Mapping[str, str]) -> None:
    import jupytext
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    notebook = jupytext.read(lesson)
    encrypted = Config({"KernelManager": {"transport_encryption": "auto"}})  # else every kernel warns on stderr
    place = {"metadata": {"path": str(lesson.parent)}}
    client = NotebookClient(notebook, timeout=_TIMEOUT, kernel_name="python3", resources=place, config=encrypted,
                            shutdown_kernel="immediate")  # fmt: skip
    try:
        await client.async_execute(env={**kernel_environment(), **environment})
    except CellExecutionError as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)  # IPython colours its tracebacks
        raise LessonError(f"{lesson.name}: {error.ename}: {error.evalue}\n{text}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # nbclient takes a cancellation for a kernel that died
            raise asyncio.CancelledError from None
        raise LessonError(f"{lesson.name}: {error}") from None
    write_whole(target, nbformat.writes(notebook))


def kernel_environment() -> dict[str, str]:
    """Return the environment of every kernel: one thread, so that sums have one order; this installation's `gpo`."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "COLUMNS": "105"}
