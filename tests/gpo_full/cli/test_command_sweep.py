"""`gpo sweep`, end to end: one reference pass, runs that equal single ones whatever befalls them, one table, and resume.

The processes are forks of a warm one (`warm.py`); what needs no training puts a shell script in their place.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from tests.support.commands import Outcome, gpo, refused, stand_in
from tests.support.places import ROOT
from tests.support.tables import write_rows
from tests.support.tiny_models import saved_policy
from tests.support.trainings import same, untimed

GRID = ("--loss", "dpo", "--loss", "ipo", "--beta", "0.1", "--beta", "0.4", "--betas-of", "dpo")
KILLED = "ipo-beta0.2-seed42"
NAMES = ["dpo-beta0.1-seed42", "dpo-beta0.4-seed42", "ipo-beta0.05-seed42", KILLED]
# By hand: R of dpo is 1/2, of ipo 1, so ipo's beta is half of dpo's.
BETAS = dict(zip(NAMES, (0.1, 0.4, 0.05, 0.2), strict=True))
OF_START = ("attempts", "message")


@dataclass
class Workshop:
    """A folder with a model and pairs, and `gpo` as a program in it."""

    folder: Path
    program: str

    def start(self, *words: object, cache: str = "cache", **environment: str) -> "subprocess.Popen[str]":
        command = [self.program, "-m", "gpo_full.cli", *map(str, words)]
        given = {"GPO_CACHE": str(self.folder / cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
        return subprocess.Popen(command, text=True, cwd=self.folder, env={**os.environ, **given},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def gpo(self, *words: object, code: int = 0, **environment: str) -> tuple[str, str]:
        """Run `gpo` and return what it printed and said."""
        process = self.start(*words, **environment)
        printed, said = process.communicate(timeout=300)
        assert process.returncode == code, said
        return printed, said

    def weights(self, run: str) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = load_file(self.folder / run / "model.safetensors")
        return found

    def rows(self, sweep: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = parquet.read_table(self.folder / sweep / "results.parquet").to_pylist()
        return found


SHARED = ("--model", "policy", "--data", "pairs.jsonl", "--eval-data", "pairs.jsonl", "--steps", "4",
          "--learning-rate", "1e-3", "--batch-pairs", "3", "--threads", "1", "--set", "save_steps=2")  # fmt: skip


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, warm: str) -> Workshop:
    folder = tmp_path_factory.mktemp("sweeps")
    saved_policy(folder / "policy")
    write_rows(folder / "pairs.jsonl")
    return Workshop(folder, warm)


@pytest.fixture(scope="module")
def swept(workshop: Workshop) -> tuple[str, str]:
    """What a sweep in `sweep` printed and said, one of whose runs was killed after its second step."""
    kill = f"kill {workshop.folder / 'sweep' / 'runs' / KILLED} {workshop.folder / 'killed'}"
    found = workshop.gpo("sweep", *GRID, "--output", "sweep", *SHARED, "--json", AFTER_STEP_2=kill)
    assert (workshop.folder / "killed").exists()
    return found


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in folder.rglob("*") if path.is_file()}  # fmt: skip


@pytest.mark.slow
def test_one_table_with_a_row_per_run(workshop: Workshop, swept: tuple[str, str]) -> None:
    printed, said = swept
    found = json.loads(printed)
    betas = found.pop("betas")
    assert found == {"schema": 1, "output": "sweep", "results": "sweep/results.parquet", "runs": 4, "failed": []}
    assert {name: each["beta"] for name, each in betas.items()} == BETAS
    assert [each["beta_asked"] for each in betas.values()] == [0.1, 0.4, 0.1, 0.4]
    rows = workshop.rows("sweep")
    assert [row["run"] for row in rows] == NAMES
    assert {row["run"]: row["beta"] for row in rows} == BETAS
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        metrics = (workshop.folder / "sweep" / "runs" / row["run"] / "metrics.jsonl").read_text().splitlines()
        assert len(metrics) == 4
        assert {name: row[name] for name in json.loads(metrics[-1])} == json.loads(metrics[-1])
        assert row["pairs"] == row["eval_pairs"] == 7
        assert row["eval_accuracy"] == 1.0  # seven alike pairs, learnt by heart
        assert row["beta_R"] == pytest.approx(BETAS[row["run"]] * {"dpo": 0.5, "ipo": 1.0}[row["loss_name"]])
    assert "4/4 " in said
    assert not list((workshop.folder / "sweep").rglob(".*"))


@pytest.mark.slow
def test_the_reference_pass_is_made_once(workshop: Workshop, swept: tuple[str, str]) -> None:
    """The training and the held-out pairs are the same here, so there is one store; nobody but the first wrote it."""
    (store,) = (workshop.folder / "cache" / "references").iterdir()
    begun = workshop.folder / "sweep" / "outcomes" / f"{NAMES[0]}.begun"
    assert store.stat().st_mtime_ns < begun.stat().st_mtime_ns
    outcome = json.loads((workshop.folder / "sweep" / "reference" / "outcome.json").read_text())
    assert (outcome["code"], outcome["attempts"]) == (0, 1)
    assert "log-probabilities of 7 pairs" in outcome["printed"]


@pytest.mark.slow
def test_a_killed_run_is_begun_again_and_resumes(workshop: Workshop, swept: tuple[str, str]) -> None:
    assert {row["run"]: row["attempts"] for row in workshop.rows("sweep")} == dict(zip(NAMES, (1, 1, 1, 2), strict=True))
    assert f"{KILLED}: done, started 2 times" in swept[1]
    record = json.loads((workshop.folder / "sweep" / "outcomes" / f"{KILLED}.json").read_text())
    assert record["message"] == "gpo train: resuming from checkpoint-2"


@pytest.mark.slow
@pytest.mark.parametrize("name", [NAMES[1], KILLED])
def test_the_weights_are_those_of_a_single_run(name: str, workshop: Workshop, swept: tuple[str, str]) -> None:
    loss = name.split("-")[0]
    workshop.gpo("train", "--loss", loss, "--beta", BETAS[name], "--output", name, *SHARED, cache="cache of its own")
    assert same(workshop.weights(f"sweep/runs/{name}"), workshop.weights(name))
    assert not same(workshop.weights(f"sweep/runs/{NAMES[0]}"), workshop.weights(name))


@pytest.mark.slow
def test_resume_does_what_is_left_and_tries_failed_runs_again(workshop: Workshop, swept: tuple[str, str]) -> None:
    whole, lost, failed, unrecorded = NAMES
    again = workshop.folder / "again"
    shutil.copytree(workshop.folder / "sweep", again)
    shutil.rmtree(again / "runs" / lost)
    for name in (lost, unrecorded):  # the last one had come to its end, but nobody lived to record it
        (again / "outcomes" / f"{name}.json").unlink()
    record = again / "outcomes" / f"{failed}.json"
    record.write_text(json.dumps({"code": 1, "printed": "", "message": "disk full", "attempts": 1}))
    for path in (again / "runs" / failed / "config.json", *(again / "runs" / failed / "checkpoint-4").iterdir()):
        path.unlink()
    untouched = {name: files(again / "runs" / name) for name in (whole, unrecorded)}
    store = files(workshop.folder / "cache" / "references")
    said = workshop.gpo("sweep", *GRID, "--output", "again", *SHARED, "--resume")[1]
    assert whole not in said
    assert untouched == {name: files(again / "runs" / name) for name in untouched}
    assert store == files(workshop.folder / "cache" / "references")
    begun = {name: (again / "outcomes" / f"{name}.begun").read_text().count("\n") for name in NAMES}
    assert begun == {whole: 1, lost: 2, failed: 2, unrecorded: 3}
    assert "resuming from checkpoint-2" in json.loads(record.read_text())["message"]
    assert untimed(workshop.rows("again"), *OF_START) == untimed(workshop.rows("sweep"), *OF_START)
    for name in (lost, failed):
        assert same(workshop.weights(f"again/runs/{name}"), workshop.weights(f"sweep/runs/{name}"))


@pytest.mark.slow
def test_told_to_stop_it_lets_its_run_save_and_resume_goes_on(workshop: Workshop, swept: tuple[str, str]) -> None:
    name, folder = NAMES[0], workshop.folder / "stopped"
    words = ("sweep", "--loss", "dpo", "--beta", "0.1", "--output", "stopped", *SHARED)
    waiting = workshop.folder / "waiting"
    process = workshop.start(*words, AFTER_STEP_2=f"wait {folder / 'runs' / name} {waiting}")
    until = time.monotonic() + 200
    while not waiting.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert [(row["run"], row["status"]) for row in workshop.rows("stopped")] == [(name, "not run")]
    assert sorted(path.name for path in folder.iterdir()) == [
        "outcomes", "reference", "results.parquet", "runs", "sweep.json"]  # fmt: skip
    assert not list(folder.rglob(".*"))
    assert sorted(path.name for path in (folder / "runs" / name).iterdir()) == [
        "checkpoint-2", "checkpoint-3", "metrics.jsonl", "run.json"]  # fmt: skip
    workshop.gpo(*words, "--resume")
    assert same(workshop.weights(f"stopped/runs/{name}"), workshop.weights(f"sweep/runs/{name}"))
    (row,) = workshop.rows("stopped")
    assert (row["status"], row["attempts"]) == ("done", 2)
    assert row["message"] == "gpo train: resuming from checkpoint-3"  # step 2 was over: it finished the next


@pytest.mark.slow
@pytest.mark.usefixtures("swept")
def test_when_all_is_done_resume_runs_nothing(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop.folder)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    before = files(workshop.folder / "sweep" / "runs")
    rows = workshop.rows("sweep")
    _, out, err = gpo("sweep", *GRID, "--output", "sweep", *SHARED, "--resume", code=0)
    assert err == ""
    assert "4 of 4 runs done" in out
    assert before == files(workshop.folder / "sweep" / "runs")
    assert workshop.rows("sweep") == rows


@dataclass
class Sweep:
    """`gpo sweep` of one run whose trainings are a shell script: "$@" is -m gpo_full.cli train ..."""

    output: Path
    monkeypatch: pytest.MonkeyPatch

    def trainings(self, text: str) -> None:
        stand_in(self.monkeypatch, self.output.with_name("program"), text)

    def __call__(self, *words: object, code: int = 0, loss: str = "dpo") -> Outcome:
        return gpo("sweep", "--loss", loss, *ONE, *words, "--output", self.output, code=code)

    def refused(self, *words: object) -> str:
        return refused("sweep", "--loss", "dpo", *ONE, *words, "--output", self.output)

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        table = parquet.read_table(self.output / "results.parquet").to_pylist()
        return [tuple(row[name] for name in columns) for row in table]


# A run of `gpo train` that takes no time; with --reference-only it prints something else, and nobody reads it.
TRAINED = 'echo \'{"pairs": 7, "last": {"loss": 0.5}, "evaluation": null}\''
ONE = ("--beta", "0.1", "--model", "m", "--data", "d")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    made = Sweep(tmp_path / "sweep", monkeypatch)
    made.trainings(TRAINED)
    return made


@pytest.mark.parametrize(("words", "reason"), [
    (("--loss", "dpo", "--loss", "dpo", "--beta", "0.1"), "--loss dpo is given twice"),
    (("--loss", "dpo", "--beta", "0"), "--beta 0.0 must be a finite number above 0"),
    (("--loss", "dpo", "--beta", "much"), "--beta"),
    (("--loss", "dpo", "--beta", "0.1", "--workers", "0"), "--workers 0 must be at least 1"),
    (("--loss", "dpo", "--beta", "0.1", "--workers", "2", "--ray", "local"), "a Ray cluster has its own"),
    (("--loss", "dpo", "--beta", "0.1", "--resume"), "holds no sweep to resume"),
    (("--loss", "dpo"), "--beta"),
])  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    assert reason in refused("sweep", *words, "--model", "m", "--data", "d", "--output", tmp_path / "sweep")
    assert not [*tmp_path.iterdir()]


def test_without_ray_the_extra_is_named(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    line = sweep("--ray", "local", code=2).stderr.splitlines()[-1]
    assert line.startswith("gpo sweep: error: ")
    assert "ray" in line
    assert "pip install 'gpo-toolkit[sweep]'" in line
    assert "\nsweep = [" in (ROOT / "pyproject.toml").read_text()
    assert not sweep.output.exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_reference_pass_that_fails_says_why_and_leaves_the_folder_as_it_was(there: bool, sweep: Sweep) -> None:
    sweep.trainings("echo noise >&2; echo '--model m is no folder' >&2; exit 2")
    if there:
        sweep.output.mkdir()
    _, out, err = sweep(code=2)
    assert out == ""
    assert err.splitlines()[1:] == ["gpo sweep: error: the reference pass ended with exit code 2: --model m is no folder"]
    assert [*sweep.output.iterdir()] == [] if there else not sweep.output.exists()


def test_a_run_that_fails_is_a_row_and_exit_1(sweep: Sweep) -> None:
    sweep.trainings(f'case "$*" in *--seed=2*) echo "not finite" >&2; exit 5;; esac; {TRAINED}')
    _, out, err = sweep("--seed", 1, "--seed", 2, code=1)
    assert "1 of 2 runs done" in out
    assert "dpo-beta0.1-seed2: exit code 5: not finite" in err
    assert sweep.rows("seed", "status", "exit_code", "message", "loss") == [
        (1, "done", 0, "", 0.5), (2, "failed", 5, "not finite", None)]  # fmt: skip
    sweep.trainings(TRAINED)
    assert json.loads(sweep("--seed", 1, "--seed", 2, "--resume", "--json").stdout)["failed"] == []
    assert sweep.rows("status", "attempts") == [("done", 1), ("done", 2)]


def test_folder_table_plan_and_json_name_the_beta_of_the_training(sweep: Sweep, tmp_path: Path) -> None:
    """By hand: R of dpo is 1/2, of ipo 1, so 0.3 of dpo is 0.15 of ipo."""
    sweep.trainings(f'echo "$@" >> {tmp_path}/asked; {TRAINED}')
    words = ("--beta", "0.3", "--betas-of", "dpo")
    _, out, err = sweep(*words, loss="ipo")
    assert "gpo sweep: convention: ipo is (x-1)^2, x = beta rho, rho summed over tokens" in err
    names = ["ipo-beta0.05-seed42", "ipo-beta0.15-seed42"]
    assert [line.split()[:3] for line in out.splitlines()[:3]] == [
        ["run", "asked", "beta"], [names[0], "0.1", "0.05"], [names[1], "0.3", "0.15"]]  # fmt: skip
    assert sweep.rows("run", "beta", "beta_asked") == [(names[0], 0.05, 0.1), (names[1], 0.15, 0.3)]
    plan = json.loads((sweep.output / "sweep.json").read_text())
    assert (plan["runs"], plan["betas"]) == (names, [0.05, 0.15])
    assert [words in (tmp_path / "asked").read_text() for words in ("--beta=0.05 ", "--beta=0.15 ")] == [True, True]
    printed = json.loads(sweep(*words, "--resume", "--json", loss="ipo").stdout)
    assert printed["betas"] == {names[0]: {"beta": 0.05, "beta_asked": 0.1}, names[1]: {"beta": 0.15, "beta_asked": 0.3}}


def test_a_sweep_without_a_match_shows_one_beta(sweep: Sweep) -> None:
    assert sweep().stdout.split()[:3] == ["run", "beta", "beta"]  # the other is beta R


def test_resume_refuses_another_sweep_and_names_what_changed(sweep: Sweep) -> None:
    sweep()
    before = files(sweep.output)
    assert "is not an empty folder" in sweep.refused()
    line = sweep.refused("--steps", 9, "--resume")
    assert "was started as another sweep: shared: ['--model', 'm', '--data', 'd'] -> " in line
    assert "'--steps', '9'" in line
    assert "runs:" not in line
    assert "betas: [0.1] -> [0.1, 0.2]" in sweep.refused("--beta", 0.2, "--resume")
    assert before == files(sweep.output)
    (sweep.output / "sweep.json").write_text("{")
    assert "sweep.json' is damaged; the sweep cannot be resumed" in sweep.refused("--resume")


@pytest.mark.parametrize("option", ["--data", "--eval-data"])
def test_resume_refuses_data_that_has_changed(option: str, sweep: Sweep, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    given = ("--beta", "0.1", "--model", "m", *(() if option == "--data" else ("--data", "d")), option, data)
    words = ("sweep", "--loss", "dpo", *given, "--output", sweep.output)
    gpo(*words)
    gpo(*words, "--resume")
    data.write_text('{"prompt": "a", "chosen": "c", "rejected": "b"}\n')
    assert "was started as another sweep: data: ['" in refused(*words, "--resume")


def test_resume_knows_the_parameters(sweep: Sweep, tmp_path: Path) -> None:
    sweep.trainings(f'echo "$@" >> {tmp_path}/asked; {TRAINED}')
    sweep("--param", "a=2", loss="exp(-a*x)")
    assert (tmp_path / "asked").read_text().count("--loss=exp(-a*x) --param=a=2 --beta=0.1") == 2  # reference and run
    sweep("--param", "a=2", "--resume", loss="exp(-a*x)")
    err = sweep("--param", "a=3", "--resume", loss="exp(-a*x)", code=2).stderr
    assert "was started as another sweep: parameters: {'a': '2'} -> {'a': '3'}" in err


def test_a_sweep_of_an_older_version_goes_on(sweep: Sweep) -> None:
    """Its plan says nothing of parameters, and nothing of the data."""
    sweep()
    plan = json.loads((sweep.output / "sweep.json").read_text())
    del plan["parameters"], plan["data"]
    (sweep.output / "sweep.json").write_text(json.dumps(plan))
    sweep("--resume")


def test_a_run_killed_before_it_could_be_resumed_is_begun_anew(tmp_path: Path) -> None:
    """What it leaves, its lock and half a file, is no reason to refuse the folder; anything else is."""
    for name in (".writer.lock", ".run-x1y2.json"):
        (tmp_path / name).touch()
    words = ("--loss", "dpo", "--beta", "0.1", "--model", "./absent", "--data", "absent.jsonl", "--output", tmp_path)
    for reason in ("--model './absent' is not a folder", "is not an empty folder"):
        assert reason in refused("train", *words)
        (tmp_path / "mine").touch()
