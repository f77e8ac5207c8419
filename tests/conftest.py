"""Tests that need a tool run where the tool is, and are deselected and listed with the cause where it is not."""

import fcntl
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.doctest import DoctestModule

from tests.support.shared import FOLDER, share

# Where the tests run in the background of a shell, SIGINT is ignored, and every process that a test starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Matplotlib's list of fonts names files of the environment that made it; another environment's list only brings warnings.
os.environ["MPLCONFIGDIR"] = str(Path(__file__).parents[1] / "build" / "matplotlib")
# Each worker and all that it starts on one thread, which is fastest at the size of the tests' models.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip

# As distributions call it, and as it is called where CI machines come with it.
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def _missing() -> dict[str, str]:
    """Marker -> why tests with it cannot run here."""
    causes = {}
    if CHROMIUM is None:
        causes["browser"] = "chromium is not on the path"
    if shutil.which("coqc") is None:
        causes["coq"] = "coqc is not on the path"
    if not _cuda():
        causes["gpu"] = "no CUDA device"
    return causes


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of what all processes of the session share, which the first of them removes at its end."""
    if FOLDER not in os.environ:
        folder = tempfile.TemporaryDirectory()
        os.environ[FOLDER] = folder.name
        config.add_cleanup(folder.cleanup)
    share()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores: for a fifth of their time, tests wait for other processes, disks and clocks."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for examples in the packages alone: no docstring of a test has one."""
    found = yield
    return [each for each in found if not isinstance(each, DoctestModule)]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if any(item.get_closest_marker(name) for name in ("browser", "coq", "gpu"))]
    causes = _missing() if marked else {}
    reasons = {item: causes[mark] for item in marked for mark in causes if item.get_closest_marker(mark)}
    if reasons:
        config.hook.pytest_deselected(items=list(reasons))
        items[:] = [item for item in items if item not in reasons]
    config.stash[_DESELECTED] = [f"{item.nodeid}: {cause}" for item, cause in reasons.items()]
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
        if _LONG_MADE & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.slow)
    # Long work first, so that no process is left with it alone at the end.
    slow = {groups[item] for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (groups[item] != "published", groups[item] not in slow))


# Fixtures that take a minute: whatever reads them is slow.
_LONG_MADE = {"published", "experiment", "ran", "crashed", "on_a_cluster"}


def _group(item: pytest.Item) -> str:
    """Return what one process runs: a file, so that its fixtures are made once, or all that read what takes long to make."""
    if "published" in getattr(item, "fixturenames", ()):  # which takes longest
        return "published"
    shared = vars(item.module).values() if isinstance(item, pytest.Function) else ()
    analyses = any(getattr(each, "__module__", None) == "tests.support.session" for each in shared)
    analyses = analyses or item.path.name == "test_matching.py"  # which matches the whole catalogue
    return "analyses" if analyses else item.nodeid.split("::")[0]


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Leave what is loaded out of the garbage collections that the Trainer asks for: most of its time on a tiny model."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The process that reports collects no tests itself: any of the others tells it what was deselected."""
    node.config.stash[_DESELECTED] = getattr(node, "workeroutput", {}).get("deselected", [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = session.config.stash.get(_DESELECTED, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_DESELECTED, [])
    if lines:
        terminalreporter.section("deselected, with the cause")
        for line in lines:
            terminalreporter.write_line(line)


_DESELECTED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The program `gpo-python` of the warm process, with `gpo` beside it (`tests/support/warm.py`)."""
    from tests.support.warm import warm_program

    with warm_program(tmp_path_factory.mktemp("warm")) as program:
        yield program


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the experiment at scale smoke, which the first process of the tests that asks for it runs."""
    from gpo_full.experiment.run import run_experiment

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "experiment" / "smoke"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_experiment("smoke", folder)
    return folder


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, warm: str, experiment: Path) -> Path:
    """The output of `gpo reproduce --scale smoke`, made once a session, with its cache beside: cache/.

    The lessons' kernels and their `gpo` commands are forks of the warm process.
    """
    from gpo_full.book.reproduce import run
    from gpo_full.course import execution

    output, settings = tmp_path_factory.mktemp("build"), execution.kernel_environment
    shutil.copytree(experiment, output / "cache" / "experiment" / "smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPO_CACHE", str(output / "cache"))
        patch.setenv("JUPYTER_PATH", str(Path(warm).parent))
        patch.setattr(execution, "kernel_environment", lambda: prepend_path(settings(), Path(warm).parent))
        run("smoke", output)
    return output


def prepend_path(environment: dict[str, str], folder: Path) -> dict[str, str]:
    return {**environment, "PATH": os.pathsep.join((str(folder), environment["PATH"]))}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=_QUIET, viewport={"width": 1300, "height": 900}
        )
        yield context
        context.close()
