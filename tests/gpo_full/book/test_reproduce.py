"""`gpo reproduce`: one call leaves the book and the results; a second one reuses what it can and finds the same."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpo_full.course.lessons import lesson_files
from tests.support.commands import gpo as command
from tests.support.commands import refused
from tests.support.places import ROOT


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def gpo(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpo_full.cli", "reproduce", *arguments]
    settings = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=cwd, env=settings)


@pytest.mark.slow
def test_results_have_the_stable_form(published: Path) -> None:
    found = results(published)
    assert list(found) == ["schema", "scale", "versions", "values"]
    assert (found["schema"], found["scale"]) == (1, "smoke")
    assert {"python", "gpo-toolkit", "torch", "sympy"} <= set(found["versions"])
    assert all(set(v) == {"id", "value", "low", "high", "seed", "tolerance", "lesson"} for v in found["values"])
    assert {v["lesson"] for v in found["values"]} == {path.stem for path in lesson_files()}
    assert len({v["id"] for v in found["values"]}) == len(found["values"])


@pytest.mark.slow
def test_values_are_those_of_the_theory(published: Path) -> None:
    values = {v["id"]: v for v in results(published)["values"]}
    # P13 (A) and P14 of the theory notes, the first by its closed form, the second to the digits quoted there.
    assert abs(values["lesson06.one-pair-kl-limit"]["value"] - 0.590002) < 1e-6
    assert values["lesson06.mixture-kl-highest"]["value"] > 1.3 * values["lesson06.mixture-kl-start"]["value"]
    assert values["lesson06.mixture-kl-end"]["value"] < 0.1 * values["lesson06.mixture-kl-start"]["value"]
    assert values["lesson01.kl-largest-over-smallest-same-beta-R"]["value"] < 1.06


@pytest.mark.slow
def test_the_experiment_s_result_and_figures_are_left(published: Path) -> None:
    from gpo_full.experiment import plots
    from gpo_full.experiment.result import ExperimentResult

    folder = published / "experiment"
    assert ExperimentResult.load(folder / "result.json").scale == "smoke"
    assert {path.stem for path in folder.glob("*.svg")} == set(plots.__all__) - {"write_figures"}


@pytest.mark.slow
def test_with_a_policy_and_a_reward_of_one_s_own_the_experiment_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reward is a function in a file, which gives at least 10; the project's own gives at most 1."""
    from gpo_full.experiment.inputs.scales import SCALES
    from gpo_full.experiment.inputs.workload import load_workload

    made = load_workload(SCALES["smoke"])
    made.model.save_pretrained(tmp_path / "policy")
    made.tokenizer.save_pretrained(tmp_path / "policy")
    (tmp_path / "judges.py").write_text("def longer(samples, targets):\n    return [10.0 + len(text) for text in samples]\n")
    output = tmp_path / "out"
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(SCALES, "smoke", replace(SCALES["smoke"], losses=("logistic", "hinge")))
    monkeypatch.syspath_prepend(tmp_path)
    words = ("--scale", "smoke", "--policy", str(tmp_path / "policy"), "--reward", "judges:longer", "--output", str(output))
    found = json.loads(command("reproduce", *words, "--json").stdout)
    assert (found["schema"], found["runs"], len(found["checks"])) == (1, 4, 7)
    assert {value["lesson"] for value in results(output)["values"]} == {"experiment"}
    rewards = [run["reward"] for run in json.loads((output / "experiment" / "result.json").read_text())["runs"]]
    assert len(rewards) == 4
    assert min(rewards) >= 10
    assert not (output / "book").exists()
    assert [path.name for path in (tmp_path / "cache" / "experiment").iterdir()] != ["smoke"]


@pytest.mark.slow
def test_a_second_run_reuses_experiment_and_lessons_and_finds_the_same_numbers(published: Path, tmp_path: Path) -> None:
    made = {path: path.stat().st_mtime_ns for path in (published / "cache" / "experiment").rglob("*.safetensors")}
    shutil.copytree(published / "book", tmp_path / "again" / "book")  # the same book at its place
    pages = {path: path.stat().st_mtime_ns for path in (tmp_path / "again" / "book").rglob("*.html")}
    done = gpo("--scale", "smoke", "--output", str(tmp_path / "again"), GPO_CACHE=str(published / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("results.json")
    for stage in ("controlled experiment at scale smoke", "lessons and pages", "book"):
        assert re.search(rf"^\[ ?\d+:\d\d\] .*{stage}: \d+ s$", done.stderr, flags=re.MULTILINE), stage
    for lesson in (path.stem for path in lesson_files()):
        assert re.search(rf"^\[ ?\d+:\d\d\] {lesson}: from the cache$", done.stderr, flags=re.MULTILINE), lesson
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert pages
    assert {path: path.stat().st_mtime_ns for path in pages} == pages
    assert results(tmp_path / "again") == results(published)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--scale", "huge"), "invalid choice: 'huge'"), (("--output", str(ROOT / "README.md")), "README.md' is not a folder")],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("reproduce", *arguments)


def test_without_a_checkout_it_says_so(tmp_path: Path) -> None:
    """Installed packages hold no lessons."""
    for package in ("gpo_theory", "toy_models", "gpo_full"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    done = gpo("--scale", "smoke", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "checkout" in done.stderr
    assert done.stderr.count("\n") == 2  # with what it says while it loads
    assert not (tmp_path / "build").exists()
