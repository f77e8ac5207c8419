"""A hash of the code that a computation can reach through imports, for the keys of caches."""

__all__ = ["code_hash", "imports", "reached"]

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

# The project's own packages; code outside them is fixed by its version, which is not part of the hash.
_OWN = ("gpo_theory", "toy_models", "gpo_full")


def code_hash(modules: Iterable[str]) -> str:
    """Return a hash of the code of `modules` and of every module of this project that they reach.

    It is taken over their syntax trees without docstrings, so comments, layout and documentation do not change it.
    Raises ModuleNotFoundError for a module that does not exist.
    """
    digest = hashlib.sha256()
    for name in reached(modules):
        digest.update(f"{name}\n{_behaviour(_source(name))}\n".encode())
    return digest.hexdigest()[:16]


def reached(modules: Iterable[str]) -> tuple[str, ...]:
    """Return `modules` and every module of this project that they import, wherever the import stands, in order.

    A name imported from a package whose `__init__` re-exports it reaches the module that defines it, not the package's
    other modules.

    >>> reached(["gpo_theory.errors"])
    ('gpo_theory.errors',)
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports(_source(name))
    return tuple(sorted(found))


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name)
    return Path(spec.origin).read_text(encoding="utf-8")


@cache
def imports(source: str) -> tuple[str, ...]:
    """Return the modules of this project that a source text imports, wherever the import stands."""
    return tuple(name for module, name in _imported(source) for name in _defining(module, name))


def _imported(source: str) -> Iterator[tuple[str, str | None]]:
    """Yield (module, name) of each import of this project, name None for `import module`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] in _OWN)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in _OWN:
            yield from ((node.module, alias.name) for alias in node.names)


def _defining(module: str, name: str | None) -> Iterator[str]:
    """Yield the module that an import of `name` from `module` reaches: itself, a submodule, or the name's origin."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    if spec.submodule_search_locations is None or name is None:
        yield module
    elif importlib.util.find_spec(f"{module}.{name}") is not None:
        yield f"{module}.{name}"
    else:
        homes = dict.fromkeys(home for home, each in _imported(_source(module)) if each == name)
        yield from homes or (module,)


@cache
def _behaviour(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if ast.get_docstring(node, clean=False) is not None:
                    node.body = node.body[1:]
    return ast.dump(tree)
