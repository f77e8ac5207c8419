"""The runs of an experiment, several at a time, in processes that share what their runs have in common."""

__all__ = ["finished"]

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

from gpo_full.experiment.grid import PlannedRun
from gpo_full.experiment.processes import can_fork, executor
from gpo_full.experiment.stages import Stage

if TYPE_CHECKING:
    from gpo_full.experiment.protocol import Protocol

_protocol: "Protocol"


def finished(
    protocol: "Protocol", runs: Sequence[PlannedRun], workers: int, fits: Callable[[PlannedRun], bool]
) -> Iterator[tuple[PlannedRun, Stage]]:
    """Yield each run with its stage when it ends, and leave out what `fits` refuses, which is asked as its turn comes.

    The stages before the runs must be finished. One worker is this process. More are forks of it, or processes that
    load everything themselves where it cannot fork. If a run fails, those that have started are finished and kept
    before the error is raised. Raises WorkerDied if a process was killed.
    """
    done = [one for one in runs if protocol.is_trained(one)]
    missing = [one for one in runs if one not in done]
    alone = done if workers > 1 else runs
    yield from ((one, protocol.train_and_evaluate(one)) for one in alone if one in done or fits(one))
    if workers == 1 or not missing:
        return
    method = "spawn"
    if can_fork():
        method = "fork"
        protocol.ready(missing[0])
    with executor(workers, method, _start_worker, protocol if method == "fork" else protocol.arguments) as pool:
        started: dict[Future[Stage], PlannedRun] = {}
        while missing or started:
            while missing and len(started) < workers:
                one = missing.pop(0)
                if fits(one):
                    started[pool.submit(_work, one)] = one
            for future in wait(started, return_when=FIRST_COMPLETED).done:
                yield started.pop(future), future.result()


def _start_worker(given: Any) -> None:
    from gpo_full.experiment.protocol import Protocol

    global _protocol
    _protocol = given if isinstance(given, Protocol) else Protocol(*given)


def _work(one: PlannedRun) -> Stage:
    try:
        return _protocol.train_and_evaluate(one)
    except SystemExit:  # of a training that a signal stopped
        raise KeyboardInterrupt from None
