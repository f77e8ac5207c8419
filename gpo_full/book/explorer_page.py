"""The explorer: one page that draws any f in the browser, self-contained: it loads nothing else."""

__all__ = ["explorer_html"]

import base64
import hashlib
import json
import re
from pathlib import Path
from string import Template
from typing import Any

from gpo_theory import LOSSES
from gpo_theory.catalogue import ALIASES
from gpo_theory.formula.spelling import CHARACTERS, LOWERED, PREFIXES, RAISED, SIGNS, SPELLINGS
from gpo_theory.formula.typeset import latex
from gpo_theory.loss import Loss
from gpo_theory.report.plots import colour

_SOURCE = Path(__file__).parent / "explorer"
# Each module imports from those before it alone.
_MODULES = ("formula", "special", "jets", "risk", "strength", "toys", "plot", "page")
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:function|class|const) (\w+))", re.MULTILINE)


def explorer_html() -> str:
    """Return the page as HTML: the modules of `explorer/` in one inlined script, the catalogue as data.

    Its content policy allows that script and that style sheet by their hashes, and no request at all.
    """
    script = "\n" + "\n".join(_module(name) for name in _MODULES) + "\n"
    style = "\n" + (_SOURCE / "style.css").read_text(encoding="utf-8")
    page = Template((_SOURCE / "page.html").read_text(encoding="utf-8"))
    return page.substitute(script=script, style=style, script_hash=_hash(script), style_hash=_hash(style), data=_data())


def _module(name: str) -> str:
    """A file as a function that is called at once: its names stay its own, its exports are what it returns."""
    text = (_SOURCE / f"{name}.js").read_text(encoding="utf-8")
    body = _EXPORT.sub("", _IMPORT.sub(r"const \1 = _\2;", text))
    return f"const _{name} = (() => {{\n{body}\nreturn {{ {', '.join(_EXPORT.findall(text))} }};\n}})();"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data() -> str:
    # The colours of losses that are the same in every figure of the book; the page assigns others to the rest.
    colours = {name: colour(name) for name in LOSSES if colour(name) != colour("")}
    data = {"losses": [_loss(loss) for loss in LOSSES.values()], "aliases": dict(ALIASES), "colours": colours,
            "grammar": {"spellings": SPELLINGS, "prefixes": PREFIXES, "characters": CHARACTERS | SIGNS,
                        "superscripts": {each: each.translate(LOWERED) for each in RAISED}}}  # fmt: skip
    # "</script>" in a text would end the element.
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _loss(loss: Loss) -> dict[str, Any]:
    from latex2mathml.converter import convert

    formula = latex(loss.body)
    return {"name": loss.name, "formula": loss.formula, "latex": formula, "mathml": convert(formula),
            "parameters": {name: str(value) for name, value in loss.parameters.items()}}  # fmt: skip
