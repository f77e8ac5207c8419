"""Logs that contradict themselves, their loss or their reference, and healthy ones that look like it."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gpo_full.diagnosis.log import read_run
from gpo_theory import InputError
from tests.support.judged_logs import ids, judged, said
from tests.support.simulated_logs import F, Truth, rows_of, simulate

Rows = list[dict[str, Any]]
MANY = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ALLOWED = {"at_target", "past_target", "beta_not_felt", "stuck_at_start"}  # what a short or a long run is told truly
CONVEX = ["logistic", "squared", "exponential", "hinge", "cdpo"]


def away(rows: Rows, chosen: float, rejected: float) -> Rows:
    """The same run against another reference, for which the log-ratios differ by these, in x; f sees the difference."""
    return [row | {"rewards/chosen": row["rewards/chosen"] + chosen, "rewards/rejected": row["rewards/rejected"] + rejected,
                   "rewards/margins": row["rewards/margins"] + chosen - rejected} for row in rows]  # fmt: skip


@pytest.mark.parametrize("offset", [-8.0, -1.2, 1.5, 30.0])
@pytest.mark.parametrize(("every", "first"), [(1, True), (10, True), (5, False), (10, False)])
@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_another_reference_that_moves_both_log_ratios(offset: float, every: int, first: bool, loss: str, tmp_path: Path) -> None:
    rows = away(simulate(Truth(loss=loss, every=every, first_step=first, rate=0.004)), offset, offset)
    for given_loss, beta in ((loss, 0.1), (None, None)):
        found = judged(tmp_path, rows, given_loss, beta)
        assert "the reference is not the policy at the start" in said(found, "wrong_reference")
        assert not ids(found) & {"wrong_start", "contradicts_margins", "worse_than_reference"}
    (number,) = [one.number for one in found.findings if one.id == "wrong_reference"]
    assert number == pytest.approx(offset, abs=0.2)


@MANY
@example(loss="logistic", rate=0.05, drag=20.0, every=10, first=False, warmup=0, beta=0.1)
@example(loss="squared", rate=0.05, drag=5.0, every=10, first=False, warmup=0, beta=0.1)  # six tenths of the way at once
@given(loss=st.sampled_from(CONVEX), rate=st.floats(0.001, 0.05), drag=st.floats(0.0, 20.0), every=st.sampled_from([1, 5, 10, 50]),
       first=st.booleans(), warmup=st.sampled_from([0, 20]), beta=st.sampled_from([0.02, 0.1, 0.5]))  # fmt: skip
def test_a_drift_from_0_is_no_other_reference(loss: str, rate: float, drag: float, every: int, first: bool, warmup: int,
                                              beta: float, tmp_path: Path) -> None:  # fmt: skip
    truth = Truth(loss=loss, rate=rate, drag=drag, every=every, first_step=first, warmup=warmup, beta=beta)
    for given_loss, given_beta in ((loss, beta), (None, None)):
        found = judged(tmp_path, simulate(truth), given_loss, given_beta)
        assert not ids(found) & {"wrong_reference", "wrong_start", "contradicts_margins", "worse_than_reference"}


def test_a_frozen_run_with_another_reference_is_told_so_once(tmp_path: Path) -> None:
    found = ids(judged(tmp_path, away(simulate(Truth(rate=0.0)), -2.0, -2.0)))
    assert "nothing_moves" in found
    assert "wrong_reference" not in found


@pytest.mark.parametrize("rows", [
    away(simulate(Truth(every=1)), 0.1, 0.1),  # 1 nat, as bfloat16 does
    away(simulate(Truth(every=5, first_step=False)), -0.6, -0.6),  # 6 nats: some descent goes that far
    [row | {"step": row["step"] + 500} for row in away(simulate(Truth()), -8, -8)],  # the start is not in the log
    [row for row in away(simulate(Truth(every=50)), -8, -8) if row["step"] > 1],
    away(simulate(Truth(every=5, first_step=False)), 3.0, 0.0),  # of descent to a target, one side may be all
    away(simulate(Truth(every=5, first_step=False, logs=2)), -8, -8),
])  # fmt: skip
def test_what_may_be_descent_or_noise_is_no_other_reference(rows: Rows, tmp_path: Path) -> None:
    assert "wrong_reference" not in ids(judged(tmp_path, rows, None))


@pytest.mark.parametrize(("true", "named"), [("hinge", "dpo"), ("logistic", "hinge"), ("squared", "dpo"), ("exponential", "dpo"),
                                             ("cdpo", "ipo")])  # fmt: skip
@pytest.mark.parametrize(("every", "first"), [(1, True), (5, False), (10, False)])
def test_a_first_loss_that_is_not_f_of_0(true: str, named: str, every: int, first: bool, tmp_path: Path) -> None:
    rows = simulate(Truth(loss=true, every=every, first_step=first, rate=0.0005, logs=30))
    found = judged(tmp_path, rows, named)
    assert ("up to step" in said(found, "wrong_start")) is not first
    assert "is not f(0)" in said(found, "wrong_start")
    later = [row | {"step": row["step"] + 20} for row in rows]
    assert "wrong_start" not in ids(judged(tmp_path, later, named))
    assert "wrong_start" not in ids(judged(tmp_path, rows, true))
    near = [row | {"loss": 1.11 * row["loss"]} for row in rows]  # noise of the pairs of some steps, and none at the first
    assert ("wrong_start" in ids(judged(tmp_path, near, true))) is first


def test_a_loss_of_0_in_place_of_a_nan_is_no_first_loss(tmp_path: Path) -> None:
    rows = [row | {"loss": 0.0, "rewards/margins": math.nan, "rewards/chosen": math.nan} for row in simulate(Truth())]
    assert ids(judged(tmp_path, rows)) == {"not_finite"}


def at(rows: Rows, **columns: float | Callable[[float], float]) -> Rows:
    """The rows with x growing to 14, all of whose pairs have that margin, and with the columns given, of x or constant."""
    found = []
    for number, row in enumerate(rows):
        x = 14 * number / (len(rows) - 1)
        new = {"rewards/margins": x, "rewards/chosen": x / 2, "rewards/rejected": -x / 2, "rewards/accuracies": 1.0,
               **{key.replace("rewards_", "rewards/"): value(x) if callable(value) else value for key, value in columns.items()}}  # fmt: skip
        found.append(row | new)
    return found


ROWS = simulate(Truth(rate=0.0))


@pytest.mark.parametrize(("loss", "named", "why"), [
    (F["cdpo"][0], "dpo", "the accuracy is 1"), (F["squared"][0], "dpo", "the accuracy is 1"), (math.log(2), "dpo", "the accuracy is 1"),
    (1.0, "hinge", "the accuracy is 1"), (0.25, "savage", "the accuracy is 1"),  # savage falls, and is not convex
    (F["logistic"][0], "ipo", "f is convex"), (F["hinge"][0], "cdpo", "f is convex"), (lambda x: -x, "dpo", "f is convex"),
])  # fmt: skip
def test_a_loss_that_contradicts_its_margins(loss: Any, named: str, why: str, tmp_path: Path) -> None:
    found = judged(tmp_path, at(ROWS, loss=loss), named)
    assert why in said(found, "contradicts_margins")
    assert not ids(found) & {"worse_than_reference"}


@pytest.mark.parametrize(("rows", "named"), [
    (at(ROWS, loss=F["logistic"][0]), "dpo"), (at(ROWS, loss=F["cdpo"][0]), "cdpo"), (at(ROWS, loss=F["squared"][0]), "ipo"),
    (at(ROWS, loss=0.4), "dpo"),  # four pairs in seven near 0
    (at(ROWS, loss=math.log(2), rewards_accuracies=0.95), "dpo"),  # a few pairs far below 0
    (at(ROWS, loss=math.log(2), nll_loss=0.5), "dpo"),
    (at(ROWS, loss=lambda x: 8 * F["logistic"][0](x)), "dpo"),  # a known multiple
    (at(ROWS, loss=lambda x: 8 * F["cdpo"][0](x)), "dpo"),
    (at(ROWS, loss=0.1), "tangent"), (at(ROWS, loss=4.0), "tangent"),  # neither convex nor falling
    (away(at(ROWS, loss=0.2, rewards_accuracies=0.0), -20, 0), "savage"),  # f(-20) = 1, but f is not convex
])  # fmt: skip
def test_a_loss_that_may_be_that_of_the_margins(rows: Rows, named: str, tmp_path: Path) -> None:
    assert "contradicts_margins" not in ids(judged(tmp_path, rows, named))


def test_pairs_beyond_the_target_are_not_said_to_be_below_0(tmp_path: Path) -> None:
    for true, named in (("cdpo", "cdpo"), ("squared", "ipo")):
        for accuracy in (1.0, 0.97):
            found = judged(tmp_path, at(ROWS, loss=F[true][0], rewards_accuracies=accuracy), named)
            assert "past_target" in ids(found)
            assert not ids(found) & {"worse_than_reference", "contradicts_margins"}
    spread = at(ROWS, loss=3.0, rewards_margins=1.0, rewards_accuracies=0.9)
    assert "below 0, or far beyond the target, cost more" in said(judged(tmp_path, spread, "ipo"), "worse_than_reference")
    assert "with a margin below 0 cost more" in said(judged(tmp_path, spread), "worse_than_reference")


@pytest.mark.parametrize("loss", CONVEX)
@pytest.mark.parametrize("ties", [0.0, 0.5])
def test_a_loss_that_stays_at_f_of_0_is_enough_without_margins(loss: str, ties: float, tmp_path: Path) -> None:
    rows = rows_of([row | {"rewards/accuracies": ties} for row in simulate(Truth(loss=loss, rate=0.0))], "llama-factory")
    assert "the margin has not moved" in said(judged(tmp_path, rows, loss), "stuck_at_start")
    assert "stuck_at_start" not in ids(judged(tmp_path, rows_of(simulate(Truth(loss=loss)), "llama-factory"), loss))
    assert "stuck_at_start" not in ids(judged(tmp_path, [row | {"accuracy": 0.8} for row in rows], loss))


def without_rewards(truth: Truth, noise: float = 0.0) -> Rows:
    """Rows of log-probabilities alone; `noise` in nats is that of the pairs that a batch draws."""
    rng = random.Random(truth.seed)
    return [{key: value + (rng.gauss(0, noise) if "logps" in key else 0) for key, value in row.items() if "rewards" not in key}
            for row in simulate(truth)]  # fmt: skip


def test_log_probabilities_without_rewards(tmp_path: Path) -> None:
    found = judged(tmp_path, without_rewards(Truth(drag=3.0, rate=0.05)))
    assert "rewards/*, which are not logged" in said(found, "log_probability_falls")
    assert (found.log.method, ids(found)) == (None, {"log_probability_falls"})
    assert found.log.unread == ("learning_rate",)
    whole = judged(tmp_path, simulate(Truth(drag=3.0, rate=0.05)))
    assert "logps/* without rewards" in whole.not_looked_at["log_probability_falls"]
    still = [ids(judged(tmp_path, without_rewards(Truth(seed=seed, rate=0.004), 12.0), None)) for seed in range(100)]
    assert sum("log_probability_falls" in each for each in still) <= 2
    bare = [{"step": row["step"], "loss": row["loss"]} for row in simulate(Truth())]
    method = judged(tmp_path, bare).log.method
    assert method
    assert "rewards/chosen, rewards/rejected and rewards/margins are missing" in method.because


@MANY
@given(loss=st.sampled_from(CONVEX), rate=st.floats(0.004, 0.012), seed=st.integers(0, 99), beta=st.sampled_from([0.05, 0.1]))
def test_nemo_rl(loss: str, rate: float, seed: int, beta: float, tmp_path: Path) -> None:
    truth = Truth(loss=loss, rate=rate, seed=seed, beta=beta)
    rows = simulate(truth)
    found = judged(tmp_path, rows_of(rows, "nemo-rl"), loss, beta, "metrics.jsonl")
    assert (found.log.source, ids(found) - ALLOWED - {"flat_tail"}) == ("nemo-rl", set())
    assert found.log.unread == ("num_valid_samples", "sft_loss", "val_*")
    assert found.log.columns["loss"] == pytest.approx([row["loss"] for row in rows])
    assert found.log.columns["margin"] == pytest.approx([row["rewards/margins"] / beta for row in rows], abs=1e-9)
    fell = judged(tmp_path, rows_of(simulate(Truth(loss=loss, beta=beta, drag=2.0)), "nemo-rl"), None, None)
    assert "nats: f(beta rho)" in said(fell, "likelihood_displaced")


@pytest.mark.parametrize(("row", "name", "source"), [
    ({"loss": 0.7, "grad_norm": 1.0}, "log.jsonl", "trl"), ({"loss": 0.7, "accuracy": 0.5}, "metrics.jsonl", "trl"),
    ({"loss": 0.7, "margin": 0.5}, "metrics.jsonl", "gpo"), ({"loss": 0.7, "margin": 0.5, "regularizer": 1.0}, "renamed.jsonl", "gpo"),
    ({"preference_loss": 0.7, "accuracy": 0.5}, "metrics.jsonl", "nemo-rl"),
])  # fmt: skip
def test_a_log_is_ours_only_by_what_ours_alone_has(row: dict[str, float], name: str, source: str, tmp_path: Path) -> None:
    assert judged(tmp_path, [{"step": 1, **row}], None, None, name).log.source == source


def test_a_reward_model_of_nemo_rl(tmp_path: Path) -> None:
    keys = ("step", "loss", "accuracy", "rewards_chosen_mean", "rewards_rejected_mean")
    rows = [{key: row[key] for key in keys if key in row} for row in rows_of(simulate(Truth()), "nemo-rl")]
    method = judged(tmp_path, rows).log.method
    assert method
    assert method.name == "reward modelling"


@pytest.mark.parametrize(("growth", "grows"), [(1.0, False), (1.5, False), (2.0, True), (10.0, True)])
def test_a_gradient_that_grows_by_orders_of_magnitude(growth: float, grows: bool, tmp_path: Path) -> None:
    rows = [row | {"grad_norm": growth**number} for number, row in enumerate(simulate(Truth()))]
    assert ids(judged(tmp_path, rows)) == ({"gradient_grows"} if grows else set())
    spike = [row | {"grad_norm": 1e9 if number == 18 else 1.0} for number, row in enumerate(rows)]
    assert ids(judged(tmp_path, spike)) == set()


def test_rows_of_evaluations_are_named_as_unread(tmp_path: Path) -> None:
    rows = [*simulate(Truth()), {"step": 100, "eval_loss": 0.5, "eval_rewards/margins": 1.0}, {"step": 200, "val/loss": 0.4}]
    summary = {"step": 200, "train_runtime": 3.0, "train_loss": 0.6, "total_flos": 0.0}
    assert judged(tmp_path, [*rows, summary]).log.unread == ("eval_*", "learning_rate", "logps/chosen", "logps/rejected", "val_*")


@pytest.mark.parametrize("line", [
    "{'loss': 0.69, 'epoch': 0.1}", " 5%|##   | 5/40 [00:01<00:02,  1.0it/s]\r{'loss': '0.69'}", "\x1b[32m{'rewards/margins': 0.1}\x1b[0m",
    "[2025-01-01 00:00:00,000] [INFO] [trainer:1] {'grad_norm': 1.0}",
])  # fmt: skip
@pytest.mark.parametrize("name", ["out.log", "out.jsonl"])
def test_a_printed_log_is_told_from_others(line: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"{line}\n" * 3)
    with pytest.raises(InputError, match=r"it looks printed: a checkpoint holds trainer_state\.json"):
        read_run(tmp_path / name)


def test_runs_one_after_the_other(tmp_path: Path) -> None:
    rows = simulate(Truth())
    found = judged(tmp_path, rows * 3)
    assert ids(found) == {"steps_begin_again"}
    assert "falls at 2 of 63 logs, first from 200 to 1 at log 22" in said(found, "steps_begin_again")
    assert "20 of 21 logs" in said(judged(tmp_path, rows[::-1]), "steps_begin_again")


def test_the_charts_of_wandb(tmp_path: Path) -> None:
    rows, path = simulate(Truth()), tmp_path / "chart.csv"
    keys = ["loss", "rewards/margins", "rewards/chosen", "rewards/rejected"]

    def write(*runs: str) -> None:
        head = ["train/global_step", *(f"{run} - train/{key}{end}" for run in runs for key in keys for end in ("", "__MIN", "__MAX"))]
        lines = [[row["step"], *(row[key] for _ in runs for key in keys for _ in range(3))] for row in rows]
        path.write_text("\n".join(",".join(map(str, line)) for line in (head, *lines)) + "\n1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n")

    write("dpo - run")
    log = read_run(path)
    assert (log.source, log.columns["margin"][:21]) == ("trl", tuple(row["rewards/margins"] for row in rows))
    assert log.unread == tuple(sorted(f"{key}{end}" for key in keys for end in ("__MIN", "__MAX")))
    write("a", "b")
    with pytest.raises(InputError, match=r"the columns of several runs \(a, b\)"):
        read_run(path)
