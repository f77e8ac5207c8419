"""The key under which an executed lesson is kept: a hash of everything that its outputs depend on."""

__all__ = ["code_modules", "lesson_key", "versions", "without_magics"]

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import requires
from pathlib import Path

from gpo_full.source_hash import code_hash, imports, reached
from gpo_full.versions import versions_of

_MAGIC = re.compile(r"^([ \t]*)(?:[!%].*|\w+ = !.*)$", re.MULTILINE)
# In a line of the shell, or as the first words of a list; where prose names a command, a backtick stands before it.
_COMMAND = re.compile(r"""(?<!`)\bgpo["', ]+([a-z]+)\b""")


def lesson_key(lesson: Path, environment: Mapping[str, str], results: Mapping[str, str]) -> str:
    """Return the key of a lesson executed with `environment` added to its kernel's.

    It changes with the lesson's text, with the code and the data files of this project that its cells reach by imports
    and by `gpo` commands, and with the versions of Python and of the packages that this one requires. `results` maps a
    module to a hash of what it finds when it runs, such as a cached experiment: part of the key of a lesson that
    reaches the module.
    """
    modules = reached(code_modules(lesson))
    inputs = {
        "text": lesson.read_text(encoding="utf-8"), "environment": dict(environment), "versions": versions(),
        "code": code_hash(modules), "results": {name: results[name] for name in modules if name in results},
        "data": [hashlib.sha256(file.read_bytes()).hexdigest() for file in _data_files(modules)],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def code_modules(lesson: Path) -> tuple[str, ...]:
    """Return the modules of this project that a lesson's cells import, and those of the `gpo` commands they run."""
    import jupytext

    code = "\n".join(cell.source for cell in jupytext.read(lesson).cells if cell.cell_type == "code")
    commands = [f"gpo_full.cli.commands.{name}" for name in _COMMAND.findall(code)]
    found = [name for name in commands if importlib.util.find_spec(name)]
    return tuple(sorted({*imports(without_magics(code)), *found, *(["gpo_full.cli.entry"] if found else [])}))


def without_magics(code: str) -> str:
    """Return the code of a cell as Python: `pass` for each line of the shell and each magic of IPython."""
    return _MAGIC.sub(r"\1pass", code)


def _data_files(modules: Iterable[str]) -> Iterator[Path]:
    """Yield the files that are no code in the modules' folders and below, down to the next package."""
    specs = map(importlib.util.find_spec, modules)
    folders = {Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None}
    for folder in sorted(folders):
        below = (path for path in folder.iterdir() if path.is_dir() and not (path / "__init__.py").exists())
        for place in (folder, *sorted(below)):
            yield from sorted(path for path in place.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc"))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that this one requires, its extras included."""
    names = {re.split(r"[^\w.-]", line)[0] for line in requires("gpo-toolkit") or ()}
    return versions_of(sorted(names - {"gpo-toolkit"}))
