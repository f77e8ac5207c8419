"""What a visitor of the repository reads and runs agrees with the project."""

import json
import re
import tomllib
from typing import Any

import yaml

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
