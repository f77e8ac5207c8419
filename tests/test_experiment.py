"""The experiment at smoke scale: the same code path as the real one, whole, resumable, and exact where it can be."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import mpmath
import pytest

from gpo_full import experiment
from gpo_full.experiment import ExperimentResult, checks, default_folder, grid, run, target_margin
from gpo_full.protocol import Protocol
from gpo_full.scales import LOSS_NAMES, SCALES, find_scale, material
from gpo_theory.errors import InputError

# f at 0, by hand.
AT_ZERO = {"logistic": math.log(2), "hinge": 1, "squared": 1, "exponential": 1, "truncated_squared": 1, "savage": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture(scope="module")
def result(folder: Path) -> ExperimentResult:
    return run("smoke", folder)


@pytest.mark.slow
def test_every_loss_is_trained_at_two_betas(result: ExperimentResult) -> None:
    assert [one.name for one in result.runs] == [f"{f}-{kind}" for f in LOSS_NAMES for kind in ("matched", "unmatched")]
    assert all(one.n == SCALES["smoke"].test_prompts for one in result.runs)
    assert all(one.kl > 0 for one in result.runs)
    assert len({one.kl for one in result.runs}) > 6
    assert result.shortened is None


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

    for name in ("_fine_tune", "_sample_and_label", "_try_rates", "_train"):
        monkeypatch.setattr(Protocol, name, refuse)
    assert run("smoke", folder) == result


@pytest.mark.slow
def test_json_round_trip(result: ExperimentResult, folder: Path) -> None:
    assert ExperimentResult.load(folder / "result.json") == result
    saved = json.loads((folder / "result.json").read_text())
    assert saved["schema"] == 1
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False)) == saved


@pytest.mark.slow
def test_an_interrupted_experiment_continues_where_it_was(
    result: ExperimentResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = Protocol._train

    def interrupted(self: Protocol, one: Any, rate: float, steps: int) -> Any:
        trained.append(one.name)
        if len(trained) == 4:
            raise KeyboardInterrupt
        return train(self, one, rate, steps)

    monkeypatch.setattr(Protocol, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("smoke", tmp_path)
    assert not (tmp_path / "result.json").exists()
    again = run("smoke", tmp_path)
    # Pilot and two runs had been finished; the one that was interrupted is trained again, none twice.
    assert trained[3] == trained[4] == "hinge-matched"
    assert len(trained) == 14
    assert [replace(one, cpu_seconds=0) for one in again.runs] == [replace(one, cpu_seconds=0) for one in result.runs]


@pytest.mark.slow
def test_published_values_are_finite_and_inside_their_intervals(result: ExperimentResult) -> None:
    values = result.values("09_language_model")
    assert len({value["id"] for value in values}) == len(values) == 3 + 3 * len(result.runs)
    for value in values:
        assert math.isfinite(value["value"])
        assert value["low"] is None or value["low"] <= value["value"] <= value["high"]
        assert (value["lesson"], value["seed"], value["tolerance"]) == ("09_language_model", 0, None)


@pytest.mark.slow
def test_checks_say_what_was_found(result: ExperimentResult) -> None:
    def outcome(name: str, **changes: Any) -> Any:
        runs = tuple(replace(one, **{key: change(one) for key, change in changes.items()}) for one in result.runs)
        return next(check["passed"] for check in checks(replace(result, runs=runs)) if check["id"] == name)

    beta = {"kl": lambda one: 1.0 if one.matched else 0.5}
    assert outcome("beta", **beta)
    assert not outcome("beta", kl=lambda one: 1.0 if one.matched or one.loss == "savage" else 0.5)
    assert outcome("overlay", kl=lambda one: 1.4 if one.loss == "squared" else 1.0)
    assert not outcome("overlay", kl=lambda one: 1.6 if one.loss == "squared" else 1.0)
    assert outcome("overlay", kl=lambda one: 9.0 if one.loss == "hinge" else 1.0)  # the hinge has R = 0
    assert outcome("half", kl=lambda one: 1.0, regularizer=lambda one: 2.0)
    assert not outcome("half", kl=lambda one: 1.0, regularizer=lambda one: 5.0)
    assert outcome("half", kl=lambda one: 0.0, regularizer=lambda one: 0.0) is None
    assert outcome("scatter", kl=lambda one: one.beta, regularizer=lambda one: one.beta**3)
    assert not outcome("scatter", kl=lambda one: one.beta, regularizer=lambda one: -one.beta)
    assert outcome("better", win_low=lambda one: 0.51 if one.loss == "hinge" else 0.4)
    assert not outcome("better", win_low=lambda one: 0.5)


def test_betas_are_matched_by_strength_and_the_hinge_by_its_target() -> None:
    scale = SCALES["cpu"]
    by_name = {one.name: one for one in grid(scale)}
    # R of the six losses, by hand: f''(0)/|f'(0)|.
    strengths = {"logistic": 0.5, "squared": 1, "exponential": 1, "truncated_squared": 1, "savage": 0.5}
    for loss, r in strengths.items():
        one = by_name[f"{loss}-matched"]
        assert one.beta * r == pytest.approx(scale.beta * 0.5)
        assert one.strength == pytest.approx(r)
    # Targets x*(0.9): logit(0.9) of the logistic, 1 of the hinge.
    hinge = by_name["hinge-matched"]
    assert hinge.beta == pytest.approx(scale.beta / math.log(9), rel=1e-6)
    assert (hinge.strength, hinge.matching) == (None, "target margin at p = 0.9")
    for loss in LOSS_NAMES:
        assert by_name[f"{loss}-unmatched"].beta == pytest.approx(4 * by_name[f"{loss}-matched"].beta)


@pytest.mark.parametrize(
    ("loss", "closed_form"),
    [
        ("logistic", lambda p: mpmath.log(p / (1 - p))),
        ("exponential", lambda p: mpmath.log(p / (1 - p)) / 2),
        ("squared", lambda p: 2 * p - 1),
        ("truncated_squared", lambda p: 2 * p - 1),
        ("savage", lambda p: mpmath.log(p / (1 - p))),
        ("hinge", lambda p: 1),
    ],
)
@pytest.mark.parametrize("p", [0.6, 0.9, 0.99])
def test_target_margin_is_the_minimiser_of_the_pointwise_risk(loss: str, closed_form: Any, p: float) -> None:
    """Each form solves p f'(x) = (1-p) f'(-x) by hand."""
    assert target_margin(loss, p) == pytest.approx(float(closed_form(p)), abs=1e-6)


def test_a_slow_pilot_shortens_every_run_alike() -> None:
    from gpo_full.stages import Stage

    scale = replace(SCALES["cpu"], budget_seconds=500)
    protocol = Protocol(scale, Path("unused"))

    def plan(seconds: float, elapsed: float) -> dict[str, Any]:
        # A run: half of the time trains, of which the pilot had twice as much to do, its frozen layers being new;
        # the other half evaluates, and the pilot evaluated half as many prompts.
        payload = {"tried": [{"train_seconds": seconds, "evaluate_seconds": seconds / 4}],
                   "prompts": scale.test_prompts // 2, "frozen_layers": 3 * scale.trained_layers}  # fmt: skip
        pilot = Stage("pilot", "key", Path("unused"), payload, 0, 0, cached=False)
        return protocol._shorten(pilot, elapsed, 12)

    unchanged = {"steps": scale.steps, "test_prompts": scale.test_prompts, "shortened": None}
    assert plan(seconds=400 / 12.01, elapsed=100) == unchanged
    short = plan(seconds=2 * 400 / 12, elapsed=100)
    assert short["shortened"]["factor"] == pytest.approx(0.5)
    assert (short["steps"], short["test_prompts"]) == (scale.steps // 2, scale.test_prompts // 2)
    assert "500 s" in short["shortened"]["because"]
    assert plan(seconds=1e6, elapsed=600)["steps"] >= 2


def test_an_unknown_scale_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"unknown scale 'smok'; allowed: smoke, cpu; did you mean 'smoke'"):
        find_scale("smok")
    with pytest.raises(InputError):
        default_folder("../elsewhere")


def test_the_smoke_material_is_the_same_every_time() -> None:
    one, two = material(SCALES["smoke"]), material(SCALES["smoke"])
    assert one.tasks == two.tasks
    pairs = zip(one.model.parameters(), two.model.parameters(), strict=True)
    assert all(bool((p == q).all()) for p, q in pairs)
    assert one.reward(["aab", "xyz"], ["abc", "abc"]) == pytest.approx([2 / 3, 0])


def test_no_wheel_is_needed_at_smoke_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpo_full.preparation.prepare", lambda *a, **k: pytest.fail("prepared"))
    assert experiment.find_scale("smoke").name == "smoke"
    material(SCALES["smoke"])
