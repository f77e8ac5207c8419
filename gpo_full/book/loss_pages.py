"""The book's catalogue: a page of tables, and for each loss a page with its plot, its verdicts and its certificate."""

__all__ = ["formulas_in_parameters", "write_loss_pages"]

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpo_full.book.templates import page, text
from gpo_full.experiment.processes import mapped
from gpo_full.experiment.stages import stage
from gpo_full.files import cache_root
from gpo_full.output import progress
from gpo_theory import LOSSES, Loss, analyze, taylor
from gpo_theory.catalogue import ALIASES
from gpo_theory.errors import InputError
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.formula.typeset import latex
from gpo_theory.methods import METHODS
from gpo_theory.report import plots
from gpo_theory.report.certificate_file import certificate_document
from gpo_theory.report.result import as_html
from gpo_theory.report.symbolic import slope_in, strength_in, validity_in, zero_slope_at

_CLAIMS = {"convex": "convex", "monotone_decreasing": "decreasing", "bounded_below": "bounded below",
           "bayes_consistent": "Bayes consistent", "bradley_terry_exact": "BT exact"}  # fmt: skip
_RELATIONS = {">=": r"\ge"}
_VERDICTS = {"proved": "yes", "refuted": "no", "unknown": "unknown"}


def write_loss_pages(folder: Path) -> None:
    """Write `catalogue.md` and `losses/NAME.md` with each loss's plot and certificate beside it."""
    # All analyses take a minute and depend on the code and these texts alone, so they are a cached stage.
    done = stage(cache_root() / "book", "catalogue", {"texts": [text("loss"), text("formulas")]}, _written)
    shutil.copytree(done.folder, folder / "losses", ignore=shutil.ignore_patterns("stage.json"))
    (folder / "catalogue.md").write_text(_catalogue_page(done.payload["analyses"]), encoding="utf-8")


def _catalogue_page(analyses: Sequence[Mapping[str, Any]]) -> str:
    """A row of facts, of verdicts and of sources for every loss."""
    links = [f"[`{name}`](losses/{name}.md)" for name in LOSSES]
    facts = _table(["loss", "$f(x)$", "$f'(0)$", "$f''(0)$", "$R$"], links, map(_facts, LOSSES.values(), analyses))
    verdicts = _table(["loss", *_CLAIMS.values()], links, map(_verdicts, analyses))
    sources = _table(["loss", "parameters", "source"], links, map(_source, LOSSES.values()))
    methods = _table(["method", "why", "source"], METHODS, METHODS.values())
    return page("catalogue", facts=facts, verdicts=verdicts, sources=sources, methods=methods)


def _written(folder: Path) -> dict[str, Any]:
    """Write the files of each loss into `folder`, and return the analyses."""

    def write(name: str) -> dict[str, Any]:
        loss = LOSSES[name]
        analysis = analyze(loss)
        certificate = json.dumps(certificate_document(analysis), indent=1, allow_nan=False) + "\n"
        (folder / f"{name}.json").write_text(certificate, encoding="utf-8")
        plots.save(plots.shapes([loss]), folder / f"{name}.svg")
        (folder / f"{name}.md").write_text(_page(loss, as_html(analysis)), encoding="utf-8")
        return analysis.as_dict()

    written = mapped(write, [*LOSSES], min(2, os.cpu_count() or 1))
    return {"analyses": [*progress(written, "analysing the catalogue", len(LOSSES))]}


def formulas_in_parameters(loss: Loss) -> str:
    """Return the section of a page with f'(0), R and where f'(0) = 0 in the parameters of a loss, as MyST Markdown.

    It states the range of the parameters over which the formulas hold.
    """

    def typeset(formula: str) -> str:
        return latex(parse_formula(formula, loss.parameters))

    slope, strength = slope_in(loss), strength_in(loss)
    lines = [f"- $f'(0) = {typeset(slope)}$", f"- $R = {typeset(strength)}$" if strength else "- $R$ does not exist."]
    for name in loss.parameters:
        with suppress(InputError):  # f'(0) is not linear in this parameter
            lines.append(f"- $f'(0) = 0$ at ${typeset(name)} = {typeset(zero_slope_at(loss, name))}$")
    shown = {slope: "f'(0)", strength: "R"}
    conditions = ["$f$ is defined"]
    conditions += [f"${shown.get(formula) or typeset(formula)} {_RELATIONS.get(relation, relation)} 0$"
                   for formula, relation in validity_in(loss)]  # fmt: skip
    listed = " and ".join(filter(None, (", ".join(conditions[:-1]), conditions[-1])))
    return page("formulas", lines="\n".join(lines), conditions=listed)


def _page(loss: Loss, shown: str) -> str:
    formulas = formulas_in_parameters(loss) if loss.parameters else ""
    names = ", ".join(f"`{alias}`" for alias, name in ALIASES.items() if name == loss.name)
    values = ", ".join(f"`{name}` = {value}" for name, value in loss.parameters.items())
    address = f"../explorer.html#{quote(json.dumps({'losses': [loss.name]}))}"
    lines = (f"From: {loss.reference}." if loss.reference else "", f"Also called {names}." if names else "",
             f"Parameters, with the values used here: {values}." if values else "")  # fmt: skip
    return page("loss", name=loss.name, lines="\n".join(filter(None, lines)), shown=shown, explorer=address,
                formulas=formulas, words=loss.name.replace("_", " "))  # fmt: skip


def _table(header: Sequence[str], names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    named = ([name, *row] for name, row in zip(names, rows, strict=True))
    return "".join("| " + " | ".join(row) + " |\n" for row in (header, ["---"] * len(header), *named))


def _facts(loss: Loss, analysis: Mapping[str, Any]) -> list[str]:
    formula = f"${analysis['loss']['latex']}$".replace("|", r"\vert ")  # a bar would end the cell
    return [formula, *_derivatives(loss), _strength(analysis["strength"])]


def _verdicts(analysis: Mapping[str, Any]) -> list[str]:
    return [_VERDICTS[analysis["claims"][claim]["verdict"]] for claim in _CLAIMS]


def _derivatives(loss: Loss) -> list[str]:
    """f'(0) and f''(0), from the coefficients of x and x^2."""
    _, slope, curvature = taylor(loss, 2)
    return ["none" if c is None else _number(k * c.value) for k, c in ((1, slope), (2, curvature))]


def _strength(strength: Mapping[str, Any]) -> str:
    if strength["left"] is not None and strength["left"] != strength["right"]:
        return f"{_number(strength['left'])} left, {_number(strength['right'])} right"
    return "none" if strength["value"] is None else _number(strength["value"])


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _source(loss: Loss) -> list[str]:
    values = ", ".join(f"{name} = {value}" for name, value in loss.parameters.items())
    return [values, loss.reference]
