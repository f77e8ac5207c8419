"""Logs judged as a whole: planted truths are found in simulated descent, and healthy logs give no finding."""

import csv
import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpo_full.diagnosis.log import read_run
from gpo_full.diagnosis.plots import run_curves
from gpo_full.diagnosis.rules import RULES, diagnose
from gpo_theory import LOSSES, InputError
from tests.support.judged_logs import ids, judged, said
from tests.support.simulated_logs import Truth, rows_of, simulate

FILES = {"trl": "trainer_state.json", "llama-factory": "trainer_log.jsonl", "ms-swift": "logging.jsonl",
         "openrlhf": "history.jsonl"}  # fmt: skip
AT_ZERO = {"logistic": math.log(2), "squared": 1.0, "exponential": 1.0}
MANY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LOSS = st.sampled_from(sorted(AT_ZERO))
ABOUT_START = {"wrong_start", "worse_than_reference", "stuck_at_start", "likelihood_displaced", "collapsed"}


def write(folder: Path, rows: list[dict[str, Any]], trainer: str = "trl") -> Path:
    path = folder / FILES[trainer]
    path.write_text(json.dumps({"log_history": rows}) if trainer == "trl" else "".join(f"{json.dumps(row)}\n" for row in rows))
    return path


healthy = st.builds(Truth, loss=LOSS, beta=st.sampled_from([0.05, 0.1, 0.5]), logs=st.integers(12, 40),
                    every=st.sampled_from([1, 10]), rate=st.floats(0.004, 0.012), first_step=st.booleans(),
                    warmup=st.sampled_from([0, 20]), seed=st.integers(0, 99))  # fmt: skip
moving = st.builds(Truth, loss=LOSS, logs=st.integers(15, 40), rate=st.floats(0.004, 0.012), seed=st.integers(0, 99))
ALLOWED = {"at_target", "past_target", "beta_not_felt", "stuck_at_start"}  # what a short or a long run is told truly


@MANY
@given(truth=healthy)
def test_a_healthy_run_has_no_fault(truth: Truth, tmp_path: Path) -> None:
    for loss, beta in ((truth.loss, truth.beta), (None, None)):
        assert ids(judged(tmp_path, simulate(truth), loss, beta)) <= ALLOWED


@MANY
@given(truth=moving, k=st.integers(2, 32), lost=st.booleans(), infinite=st.booleans())
def test_the_sum_over_accumulation_steps_is_divided(truth: Truth, k: int, lost: bool, infinite: bool, tmp_path: Path) -> None:
    rows = simulate(Truth(**(vars(truth) | {"accumulation": k})))
    if lost:
        rows.append({"step": 10**4, "loss": rows[-1]["loss"]})
    if infinite:
        for row in rows[:2]:
            row["grad_norm"] = math.inf
    found = judged(tmp_path, rows, truth.loss, truth.beta)
    assert ids(found) - ALLOWED == {"loss_multiple"} | ({"steps_skipped"} if infinite else set())
    assert found.loss_multiple == k
    assert f"is {k} f(0)" in said(found, "loss_multiple")
    assert set(found.log.lacking.values()) == ({1} if lost else set())


@MANY
@given(truth=moving, k=st.integers(2, 32))
def test_a_multiple_whose_start_is_not_in_the_log_is_unknown(truth: Truth, k: int, tmp_path: Path) -> None:
    rows = [row for row in simulate(Truth(**(vars(truth) | {"accumulation": k}))) if row["rewards/margins"] > 0.15]
    if len(rows) < 12 or truth.loss == "squared":
        return
    found = judged(tmp_path, rows, truth.loss, truth.beta)
    assert found.loss_multiple is None
    assert "not known" in said(found, "loss_multiple")
    assert not ids(found) & {"wrong_start", "worse_than_reference"}
    assert found.not_looked_at["worse_than_reference"] == "the logged loss is a multiple of f that is not known"


@MANY
@given(truth=moving, from_log=st.integers(0, 5), value=st.sampled_from([0.0, math.inf, math.nan]))
def test_a_norm_that_is_not_the_gradients(truth: Truth, from_log: int, value: float, tmp_path: Path) -> None:
    rows = simulate(truth)
    for row in rows[from_log if value == 0 else 0 :]:
        row["grad_norm"] = value
    found = judged(tmp_path, rows, truth.loss, truth.beta)
    rule = "gradient_not_logged" if value == 0 else "steps_skipped"
    assert ids(found) - ALLOWED == {rule}
    assert "the logged norm is not" in said(found, rule)
    if value == 0 and from_log == 0:  # the loss moves as well
        bare = [{key: row[key] for key in ("step", "loss", "grad_norm", "rewards/accuracies")} for row in rows]
        assert "gradient_not_logged" in ids(judged(tmp_path, bare, None, None))
        few = judged(tmp_path, rows[:8], truth.loss, truth.beta)  # too few to tell a move from noise: unknown
        assert not ids(few) & {"gradient_not_logged", "no_gradient"}


@MANY
@given(shift=st.sampled_from([-3.0, -0.8, 0.0, 0.6, 2.0]), zero=st.booleans(), first=st.booleans(), loss=LOSS,
       k=st.sampled_from([1, 4]))  # fmt: skip
def test_a_frozen_run(shift: float, zero: bool, first: bool, loss: str, k: int, tmp_path: Path) -> None:
    rows = simulate(Truth(loss=loss, rate=0.0, shift=shift, first_step=first, accumulation=k, batch=64))
    for row in rows if zero else []:
        row["grad_norm"] = 0.0
    known, blind = judged(tmp_path, rows, loss), judged(tmp_path, rows, None, None)
    if shift:
        knows = first or zero or abs(F_SLOPE[loss](shift)) >= 0.5  # else descent may have ended before the first log
        assert ("nothing_moves" in ids(known)) is knows
        assert ("nothing_moves" in ids(blind)) is (first or zero)
        if knows:
            assert "the reference is another" in said(known, "nothing_moves")
            assert not ids(known) & {"worse_than_reference", "wrong_way", "at_target", "stuck_at_start", "collapsed"}
    else:
        assert "stuck_at_start" in ids(known)
        assert "nothing was trained" in said(blind, "nothing_moves")
        assert "the reference is another" not in said(blind, "nothing_moves")
        assert known.loss_multiple == k
    assert ("no_gradient" in ids(known)) is zero
    assert "gradient_not_logged" not in ids(known)


F_SLOPE: dict[str, Callable[[float], float]] = {  # over |f'(0)|
    "logistic": lambda x: 2 / (1 + math.exp(x)), "squared": lambda x: x - 1, "exponential": lambda x: math.exp(-x)}  # fmt: skip


def test_log_ratios_far_from_0_at_a_margin_of_0_are_another_reference(tmp_path: Path) -> None:
    rows = [row | {"rewards/chosen": -2.0, "rewards/rejected": -2.0} for row in simulate(Truth(rate=0.0))]
    assert "rewards/chosen is -20 nats" in said(judged(tmp_path, rows), "nothing_moves")


@MANY
@given(truth=moving, noise=st.floats(0.0, 0.5))
def test_noise_is_not_taken_for_a_run_that_starts_elsewhere(truth: Truth, noise: float, tmp_path: Path) -> None:
    rng, rows = random.Random(truth.seed), simulate(Truth(**(vars(truth) | {"first_step": False})))
    for row in rows:
        error = rng.gauss(0, noise)
        for key, part in (("rewards/margins", 1.0), ("rewards/chosen", 0.5), ("rewards/rejected", -0.5)):
            row[key] += part * error
    assert not ids(judged(tmp_path, rows, truth.loss, truth.beta)) & {"nothing_moves", "loss_multiple", "collapsed"}


def test_a_later_log_of_pairs_that_spread_is_no_multiple(tmp_path: Path) -> None:
    rows = [row | {"step": row["step"] + 900, "loss": 0.33, "rewards/margins": 2.0 + at / 100}
            for at, row in enumerate(simulate(Truth()))]  # fmt: skip
    assert ids(judged(tmp_path, rows)) == set()  # f(2) = 0.127, and 0.33 is below f(0)


def test_noise_of_the_batches_seldom_hides_that_a_run_is_frozen(tmp_path: Path) -> None:
    """A difference of thirds is beyond 4 standard errors in about 1 of 700: t with two thirds of 20 degrees."""
    found = [ids(judged(tmp_path, simulate(Truth(rate=0.0, shift=1.0, seed=seed)), None)) for seed in range(100)]
    assert sum("nothing_moves" in each for each in found) >= 97


@MANY
@given(truth=moving, n=st.integers(1, 4), value=st.sampled_from([math.inf, math.nan]))
def test_the_first_steps_of_fp16_are_skipped_and_the_rest_is_judged(truth: Truth, n: int, value: float, tmp_path: Path) -> None:
    rows = simulate(truth)
    for row in rows[:n]:
        row["grad_norm"] = value
    found = judged(tmp_path, rows, truth.loss, truth.beta)
    assert ids(found) - ALLOWED == {"steps_skipped"}
    assert f"in the first {n} logs" in said(found, "steps_skipped")
    assert {"stuck_at_start", "wrong_start", "no_gradient", "likelihood_displaced"} <= {*found.looked_at}


def test_a_nan_in_the_middle_and_one_to_the_end(tmp_path: Path) -> None:
    rows = simulate(Truth())
    middle = [row | ({"loss": math.nan, "grad_norm": math.nan} if at == 9 else {}) for at, row in enumerate(rows)]
    found = judged(tmp_path, middle)
    assert ids(found) == {"not_finite"}
    assert "the 11 logs after the last of them are finite" in said(found, "not_finite")
    lost = [row | (dict.fromkeys(("grad_norm", "rewards/margins", "rewards/chosen", "rewards/rejected"), math.nan)
                   | {"loss": 0.0} if at >= 15 else {}) for at, row in enumerate(rows)]  # fmt: skip
    found = judged(tmp_path, lost)
    assert "not_finite" in ids(found)
    assert "all are from step 150 on" in said(found, "not_finite")
    assert "steps_skipped" not in ids(found)
    filtered = [row | ({"grad_norm": math.nan, "loss": 0.0} if at >= 15 else {}) for at, row in enumerate(
        {key: row[key] for key in ("step", "loss", "grad_norm", "rewards/accuracies")} for row in rows)]  # fmt: skip
    assert "all are from step 150 on" in said(judged(tmp_path, filtered), "not_finite")


@MANY
@given(truth=moving, lost=st.sets(st.integers(1, 14), min_size=1, max_size=4), gone=st.sampled_from(["rewards/margins", "loss", "rewards/chosen", "rewards/accuracies", "grad_norm"]))
def test_a_few_rows_that_lack_a_column(truth: Truth, lost: set[int], gone: str, tmp_path: Path) -> None:
    rows = simulate(truth)
    whole = judged(tmp_path, rows, truth.loss, truth.beta)
    for at in lost:
        del rows[at][gone]
    found = judged(tmp_path, rows, truth.loss, truth.beta)
    assert found.looked_at == whole.looked_at
    assert found.as_dict()["lacking"] == {gone: len(lost)}
    assert ids(found) <= ALLOWED


def test_a_column_that_most_rows_lack_is_too_few(tmp_path: Path) -> None:
    rows = simulate(Truth())
    for row in rows[4:]:
        del row["rewards/margins"]
    why = judged(tmp_path, rows).not_looked_at["stuck_at_start"]
    assert why == "only 4 of 21 logs hold loss and rewards/margins"


@given(st.lists(st.dictionaries(st.sampled_from(["step", "loss", "grad_norm", "rewards/margins", "rewards/chosen",
       "rewards/rejected", "rewards/accuracies", "nll_loss", "kl", "logps/chosen", "eval_loss"]), st.one_of(
       st.floats(), st.integers(-3, 300), st.sampled_from(["0.5", "nan", "7/9", "x", None, True, "1e999"]))), min_size=1,
       max_size=14), st.sampled_from(sorted(AT_ZERO)), st.sampled_from([None, 0.1]))  # fmt: skip
@MANY
def test_any_rows_get_a_verdict_or_one_line(tmp_path: Path, rows: list[dict[str, Any]], loss: str, beta: float | None) -> None:
    if not any(key in row for row in read_back(rows) for key in ("loss", "grad_norm", "rewards/margins", "rewards/chosen",
                                                                 "rewards/rejected", "rewards/accuracies")):
        with pytest.raises(InputError, match="holds no training log"):
            judged(tmp_path, rows, loss, beta)
        return
    found = judged(tmp_path, rows, loss, beta)
    assert {*found.looked_at} | {*found.not_looked_at} == {*RULES}
    json.dumps(found.as_dict())
    if len(rows) < 3:
        run_curves(found)


def read_back(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is no number."""
    return [{key: value for key, value in row.items() if value not in ("x", None) and value is not True} for row in rows]


def test_parts_of_a_log_on_rows_of_their_own_are_joined(tmp_path: Path) -> None:
    rows = simulate(Truth())
    parts = [{key: value for key, value in row.items() if key == "step" or (key in ("loss", "epoch")) is first}
             for row in rows for first in (True, False)]  # fmt: skip
    assert read_run(write(tmp_path, parts)).columns == read_run(write(tmp_path, rows)).columns
    assert len(read_run(write(tmp_path, [rows[0], rows[0]]))) == 2


def test_margins_without_a_loss(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "loss"} for row in simulate(Truth(rate=0.0))]
    found = judged(tmp_path, rows)
    assert found.not_looked_at["wrong_start"] == "the run does not log loss"
    assert "likelihood_displaced" in found.looked_at


def reference_free(rows: list[dict[str, Any]], scale: float = 2.0) -> list[dict[str, Any]]:
    """SimPO's and CPO's rewards: the log-probabilities times beta."""
    return [row | {f"rewards/{side}": scale * row[f"logps/{side}"] for side in ("chosen", "rejected")}
            | {"rewards/margins": scale * (row["logps/chosen"] - row["logps/rejected"])} for row in rows]  # fmt: skip


def only(*keys: str) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [{key: row[key] for key in ("step", "epoch", "loss", "grad_norm", *keys) if key in row} for row in rows]


def with_keys(**extra: float) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [row | {key.replace("__", "/"): value for key, value in extra.items()} for row in rows]


METHODS: dict[str, tuple[Callable[[list[dict[str, Any]]], list[dict[str, Any]]], str]] = {
    "orpo": (with_keys(log_odds_ratio=-0.6, log_odds_chosen=0.1, nll_loss=1.2), "ORPO"),
    "orpo of LLaMA-Factory": (with_keys(sft_loss=1.2, odds_ratio_loss=0.7), "ORPO"),
    "simpo": (reference_free, "SimPO, CPO"),
    "cpo": (lambda rows: with_keys(nll_loss=1.0)(reference_free(rows, 0.1)), "SimPO, CPO"),
    "cpo without logps": (lambda rows: [{key: value for key, value in row.items() if "logps" not in key} | {
        "nll_loss": 1.0, "rewards/chosen": row["rewards/chosen"] - 8, "rewards/rejected": row["rewards/rejected"] - 9}
        for row in rows], "SimPO, CPO"),
    "kto": (with_keys(kl=0.3), "KTO"),
    "kto of OpenRLHF": (lambda rows: [{"train/kto_loss": 0.5, "train/chosen_reward": 0.1, "train/kl": 0.2,
                                       "train/global_step": row["step"]} for row in rows], "KTO"),
    "sft": (only("mean_token_accuracy"), "SFT"),
    "sft of TRL": (lambda rows: only("mean_token_accuracy")(with_keys(mean_token_accuracy=0.6)(rows)), "SFT"),
    "reward modelling": (lambda rows: only("accuracy", "margin", "min_reward", "mean_reward")(
        with_keys(accuracy=0.5, margin=3.0, min_reward=-1.0, mean_reward=0.1)(rows)), "reward modelling"),
    "grpo": (lambda rows: only("reward", "kl", "completions/mean_length")(
        with_keys(reward=0.5, kl=0.1, completions__mean_length=30.0)(rows)), "GRPO"),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("infinite", [False, True])
def test_methods_that_are_no_f_of_a_margin_are_not_judged_as_one(method: str, infinite: bool, tmp_path: Path) -> None:
    change, name = METHODS[method]
    rows = change(simulate(Truth(accumulation=3, drag=2.0, shift=0.5)))
    for row in rows[:2] if infinite else []:
        row["grad_norm"] = math.inf
    found = judged(tmp_path, rows)
    assert found.log.method is not None
    assert name in found.log.method.name
    assert ids(found) == ({"steps_skipped"} if infinite else set())
    assert {*found.looked_at} <= {"too_few_logs", "steps_begin_again", "not_finite", "steps_skipped", "no_gradient",
                                  "gradient_not_logged", "gradient_grows"}  # fmt: skip
    assert name in found.not_looked_at["wrong_start"]


@pytest.mark.parametrize("extra", [{}, {"nll_loss": 1.2}, {"mean_token_accuracy": 0.6, "entropy": 1.2, "num_tokens": 1e4}])
def test_dpo_is_dpo_whatever_else_is_logged(extra: dict[str, float], tmp_path: Path) -> None:
    found = judged(tmp_path, simulate(Truth(extra=extra, accumulation=3 if extra else 1)))
    assert found.log.method is None
    if "nll_loss" in extra:  # f(0) plus a likelihood term
        assert found.not_looked_at["wrong_start"] == "the logged loss has parts beside f (nll_loss)"
        assert ids(found) == set()
    assert "likelihood_displaced" in found.looked_at


@pytest.mark.parametrize("trainer", FILES)
@pytest.mark.parametrize("k", [1, 4])
def test_the_logs_of_other_trainers(trainer: str, k: int, tmp_path: Path) -> None:
    truth = Truth(accumulation=k, drag=0.9)
    rows = simulate(truth)
    path = write(tmp_path, rows_of(rows, trainer), trainer)
    log = read_run(path)
    assert (log.source, len(log), log.method) == (trainer, len(rows), None)
    assert log.columns["step"] == tuple(float(row["step"]) for row in rows)
    for name, key in (("loss", "loss"), ("margin", "rewards/margins"), ("accuracy", "rewards/accuracies"),
                      ("log_ratio_chosen", "rewards/chosen"), ("log_ratio_rejected", "rewards/rejected")):  # fmt: skip
        if trainer != "llama-factory" or name in ("loss", "accuracy"):
            assert log.columns[name] == pytest.approx([row[key] for row in rows], rel=1e-3, abs=1e-4), name
    found = diagnose(log, LOSSES["logistic"], 0.1)
    displaced = set() if trainer == "llama-factory" else {"likelihood_displaced"}
    assert ids(found) == displaced | ({"loss_multiple"} if k > 1 else set())
    assert found.loss_multiple == k
    if trainer != "openrlhf":
        assert read_run(tmp_path).source == trainer


def test_a_table_of_openrlhf(tmp_path: Path) -> None:
    rows = rows_of(simulate(Truth()), "openrlhf")
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    table.writeheader()
    table.writerows(rows)
    (tmp_path / "run.csv").write_text(text.getvalue())
    assert read_run(tmp_path / "run.csv").columns == read_run(write(tmp_path, rows, "openrlhf")).columns


def test_of_several_files_in_a_folder_that_which_says_most(tmp_path: Path) -> None:
    rows = simulate(Truth())
    write(tmp_path, rows_of(rows, "llama-factory"), "llama-factory")
    assert read_run(tmp_path).source == "llama-factory"
    (tmp_path / "checkpoint-100").mkdir()
    write(tmp_path / "checkpoint-100", rows)
    assert read_run(tmp_path).source == "trl"
    write(tmp_path, rows_of(rows, "ms-swift"), "ms-swift")
    assert read_run(tmp_path).source == "ms-swift"
    write(tmp_path, rows)
    assert read_run(tmp_path).source == "trl"


@pytest.mark.parametrize(("name", "text", "named"), [
    ("log.jsonl", '{"train_ce": 1.0, "it": 3}\n', "it, train_ce"),
    ("events.tfevents", "\x00\x01", "is not the JSON of a run"),
    ("table.csv", "Wall time,Step,Value\n1,2,3\n", "Step, Value, Wall time"),
])  # fmt: skip
def test_another_log_is_named_as_unread_with_what_is_read(name: str, text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=named) as refused:
        read_run(tmp_path / name)
    assert "logging.jsonl (ms-swift)" in str(refused.value)


def test_keys_that_no_rule_uses_are_named(tmp_path: Path) -> None:
    found = judged(tmp_path, simulate(Truth(extra={"custom": 1.0})))
    assert found.as_dict()["unread"] == ["custom", "learning_rate", "logps/chosen", "logps/rejected"]


@pytest.mark.parametrize(("text", "number"), [
    ("0.6931", 0.6931), (" 1e-06 ", 1e-6), ("75.00%", 0.75), ("12/100", 12.0), ("NaN", math.inf), ("-inf", math.inf),
    (10**400, None), ("0:04:02", None), ("", None), (None, None), (True, None), ([1], None),
])  # fmt: skip
def test_texts_that_are_numbers(text: Any, number: float | None, tmp_path: Path) -> None:
    log = read_run(write(tmp_path, [{"step": 1, "loss": text, "rewards/margins": 0.5}]))
    assert (log.columns["loss"][0] if "loss" in log.columns else None) == number


def test_accuracies_in_percent_are_shares(tmp_path: Path) -> None:
    log = read_run(write(tmp_path, [{"step": at, "rewards/accuracies": at} for at in (0, 50, 100)]))
    assert log.columns["accuracy"] == (0.0, 0.5, 1.0)


def collapsing(at: int, drag: float, rise: float = 40.0) -> list[dict[str, Any]]:
    """A run at rest until log `at`, after which every margin is `rise` in x, and both log-ratios fall by `drag` of it."""
    rows = simulate(Truth(rate=0.0))
    for row in rows[at:]:
        row |= {"rewards/margins": rise, "rewards/chosen": rise / 2 - drag * rise, "rewards/rejected": -rise / 2 - drag * rise,
                "loss": math.log1p(math.exp(-rise)), "rewards/accuracies": 1.0}  # fmt: skip
    return rows


@pytest.mark.parametrize("at", [1, 5, 12])
@pytest.mark.parametrize("k", [1, 8])
@pytest.mark.parametrize("gone", [(), ("loss",), ("step",)])
def test_a_collapse_within_a_few_logs(at: int, k: int, gone: tuple[str, ...], tmp_path: Path) -> None:
    rows = [{key: value * (k if key == "loss" else 1) for key, value in row.items() if key not in gone} for row in collapsing(at, 1.5)]
    for loss, beta in (("logistic", 0.1), (None, None)):
        found = judged(tmp_path, rows, loss, beta)
        assert "learning rate that is too high" in said(found, "collapsed")
        (finding,) = [finding for finding in found.findings if finding.id == "collapsed"]
        assert {"rewards/margins", "rewards/chosen"} <= {*finding.columns}


def test_a_collapse_before_the_first_log_is_seen_and_what_is_no_collapse_is_not(tmp_path: Path) -> None:
    late = [row for row in collapsing(0, 1.5) if row["step"] >= 10]
    for at, row in enumerate(late):
        row["rewards/margins"] += at / 10  # it moves, so it is not a frozen run with another reference
    assert "collapsed" in ids(judged(tmp_path, late))
    assert "collapsed" not in ids(judged(tmp_path, [row | {"step": row["step"] + 5000} for row in late]))  # a resumed run
    assert "collapsed" not in ids(judged(tmp_path, collapsing(5, 0.2)))  # the chosen response has not fallen
    assert "collapsed" not in ids(judged(tmp_path, collapsing(5, 0.9, rise=2.0)))


@MANY
@given(truth=healthy, drag=st.floats(0.0, 1.5))
def test_healthy_runs_whose_chosen_response_falls_do_not_collapse(truth: Truth, drag: float, tmp_path: Path) -> None:
    assert "collapsed" not in ids(judged(tmp_path, simulate(Truth(**(vars(truth) | {"drag": drag}))), truth.loss, truth.beta))


def test_another_first_loss_at_margin_0_is_not_laid_on_the_reference(tmp_path: Path) -> None:
    rows = [row | {"loss": 1.3 * row["loss"]} for row in simulate(Truth())]
    (finding,) = [finding for finding in judged(tmp_path, rows).findings if finding.id == "wrong_start"]
    assert "so the reference is the policy" in finding.limits
    moved = simulate(Truth(shift=1.5))
    (finding,) = [finding for finding in judged(tmp_path, moved).findings if finding.id == "wrong_start"]
    assert "so the reference is not the policy at the start" in finding.limits
    assert judged(tmp_path, moved).loss_multiple == 1.0


@pytest.mark.parametrize(("first", "loss", "multiple"), [
    (1, 8 * math.log(2), 8.0), (1, math.log(2), 1.0), (0, 2 * math.log(2), 2.0), (10, 8 * 0.6, None), (10, 0.6, 1.0), (10, 1.2, 1.0), (2, 8 * math.log(2), None),
])  # fmt: skip
def test_a_log_without_margins_is_judged_by_its_first_step(first: int, loss: float, multiple: float | None, tmp_path: Path) -> None:
    """A first log of step 1 is f(0) or a multiple of it; a later one, far above f(0), is a multiple that is not known."""
    rows = [{"step": first + 10 * i, "loss": loss * 0.99**i, "rewards/accuracies": 0.5 + 0.01 * i} for i in range(12)]
    assert judged(tmp_path, rows).as_dict()["loss_multiple"] == multiple
