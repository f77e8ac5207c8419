"""Where the runs of a sweep are executed: in processes of this machine, or on a Ray cluster."""

__all__ = ["on_ray", "on_this_machine"]

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from threading import Event
from typing import Any

from gpo_full.sweeps.jobs import Job, Outcome
from gpo_theory.errors import InputError


def on_this_machine(jobs: Sequence[Job], workers: int, devices: Sequence[str] = ()) -> Iterator[tuple[Job, Outcome]]:
    """Run `workers` jobs at a time and yield each when it ends; with `devices`, each sees one of these GPUs alone.

    If it is interrupted, it tells the running ones to save and stop, and waits for them.
    """
    running: list[subprocess.Popen[str]] = []
    stopping = Event()
    free: SimpleQueue[str] = SimpleQueue()
    for worker in range(workers):
        free.put(devices[worker % len(devices)] if devices else "")
    share = str(max(1, (os.cpu_count() or 1) // workers))
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", share)}

    def started(process: "subprocess.Popen[str]") -> None:
        running.append(process)
        if stopping.is_set():  # it started while the others were told to stop
            process.terminate()

    def work(job: Job) -> Outcome:
        device = free.get()
        try:
            return job.run(threads | ({"CUDA_VISIBLE_DEVICES": device} if device else {}), started)
        finally:
            free.put(device)

    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            stopping.set()
            for process in [*running]:
                process.terminate()
            raise


def on_ray(jobs: Sequence[Job], address: str, gpo: Callable[[list[str]], None]) -> Iterator[tuple[Job, Outcome]]:
    """Run the jobs on the Ray cluster at `address` ("local": one of this machine's own) and yield each when it ends.

    `gpo` is the command as a function of its words. Every node must see the sweep's folder under the same path. Each
    run has a GPU if the cluster has any, else a CPU. If a worker dies, another resumes its job from the run's last
    checkpoint. Raises InputError if there is no such cluster.
    """
    import ray

    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # ray documents no class of errors, and raises Exception itself
        raise InputError(f"no Ray cluster at {address!r}: {' '.join(str(error).split())[:200]}") from None
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        # A new worker for each run, so that the memory of a run is freed.
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=Job.ATTEMPTS - 1, max_calls=1)(_in_a_worker)
        waiting = {remote.remote(job, os.getcwd(), gpo): job for job in jobs}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting))
            job = waiting.pop(ready)
            yield job, _outcome(job, ready)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at host:port; Ray itself would wait many minutes for it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _outcome(job: Job, ready: Any) -> Outcome:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        found: Outcome = ray.get(ready)
    except RayError as error:  # its last worker died, or could not run it
        code = 1 if isinstance(error, RayTaskError) else -signal.SIGKILL
        return Outcome(code, "", " ".join(str(error).split())[:500], job.starts())
    return found


def _in_a_worker(job: Job, folder: str, gpo: Callable[[list[str]], None]) -> Outcome:
    """Run the job in the folder where the sweep was started, to which relative paths refer."""
    os.chdir(folder)
    return job.run_here(gpo)
