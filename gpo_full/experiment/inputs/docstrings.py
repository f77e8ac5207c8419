"""Real text with human summaries and no download: docstrings, read with `ast` and never imported."""

__all__ = ["Example", "examples_in", "harvest"]

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MARKUP = re.compile(r"[`*|<>{}\[\]\\=~_#@$]|::|:\w+:|https?:|\.\.\s")
_SECTION = re.compile(
    r"^\s*(?:[-=~^]{3,}\s*$|>>>|\.\.\s|:\w+[^:]*:|@\w+|[-*+]\s|\d+[.)]\s|\w+\s*\([^)]*\):|\w+( \w+)?::|"
    r"(?:args|arguments|parameters?|params|returns?|yields?|raises|attributes|examples?|notes?|see also|references|"
    r"warnings?|usage|keyword arguments|inputs?|outputs?|shape|methods|todo)\s*:?\s*$)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)'\"])\.(?:\s+|$)")
# `models`: transformers repeats the same docstrings for every architecture.
_SKIPPED = re.compile(
    r"^(?:tests?|_?testing|conftest|_vendor|_?vendored|externals?|third_party|site-packages|dist-packages|idlelib|"
    r"lib2to3|turtledemo|models)$|^test_|_test$"
)
_LARGEST_FILE = 4_000_000


@dataclass(frozen=True)
class Example:
    """One task: `prompt` is a signature with the extended description of what it does, `target` the human's summary."""

    prompt: str
    target: str
    package: str


def harvest(folder: Path, package: str) -> Iterator[Example]:
    """Yield the examples in the Python files under `folder` (or in one file), in sorted order; tests are skipped."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
    for path in files:
        inside = [path.stem] if folder.is_file() else [*path.relative_to(folder).parts[:-1], path.stem]
        if any(_SKIPPED.search(part) for part in inside) or path.stat().st_size > _LARGEST_FILE:
            continue
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        yield from examples_in(source, package)


def examples_in(source: str, package: str) -> Iterator[Example]:
    """Yield the examples in one Python source; a source that does not parse has none.

    A docstring counts when the first sentence of its first paragraph has 4 to 20 words and no markup, and at least
    40 words of prose follow before its first section header, list, directive or doctest.

    >>> words = "It reads every row once and keeps only what later steps need. " * 4
    >>> text = f'def load(path):\\n    \"\"\"Load a table from one file.\\n\\n    {words}\\n    \"\"\"'
    >>> [example.target for example in examples_in(text, "mine")]
    ['Load a table from one file.']
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            parts = _split(ast.get_docstring(node) or "")
            if parts is not None:
                summary, body = parts
                yield Example(f"{_signature(node)}\n\n{body}\n\nSummary:", summary, package)


def _split(docstring: str) -> tuple[str, str] | None:
    paragraphs = re.split(r"\n\s*\n", docstring.strip())
    first = " ".join(paragraphs[0].split())
    end = _SENTENCE_END.search(first)
    summary, rest = (first[: end.start() + 1], first[end.end() :]) if end else (first, "")
    if not 4 <= len(summary.split()) <= 20 or _MARKUP.search(summary) or not summary[0].isupper():
        return None
    body = " ".join([rest, *_prose(paragraphs[1:])]).split()
    return (summary.rstrip(".") + ".", " ".join(body)) if len(body) >= 40 else None


def _prose(paragraphs: Iterable[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        lines = paragraph.splitlines()
        # An indented paragraph is code or a quotation.
        if any(_SECTION.match(line) for line in lines[:2]) or lines[0].startswith("    "):
            return
        yield paragraph


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
    return f"def {node.name}({', '.join(names)})"
