"""What a visitor of the repository reads and runs agrees with the project."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from gpo_full import versions
from gpo_theory.errors import InputError
from tests.support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert "2402.05749" in str(citation["references"])


def test_ci_runs_the_readme_s_commands_on_every_supported_python() -> None:
    ci = read(".github/workflows/ci.yml")["jobs"]["test"]
    commands = [step["run"] for step in ci["steps"] if "run" in step]
    assert commands == ["make check", "make test"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()  # type: ignore[union-attr]
    assert ci["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(int(low), int(high))]


RANGED = ("transformers", "accelerate", "peft", "safetensors", "datasets")  # what a training leans on, torch apart


def ranges() -> dict[str, SpecifierSet]:
    extras = PROJECT["optional-dependencies"]
    return {each.name: each.specifier for each in map(Requirement, [*extras["lm"], *extras["dev"]]) if each.name in RANGED}


def test_ci_trains_with_the_lowest_and_the_newest_releases_that_are_allowed() -> None:
    job = read(".github/workflows/ci.yml")["jobs"]["range"]
    lowest, newest = job["strategy"]["matrix"]["packages"]
    floors = {name: Version(floor) for name, floor in (each.split("==") for each in lowest.split())}
    assert {name: Version(min(each.version for each in found if each.operator == ">=")) for name, found in ranges().items()} == floors
    assert newest.startswith("--upgrade --upgrade-strategy eager --editable .[lm]")
    assert any("tests/gpo_full/training" in step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize(("name", "bad"), [
    ("transformers", "5.22.2"), ("transformers", "5.17.0"), ("transformers", "6.0.0"), ("accelerate", "1.14.0"),
    ("peft", "0.20.0"), ("safetensors", "0.7.0"), ("datasets", "5.0.1"), ("torch", "2.7.1"), ("numpy", "1.26.4"),
])  # fmt: skip
def test_a_release_outside_the_range_is_named_before_anything_is_imported(name: str, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extras = [f'{each}; extra == "{extra}"' for extra, some in PROJECT["optional-dependencies"].items() for each in some]
    here = {each.name: str(min(each.specifier, key=lambda one: one.operator != ">=").version)
            for each in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lm"]) if each.specifier}  # fmt: skip
    here |= {"torch": "2.13.0+cpu", "datasets": "5.1", "gpo-toolkit": "0.1.0", "transformers": "5.24.0.dev0"}
    monkeypatch.setattr(versions, "requires", lambda of: [*PROJECT["dependencies"], *extras])
    monkeypatch.setattr(versions, "version", lambda package: here[package])
    versions.check_versions()
    here[name] = bad
    with pytest.raises(InputError, match=f"^{name} {re.escape(bad)} is installed, and .*[0-9] is needed: pip install"):
        versions.check_versions()


def test_pre_commit_runs_what_make_check_runs() -> None:
    hooks = [hook["entry"] for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    check = re.search(r"^check:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert check is not None
    for tool in ("ruff check", "mypy"):
        assert any(tool in hook for hook in hooks)
        assert tool in check.group(1)


def test_files_named_in_the_texts_exist() -> None:
    for text in ("SECURITY.md", "CONTRIBUTING.md"):
        named = re.findall(r"`((?:gpo_\w+|tests)/[\w/]+(?:\.py)?|test_\w+\.py)`", (ROOT / text).read_text(encoding="utf-8"))
        assert named
        for name in named:
            assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), f"{text}: {name}"


def test_whatever_lies_in_a_package_is_installed_with_it() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package, globs in data.items():
        covered = {path for each in globs for path in (ROOT / package).glob(each)}
        there = {path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert {path for path in there if path.suffix != ".py"} == covered, package


def test_constraints_cover_every_dependency() -> None:
    fixed = {re.split("==", line)[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"], *PROJECT["optional-dependencies"]["book"],
              *PROJECT["optional-dependencies"]["lm"], *PROJECT["optional-dependencies"]["toy"]]  # fmt: skip
    names = {re.split(r"[>=<\[]", each)[0].lower() for each in wanted} - {"gpo-toolkit"}
    assert names - fixed == set()


def test_make_lab_opens_the_lessons_as_notebooks_and_asks_nobody_for_news() -> None:
    place = ROOT / "notebooks" / "lab"
    assert f"app_settings_dir=\"$(CURDIR)/{place.relative_to(ROOT)}\"" in (ROOT / "Makefile").read_text()
    settings = json.loads((place / "overrides.json").read_text())
    viewers = settings["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"]
    assert viewers == {"markdown": "Jupytext Notebook", "myst": "Jupytext Notebook"}
    assert settings["@jupyterlab/apputils-extension:notification"] == {"fetchNews": "false", "checkForUpdates": False}
