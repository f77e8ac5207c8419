"""Tables of losses and analyses: every cell against the stable JSON, LaTeX that is well formed, CSV that reads back."""

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import mpmath
import pytest

from gpo_theory import LOSSES, parse
from gpo_theory.analysis import analyze
from gpo_theory.report.result import as_html
from gpo_theory.report.tables import Table, of_analyses, of_losses
from tests.support.oracle import TRUTHS, number
from tests.support.session import analysis, payload

SOME = ("logistic", "hinge", "smooth_hinge", "perceptron", "squared", "savage", "kliep", "gamma_hinge", "huberised_exponential")
WORDS = {"proved": "yes", "refuted": "no", "unknown": "unknown"}
COLUMNS = {"convex": "convex", "strictly convex": "strictly_convex", "strongly convex": "strongly_convex",
           "decreasing": "monotone_decreasing", "bounded below": "bounded_below", "Lipschitz": "lipschitz",
           "smooth": "smooth", "consistent": "bayes_consistent", "BT-exact": "bradley_terry_exact"}  # fmt: skip


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(scope="module")
def table() -> Table:
    return of_analyses([analysis(name) for name in SOME])


def check_latex(text: str) -> list[list[str]]:
    """One tabular whose rows have as many cells as it has columns, with balanced braces, math and environments."""
    start = re.search(r"\\begin\{tabular\}\{(l+)\}\n", text)
    assert start is not None
    body = text[start.end() : text.index(r"\end{tabular}")]
    lines = [line for line in body.splitlines() if line not in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert body.splitlines()[0] == r"\toprule"
    assert body.splitlines()[-1] == r"\bottomrule"
    cells = []
    for line in lines:
        assert line.endswith(r" \\")
        # A `cases` has separators of its own.
        flat = re.sub(r"\\begin\{cases\}.*?\\end\{cases\}", "CASES", line[:-3])
        assert "cases}" not in flat, line
        cells.append(flat.split(" & "))
        assert len(cells[-1]) == len(start.group(1)), line
        bare = re.sub(r"\\[_%$&#{}]|\\text\w+\{\}", "", flat)
        assert bare.count("{") == bare.count("}"), line
        assert bare.count(r"\left") == bare.count(r"\right"), line
        assert bare.count("$") % 2 == 0, line
        outside = "".join(bare.split("$")[::2])
        assert not set("_^#%") & set(outside), outside
        assert r"\(" not in outside
    return cells


def test_a_row_per_loss_and_every_verdict(table: Table) -> None:
    rows = read(table.csv())
    assert [row["loss"] for row in rows] == list(SOME)
    for name, row in zip(SOME, rows, strict=True):
        claims = payload(name)["claims"]
        assert {column: row[column] for column in COLUMNS} == {column: WORDS[claims[claim]["verdict"]] for column, claim in COLUMNS.items()}


def test_values_against_the_oracle(table: Table) -> None:
    """R, f(0), f'(0) and c as text of the grammar, against the numbers derived by hand."""
    for name, row in zip(SOME, read(table.csv()), strict=True):
        known = [*TRUTHS[name].taylor, None]  # the perceptron has a kink at 0: no f'(0)
        for column, wanted in (("f(0)", known[0]), ("f'(0)", known[1])):
            assert (row[column] == "none") == (wanted is None)
            if wanted is not None:
                assert abs(number(row[column]) - number(wanted)) < 1e-15
    found = {row["loss"]: row for row in read(table.csv())}
    assert found["logistic"]["R"] == "1/2"
    assert found["smooth_hinge"]["R"].startswith("1/2 (left 0")  # f'' is 0 on the left of 0 and 1 on its right
    assert found["perceptron"]["R"] == "none"
    assert found["logistic"]["c"] == "1"
    assert found["hinge"]["c"] == "none"
    assert found["hinge"]["right tail of -f'"] == "zero, limit 0"
    assert found["logistic"]["right tail of -f'"] == "exponential, rate 1, limit 0"
    assert found["squared"]["link x*(p)"] == "2*p - 1"
    assert found["hinge"]["target x*(1)"] == "1"


def test_latex_is_well_formed(table: Table) -> None:
    by_row = check_latex(table.latex())
    assert [cells[0] for cells in by_row[1:]] == [name.replace("_", r"\_") for name in SOME]
    few = Table(table.header, table.rows[:2])
    by_column = check_latex(few.latex())
    assert by_column[0] == ["loss", "logistic", "hinge"]
    assert [cells[0] for cells in by_column] == [cell.latex for cell in table.header]


def test_flipped_twice_is_the_same(table: Table) -> None:
    assert table.flipped().flipped() == table
    assert table.flipped().texts()[0] == ["loss", *SOME]


def test_the_catalogue() -> None:
    table = of_losses(LOSSES.values())
    rows = read(table.csv())
    assert [row["loss"] for row in rows] == list(LOSSES)
    for row, loss in zip(rows, LOSSES.values(), strict=True):
        values = dict(pair.split(" = ") for pair in row["parameters"].split(", ") if pair)
        again = parse(row["f(x)"], values)
        assert again.f == loss.f, "formula and parameters read back as the same function"
        assert row["source"] == loss.reference
    assert len(check_latex(table.latex())) == len(LOSSES) + 1


def test_a_formula_stands_for_its_name() -> None:
    rows = of_analyses([analyze(parse("exp(-a*x)", {"a": "1/2"}))]).texts()
    assert rows[1][:3] == ["exp(-a*x)", "exp(-a*x)", "a = 1/2"]


def test_special_characters_are_escaped() -> None:
    loss = parse("exp(-x)", name="50%_of_$&#{}~^\\", reference="a & b")
    name, formula, _, source = check_latex(of_losses([loss]).latex())
    assert name == ["loss", r"50\%\_of\_\$\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"]
    assert formula == ["$f(x)$", "$e^{-x}$"]
    assert source == ["source", r"a \& b"]


@pytest.mark.parametrize(("formula", "exponent", "place"), [
    # Its least value lies where 2 atan(x) = 1; the other's where 2e6 x (1 + e^x) = 1.
    ("(2*atan(x) - 1)**2", None, lambda mp: mp.tan(mp.mpf(1) / 2)),
    ("log(1+exp(-x)) + 1000000*x**2", -7, lambda mp: mp.findroot(lambda x: 2e6 * x * (1 + mp.exp(x)) - 1, 2.5e-7)),
])  # fmt: skip
def test_a_certified_decimal_is_not_typeset_as_an_exact_fraction(formula: str, exponent: int | None, place: Callable[[Any], Any]) -> None:
    (shown,) = [line for line in of_analyses([analyze(parse(formula))]).latex().splitlines() if "target" in line]
    found = re.fullmatch(r"target \$x\^\*\(1\)\$ & \$([\d.]+)(?: \\cdot 10\^\{(-\d+)\})?\$ \\\\", shown)
    assert found is not None, shown
    assert found[2] == (None if exponent is None else str(exponent))
    assert float(found[1]) * 10 ** (exponent or 0) == pytest.approx(float(place(mpmath.mp)), rel=1e-12)


def test_numbers_have_nine_digits_wherever_people_read_them() -> None:
    """Savage's largest slope is that of s^2 at s = 2/3: 2 s^2 (1 - s) = 8/27 = 0.296296296..."""
    savage = analysis("savage")
    table = of_analyses([savage])
    assert read(table.csv())[0]["Lipschitz constant"] == "0.296296296"
    assert "Lipschitz constant & $0.296296296$ " in table.latex()
    assert "[value 0.296296296]" in as_html(savage)
