"""The shape of the project: imports point left, nothing runs code found in data, one command starts quickly."""

import ast
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from gpo_full.source_hash import reached
from tests.support.places import ROOT

LAYERS = ("gpo_theory", "toy_models", "gpo_full")
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


def modules() -> list[Path]:
    return sources(*LAYERS)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def offences(text: str) -> list[str]:
    """What in a source text would run code found in data, or let a computer algebra system give a verdict."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.split(".")[0] in BANNED_MODULES]
            if isinstance(node, ast.ImportFrom):
                pairs = [((node.module or "").split(".")[0], alias.name) for alias in node.names]
                found += [f"{a}.{b}" for a, b in pairs if (a, b) in BANNED_ATTRIBUTES]
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


@pytest.mark.parametrize("path", [*modules(), *sources("notebooks")], ids=lambda path: str(path.relative_to(ROOT)))
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


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_left(path: Path) -> None:
    own = LAYERS.index(path.relative_to(ROOT).parts[0])
    right = {*LAYERS[own + 1 :], "notebooks", "tests"}
    wrong = [name for name in imported(tree(path)) if name.split(".")[0] in right]
    # `__main__`-like entry points live in gpo_full, so no exception is needed here.
    assert wrong == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_lists_its_names_and_none_is_called_like_one(path: Path) -> None:
    module = tree(path)
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


def _top_level_imports(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.name)
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < SCREEN, node.name


@pytest.mark.slow
def test_the_engine_s_core_loads_no_trainer() -> None:
    core = ", ".join(f"gpo_full.{name}" for name in ("data.pairs", "engine.packing", "attention.mask", "engine.log_probabilities", "reference.store"))
    listing = f"import sys, {core}; print(*{{'transformers.trainer', 'accelerate', 'gpo_full.training.trainer'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def loaded_by(module: str) -> set[str]:
    """The modules of gpo_full that importing `module` loads, in a process of its own."""
    listing = f"import sys, {module}; print(*(name for name in sys.modules if name.startswith('gpo_full.')))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, env=environment)
    return {*done.stdout.split()}


def within(names: Iterable[str], *folders: str) -> list[str]:
    return [name for name in sorted(names) if name.split(".")[1] in folders]


def test_a_configuration_loads_no_engine() -> None:
    found = loaded_by("gpo_full.training.config")
    assert "gpo_full.training.config" in found
    assert within(found, "engine", "attention", "kernels", "reference", "evaluation", "experiment") == []


def test_training_reaches_nothing_of_the_experiment() -> None:
    found = loaded_by("gpo_full.training.trainer")
    assert "gpo_full.engine.log_probabilities" in found
    assert within(found, "experiment") == []
    every = reached(f"gpo_full.training.{path.stem}" for path in (ROOT / "gpo_full" / "training").glob("[!_]*.py"))
    assert "gpo_full.engine.log_probabilities" in every
    assert within((name for name in every if name.startswith("gpo_full.")), "experiment") == []


@pytest.mark.parametrize("path", sources("gpo_theory"), ids=lambda path: path.name)
def test_theory_imports_torch_and_matplotlib_only_when_asked(path: Path) -> None:
    heavy = [name for name in _top_level_imports(tree(path)) if name.split(".")[0] in ("torch", "matplotlib", "transformers")]
    assert heavy == []


def run_gpo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gpo_full.cli", *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT)


def test_help_is_quick_and_light() -> None:
    """At most 0.3 CPU-seconds (the best of three: a cold disk is not the program), importing neither torch nor sympy."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = run_gpo("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0, result.stderr
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) <= 0.3
    probe = "import sys; from gpo_full.cli.entry import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    probe += "import json; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)), file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, env=environment)
    loaded = set(json.loads(result.stderr.splitlines()[-1]))
    assert not loaded & {"torch", "sympy", "transformers", "matplotlib", "numpy"}


def test_importing_theory_loads_neither_torch_nor_matplotlib() -> None:
    probe = "import sys, json, gpo_theory; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, env=environment)
    assert result.returncode == 0, result.stderr
    assert not set(json.loads(result.stdout)) & {"torch", "matplotlib", "transformers"}


def test_no_machine_is_named() -> None:
    """The project speaks of itself alone: no absolute path of a home or a workplace in anything it ships."""
    places = ["/" + "work/", "/" + "home/", "/" + "root/", "/" + "tmp/"]
    texts = [*modules(), *sources("tests"), *(p for p in ROOT.glob("*.md")), *(ROOT / "notebooks").rglob("*.md")]
    found = [f"{path.relative_to(ROOT)}: {place}" for path in texts for place in places
             if place in path.read_text(encoding="utf-8")]  # fmt: skip
    assert found == []
