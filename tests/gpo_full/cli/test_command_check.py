"""`gpo check module:function`: exit 0 where nothing is found, 1 with the findings, 2 for what cannot be tested."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.commands import gpo, gpo_json, gpo_process, refused

SOURCE = """
import torch

number = 3


def of_four(a, b, c, d):
    return a


def naive(x):
    return torch.log(1 + torch.exp(-x))


def stable(x):
    return torch.nn.functional.softplus(-x)


def savage(x):
    return torch.sigmoid(-x) ** 2


def mean(x):
    return stable(x).mean()


class Losses:
    ipo = staticmethod(lambda x: (x - 1) ** 2)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's module; what is imported from it is forgotten."""
    (tmp_path / "my_losses.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no\\nluck')\n", encoding="utf-8")
    (tmp_path / "misspelt.py").write_text("def f(:\n", encoding="utf-8")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_losses", "broken", "misspelt", "leaving"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_stable_function_passes(here: Path) -> None:
    result = gpo_process("check", "my_losses:stable", "--loss", "dpo", folder=here)
    assert result.returncode == 0, result.stderr
    assert "not proof" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stdout.count("nothing found") == 16
    found = gpo_json("check", "my_losses:stable")
    assert set(found) == {"schema", "function", "loss", "passed", "evidence", "tests", "findings", "unfinished", "inherent", "seed", "margins"}
    assert found["passed"] is True
    assert found["loss"] is None
    assert found["findings"] == []
    assert {"convexity", "consistency", "decrease", "gradient", "finite", "shape", "dtype"} <= set(found["tests"])


def test_a_finding_is_exit_1(here: Path) -> None:
    result = gpo_process("check", "my_losses:naive", folder=here)
    assert result.returncode == 1
    assert result.stderr == "gpo check: loading torch ...\n"
    assert "float32 at x = -89: the value is inf" in " ".join(result.stdout.split())
    found = json.loads(gpo("check", "my_losses:naive", "--loss", "dpo", "--json", code=1).stdout)
    assert found["passed"] is False
    assert found["loss"] == "logistic"
    assert {(f["test"], f["dtype"], f["x"]) for f in found["findings"]} == {("finite", "float32", -89.0), ("finite", "float64", -711.0)}


def test_against_a_formula_and_another_loss(here: Path) -> None:
    gpo("check", "my_losses:Losses.ipo", "--loss", "ipo", code=0)
    gpo("check", "my_losses:savage", "--loss", "sigmoid(-x)**2", code=0)
    gpo("check", "my_losses:stable", "--loss", "log(1+exp(-a*x))", "--param", "a=1", code=0)
    assert "value" in gpo("check", "my_losses:stable", "--loss", "log(1+exp(-a*x))", "--param", "a=1.01", code=1).stdout


def test_a_test_can_be_left_out(here: Path) -> None:
    assert gpo("check", "my_losses:savage").returncode == 1
    assert gpo("check", "my_losses:savage", "--skip", "convexity").returncode == 0


def test_a_mean_is_told_apart_and_a_test_that_did_not_run_is_not_said_to_have_found_nothing(here: Path) -> None:
    shown = gpo("check", "my_losses:mean", code=1).stdout
    assert "not yet averaged" in " ".join(shown.split())
    assert "nothing found" not in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("not finished")]
    assert "elementwise" in line
    assert "consistency" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("MODULE:FUNCTION",)), (("my_losses",), ("my_losses", "MODULE:FUNCTION")), (("my_losses:",), ("MODULE:FUNCTION",)),
        (("my_losses:none",), ("none",)), (("my_losses:number",), ("int",)),
        (("my_losses:of_four",), ("my_losses:of_four", "(a, b, c, d)", "one tensor", "x = beta * rho")),
        (("no_such_module:f",), ("no_such_module",)), (("broken:f",), ("RuntimeError", "no luck")), (("misspelt:f",), ("SyntaxError",)),
        (("leaving:f",), ("SystemExit",)), (("..:f",), ("cannot be imported",)), (("my_losses:stable", "--loss", "dpoo"), ("dpoo", "dpo")),
        (("my_losses:stable", "--param", "a=1"), ("--loss",)), (("my_losses:stable", "--skip", "convex"), ("convex", "convexity")),
        (("my_losses:stable", "--loss", "max(2 - x**2, 1 - x)"), ("pieces",)),
    ],
)
def test_bad_input(arguments: tuple[str, ...], words: tuple[str, ...], here: Path) -> None:
    message = refused("check", *arguments)
    assert all(word in message for word in words), message


def test_the_help_says_that_code_is_run() -> None:
    shown = " ".join(gpo("check", "--help").stdout.split())
    assert "your own code" in shown
    assert "AND RUN" in shown
