"""Jobs and where they run: on this machine, where shell scripts stand for trainings, and on a Ray cluster of two workers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpo_full.cli.entry import main
from gpo_full.sweeps.executors import on_ray, on_this_machine
from gpo_full.sweeps.jobs import Job, Outcome
from gpo_theory import InputError
from tests.support.commands import stand_in
from tests.support.places import ROOT


def job(folder: Path, name: str = "run", *words: str) -> Job:
    return Job((name, *words), folder / name, folder / "outcomes" / f"{name}.json")


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Let a shell script take the place of Python; $4 is the job's first word."""
    stand_in(monkeypatch, folder / "program", f"cd {folder}\n{text}")


def ran(jobs: list[Job], workers: int = 1, devices: tuple[str, ...] = ()) -> dict[str, Outcome]:
    return {each.output.name: outcome for each, outcome in on_this_machine(jobs, workers, devices)}


def test_an_outcome_is_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, tmp_path, 'echo "$@"; echo first >&2; echo last >&2; exit 5')
    one = job(tmp_path, "run", "--loss=-x", "--steps", "4")
    assert one.outcome() is None
    found = ran([one])["run"]
    expected = "-m gpo_full.cli train run --loss=-x --steps 4 --json\n"
    assert found == one.outcome() == Outcome(5, expected, "last", 1)
    one.output.mkdir()
    (one.output / "run.json").touch()
    assert ran([one])["run"] == Outcome(5, expected.replace("--json", "--json --resume"), "last", 2)


@pytest.mark.parametrize(("kills", "expected"), [(1, Outcome(0, "done\n", "", 2)), (9, Outcome(-9, "", "", 3))])
def test_a_killed_run_is_begun_again_at_most_twice(
    kills: int, expected: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, tmp_path, f'echo >> tries; [ $(wc -l < tries) -gt {kills} ] || kill -KILL $$; echo done')
    one = job(tmp_path)
    assert ran([one])["run"] == expected
    # One that was killed each time, as by a machine without memory, is tried anew by whoever asks again.
    assert one.outcome() == (expected if expected.code == 0 else None)


@pytest.mark.parametrize("end", ["exit 143", "exit 130", "kill -TERM $$", "kill -INT $$"])
def test_a_run_that_is_told_to_stop_is_neither_begun_again_nor_recorded(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be told while it still imports, and dies of the signal."""
    program(monkeypatch, tmp_path, end)
    one = job(tmp_path)
    assert ran([one])["run"].code in (143, 130, -signal.SIGTERM, -signal.SIGINT)
    assert one.starts() == 1
    assert one.outcome() is None


def test_so_many_at_a_time_and_each_sees_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, tmp_path, """
        echo "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS"
        touch "here-$4"
        for i in $(seq 500); do [ $(ls here-* | wc -l) -ge 2 ] || [ $4 = c ] && exit 0; sleep 0.01; done
        exit 7""")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = [job(tmp_path, name) for name in "abc"]
    found = ran(jobs, 2, ("4", "6"))  # a and b wait for each other: one at a time would never end
    printed = [found[name].printed.split() for name in "abc"]
    assert sorted(printed[:2]) == [["4", "3"], ["6", "3"]]
    assert printed[2] in (["4", "3"], ["6", "3"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "what the user said")
    assert ran(jobs[2:])["c"].printed == "what the user said 7\n"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert ran(jobs[2:])["c"].printed == "what the user said 1\n"
    assert [found[name].code for name in "abc"] == [0, 0, 0]


def test_no_more_than_the_workers_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, tmp_path, """
        mkdir alone || exit 7
        sleep 0.05
        rmdir alone""")
    assert {outcome.code for outcome in ran([job(tmp_path, name) for name in "abcd"]).values()} == {0}
    assert 7 in {outcome.code for outcome in ran([job(tmp_path, name) for name in "efgh"], 4).values()}


def test_interrupted_it_stops_the_running_and_begins_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, tmp_path, """
        trap 'touch saved-$4; exit 143' TERM
        touch begun-$4
        for i in $(seq 2000); do sleep 0.01; done""")
    jobs = [job(tmp_path, name) for name in "abc"]

    def interrupt() -> None:
        until = time.monotonic() + 20
        while len([*tmp_path.glob("begun-*")]) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        ran(jobs, 2)
    thread.join()
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-a", "saved-b"]
    assert [each.starts() for each in jobs] == [1, 1, 0]


def test_one_that_begins_while_the_others_are_told_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`a` ends, and `b` begins, in the moment between the interruption and the signals."""
    program(monkeypatch, tmp_path, "exec sleep 30")
    begin, told = subprocess.Popen, threading.Event()

    def late(command: list[str], **named: object) -> "subprocess.Popen[str]":
        told.wait(10)
        time.sleep(0.1)
        return begin(command, **named)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", late)
    runs = on_this_machine([job(tmp_path)], 1)
    timer = threading.Timer(0.1, lambda: (os.kill(os.getpid(), signal.SIGINT), told.set()))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(runs)
    timer.join()
    assert time.monotonic() - started < 20


def test_in_this_process_it_is_as_in_one_of_its_own(tmp_path: Path) -> None:
    def trained(words: list[str]) -> None:
        print(words)
        print("said", file=sys.stderr)
        if "broken" in words:
            raise ArithmeticError("of its own")
        sys.exit(int(words[1]))

    assert job(tmp_path, "5").run_here(trained) == Outcome(5, "['train', '5', '--json']\n", "said", 1)
    assert job(tmp_path, "0").run_here(trained).code == 0
    found = job(tmp_path, "broken").run_here(trained)
    assert (found.code, found.message) == (1, "ArithmeticError: of its own")
    assert job(tmp_path, "broken").outcome() == found


# On a Ray cluster, by `ray_runs.py`.


def ray_runs(folder: Path, *words: str, code: int = 0, begin: tuple[str, ...] = (sys.executable, "-m", "tests.support.ray_runs")) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'hidden'}:{ROOT}",
                   "GPO_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
                   "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run([*begin, *words], cwd=folder, env=environment, text=True,
                          capture_output=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def on_a_cluster(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the runs, and what came of them."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    from tests.support.pairs import ROWS
    from tests.support.tables import write_rows
    from tests.support.tiny_models import saved_policy

    folder = tmp_path_factory.mktemp("cluster")
    saved_policy(folder / "policy")
    write_rows(folder / "pairs.jsonl", ROWS[:5])
    # Without its telemetry Ray is the smallest it can be, whatever else is installed, in whole or in part.
    (folder / "hidden").mkdir()
    (folder / "hidden" / "opentelemetry.py").write_text("raise ModuleNotFoundError(name=__name__)\n")
    done = ray_runs(folder)
    return folder, json.loads(done.stdout.splitlines()[-1])


Cluster = tuple[Path, dict[str, Any]]


@pytest.mark.slow
def test_a_run_whose_ray_worker_is_killed_goes_on_in_another_bitwise(
    on_a_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from tests.support.ray_runs import WORDS
    from tests.support.trainings import same, untimed

    folder, results = on_a_cluster
    assert (folder / "killed").exists()
    found = results["outcomes"]["run"]
    assert (found["code"], found["attempts"], found["message"]) == (0, 2, "gpo train: resuming from checkpoint-2")
    assert found == json.loads((folder / "outcomes" / "run.json").read_text())
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GPO_CACHE", str(folder / "another cache"))
    straight = Job((*WORDS, "--output", "straight"), Path("straight"), Path("outcomes/straight.json")).run_here(main)
    assert (straight.code, straight.attempts, straight.message) == (0, 1, "")
    once, twice = (load_file(f"{name}/model.safetensors") for name in ("straight", "run"))
    assert same(once, twice)
    first, second = untimed([json.loads(text)["last"] for text in (straight.printed, found["printed"])])
    assert first == second


@pytest.mark.slow
def test_on_ray_each_run_has_a_process_of_its_own_in_the_sweep_s_folder(on_a_cluster: Cluster) -> None:
    folder, results = on_a_cluster
    light = [results["outcomes"][name] for name in "ab"]
    assert len({results["driver"], *(int(each["printed"]) for each in light)}) == 3
    assert [(each["code"], each["attempts"], each["message"]) for each in light] == [(0, 1, str(folder))] * 2


@pytest.mark.slow
def test_a_run_that_ray_gives_up_is_an_outcome_and_ends_no_other(on_a_cluster: Cluster) -> None:
    doomed, nowhere = (on_a_cluster[1]["outcomes"][name] for name in ("doomed", "nowhere"))
    assert (doomed["code"], doomed["attempts"]) == (-signal.SIGKILL, Job.ATTEMPTS)
    assert nowhere["code"] == 1
    assert "the sweep's folder is not on this node" in nowhere["message"]


@pytest.mark.slow
def test_the_cluster_speaks_to_this_machine_alone_and_leaves_no_process(on_a_cluster: Cluster) -> None:
    results = on_a_cluster[1]
    assert results["reached"]
    assert {*results["reached"]} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert results["seen"] >= 4  # two servers of Ray's and two workers
    assert results["left"] == []


def test_a_cluster_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is replaced: on a machine where another cluster runs, the true one finds that."""
    def init(*_: Any, **__: Any) -> None:
        raise ConnectionError("Could not find any\nrunning Ray instance.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with pytest.raises(InputError, match=r"^no Ray cluster at 'auto': Could not find any running Ray instance\.$"):
        next(on_ray([], "auto", main))


@pytest.mark.slow
def test_a_sweep_on_ray_is_the_sweep_on_this_machine(on_a_cluster: Cluster, warm: str) -> None:
    from pyarrow import parquet

    from tests.support.trainings import untimed

    folder = on_a_cluster[0]
    words = ("sweep", "--loss", "dpo", "--loss", "ipo", "--beta", "0.1", "--model", "policy", "--data", "pairs.jsonl",
             "--steps", "2", "--learning-rate", "1e-3", "--batch-pairs", "3", "--threads", "1", "--json")  # fmt: skip
    tables = []
    ran = {"on ray": ray_runs(folder, *words, "--ray", "local", "--output", "on ray"),
           "here": ray_runs(folder, *words, "--workers", "1", "--output", "here", begin=(warm, "-m", "gpo_full.cli"))}  # fmt: skip
    for output, done in ran.items():
        betas = {f"{loss}-beta0.1-seed42": {"beta": 0.1, "beta_asked": 0.1} for loss in ("dpo", "ipo")}
        assert json.loads(done.stdout) == {"schema": 1, "output": output, "runs": 2, "failed": [], "betas": betas,
                                           "results": f"{output}/results.parquet"}  # fmt: skip
        assert done.stderr.count("reference pass") == 1
        tables.append(untimed(parquet.read_table(folder / output / "results.parquet").to_pylist()))
    assert [row["status"] for row in tables[0]] == ["done", "done"]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_sweep_without_its_cluster_leaves_nothing(on_a_cluster: Cluster) -> None:
    folder = on_a_cluster[0]
    done = ray_runs(folder, "sweep", "--loss", "dpo", "--beta", "0.1", "--model", "policy", "--data", "pairs.jsonl",
                    "--ray", "127.0.0.1:1", "--output", "nowhere", code=2)  # fmt: skip
    assert "no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert not (folder / "nowhere").exists()
