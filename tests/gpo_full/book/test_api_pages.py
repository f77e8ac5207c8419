"""The interface reference: every public name is in it, and docstrings reach Sphinx without false markup."""

import re
from pathlib import Path

import pytest
from docutils.core import publish_doctree

import gpo_full
import gpo_theory
import toy_models
from gpo_full.book.api_pages import as_restructured_text, write_api_pages
from tests.support.places import ROOT

PACKAGES = {"gpo_theory": gpo_theory, "toy_models": toy_models, "gpo_full": gpo_full}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_api_pages(folder)
    return folder


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_has_one_entry(pages: Path, name: str) -> None:
    text = (pages / "api.md").read_text(encoding="utf-8")
    entries = re.findall(rf"^\.\. (?:auto\w+|py:data):: {name}\.(\w+)$", text, flags=re.MULTILINE)
    assert entries == PACKAGES[name].__all__


@pytest.mark.parametrize("name", PACKAGES)
def test_every_module_file_has_one_section(pages: Path, name: str) -> None:
    text = (pages / "api" / f"{name}.md").read_text(encoding="utf-8")
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / name).rglob("*.py") if path.parent.name != "explorer"]
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files} - {name}
    assert re.findall(r"^\.\. automodule:: (\S+)$", text, flags=re.MULTILINE) == sorted(modules)


@pytest.mark.parametrize("docstring", ["R = |f''(0)/f'(0)|.", "the squares x**2 + y**2", "|f(a) - f(b)| <= L |a - b|, for `a*b` too", "one * star"])
def test_a_docstring_shows_the_characters_it_was_written_with(docstring: str) -> None:
    lines = docstring.split("\n")
    as_restructured_text(None, "", "", None, None, lines)
    shown = publish_doctree("\n".join(lines), settings_overrides={"report_level": 5})
    assert shown.astext() == docstring.replace("`", "")
    assert not list(shown.findall(lambda node: node.tagname in ("substitution_reference", "problematic", "strong", "emphasis")))


def test_an_example_keeps_its_code() -> None:
    lines = ["Square it.", "", ">>> 2**3 | 1", "9"]
    as_restructured_text(None, "", "", None, None, lines)
    assert lines[2] == ">>> 2**3 | 1"
