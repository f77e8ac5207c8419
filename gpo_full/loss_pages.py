"""The book's page of the catalogue, generated from the table of losses and their analyses."""

__all__ = ["catalogue_page"]

import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gpo_theory
from gpo_full.files import cache_root
from gpo_full.output import progress
from gpo_full.stages import code_hash, stage
from gpo_theory import LOSSES, Loss, analyze, taylor
from gpo_theory.methods import METHODS

_CLAIMS = {"convex": "convex", "monotone_decreasing": "decreasing", "bounded_below": "bounded below",
           "bayes_consistent": "Bayes consistent", "bradley_terry_exact": "BT exact"}  # fmt: skip
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
The page is generated from `gpo_theory.LOSSES`.

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
_METHODS_TITLE = """
## Methods that are not of this form

No $f$ of the scaled margin alone describes these; the reason is given for each.

"""


def catalogue_page() -> str:
    """Return the page as MyST Markdown: a row of facts and a row of sources for every loss of `LOSSES`.

    The analyses take a minute and depend on the theory's code alone, so they are a cached stage.
    """
    losses = list(LOSSES.values())
    analyses = stage(cache_root() / "book", "catalogue", {"code": code_hash(_theory())}, _analyses).payload["analyses"]
    facts = _table(["loss", "$f(x)$", "$f'(0)$", "$f''(0)$", "$R$"], map(_facts, losses, analyses))
    verdicts = _table(["loss", *_CLAIMS.values()], map(_verdicts, losses, analyses))
    sources = _table(["loss", "parameters", "source"], map(_source, losses))
    others = _table(["method", "why", "source"], ([name, *entry] for name, entry in METHODS.items()))
    return "".join((_INTRODUCTION, facts, _VERDICTS_TITLE, verdicts, _SOURCES_TITLE, sources, _METHODS_TITLE, others))


def _theory() -> list[str]:
    return [module.name for module in pkgutil.walk_packages(gpo_theory.__path__, "gpo_theory.")]


def _analyses(_: Path) -> dict[str, Any]:
    losses = progress(LOSSES.values(), "analysing the catalogue", len(LOSSES))
    return {"analyses": [analyze(loss).as_dict() for loss in losses]}


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(row) + " |\n" for row in (header, ["---"] * len(header), *rows))


def _facts(loss: Loss, analysis: Mapping[str, Any]) -> list[str]:
    formula = f"${analysis['loss']['latex']}$".replace("|", r"\vert ")  # a bar would end the cell
    return [f"`{loss.name}`", formula, *_derivatives(loss), _strength(analysis["strength"])]


def _verdicts(loss: Loss, analysis: Mapping[str, Any]) -> list[str]:
    return [f"`{loss.name}`", *(_VERDICTS[analysis["claims"][claim]["verdict"]] for claim in _CLAIMS)]


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
    return [f"`{loss.name}`", values, loss.reference]
