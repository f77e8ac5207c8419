"""Runs on a Ray cluster of this machine's own, some of whose workers die; `python -m tests.support.ray_runs` prints what came of them.

`python -m tests.support.ray_runs COMMAND ...` is `gpo COMMAND ...`.

A process of its own, for what Ray leaves in the one that starts it. In the folder where it is called are a model,
`policy`, and `pairs.jsonl`; it speaks to the loopback interface alone.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from gpo_full.cli.entry import main as gpo
from gpo_full.sweeps.executors import on_ray
from gpo_full.sweeps.jobs import Job, Outcome
from tests.support.warm import at_step_2

WORDS = ("--loss", "dpo", "--beta", "0.1", "--model", "policy", "--data", "pairs.jsonl", "--steps", "4",
         "--learning-rate", "1e-3", "--batch-pairs", "3", "--threads", "1", "--set", "save_steps=2")  # fmt: skip


class KilledOnce(Job):
    """A training whose worker dies by SIGKILL when it has saved step 2, the first time."""

    def run_here(self, gpo: Callable[[list[str]], None]) -> Outcome:
        at_step_2("kill", self.output, Path("killed"))
        return super().run_here(gpo)


class Light(Job):
    """A run that takes no time, and says which process it was in, and where."""

    def run_here(self, gpo: Callable[[list[str]], None]) -> Outcome:
        return Outcome(0, str(os.getpid()), os.getcwd(), self._count_start())


class Doomed(Job):
    """A run that kills its worker each time."""

    def run_here(self, gpo: Callable[[list[str]], None]) -> Outcome:
        self._count_start()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Nowhere(Job):
    """A run that its worker cannot begin."""

    def run_here(self, gpo: Callable[[list[str]], None]) -> Outcome:
        raise FileNotFoundError("the sweep's folder is not on this node")


def a_job(kind: type[Job], name: str, *words: str) -> Job:
    return kind(words, Path(name), Path("outcomes") / f"{name}.json")


def family() -> list[psutil.Process]:
    """This process and those that it started and that still live."""
    me = psutil.Process()
    return [me, *filter(lives, me.children(recursive=True))]


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def peers() -> set[str]:
    """The addresses to which there are connections."""
    found = set()
    for process in family():
        try:
            found |= {each.raddr.ip for each in process.net_connections("inet") if each.raddr}
        except psutil.Error:
            continue  # it ended meanwhile
    return found


def stay_here() -> None:
    import ray

    ray.util.get_node_ip_address = ray._private.services.get_node_ip_address = lambda *_: "127.0.0.1"


def main() -> None:
    stay_here()
    jobs = [a_job(KilledOnce, "run", *WORDS, "--output", "run"), a_job(Light, "a"), a_job(Light, "b"),
            a_job(Doomed, "doomed"), a_job(Nowhere, "nowhere")]  # fmt: skip
    found, reached, seen = {}, set[str](), set[psutil.Process]()
    for job, outcome in on_ray(jobs, "local", gpo):
        found[job.output.name] = vars(outcome)
        reached |= peers()
        seen |= {*family()}
    seen.remove(psutil.Process())
    patience = time.monotonic() + 30  # a worker may need its time to end, and is nobody's child by then
    while any(map(lives, seen)) and time.monotonic() < patience:
        time.sleep(0.1)
    left = [each.pid for each in seen if lives(each)]
    print(json.dumps({"outcomes": found, "reached": sorted(reached), "seen": len(seen), "left": left,
                      "driver": os.getpid()}))  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:]:
        stay_here()
        sys.exit(gpo(sys.argv[1:]))
    # The workers find the kinds of runs by their module's name.
    sys.modules["tests.support.ray_runs"] = sys.modules["__main__"]
    for kind in (KilledOnce, Light, Doomed, Nowhere):
        kind.__module__ = "tests.support.ray_runs"
    main()
