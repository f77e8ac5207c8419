"""The shape of the project: nothing runs code found in data, every module lists its names, imports load no more than they need."""

import ast
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from gpo_full.source_hash import reached
from tests.support.commands import gpo_process
from tests.support.places import ROOT

PACKAGES = ("gpo_theory", "toy_models", "gpo_full")
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BANNED_ATTRIBUTES = {
    ("torch", "load"), ("torch", "save"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system"),
    ("os", "popen"), ("sympy", "sympify"), ("sympy", "parse_expr"), ("sympy", "lambdify"), ("sympy", "simplify"),
}  # fmt: skip
# Lines of a function that can be read at a glance.
SCREEN = 50
BANNED_METHODS = {"is_convex", "equals", "sympify", "parse_expr"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The dotted names that an import names, from the module's own."""
    return [f"{node.module}.{each.name}" if isinstance(node, ast.ImportFrom) else each.name for each in node.names]


def offences(text: str) -> list[str]:
    """What in a source text would run code found in data, or let a computer algebra system give a verdict."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            parts = [tuple(name.split(".")) for name in names_of(node)]
            found += [".".join(each) for each in parts if each[0] in BANNED_MODULES or (each[0], each[-1]) in BANNED_ATTRIBUTES]
        elif isinstance(node, ast.Call):
            found += [f"{key.arg}=True" for key in node.keywords if _is_true(key, "shell") or _is_true(key, "trust_remote_code")]
            if isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
                found.append(node.func.id)
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else None
            if (owner, node.attr) in BANNED_ATTRIBUTES or node.attr in BANNED_METHODS:
                found.append(f"{owner}.{node.attr}")
    return found


def _is_true(key: ast.keyword, name: str) -> bool:
    return key.arg == name and not (isinstance(key.value, ast.Constant) and key.value.value is False)


@pytest.mark.parametrize("path", [*sources(*PACKAGES), *sources("notebooks")], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_code_found_in_data(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from pickle import loads", "import torch\ntorch.load('f')", "from torch import load", "eval('1')",
     "exec('1')", "import yaml\nyaml.load('f')", "import os\nos.system('ls')", "run('ls', shell=True)", "f.is_convex()",
     "a.equals(b)", "import sympy\nsympy.simplify(a)", "load(trust_remote_code=True)", "__import__('os')"],
)  # fmt: skip
def test_the_walk_sees_each_offence(text: str) -> None:
    assert offences(text)


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_lists_its_names_and_none_is_called_like_one(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))
    if not [node for node in module.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]:
        return  # only a docstring: a package marker
    exported = [
        ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if path.name == "__main__.py":
        return  # it is run, never imported
    if path.parent.name == "commands" and path.name != "__init__.py":
        defined = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
        assert {"add_arguments", "run"} <= defined
        return  # a subcommand is called what the command line calls it
    assert exported, "__all__ is missing"
    assert ast.get_docstring(module), "the module has no docstring"
    functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    assert path.stem not in functions & set(exported[0]), "a module is named like a function it exports"


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: path.name)
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < SCREEN, node.name


CORE = ("data.pairs", "engine.packing", "attention.mask", "engine.log_probabilities", "reference.store")
OF_THE_EXPERIMENT = ("gpo_full.experiment",)
# What a process of its own runs, a module that it needs for that, and what it must not load.
LIGHT = {
    "the theory": ("import gpo_theory", "gpo_theory", ("torch", "matplotlib", "transformers")),
    "gpo --help": ("from gpo_full.cli.entry import main\nwith contextlib.suppress(SystemExit): main(['--help'])", "gpo_full.cli.entry",
                   ("torch", "sympy", "transformers", "matplotlib", "numpy")),
    "the core of the engine": ("\n".join(f"import gpo_full.{name}" for name in CORE), "gpo_full.engine.packing",
                               ("transformers.trainer", "accelerate", "gpo_full.training.trainer")),
    "a configuration": ("import gpo_full.config", "gpo_full.config",
                        tuple(f"gpo_full.{folder}" for folder in ("engine", "attention", "kernels", "reference", "evaluation", "experiment"))),
    "the trainer": ("import gpo_full.training.trainer", "gpo_full.engine.log_probabilities", OF_THE_EXPERIMENT),
    "values of a lesson": ("import gpo_full.course.values", "gpo_full.course.values", ("IPython",)),
}  # fmt: skip

HEAVY = ("the core of the engine", "a configuration", "the trainer")


def below(names: Iterable[str], tops: tuple[str, ...]) -> list[str]:
    return sorted(name for name in names if f"{name}.".startswith(tuple(f"{top}." for top in tops)))


@pytest.mark.parametrize("what", [pytest.param(what, marks=[pytest.mark.slow] if what in HEAVY else []) for what in LIGHT])
def test_what_need_not_be_loaded_is_not(what: str) -> None:
    code, needed, banned = LIGHT[what]
    listing = f"import contextlib, sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    loaded = done.stdout.splitlines()[-1].split()
    assert needed in loaded
    assert below(loaded, banned) == []


def test_training_reaches_nothing_of_the_experiment() -> None:
    every = reached(f"gpo_full.training.{path.stem}" for path in (ROOT / "gpo_full" / "training").glob("[!_]*.py"))
    assert "gpo_full.engine.log_probabilities" in every
    assert below(every, OF_THE_EXPERIMENT) == []


def test_theory_imports_torch_and_matplotlib_only_when_asked() -> None:
    """No module does at its top, whichever a user imports, but the torch function itself, imported when one is asked for."""
    heavy = {f"{path}:{node.lineno}" for path in sources("gpo_theory") if path.name != "autograd.py" for node in ast.parse(path.read_text(encoding="utf-8")).body
             if isinstance(node, ast.Import | ast.ImportFrom) and below(names_of(node), ("torch", "matplotlib", "transformers"))}  # fmt: skip
    assert heavy == set()


def test_help_is_quick() -> None:
    """At most 0.3 CPU-seconds; the best of three: a cold disk is not the program."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert gpo_process("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) <= 0.3


def test_no_machine_is_named() -> None:
    """The project speaks of itself alone: no absolute path of a home or a workplace in anything it ships."""
    places = ["/" + "work/", "/" + "home/", "/" + "root/", "/" + "tmp/"]
    texts = [*sources(*PACKAGES), *sources("tests"), *(p for p in ROOT.glob("*.md")), *(ROOT / "notebooks").rglob("*.md")]
    found = [f"{path.relative_to(ROOT)}: {place}" for path in texts for place in places
             if place in path.read_text(encoding="utf-8")]  # fmt: skip
    assert found == []
