"""Who imports whom, read from the source: at the top of a module, inside functions, for types alone, and by name."""

__all__ = ["Import", "folder_of", "imports_of", "modules_in"]

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """`module` is imported at `line`."""

    module: str
    line: int


def modules_in(root: Path, *packages: str) -> dict[str, Path]:
    """Return the modules of the packages below `root` by their dotted names."""
    paths = sorted(path for package in packages for path in (root / package).rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def folder_of(module: str, modules: dict[str, Path]) -> str:
    """Return the folder of a module, or the module itself where it lies at the top of its package."""
    parts = module.split(".")
    return module if len(parts) <= 2 or modules[module].name == "__init__.py" else ".".join(parts[:-1])


def imports_of(path: Path, modules: dict[str, Path]) -> Iterator[Import]:
    """Yield every import of one of `modules` in the file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            yield from (Import(_home(node.module, alias.name, modules), node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "import_module":
            yield from (Import(module, node.lineno) for module in _by_name(node.args[0], modules))


def _home(module: str, name: str, modules: dict[str, Path]) -> str:
    """Return the module that `from module import name` reaches; a package hands names of its modules on."""
    if f"{module}.{name}" in modules:
        return f"{module}.{name}"
    if modules[module].name == "__init__.py":
        for node in ast.walk(ast.parse(modules[module].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in modules and name in {a.name for a in node.names}:
                return node.module
    return module


def _by_name(argument: ast.expr, modules: dict[str, Path]) -> list[str]:
    """Return the modules that a text or an f-string can name: all that begin with its fixed part."""
    match argument:
        case ast.Constant(str(name)):
            return [name] if name in modules else []
        case ast.JoinedStr([ast.Constant(str(beginning)), *_]):
            return [module for module in modules if module.startswith(beginning)]
    return []
