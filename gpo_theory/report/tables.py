"""Analyses as tables: one cell is a text for a terminal or a CSV file and its LaTeX, both from one value."""

__all__ = ["Table", "of_analyses", "of_losses"]

import csv
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gpo_theory.errors import InputError
from gpo_theory.formula.grammar import parse_constant, parse_formula
from gpo_theory.formula.typeset import latex
from gpo_theory.loss import Loss
from gpo_theory.report.result import Analysis, digits

_VERDICTS = {"proved": "yes", "refuted": "no", "unknown": "unknown"}
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
            **{c: "\\" + c for c in "&%$#_{}"}}  # fmt: skip
# Shown for a number that does not exist, and for one that was not derived.
_NONE, _NOT_DERIVED = "none", "not derived"


@dataclass(frozen=True)
class Cell:
    """One entry: what a terminal and a CSV file show, and its LaTeX."""

    text: str
    latex: str


@dataclass(frozen=True)
class Table:
    """A header and rows of cells; `latex()` and `csv()` return whole files, `texts()` the rows as plain text."""

    header: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def texts(self) -> list[list[str]]:
        """Return the header and the rows as text."""
        return [[cell.text for cell in row] for row in (self.header, *self.rows)]

    def flipped(self) -> "Table":
        """Return the table with rows and columns exchanged, so that few losses stand side by side."""
        columns = tuple(zip(self.header, *self.rows, strict=True))
        return Table(columns[0], columns[1:])

    def csv(self) -> str:
        """Return the table as CSV (RFC 4180, one header row)."""
        out = io.StringIO()
        csv.writer(out).writerows(self.texts())
        return out.getvalue()

    def latex(self) -> str:
        r"""Return a tabular: side by side for at most four rows, else one loss a row; needs amsmath and booktabs."""
        table = self.flipped() if len(self.rows) <= 4 else self
        head, *rows = (" & ".join(cell.latex for cell in row) + r" \\" for row in (table.header, *table.rows))
        columns = "l" * len(table.header)
        lines = [r"% \usepackage{amsmath, booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head,
                 r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]  # fmt: skip
        return "\n".join(lines) + "\n"


def of_losses(losses: Iterable[Loss]) -> Table:
    """Return the catalogue's table: name, formula, parameters and source of each loss."""
    return Table((*_ABOUT, _words("source")), tuple((*_about(loss), _words(loss.reference)) for loss in losses))


def of_analyses(analyses: Iterable[Analysis]) -> Table:
    """Return the facts that tell losses apart, a row per loss; a verdict reads yes (proved), no (refuted) or unknown.

    >>> from gpo_theory import LOSSES, analyze
    >>> table = of_analyses([analyze(LOSSES["hinge"])])
    >>> [(name, fact) for name, fact in zip(*table.texts()) if name in ("R", "consistent")]
    [('R', '0'), ('consistent', 'yes')]
    """
    header = (*_ABOUT, *(Cell(name, shown) for name, shown, _ in _FACTS))
    rows = []
    for analysis in analyses:
        found = analysis.as_dict()
        rows.append((*_about(analysis.loss), *(fact(found) for _, _, fact in _FACTS)))
    return Table(header, tuple(rows))


def _about(loss: Loss) -> tuple[Cell, Cell, Cell]:
    values = [(name, str(value)) for name, value in loss.parameters.items()]
    symbols = [f"${latex(parse_formula(name, (name,)))} = {latex(parse_constant(value))}$" for name, value in values]
    given = Cell(", ".join(f"{name} = {value}" for name, value in values), ", ".join(symbols))
    formula = Cell(loss.formula, f"${latex(loss.body)}$")
    return (formula if loss.name == loss.formula else _words(loss.name)), formula, given


def _words(text: str) -> Cell:
    """Return text as it is, its special characters escaped in LaTeX."""
    return Cell(text, "".join(_SPECIAL.get(character, character) for character in text))


def _exact(text: str | None, none: str = _NONE) -> Cell:
    """Return an exact constant, "inf" and "-inf" included."""
    if text is None:
        return _words(none)
    if text.lstrip("-") == "inf":
        return Cell(text, rf"${text.replace('inf', chr(92) + 'infty')}$")
    return Cell(text, f"${_decimal(text) or latex(parse_constant(text))}$")


def _decimal(text: str) -> str | None:
    """Return a decimal's LaTeX, digit by digit: a fraction would pass for an exact number."""
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(?:e([+-]?\d+))?", text)
    if found is None:
        return None
    mantissa, exponent = found.groups()
    return mantissa if exponent is None else rf"{mantissa} \cdot 10^{{{int(exponent)}}}"


def _in_p(text: str | None) -> Cell:
    """Return a formula in p."""
    if text is None:
        return _words(_NOT_DERIVED)
    try:
        return Cell(text, f"${latex(parse_formula(text, ('p',)))}$")
    except InputError:  # a description in words
        return _words(text)


def _number(value: float | str | None) -> Cell:
    if value is None or isinstance(value, str):
        return _exact(value)
    return _exact(digits(value))


def _verdict(claim: str) -> Callable[[Any], Cell]:
    return lambda found: _words(_VERDICTS[found["claims"][claim]["verdict"]])


def _value(claim: str) -> Callable[[Any], Cell]:
    """Return the number of a claim, exact where it is known so."""

    def fact(found: Any) -> Cell:
        value = found["claims"][claim]["value"]
        if value is None:
            return _words(_NONE)
        return _exact(value["exact"]) if value["exact"] is not None else _number(value["float"])

    return fact


def _tail(side: str, of: str) -> Callable[[Any], Cell]:
    def fact(found: Any) -> Cell:
        tail = found["tails"][side][of]
        details = [(name, _exact(tail[name])) for name in ("rate", "order", "limit") if tail[name] is not None]
        name = tail["class"].replace("_", " ") + ("" if tail["verdict"] == "proved" else " (evidence)")
        return Cell(", ".join([name, *(f"{k} {v.text}" for k, v in details)]),
                    ", ".join([name, *(f"{k} {v.latex}" for k, v in details)]))  # fmt: skip

    return fact


def _strength(strength: Any) -> Cell:
    mean = _exact(strength["exact"])
    if strength["left"] is None:
        return mean
    left, right = _number(strength["left"]), _number(strength["right"])
    return Cell(f"{mean.text} (left {left.text}, right {right.text})",
                f"{mean.latex} (left {left.latex}, right {right.latex})")  # fmt: skip


_ABOUT = (_words("loss"), Cell("f(x)", "$f(x)$"), _words("parameters"))
# Name, LaTeX name, and how to read the fact from the stable JSON of an analysis.
_FACTS: tuple[tuple[str, str, Callable[[Any], Cell]], ...] = (
    ("f(0)", "$f(0)$", lambda found: _exact(found["taylor"][0])),
    ("f'(0)", "$f'(0)$", lambda found: _exact(found["taylor"][1])),
    ("coefficient of x^2", "coefficient of $x^2$", lambda found: _exact(found["taylor"][2])),
    ("R", "$R$", lambda found: _strength(found["strength"])),
    ("convex", "convex", _verdict("convex")),
    ("strictly convex", "strictly convex", _verdict("strictly_convex")),
    ("strongly convex", "strongly convex", _verdict("strongly_convex")),
    ("decreasing", "decreasing", _verdict("monotone_decreasing")),
    ("bounded below", "bounded below", _verdict("bounded_below")),
    ("infimum", "infimum", _value("bounded_below")),
    ("Lipschitz", "Lipschitz", _verdict("lipschitz")),
    ("Lipschitz constant", "Lipschitz constant", _value("lipschitz")),
    ("smooth", "smooth", _verdict("smooth")),
    ("consistent", "consistent", _verdict("bayes_consistent")),
    ("BT-exact", "BT-exact", _verdict("bradley_terry_exact")),
    ("c", "$c$", _value("bradley_terry_exact")),
    ("link x*(p)", "link $x^*(p)$", lambda found: _in_p(found["link"]["formula"])),
    ("target x*(1)", "target $x^*(1)$", lambda found: _exact(found["link"]["target_at_one"], _NOT_DERIVED)),
    ("left tail of -f'", "left tail of $-f'$", _tail("left", "slope")),
    ("right tail of -f'", "right tail of $-f'$", _tail("right", "slope")),
    ("left tail of f", "left tail of $f$", _tail("left", "loss")),
    ("right tail of f", "right tail of $f$", _tail("right", "loss")),
)
