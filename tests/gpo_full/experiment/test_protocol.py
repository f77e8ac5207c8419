"""Keys of the experiment's stages: an edit of the code that a stage reaches changes its key, and no other edit does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpo_full import source_hash
from gpo_full.experiment import protocol
from gpo_full.experiment.grid import all_runs, base_of
from gpo_full.experiment.inputs.scales import SCALES, Scale
from gpo_full.experiment.protocol import Protocol
from gpo_full.experiment.stages import Stage
from tests.support.edits import edit
from tests.support.places import ROOT

SFT, PAIRS, ANSWERS, PILOT, RUN = "sft", "pairs", "answers", "pilot", "logistic-matched"
EVERY = {SFT, PAIRS, ANSWERS, PILOT, RUN}
# With a pilot.
SMOKE = replace(SCALES["smoke"], learning_rates=(1e-3, 1e-2))
ENGINE = ("gpo_full.attention.mask", "gpo_full.engine.packing", "gpo_full.training.trainer", "gpo_theory.formula.expression")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """The keys of the stages at scale smoke, of which none is computed."""
    stage = protocol.stage

    def uncomputed(root: Path, name: str, inputs: Any, compute: Any, arguments: Any, **options: Any) -> Stage:
        def nothing(folder: Path) -> dict[str, Any]:
            return {"learning_rate": 0.1}

        nothing.__module__ = compute.__module__
        return stage(root, name, inputs, nothing)

    def found(scale: Scale = SMOKE) -> dict[str, str]:
        one = Protocol(scale, tmp_path)
        runs = all_runs(one.scale)
        stages = [one.sft(), one.pairs(), one.answers(), one.pilot(base_of(runs)), one.train_and_evaluate(runs[0])]
        return {each.name: each.key for each in stages}

    monkeypatch.setattr(protocol, "stage", uncomputed)
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys() == EVERY
    return {name for name in EVERY if before[name] != after[name]}


def more(source: str) -> str:
    return source + "\n_PLANTED = 1\n"


@pytest.mark.parametrize("module", ENGINE)
def test_an_edit_of_the_engine_changes_the_runs(module: str, monkeypatch: pytest.MonkeyPatch, keys: Any) -> None:
    before = keys()
    edit(monkeypatch, module, more)
    assert {PILOT, RUN} <= changed(before, keys())


def test_an_edit_of_the_trainer_leaves_fine_tuning_and_pairs(monkeypatch: pytest.MonkeyPatch, keys: Any) -> None:
    before = keys()
    edit(monkeypatch, "gpo_full.training.trainer", more)
    assert changed(before, keys()) == {PILOT, RUN}


@pytest.mark.parametrize(
    ("module", "stages"),
    [("sft", EVERY), ("inputs.workload", EVERY), ("labels", {PAIRS, PILOT, RUN}), ("answers", EVERY - {SFT}), ("trained_run", {PILOT, RUN}),
     ("frozen_layers", {PILOT, RUN}), ("pilot", {PILOT})],
)  # fmt: skip
def test_each_stage_sees_its_own_module(module: str, stages: set[str], monkeypatch: pytest.MonkeyPatch, keys: Any) -> None:
    before = keys()
    edit(monkeypatch, f"gpo_full.experiment.{module}", more)
    assert changed(before, keys()) == stages


def test_what_no_stage_reaches_and_docstrings_change_nothing(monkeypatch: pytest.MonkeyPatch, keys: Any) -> None:
    before = keys()
    for module in ("gpo_full.book.gallery", "gpo_full.experiment.plots", "gpo_full.experiment.run"):
        edit(monkeypatch, module, more)
    for module in ENGINE:
        edit(monkeypatch, module, lambda source: "# a comment\n" + source.replace('"""', '"""Other words: ', 1))
    assert changed(before, keys()) == set()


@pytest.mark.parametrize(
    "plan", [{"budget_seconds": 1.0}, {"budget_seconds": None}, {"extra": ()}, {"losses": ("logistic", "probit")}, {"repeats": 3}]
)
def test_another_plan_keeps_what_is_finished(plan: dict[str, Any], keys: Any) -> None:
    assert changed(keys(), keys(replace(SMOKE, **plan))) == set()


@pytest.mark.parametrize(("plan", "stages"), [({"steps": 8}, {PILOT, RUN}), ({"test_prompts": 10}, {ANSWERS, RUN})])
def test_what_a_run_is_is_in_its_key(plan: dict[str, Any], stages: set[str], keys: Any) -> None:
    assert changed(keys(), keys(replace(SMOKE, **plan))) == stages


def test_every_stage_s_code_is_reached_and_the_wiring_is_not() -> None:
    """What protocol.py itself computes would be seen by no key: it may only hand values on."""
    text = (ROOT / "gpo_full" / "experiment" / "protocol.py").read_text(encoding="utf-8")
    assert "import torch" not in text
    reached = source_hash.reached(["gpo_full.experiment.trained_run"])
    assert "gpo_full.experiment.protocol" not in reached
    assert {*ENGINE, "gpo_full.evaluation.kl", "gpo_full.evaluation.sampling", "gpo_full.experiment.frozen_layers"} <= {*reached}
