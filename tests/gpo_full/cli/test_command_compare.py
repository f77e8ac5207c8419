"""`gpo compare`, and the files that `losses`, `analyze` and `compare` write with `--latex` and `--csv`."""

import csv
from pathlib import Path

import pytest

from gpo_theory import LOSSES
from tests.gpo_theory.report.test_tables import check_latex
from tests.gpo_theory.test_analysis import check_shape
from tests.support.commands import gpo, gpo_json, gpo_process, refused
from tests.support.session import payload


def test_the_analyses_in_the_order_asked() -> None:
    found = gpo_json("compare", "dpo", "savage", "(x-1)**2", run=gpo_process)
    assert set(found) == {"schema", "analyses"}
    assert [a["loss"]["name"] for a in found["analyses"]] == ["logistic", "savage", "(x - 1)**2"]
    for analysis in found["analyses"]:
        check_shape(analysis)
    assert found["analyses"][0] == payload("logistic")


def test_the_table_sets_losses_side_by_side() -> None:
    result = gpo_process("compare", "dpo", "slic", "ipo")
    assert result.returncode == 0
    lines = {line[:19].strip(): line[19:].split() for line in result.stdout.splitlines()}
    assert lines["loss"] == ["logistic", "hinge", "squared"]
    assert lines["R"] == ["1/2", "0", "1"]
    assert lines["convex"] == ["yes", "yes", "yes"]
    assert lines["BT-exact"] == ["yes", "no", "no"]
    assert lines["target x*(1)"] == ["inf", "1", "1"]
    assert "convention: ipo is (x-1)^2" in result.stdout
    assert "\x1b" not in result.stdout


def test_more_losses_than_fit_go_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = gpo("compare", "dpo", "slic", "ipo", "savage", "exponential").stdout
    assert shown.count("\nR ") == 2
    assert all(name in shown for name in ("logistic", "hinge", "squared", "savage", "exponential"))


def test_a_parameter_goes_to_the_losses_that_have_it() -> None:
    found = gpo_json("compare", "linex", "exp(-a*x)", "dpo", "--param", "a=1/2")["analyses"]
    assert [a["loss"]["parameters"] for a in found] == [{"a": "1/2"}, {"a": "1/2"}, {}]
    assert found[1]["strength"]["exact"] == "1/2"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [(("compare", "dpo", "slic"), ["logistic", "hinge"]), (("analyze", "savage"), ["savage"]), (("losses",), list(LOSSES))],
)
def test_latex_and_csv(arguments: tuple[str, ...], names: list[str], tmp_path: Path) -> None:
    latex, table = tmp_path / "new" / "t.tex", tmp_path / "t.csv"
    table.write_text("old", encoding="utf-8")
    result = gpo(*arguments, "--latex", latex, "--csv", table, "--json", code=0)
    assert [row["loss"] for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())] == names
    cells = check_latex(latex.read_text(encoding="utf-8"))
    shown = cells[0][1:] if len(names) <= 4 else [row[0] for row in cells[1:]]
    assert shown == [name.replace("_", r"\_") for name in names]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["new", "t.csv", "t.tex"], "nothing temporary is left"
    assert gpo(*arguments, "--json").stdout == result.stdout, "the answer does not depend on the files"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare",), ("LOSS",)), (("compare", "dpo", "logstic"), ("logstic", "logistic")),
        (("compare", "dpo", "--param", "a=1"), ("a", "none")), (("compare", "linex", "--param", "b=1"), ("b", "none")),
        (("compare", "linex", "--param", "a=two"), ("two",)), (("compare", "exp(-a*x)", "dpo"), ("a",)),
        (("compare", "dpo", "log(x)"), ("log(x)",)), (("compare", "dpo", "--jsn"), ("--jsn",)),
        (("compare", "dpo", "--latex"), ("--latex",)),
    ],
)
def test_bad_input(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    message = refused(*arguments)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("command", [("losses",), ("analyze", "dpo"), ("compare", "dpo")])
def test_a_file_that_cannot_be_written(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for option, place in (("--latex", tmp_path), ("--csv", tmp_path / "file" / "t.csv")):
        assert option in refused(*command, option, str(place))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file"]


def test_a_refused_loss_writes_nothing(tmp_path: Path) -> None:
    refused("compare", "dpo", "log(x)", "--csv", str(tmp_path / "t.csv"))
    assert list(tmp_path.iterdir()) == []
