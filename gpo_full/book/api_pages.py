"""The book's interface reference: every public name with its docstring, laid out for Sphinx's autodoc."""

__all__ = ["as_restructured_text", "write_api_pages"]

import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import gpo_full
import gpo_theory
import toy_models
from gpo_full.book.templates import page

_PACKAGES = (gpo_theory, toy_models, gpo_full)
# Inline code, and examples with their output up to the next empty line, are left unescaped.
_KEPT = re.compile(r"(`[^`]*`|^[ \t]*>>>.*(?:\n.*\S.*)*$)", re.MULTILINE)


def write_api_pages(folder: Path) -> None:
    """Write `api.md` with what each package exports, and `api/PACKAGE.md` with its modules."""
    text = page("api", exported="\n".join(map(_exported, _PACKAGES)))
    (folder / "api.md").write_text(text, encoding="utf-8")
    (folder / "api").mkdir()
    for package in _PACKAGES:
        (folder / "api" / f"{package.__name__}.md").write_text(_modules(package), encoding="utf-8")


def _exported(package: ModuleType) -> str:
    name = package.__name__
    entries = [f"## {name}\n", f"{package.__doc__}\n"]
    for member in package.__all__:
        value = getattr(package, member)
        if isinstance(value, Mapping):  # its docstring is that of every mapping of its kind
            entries.append(_directive(f"py:data:: {name}.{member}", "", f"By name: {', '.join(value)}."))
        elif isinstance(value, type):
            entries.append(_directive(f"autoclass:: {name}.{member}", ":members:"))
        else:
            entries.append(_directive(f"autofunction:: {name}.{member}"))
    return "\n".join(entries)


def _modules(package: ModuleType) -> str:
    name = package.__name__
    modules = sorted(module.name for module in pkgutil.walk_packages(package.__path__, f"{name}."))
    sections = [
        f"## {module}\n\n{_directive(f'automodule:: {module}', ':members:', ':no-index:')}" for module in modules
    ]
    return "\n".join([f"# Modules of {name}\n", *sections])


def _directive(head: str, *body: str) -> str:
    return "\n".join(["```{eval-rst}", f".. {head}", *(f"   {line}" for line in body), "```\n"])


def as_restructured_text(
    _app: object, _kind: str, _name: str, _found: object, _options: object, lines: list[str]
) -> None:
    r"""Escape in a docstring, in place, what reStructuredText would read as markup: bars of |x|, stars of x**2.

    Sphinx calls it for every docstring (`autodoc-process-docstring`).

    >>> lines = ["R = |f''(0)/f'(0)| of `x**2`, and x**2 itself"]
    >>> as_restructured_text(None, "", "", None, None, lines)
    >>> print(lines[0])
    R = \|f''(0)/f'(0)\| of `x**2`, and x\*\*2 itself
    >>> lines = [">>> parse('x * x').formula", "'x**2'", "", "not x**3"]
    >>> as_restructured_text(None, "", "", None, None, lines)
    >>> lines[1:]
    ["'x**2'", '', 'not x\\*\\*3']
    """
    parts = _KEPT.split("\n".join(lines))
    parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")
