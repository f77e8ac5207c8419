"""The graph of folders: which may import which, as one table, and no cycle of folders or of files."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.imports import folder_of, imports_of, modules_in
from tests.support.places import ROOT

PACKAGES = ("gpo_theory", "toy_models", "gpo_full")  # from the left

# Each folder (or file at the top of its package) and what of its own package it imports. An arrow points to a line
# above its own, so there is no cycle. Between packages imports point left.
ARROWS = {
    "gpo_theory.budget": "",
    "gpo_theory.errors": "",
    "gpo_theory.formula": "budget errors",
    "gpo_theory.certificate": "",
    "gpo_theory.kernel": "budget errors formula certificate",
    "gpo_theory.loss": "errors formula",
    "gpo_theory.calculus": "budget formula kernel loss",
    "gpo_theory.claims": "budget formula certificate kernel calculus",
    "gpo_theory.methods": "",
    "gpo_theory.transforms": "errors formula loss calculus",
    "gpo_theory.catalogue": "errors loss methods transforms",
    "gpo_theory.dynamics": "formula kernel loss calculus",
    "gpo_theory.lowering": "errors formula loss calculus catalogue",
    "gpo_theory.checking": "errors formula loss calculus lowering",
    "gpo_theory.risk": "errors formula certificate kernel loss calculus claims",
    "gpo_theory.report": "budget errors formula certificate kernel loss calculus catalogue dynamics lowering risk",
    "gpo_theory.analysis": "budget errors formula certificate kernel loss calculus catalogue claims risk report",
    "gpo_theory.choosing": "errors formula certificate loss calculus transforms catalogue lowering risk report analysis",
    "gpo_theory.propositions": "errors formula certificate loss calculus transforms catalogue analysis",
    "toy_models.inputs": "",
    "toy_models.objectives": "",
    "toy_models.bandit": "inputs objectives",
    "toy_models.mixture": "inputs objectives",
    "toy_models.preferences": "inputs",
    "toy_models.descent": "inputs objectives bandit mixture preferences",
    "toy_models.optima": "inputs objectives bandit mixture preferences",
    "toy_models.plots": "",
    "toy_models.propositions": "objectives bandit mixture descent",
    "toy_models.quadrature": "mixture preferences descent",
    "gpo_full.files": "",
    "gpo_full.output": "",
    "gpo_full.signals": "",
    "gpo_full.strict_json": "",
    "gpo_full.other_libraries": "",
    "gpo_full.source_hash": "",
    "gpo_full.data": "files output strict_json source_hash other_libraries",
    "gpo_full.kernels": "",
    "gpo_full.attention": "data kernels",
    "gpo_full.checkpoints": "strict_json",
    "gpo_full.distributed": "",
    "gpo_full.margin": "",
    "gpo_full.engine": "data kernels attention margin",
    "gpo_full.download": "",
    "gpo_full.prepared": "files download",
    "gpo_full.evaluation": "other_libraries files output strict_json data download prepared",
    "gpo_full.reference": "output data checkpoints distributed margin engine",
    "gpo_full.run_files": "",
    "gpo_full.diagnosis": "run_files",
    "gpo_full.training.reporting": "files strict_json data checkpoints run_files diagnosis",
    "gpo_full.versions": "",
    "gpo_full.config": "data files margin training.reporting",
    "gpo_full.training.start": "config data attention engine reference run_files other_libraries training.reporting",
    "gpo_full.training": "data kernels attention checkpoints distributed engine evaluation reference run_files other_libraries training.reporting versions config training.start",
    "gpo_full.bench": "files output data attention training versions config training.start",
    "gpo_full.course": "files versions source_hash",
    "gpo_full.experiment.inputs": "output download prepared evaluation reference versions source_hash training.start",
    "gpo_full.experiment": "files output data checkpoints evaluation run_files training versions source_hash experiment.inputs config training.start",
    "gpo_full.book": "files output versions course experiment",
    "gpo_full.cli.options": "files config",
    "gpo_full.sweeps": "files run_files",
    "gpo_full.cli.commands": "files output signals strict_json data checkpoints distributed evaluation diagnosis reference run_files training.reporting training course experiment.inputs experiment book cli.options sweeps config training.start",
    "gpo_full.cli": "cli.options cli.commands",
    "gpo_full.trl_adapter": "config",
}  # fmt: skip


def arrows(root: Path, packages: tuple[str, ...] = PACKAGES) -> dict[tuple[str, str], str]:
    """Every (folder, folder it imports) within a package, with the place of one such import."""
    modules = modules_in(root, *packages)
    found = {}
    for module, path in modules.items():
        for imported, line in imports_of(path, modules):
            ends = folder_of(module, modules), folder_of(imported, modules)
            # A package's own `__init__` only hands its modules' names on.
            if ends[0] != ends[1] and not {module, imported} & {*packages} and imported.split(".")[0] == module.split(".")[0]:
                found[ends] = f"{path.relative_to(root)}:{line} imports {imported}"
    return found


def files(root: Path, *packages: str) -> dict[str, set[str]]:
    """Each module and those that it imports."""
    modules = modules_in(root, *packages)
    return {name: {each.module for each in imports_of(path, modules)} for name, path in modules.items()}


def forbidden(root: Path, allowed: Mapping[str, str], packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """What the table does not allow, each with its place."""
    return [place for (folder, to), place in arrows(root, packages).items()
            if to.partition(".")[2] not in allowed.get(folder, "").split()]  # fmt: skip


def cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """A way from a node back to itself; none if there is no such way."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        found = next(filter(None, (visit(to, [*trail, name]) for to in sorted(edges.get(name, ())))), [])
        done.add(name)
        return found

    return next(filter(None, (visit(name, []) for name in sorted(edges))), [])


def test_no_folder_imports_what_the_table_does_not_allow() -> None:
    assert forbidden(ROOT, ARROWS) == []


def test_every_arrow_of_the_table_is_drawn_and_points_up() -> None:
    drawn = arrows(ROOT)
    names = list(ARROWS)
    for at, (folder, targets) in enumerate(ARROWS.items()):
        for target in targets.split():
            to = f"{folder.partition('.')[0]}.{target}"
            assert (folder, to) in drawn, f"{folder} -> {to} is allowed and not there"
            assert to in names[:at], f"{folder} -> {to} does not point to a line above"


def test_no_cycle_of_files() -> None:
    edges = files(ROOT, *PACKAGES)
    assert cycle({name: to - {name} for name, to in edges.items() if name not in PACKAGES}) == []


def test_imports_point_left_and_are_absolute() -> None:
    order = (*PACKAGES, "notebooks", "tests")
    for name, imported in files(ROOT, *order).items():
        place = order.index(name.partition(".")[0])
        assert {each.partition(".")[0] for each in imported} <= {*order[: place + 1]}, name
    for name, path in modules_in(ROOT, *order).items():
        assert not re.search(r"^\s*from \.", path.read_text(encoding="utf-8"), re.MULTILINE), name


WAYS = {
    "inside a function": "def f():\n    from house.top.roof import g\n",
    "for types alone": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.top import roof\n",
    "by an f-string": "import importlib\ndef f(name):\n    return importlib.import_module(f'house.top.{name}')\n",
    "by a text": "from importlib import import_module\nroof = import_module('house.top.roof')\n",
    "through the package": "from house import g\n",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_forbidden_arrow_is_seen(way: str, tmp_path: Path) -> None:
    for name, text in {"__init__": "from house.top.roof import g\n", "ground/__init__": "", "top/__init__": "",
                       "top/roof": "import house.ground.floor\ng = 1\n", "ground/floor": WAYS[way]}.items():  # fmt: skip
        path = tmp_path / "house" / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    (wrong,) = forbidden(tmp_path, {"house.top": "ground"}, ("house",))
    assert wrong.startswith("house/ground/floor.py:")
    assert {*cycle(files(tmp_path, "house"))} == {"house.ground.floor", "house.top.roof"}
