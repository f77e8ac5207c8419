"""Runs side by side, one of whose processes is killed, or the one that started them."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.gpo_full.experiment.test_result import CHILD, shared_stages

CODE = f"""{CHILD}
from dataclasses import replace
from gpo_full.experiment.processes import WorkerDied
if __name__ == "__main__":
    try:
        run_experiment(replace(MANY, learning_rates=(3e-2,)), Path(sys.argv[1]), workers=2)
    except WorkerDied as error:
        sys.exit(str(error))
"""


@pytest.fixture
def begun(experiment: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    shared_stages(experiment, tmp_path)
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def until(holds: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Its forks: they have its command line."""
    return [child for child in psutil.Process(process.pid).children() if CODE in child.cmdline()]


def runs(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/stage.json") if path.parent.name.startswith(("logistic", "hinge", "probit"))]


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_experiment_with_what_is_finished(
    begun: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    until(lambda: runs(tmp_path))
    workers(begun)[0].kill()
    _, said = begun.communicate(timeout=240)
    assert begun.returncode == 1
    assert "a worker process was killed" in said
    assert "Traceback" not in said
    assert not (tmp_path / "result.json").exists()
    assert runs(tmp_path)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(begun: "subprocess.Popen[str]", tmp_path: Path) -> None:
    until(lambda: runs(tmp_path))
    children = workers(begun)
    assert len(children) == 2
    begun.kill()
    begun.wait()
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 30)
