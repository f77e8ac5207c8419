"""`gpo toy` as a user runs it: the JSON of the design, the figures, one line for bad input."""

import json
import subprocess
import sys
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose

from tests.support.commands import gpo, gpo_json, gpo_process, refused

torch.set_num_threads(1)
B = ["--reference", "0.7,0.29,0.01", "--initial", "0.01,0.5,0.49"]
GPO = ["--objective", "gpo", "--loss", "dpo"]
KEYS = {"schema", "step", "kl", "regularizer", "objective", "policy", "kl_to_optimum"}


def result(*words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gpo("toy", *words, "--json", code=0).stdout)
    return found


def test_bandit_json_holds_the_trace_from_step_zero() -> None:
    answer = result("bandit", *B, "--objective", "regularizer", "--lr", "0.05", "--steps", "2000")
    assert set(answer) == KEYS
    assert answer["schema"] == 1
    assert answer["step"] == list(range(2001))
    assert {len(answer[name]) for name in ("kl", "regularizer", "objective")} == {2001}
    assert_allclose(answer["kl"][0], 0.01 * log(0.01 / 0.7) + 0.5 * log(0.5 / 0.29) + 0.49 * log(49), rtol=1e-12)
    assert max(answer["kl"]) > 1.25 * answer["kl"][0]
    assert answer["kl"][-1] < 1e-3
    assert answer["objective"] == answer["regularizer"]
    assert_allclose(sum(answer["policy"]), 1)
    assert_allclose(answer["kl_to_optimum"], answer["kl"][-1], rtol=1e-9)


def test_bandit_pairs_count_from_one_and_fractions_are_read() -> None:
    answer = result("bandit", "--reference", "1/3,1/3,1/3", "--initial", "0.10,0.05,0.85", "--pairs", "1-2",
                    "--steps", "200")  # fmt: skip
    assert_allclose([answer["kl"][0], answer["kl"][-1]], [0.580426, 0.590002], atol=1e-6)
    assert_allclose(answer["policy"][0], answer["policy"][1], rtol=1e-6)
    assert answer["kl_to_optimum"] is None


def test_bandit_gpo_reaches_the_rlhf_optimum() -> None:
    answer = result("bandit", "--reference", "1/2,1/4,1/4", *GPO, "--beta", "1/2", "--rewards",
                    "0,1/2,-1", "--behaviour", "uniform", "--lr", "2", "--steps", "1500")  # fmt: skip
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64) * torch.exp(torch.tensor([0.0, 1.0, -2.0]))
    assert_allclose(answer["policy"], weights / weights.sum(), atol=1e-8)
    assert 0 <= answer["kl_to_optimum"] < 1e-12
    assert answer["kl"][0] == 0
    assert_allclose(answer["objective"][0], 0.6931471805599453)


def test_bandit_takes_preferences_from_a_file_and_parameters(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("1/2,0.9,0.2\n0.1,1/2,0.7\n0.8,0.3,1/2\n")
    common = ["bandit", "--reference", "0.4,0.3,0.3", "--objective", "gpo", "--preferences", str(file), "--steps", "5"]
    assert result(*common, "--loss", "ipo")["kl_to_optimum"] > 0
    soft, hard = (result(*common, "--loss", "log(1+exp(-a*x))", "--param", f"a={a}") for a in ("1/10", "2"))
    assert soft["kl"][-1] < hard["kl"][-1]
    assert soft["kl_to_optimum"] is None


def test_mixture_json_has_its_quadrature_error() -> None:
    answer = result("mixture", "--behaviour", "2,1", "--initial-means", "-2,2", "--initial-logits", "3,0")
    assert set(answer) == KEYS | {"quadrature_error"}
    assert answer["step"][-1] == 400
    assert_allclose([answer["kl"][0], answer["kl"][-1]], [0.4639, 0.7636], atol=5e-5)
    assert answer["regularizer"][-1] < 0.01 * answer["regularizer"][0]
    assert set(answer["policy"]) == {"means", "weights", "logits"}
    assert_allclose(sum(answer["policy"]["weights"]), 1)
    assert answer["quadrature_error"] < 1e-9


def test_mixture_gpo_takes_a_reward_formula() -> None:
    answer = result("mixture", "--objective", "gpo", "--loss", "hinge", "--reward", "-(x-2)**2/8",
                    "--steps", "30", "--initial-logits", "0,0", "--beta", "0.5")  # fmt: skip
    assert answer["kl"][0] < 1e-12
    assert answer["objective"][-1] < answer["objective"][0]
    assert answer["policy"]["weights"][1] > 0.5
    assert answer["kl_to_optimum"] is None
    assert 0 < answer["quadrature_error"] < 1e-2  # a kink costs accuracy, and says so


def test_table_says_what_a_person_wants_to_know() -> None:
    out = gpo("toy", "bandit", *B, "--steps", 50, code=0).stdout
    for part in ("E[rho^2 / 2]", "KL (nats)", "2.13687", "final policy:", "KL to the optimum:"):
        assert part in out
    out = gpo("toy", "mixture", "--objective", "gpo", "--loss", "ipo", "--reward", "x", "--steps", 2, code=0).stdout
    for part in ("f(x) = ", "x = beta * rho", "final means:", "quadrature error"):
        assert part in out


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("words", [["bandit", *B], ["mixture", "--behaviour", "2,1"],
                                   ["bandit", "--reference", "1/2,1/2", "--initial", "0.9,0.1"]])  # fmt: skip
def test_plot_is_written_whole(tmp_path: Path, words: list[str], suffix: str) -> None:
    file = tmp_path / f"figure{suffix}"
    answer = result(*words, "--steps", "5", "--plot", str(file))
    assert len(answer["step"]) == 6
    assert file.read_bytes()[:4] == (b"\x89PNG" if suffix == ".png" else b"<?xm")
    assert list(tmp_path.iterdir()) == [file]


HALF = ["--reference", "1/2,1/2"]
BAD = [
    ([], "required"),
    (["bandt"], "invalid choice"),
    (["bandit"], "--reference"),
    (["bandit", "--reference", "0.5,0.6", "--initial", "0.5,0.5"], "sum to 1.1, not 1"),
    (["bandit", "--reference", "0.5,x", "--initial", "0.5,0.5"], "--reference: 'x' is not a number"),
    (["bandit", *HALF, "--initial", "1,0"], "must all be positive"),
    (["bandit", *HALF], "needs --initial"),
    (["bandit", *HALF, "--initial", "0.2,0.8", "--lr", "fast"], "--lr: 'fast' is not a number"),
    (["bandit", *HALF, "--initial", "0.2,0.8", "--steps", "0"], "--steps '0': allowed: 1 to 1000000"),
    (["bandit", *HALF, "--initial", "0.2,0.8", "--steps", "2.5"], "--steps '2.5'"),
    (["bandit", *HALF, "--initial", "0.2,0.8", "--pairs", "0-1"], "pair 0-1"),
    (["bandit", *HALF, "--initial", "0.2,0.8", "--pairs", "12"], "'12' is not a pair"),
    (["bandit", *HALF, "--initial", "0.2,0.8", "--beta", "1"], "--beta is for --objective gpo"),
    (["bandit", *HALF, "--initial", "0.2,0.8", "--reward", "x"], "--reward"),
    (["bandit", *HALF, "--objective", "gpo", "--rewards", "0,1"], "needs --loss"),
    (["bandit", *HALF, *GPO], "needs --rewards or else --preferences"),
    (["bandit", *HALF, *GPO, "--rewards", "0,1", "--preferences", "p.csv"], "needs --rewards or else --preferences"),
    (["bandit", *HALF, "--objective", "gpo", "--loss", "logstic", "--rewards", "0,1"], "did you mean 'logistic'"),
    (["bandit", *HALF, *GPO, "--rewards", "0,1", "--param", "gamma"], "--param 'gamma' is not of the form NAME=VALUE, as in tau=0.1"),
    (["mixture", "--behaviour", "2,-1"], "positive variance"),
    (["mixture", "--initial-means", "-2,14", "--steps", "2"], "the policy left the grid"),
    (["mixture", "--grid", "-14,14"], "needed: LOW,HIGH,STEP"),
    (["mixture", *GPO], "needs --reward"),
    (["mixture", *GPO, "--reward", "log(x)"], "log(x)"),
    (["mixture", "--plot", "figure.pdf"], "allowed endings: .png, .svg"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words)[-40:] or "nothing" for words, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    plot = [] if "--plot" in words or len(words) < 2 else ["--plot", "figure.png"]
    assert message in refused("toy", *words, *plot)
    assert list(tmp_path.iterdir()) == []


def test_plot_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "figure.png"
    assert f"--plot {str(path)!r} cannot be written" in refused("toy", "bandit", *B, "--steps", 1, "--plot", path)


@pytest.mark.slow
def test_values_that_begin_with_a_minus_reach_the_command() -> None:
    words = ("mixture", "--initial-means", "-2,2", "--initial-logits", "-1,.5", "--objective", "gpo", "--loss",
             "-x*sigmoid(-x)", "--reward", "-x", "--steps", "1")  # fmt: skip
    assert gpo_json("toy", *words, run=gpo_process)["step"] == [0, 1]


def test_help_shows_an_example_without_torch() -> None:
    code = ("import sys; from gpo_full.cli.entry import main\n"
            "try: main(['toy', 'bandit', '--help'])\nfinally: assert 'torch' not in sys.modules")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "example: gpo toy bandit --reference" in done.stdout
