"""The book's page of the catalogue, generated from the table of losses and their analyses."""

__all__ = ["catalogue_page"]

from gpo_theory import LOSSES, analyze

_CLAIMS = {"convex": "convex", "monotone_decreasing": "decreasing", "bounded_below": "bounded below",
           "bayes_consistent": "Bayes consistent", "bradley_terry_exact": "BT exact"}  # fmt: skip
_SIGNS = {"proved": "yes", "refuted": "no", "unknown": "unknown"}
_INTRODUCTION = """# The catalogue

Every loss of the built-in table: $f$ is the loss as a function of the scaled margin $x = \\beta\\rho$, $R$ the strength
of its offline regularisation, $R = |f''(0)/f'(0)|$. "yes" means proved and "no" means refuted, each by a certificate
that an independent check accepted; "unknown" means that neither was found. Where $f''$ jumps at 0 both one-sided values
of $R$ are given, and where $f'(0)$ does not exist or is 0 there is none. Generated from
`gpo_theory.LOSSES` by `gpo_theory.analyze`; nothing here is written by hand.

"""


def catalogue_page() -> str:
    """Return the page as MyST Markdown: one row per loss of `LOSSES`."""
    header = ["loss", "$f(x)$", "$R$", *_CLAIMS.values()]
    rows = [header, ["---"] * len(header), *map(_row, LOSSES)]
    return _INTRODUCTION + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _row(name: str) -> list[str]:
    analysis = analyze(LOSSES[name]).as_dict()
    claims = [_SIGNS[analysis["claims"][claim]["verdict"]] for claim in _CLAIMS]
    formula = f"${analysis['loss']['latex']}$".replace("|", r"\vert ")  # a bar would end the cell
    return [f"`{name}`", formula, _strength(analysis["strength"]), *claims]


def _strength(strength: dict[str, object]) -> str:
    if strength["left"] is not None and strength["left"] != strength["right"]:
        return f"{strength['left']} left, {strength['right']} right"
    return str(strength["exact"]) if strength["value"] is not None else "none"
