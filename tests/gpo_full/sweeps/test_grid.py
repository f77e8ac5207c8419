"""The grid of a sweep against values found by hand, its run folders one to one, and the table of its results."""

import argparse
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from gpo_full.cli.commands import sweep
from gpo_full.cli.options.messages import with_options
from gpo_full.sweeps.grid import Run, all_runs, write_results
from gpo_full.sweeps.jobs import Outcome
from gpo_theory import InputError


def test_every_loss_at_every_beta_with_every_seed_the_first_loss_first() -> None:
    runs = all_runs(["dpo", "ipo"], [0.1, 2.0], [7, 42])
    assert [(run.loss, run.beta, run.seed) for run in runs] == [
        ("dpo", 0.1, 7), ("dpo", 0.1, 42), ("dpo", 2.0, 7), ("dpo", 2.0, 42),
        ("ipo", 0.1, 7), ("ipo", 0.1, 42), ("ipo", 2.0, 7), ("ipo", 2.0, 42)]  # fmt: skip
    assert all(run.like == run.beta for run in runs)


# By hand, R = |f''(0)/f'(0)| and beta' = beta R / R': log(1+exp(-x)) has f' = -1/2, f'' = 1/4; (1-x)^2 and
# max(0,1-x)^2 have -2, 2; exp(-x) -1, 1; the Savage loss s^2 with s = 1/(1+exp(x)) has f' = -2 s^2 (1-s) = -1/4 and
# f'' = (4 s - 6 s^2) s (1-s) = 1/8.
@pytest.mark.parametrize(("of", "beta", "loss", "matched"), [
    ("dpo", 0.1, "dpo", 0.1), ("dpo", 0.1, "ipo", 0.05), ("ipo", 0.05, "dpo", 0.1), ("dpo", 0.1, "exp(-x)", 0.05),
    ("dpo", 3.0, "max(0,1-x)**2", 1.5), ("dpo", 0.1, "savage", 0.1), ("exp(-x)", 0.2, "savage", 0.4),
])  # fmt: skip
def test_betas_of_gives_each_loss_the_beta_of_the_same_strength(
    of: str, beta: float, loss: str, matched: float
) -> None:
    (run,) = all_runs([loss], [beta], [0], betas_of=of)
    assert run.beta == pytest.approx(matched, rel=1e-15)
    assert run.like == beta
    assert float(run.name.rpartition("-beta")[2].removesuffix("-seed0")) == run.beta  # called by what it is trained at


# By hand: exp(-a x) has f' = -a, f'' = a^2, so R = a; dpo's R is 1/2.
@pytest.mark.parametrize(("of", "betas"), [(None, [0.1, 0.1]), ("dpo", [0.025, 0.1]), ("exp(-a*x)", [0.1, 0.4])])
def test_a_parameter_goes_to_the_losses_that_have_it(of: str | None, betas: list[float]) -> None:
    one, other = all_runs(["exp(-a*x)", "dpo"], [0.1], [0], of, {"a": "2"})
    assert [one.beta, other.beta] == pytest.approx(betas, rel=1e-12)
    assert (one.parameters, other.parameters) == ((("a", "2"),), ())
    assert one.words([], Path("s"))[:3] == ["--loss=exp(-a*x)", "--param=a=2", f"--beta={one.beta!r}"]
    assert other.words([], Path("s"))[:2] == ["--loss=dpo", f"--beta={other.beta!r}"]


def test_a_formula_too_long_to_be_matched_is_refused_at_once() -> None:
    """At alpha = 1/100 the alpha loss is a polynomial of degree 99, whose matching would take longer than a sweep."""
    with pytest.raises(InputError, match="the powers multiply to more than 64"):
        all_runs(["alpha_loss"], [0.1], [0], "dpo", {"alpha": "1e-2"})
    assert all_runs(["alpha_loss"], [0.1], [0], None, {"alpha": "1e-2"})[0].beta == 0.1


def test_a_parameter_of_no_loss_is_refused() -> None:
    with pytest.raises(InputError, match="parameter 'b': none of the losses has it"):
        all_runs(["exp(-a*x)", "dpo"], [0.1], [0], None, {"a": "2", "b": "3"})
    with pytest.raises(InputError, match="a"):
        all_runs(["exp(-a*x)"], [0.1], [0])  # no value


def test_the_table_names_parameters_and_knows_the_strength_at_their_values(tmp_path: Path) -> None:
    write_results(all_runs(["exp(-a*x)", "dpo"], [0.1], [0], None, {"a": "1/4"}), {}, tmp_path / "results.parquet")
    rows = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert [(row["formula"], row["parameters"], row["strength"]) for row in rows] == [
        ("exp(-a*x)", "a=1/4", 0.25), ("log(1 + exp(-x))", "", 0.5)]  # fmt: skip


@pytest.mark.parametrize(("losses", "betas", "seeds", "of", "reason"), [
    (["dpo", "dpo"], [0.1], [0], None, "`loss=dpo` is given twice"),
    (["dpo"], [0.1, 0.2, 0.1], [0], None, "`beta=0.1` is given twice"),
    (["dpo"], [0.1], [3, 3], None, "`seed=3` is given twice"),
    (["dpo"], [0.0], [0], None, "`beta=0.0` must be a finite number above 0"),
    (["dpo"], [-1.0], [0], None, "`beta=-1.0` must"),
    (["dpo"], [float("inf")], [0], None, "`beta=inf` must"),
    (["dpo"], [float("nan")], [0], None, "`beta=nan` must"),
    (["logstic"], [0.1], [0], None, "did you mean 'logistic'"),
    (["hinge"], [0.1], [0], "dpo", "no beta of hinge does what `beta=0.1` does for `betas_of=dpo`: "),
    (["dpo"], [0.1], [0], "logstic", "did you mean 'logistic'"),
    (["exp(-x*2)", "exp(-x/2)"], [0.1], [0], None, "two runs of the grid would be called 'exp_-x_2_-beta0.1-seed0'"),
    (["trl-ipo"], [0.1], [0], "dpo", "no beta of trl-ipo does what `beta=0.1` does for `betas_of=dpo`: trl-ipo averages "
                                     "the margin over tokens; "),
    (["dpo"], [0.1], [0], "hinge", "hinge has R = 0: no beta of it regularises near 0; `gpo beta` knows"),
])  # fmt: skip
def test_what_cannot_be_a_grid(
    losses: list[str], betas: list[float], seeds: list[int], of: str | None, reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        all_runs(losses, betas, seeds, of)
    assert reason in str(caught.value)


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_a_folder_names_its_beta_exactly(beta: float) -> None:
    (run,) = all_runs(["dpo"], [beta], [3])
    found = re.fullmatch(r"dpo-beta([0-9.e+-]+)-seed3", run.name)
    assert found is not None
    assert float(found[1]) == beta


@pytest.mark.parametrize("of", ["dpo", "trl-ipo", "hinge", "perceptron"])
def test_a_refusal_names_only_what_a_sweep_has(of: str) -> None:
    """Whatever the match of two losses would offer."""
    options = argparse.ArgumentParser()
    sweep.add_arguments(options)
    for loss in ("dpo", "trl-ipo", "hinge", "perceptron"):
        said = ""
        try:
            all_runs([loss], [0.1], [0], of)
        except InputError as error:
            said = with_options(str(error))
        assert {*re.findall(r"--[a-z-]+", said)} <= {*options._option_string_actions}


def test_the_name_of_any_formula_is_a_folder_and_long_ones_stay_apart(tmp_path: Path) -> None:
    long = "+".join(["exp(-1*x)"] * 30)
    names = [run.name for run in all_runs(["-x + log(1+exp(x))", long, f"{long}+exp(-x)"], [1e-5], [0])]
    assert names[0] == "-x_+_log_1+exp_x__-beta1e-05-seed0"
    assert len({*names}) == 3
    for name in names:
        assert len(name) < 150
        (tmp_path / name).mkdir()
    assert len([*tmp_path.iterdir()]) == 3  # none lies within another


def test_the_words_of_a_run_are_those_of_the_train_command(tmp_path: Path) -> None:
    import argparse

    from gpo_full.cli.commands import train

    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    run = Run("-x + log(1+exp(x))", 0.1 + 0.2, 5, 0.3)
    args = parser.parse_args(run.words(["--model", "m", "--data", "d", "--steps", "3"], tmp_path))
    assert (args.loss, args.beta, args.seed) == ("-x + log(1+exp(x))", 0.30000000000000004, 5)
    assert args.output == str(tmp_path / "runs" / run.name)
    assert (args.model, args.data, args.steps) == ("m", "d", 3)


def test_one_row_a_run_with_its_point_its_end_and_its_metrics(tmp_path: Path) -> None:
    done, held, failed, killed, left = all_runs(["dpo", "ipo", "hinge", "exp(-x)", "x**2"], [0.1], [0])
    printed = {"schema": 1, "output": "o", "pairs": 7, "steps": 4, "first": {"loss": 9.0}}
    outcomes = {
        done.name: Outcome(0, json.dumps(printed | {"last": {"step": 4, "loss": 0.5}, "evaluation": None}), "", 1),
        held.name: Outcome(0, json.dumps(printed | {"last": {"step": 4, "loss": 0.25},
                                                    "evaluation": {"eval_accuracy": 0.75}}), "a warning", 2),
        failed.name: Outcome(5, "", "gpo train: stopped after step 2", 1), killed.name: Outcome(-9, "", "", 3),
    }  # fmt: skip
    path = tmp_path / "new" / "results.parquet"
    write_results([done, held, failed, killed, left], outcomes, path)
    rows = parquet.read_table(path).to_pylist()
    assert [(row["run"], row["status"], row["exit_code"], row["attempts"], row["loss"], row["eval_accuracy"])
            for row in rows] == [
        (done.name, "done", 0, 1, 0.5, None), (held.name, "done", 0, 2, 0.25, 0.75),
        (failed.name, "failed", 5, 1, None, None), (killed.name, "failed", -9, 3, None, None),
        (left.name, "not run", None, None, None, None)]  # fmt: skip
    assert rows[2]["message"] == "gpo train: stopped after step 2"
    # What the run is, by hand: R of hinge is 0, of x^2 there is none, for its slope at 0 is 0.
    columns = ("loss_name", "beta", "beta_asked", "seed", "strength", "beta_R", "pairs", "step")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("dpo", 0.1, 0.1, 0, 0.5, 0.05, 7, 4), ("ipo", 0.1, 0.1, 0, 1.0, 0.1, 7, 4),
        ("hinge", 0.1, 0.1, 0, 0.0, 0.0, None, None), ("exp(-x)", 0.1, 0.1, 0, 1.0, 0.1, None, None),
        ("x**2", 0.1, 0.1, 0, None, None, None, None)]  # fmt: skip
    assert rows[0]["formula"] == "log(1 + exp(-x))"
    assert [each.name for each in path.parent.iterdir()] == ["results.parquet"]


def test_a_table_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    runs = all_runs(["dpo", "ipo"], [0.1], [0])
    write_results(runs, {}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Expecting value"):
        write_results(runs, {runs[0].name: Outcome(0, "no JSON", "", 1)}, path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["results.parquet"]


@pytest.mark.parametrize("names", [("dpo", "DPO"), ("dpo", "logistic"), ("dpo", "log(1+exp(-x))"), ("ipo", "(x-1)^2"), ("slic", "max(0, 1-x)"),
                                   ("trl-ipo", "TRL-IPO")])  # fmt: skip
def test_a_loss_under_two_names_is_refused(names: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=rf"`loss={re.escape(names[1])}` is the loss of `loss={re.escape(names[0])}` again"):
        all_runs(names, [0.1], [0])


@pytest.mark.parametrize("names", [("ipo", "trl-ipo"), ("trl-ipo", "(x-1/2)^2"), ("dpo", "exp(-x)")])
def test_losses_alike_are_two(names: tuple[str, str]) -> None:
    assert len(all_runs(names, [0.1], [0])) == 2
