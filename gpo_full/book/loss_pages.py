"""The book's catalogue: a page of tables, and for each loss a page with its plot, its verdicts and its certificate."""

__all__ = ["catalogue_page", "formulas_in_parameters", "write_loss_pages"]

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpo_full.experiment.stages import Stage, stage
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
_INTRODUCTION = """---
html_theme.sidebar_secondary.remove: true
---

# The catalogue

Every loss of the built-in table: $f$ as a function of the scaled margin $x = \\beta\\rho$, its first two derivatives at
$x = 0$, and the strength $R = |f''(0)/f'(0)|$ of its offline regularisation. $R$ alone hides the signs: a loss with
$f'(0) > 0$ starts in the wrong direction, one with $f''(0) < 0$ has a second-order term that rewards distance from the
reference. Where $f''$ jumps at 0, $R$ is given from the left and from the right; where $f'(0)$ does not exist or is 0
there is none.
The page is generated from `gpo_theory.LOSSES`; each name leads to a page of its own, and a click on the head of a
column sorts by it.

IPO appears twice: `squared` with $x = \\beta\\rho$ and `ipo_tau` with $x = \\tau\\rho$ are the same loss where
$\\beta = 2\\tau$.

## Shape at 0

"""
_VERDICTS_TITLE = """
## What is proved

"yes" means proved and "no" means refuted, each by a certificate that a separate verifier has replayed (`gpo analyze
LOSS --certificate FILE` writes it, `gpo verify FILE` replays it); "unknown" means that neither was found.

- *Decreasing*: $f' \\le 0$ everywhere.
- *Bayes consistent*: for every share $p \\ne \\tfrac12$ of raters, $p f(x) + (1-p) f(-x)$ stays away from its infimum
  wherever $x$ is 0 or has not the sign of $p - \\tfrac12$; so minimising it takes the side of the majority.
- *BT exact*: exact under Bradley-Terry preferences, that is, for some $c > 0$, every reward $r$ and every law of the
  pairs, the population optimum is proportional to $\\pi_{\\mathrm{ref}}\\, e^{c r/\\beta}$.

"""
_SOURCES_TITLE = """
## Parameters and sources

"""
_LOSS_PAGE = """# {name}

{lines}

```{{figure}} {name}.svg
:alt: "f, its slope and its curvature for the {words} loss, over the scaled margin from -3 to 3."
:width: 100%

$f$, $f'$ and $f''$ over the scaled margin $x = \\beta\\rho$, $\\rho$ in nats.
```

## What is derived and proved

```{{raw}} html
<div class="output_area">{shown}</div>
```

The verdicts come with a {{download}}`certificate <{name}.json>`, which `gpo verify {name}.json` replays;
`gpo analyze {name} --certificate {name}.json` writes it anew. <a href="{explorer}">Look at it in the explorer.</a>
{formulas}
## Use it

```python
from gpo_theory import LOSSES, to_numpy, to_torch

f = to_torch(LOSSES["{name}"])  # a function of the scaled margin, with gradients; to_numpy likewise
```

    gpo train --loss {name} --beta 0.1 --model PATH_OR_ID --data pairs.jsonl --output run
"""
_FORMULAS = """
## As functions of the parameters

{lines}

The formulas hold where {conditions} and {last}.
"""
_METHODS_TITLE = """
## Methods that are not of this form

No $f$ of the scaled margin alone describes these; the reason is given for each.

"""


def catalogue_page() -> str:
    """Return the page as MyST Markdown: a row of facts, of verdicts and of sources for every loss of `LOSSES`."""
    losses, analyses = list(LOSSES.values()), _catalogue().payload["analyses"]
    facts = _table(["loss", "$f(x)$", "$f'(0)$", "$f''(0)$", "$R$"], map(_facts, losses, analyses))
    verdicts = _table(["loss", *_CLAIMS.values()], map(_verdicts, losses, analyses))
    sources = _table(["loss", "parameters", "source"], map(_source, losses))
    others = _table(["method", "why", "source"], ([name, *entry] for name, entry in METHODS.items()))
    contents = "\n```{toctree}\n:hidden:\n:glob:\n\nlosses/*\n```\n"
    return "".join((_INTRODUCTION, facts, _VERDICTS_TITLE, verdicts, _SOURCES_TITLE, sources, _METHODS_TITLE, others,
                    contents))  # fmt: skip


def write_loss_pages(folder: Path) -> None:
    """Write `catalogue.md` and `losses/NAME.md` with each loss's plot and certificate beside it."""
    done = _catalogue()
    shutil.copytree(done.folder, folder / "losses", ignore=shutil.ignore_patterns("stage.json"))
    for loss, shown, formulas in zip(LOSSES.values(), done.payload["shown"], done.payload["formulas"], strict=True):
        (folder / "losses" / f"{loss.name}.md").write_text(_page(loss, shown, formulas), encoding="utf-8")
    (folder / "catalogue.md").write_text(catalogue_page(), encoding="utf-8")


def _catalogue() -> Stage:
    """All analyses take a minute and depend on the theory's code alone, so they are a cached stage."""
    return stage(cache_root() / "book", "catalogue", {}, _analyses)


def _analyses(folder: Path) -> dict[str, Any]:
    analyses, shown, formulas = [], [], []
    for loss in progress(LOSSES.values(), "analysing the catalogue", len(LOSSES)):
        analysis = analyze(loss)
        certificate = json.dumps(certificate_document(analysis), indent=1, allow_nan=False) + "\n"
        (folder / f"{loss.name}.json").write_text(certificate, encoding="utf-8")
        plots.save(plots.shapes([loss]), folder / f"{loss.name}.svg")
        analyses.append(analysis.as_dict())
        shown.append(as_html(analysis))
        formulas.append(formulas_in_parameters(loss) if loss.parameters else "")
    return {"analyses": analyses, "shown": shown, "formulas": formulas}


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
    *conditions, last = (f"${shown.get(formula) or typeset(formula)} {_RELATIONS.get(relation, relation)} 0$"
                         for formula, relation in validity_in(loss))  # fmt: skip
    return _FORMULAS.format(lines="\n".join(lines), conditions=", ".join(["$f$ is defined", *conditions]), last=last)


def _page(loss: Loss, shown: str, formulas: str) -> str:
    names = ", ".join(f"`{alias}`" for alias, name in ALIASES.items() if name == loss.name)
    values = ", ".join(f"`{name}` = {value}" for name, value in loss.parameters.items())
    address = f"../explorer.html#{quote(json.dumps({'losses': [loss.name]}))}"
    lines = (f"From: {loss.reference}." if loss.reference else "", f"Also called {names}." if names else "",
             f"Parameters, with the values used here: {values}." if values else "")  # fmt: skip
    return _LOSS_PAGE.format(name=loss.name, lines="\n".join(filter(None, lines)), shown=shown, explorer=address,
                             formulas=formulas, words=loss.name.replace("_", " "))  # fmt: skip


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(row) + " |\n" for row in (header, ["---"] * len(header), *rows))


def _link(loss: Loss) -> str:
    return f"[`{loss.name}`](losses/{loss.name}.md)"


def _facts(loss: Loss, analysis: Mapping[str, Any]) -> list[str]:
    formula = f"${analysis['loss']['latex']}$".replace("|", r"\vert ")  # a bar would end the cell
    return [_link(loss), formula, *_derivatives(loss), _strength(analysis["strength"])]


def _verdicts(loss: Loss, analysis: Mapping[str, Any]) -> list[str]:
    return [_link(loss), *(_VERDICTS[analysis["claims"][claim]["verdict"]] for claim in _CLAIMS)]


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
    return [_link(loss), values, loss.reference]
