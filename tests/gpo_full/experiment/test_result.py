"""The experiment at smoke scale: the same code path as the real one, whole, resumable, and exact where it can be."""

import json
import math
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpo_full.checkpoints.atomic import FolderInUse, sole_writer
from gpo_full.evaluation import compare
from gpo_full.evaluation.scores import read_scores
from gpo_full.experiment import answers, labels, sft, trained_run
from gpo_full.experiment.answers import drawn_answers, read_answers
from gpo_full.experiment.inputs.scales import LOSS_NAMES, SCALES
from gpo_full.experiment.inputs.workload import load_workload
from gpo_full.experiment.result import ExperimentResult, Run
from gpo_full.experiment.run import default_folder, run_experiment
from gpo_theory.errors import InputError
from tests.support.places import ROOT

# What scale full adds, at the size of smoke: other losses, more betas than two, seeds, a forecast in place of a budget.
MANY = replace(SCALES["smoke"], losses=("logistic", "hinge", "probit"), factors=(0.5, 1.0, 2.0), extra=(), repeats=2,
               learning_rates=(1e-4, 3e-2), budget_seconds=None)  # fmt: skip

# Four of these runs, for what needs not all of them, at the rate that the pilot of those takes.
FEW = replace(MANY, losses=("logistic", "probit"), factors=(1.0,), learning_rates=(3e-2,))

# How a process of its own begins that runs them.
CHILD = f"""import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.gpo_full.experiment.test_result import FEW, MANY, run_experiment
"""

# Two processes are compared to the bit, and sums in float32 depend on the number of threads.
torch.set_num_threads(1)

# f at 0, by hand.
AT_ZERO = {"logistic": math.log(2), "hinge": 1, "squared": 1, "exponential": 1, "truncated_squared": 1, "savage": 0.25}


def untimed(result: ExperimentResult) -> list[Run]:
    return [replace(one, cpu_seconds=0) for one in result.runs]


def those_of(result: ExperimentResult, many: ExperimentResult) -> list[Run]:
    """The runs of `many` that have the names of those of `result`, in its order."""
    by_name = {one.name: one for one in untimed(many)}
    return [by_name[one.name] for one in result.runs]


@pytest.fixture(scope="module")
def folder(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the experiment's folder."""
    return shutil.copytree(experiment, tmp_path_factory.mktemp("experiment") / "smoke")


@pytest.fixture(scope="module")
def result(folder: Path) -> ExperimentResult:
    return run_experiment("smoke", folder)


@pytest.mark.slow
def test_every_loss_is_trained_at_its_matched_beta_and_one_at_two_more(result: ExperimentResult) -> None:
    names = [*(f"{loss}-matched" for loss in LOSS_NAMES), "logistic-x0.5", "logistic-x4"]
    assert [one.name for one in result.runs] == names
    assert all(one.n == SCALES["smoke"].test_prompts for one in result.runs)
    assert all(one.kl > 0 for one in result.runs)
    assert len({one.kl for one in result.runs}) > 6
    assert result.shortened is None
    assert (result.pilot["tried"], result.pilot["learning_rate"]) == ((), 3e-2)
    assert result.pilot["reached"] == result.runs[0].scaled_margin[-1]  # the last fifth of six steps


@pytest.mark.slow
def test_training_starts_at_f_of_zero(result: ExperimentResult) -> None:
    for one in result.runs:
        assert one.objective[0] == pytest.approx(AT_ZERO[one.loss], abs=2 * one.beta * 1e-4)
        assert one.scaled_margin[0] == pytest.approx(0, abs=one.beta * 1e-4)
        assert len(one.scaled_margin) == SCALES["smoke"].steps


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_finds_the_same(
    result: ExperimentResult, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise AssertionError("a cached stage was computed again")

    for module, name in ((sft, "fine_tune"), (labels, "sampled"), (answers, "sampled"), (trained_run, "train"),
                         (trained_run, "score_prompts")):  # fmt: skip
        monkeypatch.setattr(module, name, refuse)
    assert run_experiment("smoke", folder) == result


@pytest.mark.slow
def test_json_round_trip(result: ExperimentResult, folder: Path) -> None:
    assert ExperimentResult.load(folder / "result.json") == result
    saved = json.loads((folder / "result.json").read_text())
    assert saved["schema"] == 1
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False)) == saved


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], list[str]]:
    """Raise SIGINT at those numbers of the calls that it lists: optimizer steps, readings and drawings of prompts."""
    calls: list[str] = []

    def watch(owner: Any, name: str, at: set[int]) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) in at:
                signal.raise_signal(signal.SIGINT)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    def begin(at: set[int]) -> list[str]:
        for owner, name in ((torch.optim.AdamW, "step"), (answers, "continue_prompts"), (compare, "read_prompts"),
                            (compare, "continue_prompts")):  # fmt: skip
            watch(owner, name, at)
        return calls

    return begin


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_interrupted_at_random_moments_it_goes_on_and_finds_the_same(
    seed: int, result: ExperimentResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: Any
) -> None:
    monkeypatch.setattr(sft, "_BETWEEN_SAVES", 0.0)
    two_losses = replace(SCALES["smoke"], losses=LOSS_NAMES[:2], extra=())
    # Without an interruption: 3 steps, 1 and 1 drawings, and for each run 6 steps and about 3 calls.
    calls = interrupted(set(random.Random(seed).sample(range(1, 22), 5)))
    stopped = 0
    while not (tmp_path / "result.json").exists():
        try:
            run_experiment(two_losses, tmp_path)
        except (KeyboardInterrupt, SystemExit):
            stopped += 1
    assert stopped == 5
    # A step of fine-tuning that was interrupted is done again, one of a run never: it ends with the step.
    assert 3 + 12 <= calls.count("step") <= 3 + 12 + 3
    assert untimed(ExperimentResult.load(tmp_path / "result.json")) == untimed(result)[:2]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_extra_betas_are_left_out_whole_when_time_is_short_and_done_by_the_next_call(
    result: ExperimentResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = replace(SCALES["smoke"], losses=LOSS_NAMES[:1])
    short = run_experiment(few, tmp_path, budget_seconds=0.01)
    assert untimed(short) == untimed(result)[:1]
    assert short.shortened is not None
    assert short.shortened["dropped"] == ("logistic-x0.5", "logistic-x4")
    assert short.shortened["factor"] == 1 / 3
    assert "shortened: logistic-x0.5 and logistic-x4 would not fit into the planned 0 s" in capsys.readouterr().err
    made = finished(tmp_path)
    assert len(made) == 1
    whole = run_experiment(few, tmp_path)
    assert whole.shortened is None
    assert {path: time for path, time in finished(tmp_path).items() if path in made} == made
    by_name = {one.name: one for one in untimed(result)}
    assert untimed(whole) == [by_name[one.name] for one in whole.runs]


@pytest.mark.slow
def test_win_rates_and_differences_are_those_of_the_rewards_kept(result: ExperimentResult, folder: Path) -> None:
    (kept,) = folder.glob("answers-*/answers.json")
    theirs = json.loads(kept.read_text())["rewards"]
    for one in result.runs:
        (scores,) = folder.glob(f"{one.name}-*/scores.jsonl")
        rows = read_scores(scores)
        assert [row.reference_reward for row in rows] == [first for first, _, _ in theirs]
        pairs = [(row.reward, second) for row, (a, b, _) in zip(rows, theirs, strict=True) for second in (a, b)]
        won = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
        assert one.win_rate == pytest.approx(sum(won) / len(won))
        assert one.ties == won.count(0.5)
        assert one.wins == tuple((won[i] + won[i + 1]) / 2 for i in range(0, len(won), 2))
        differences = [row.reward - last for row, (_, _, last) in zip(rows, theirs, strict=True)]
        assert one.reward_difference == pytest.approx(statistics.mean(differences))
        assert one.reward_difference_se == pytest.approx(statistics.stdev(differences) / math.sqrt(len(differences)))
        assert one.reference_reward == pytest.approx(statistics.mean(value for row in theirs for value in row))


def test_the_reference_s_last_answers_are_what_an_untrained_policy_writes(tmp_path: Path) -> None:
    """The uniform numbers are shared: the difference of the rewards is then 0, and has no variance."""
    scale = SCALES["smoke"]
    workload = load_workload(scale)
    drawn_answers(tmp_path, workload, scale, workload.model, 1)
    start = trained_run.Start(workload, scale, workload.model, [], tmp_path)
    known = read_answers(tmp_path)
    against = trained_run.answered(start, workload.tasks["test"][: scale.test_prompts], known.samples)
    rows = trained_run.scored(start, workload.model, against, "untrained", scale.seed)
    assert [row.policy for row in rows] == [third.text for _, _, third in known.samples]
    assert [row.reference for row in rows] == [first.text for first, _, _ in known.samples]
    assert any(several[0].text != several[2].text for several in known.samples)


@pytest.mark.slow
def test_published_values_are_finite_and_inside_their_intervals(result: ExperimentResult) -> None:
    values = result.values("09_language_model")
    assert len({value["id"] for value in values}) == len(values) == 3 + 4 * len(result.runs) + 1
    for value in values:
        assert math.isfinite(value["value"])
        assert value["low"] is None or value["low"] <= value["value"] <= value["high"]
        assert (value["lesson"], value["seed"], value["tolerance"]) == ("09_language_model", 0, None)


def test_an_unknown_scale_has_no_folder() -> None:
    with pytest.raises(InputError):
        default_folder("../elsewhere")
    assert len({default_folder("cpu"), default_folder("full"), default_folder("cpu", "mine"), default_folder("cpu", None, "m:f")}) == 4


def shared_stages(experiment: Path, folder: Path) -> Path:
    """Copy the experiment's stages before the runs to `folder`."""
    for stage in ("sft", "pairs", "answers"):
        (made,) = experiment.glob(f"{stage}-*")
        shutil.copytree(made, folder / made.name)
    return folder


@pytest.fixture(scope="module")
def many_folder(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_stages(experiment, tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def many(many_folder: Path) -> ExperimentResult:
    return run_experiment(MANY, many_folder)


@pytest.mark.slow
def test_many_betas_and_seeds(many: ExperimentResult) -> None:
    names = [one.name for one in many.runs]
    assert names[:4] == ["logistic-x0.5", "logistic-matched", "logistic-x2", "hinge-x0.5"]
    assert names[9:] == ["logistic-matched-seed1", "hinge-matched-seed1", "probit-matched-seed1"]
    by_name = {one.name: one for one in many.runs}
    again, first = by_name["probit-matched-seed1"], by_name["probit-matched"]
    assert (again.seed, first.seed, again.beta) == (1, 0, first.beta)
    assert again.scaled_margin != first.scaled_margin  # another order of the pairs
    assert again.reference_reward == first.reference_reward  # the same answers of the reference
    assert [check["id"] for check in many.checks][5:] == ["pooled", "four", "tails", "sandwich", "seeds"]
    assert [tried["learning_rate"] for tried in many.pilot["tried"]] == [1e-4, 3e-2]
    assert many.forecast is not None
    assert many.forecast["runs"] == len(names)
    assert many.shortened is None


@pytest.mark.slow
def test_a_forecast_is_said_before_anything_else(many: ExperimentResult, many_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_experiment(MANY, many_folder)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("experiment at scale smoke: 12 runs (3 losses, 3 betas, 2 seeds at the matched one), each of 6 steps")
    assert lines[1] == "experiment sft: from the cache"


@pytest.mark.slow
def test_the_width_is_that_of_the_scores_kept(many: ExperimentResult, many_folder: Path) -> None:
    (kept,) = [path for path in many_folder.glob("logistic-matched-*/scores.jsonl") if "seed" not in path.parent.name]
    rows = read_scores(kept)
    one = next(one for one in many.runs if one.name == "logistic-matched")
    assert one.width == max(math.sqrt(2 * row.half_square) for row in rows)
    assert one.regularizer == pytest.approx(sum(row.half_square for row in rows) / len(rows))


@pytest.mark.slow
def test_two_processes_find_what_one_finds(many: ExperimentResult, experiment: Path, tmp_path: Path) -> None:
    shared_stages(experiment, tmp_path)
    # One thread in each, as here.
    code = f"{CHILD}import os; os.cpu_count = lambda: 2\nif __name__ == '__main__': run_experiment(FEW, Path(sys.argv[1]), workers=2)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    found = ExperimentResult.load(tmp_path / "result.json")
    assert len(found.runs) == 4
    assert untimed(found) == those_of(found, many)
    assert done.stderr.count(": win rate") == 0
    lines = [line for line in done.stderr.splitlines() if "; win rate" in line]
    assert [line.split()[1] for line in lines] == [f"{i}/4" for i in range(1, 5)]


@pytest.mark.slow
def test_killed_between_two_runs_it_goes_on_and_finds_the_same(many: ExperimentResult, experiment: Path, tmp_path: Path) -> None:
    shared_stages(experiment, tmp_path)
    code = f"{CHILD}run_experiment(FEW, Path(sys.argv[1]))"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    try:
        while len(done := finished(tmp_path)) < 2:
            assert child.poll() is None, "the child ended before it could be killed"
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(done) < 4
    (tmp_path / ".half-a-stage").mkdir()
    result = run_experiment(FEW, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert not list(tmp_path.glob(".*"))
    assert untimed(result) == those_of(result, many)


def finished(folder: Path) -> dict[Path, int]:
    """The results of the runs that are whole, and when they were written; a folder with a dot is being written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*-*-*/stage.json")}


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with sole_writer(tmp_path), pytest.raises(FolderInUse):
        run_experiment("smoke", tmp_path)
