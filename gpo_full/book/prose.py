"""The sentences of a page of Markdown, with the marks of the claims ledger in or after them, and its cells."""

__all__ = ["MARK", "Sentence", "cells", "page_sentences", "sentences"]

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# [¶4.2](ledger.md#c4-2) in a lesson; the README, which is read elsewhere, too, has an invisible comment instead.
MARK = re.compile(
    r"\[¶(?P<id>\d+\.\d+)\]\(ledger\.md#c(?P<anchor>[\d-]+)\)|<!-- claim (?P<readme>R\.\d+): (?P<test>\S+) -->"
)
_FENCE = re.compile(r"^(?P<fence>```+|~~~+)[^\n]*\n.*?^(?P=fence)[^\n]*$", re.MULTILINE | re.DOTALL)
_OPAQUE = re.compile(r"\$\$.*?\$\$|\$[^$]+\$|`[^`]*`|\]\([^)]*\)", re.DOTALL)  # no sentence ends inside
_STOP = re.compile(r"[.!?][\"')\]*_]*(?:\s*\x02[^\x03]*\x03)*(?=\s+[^a-z\s]|\s*$)")
_ABBREVIATED = re.compile(r"\b(?:e\.g|i\.e|al|Eq|vs|cf|s\.e|Fig|Sec)$")
_ITEM = re.compile(r"^ {0,3}(?:[-*+]|\d+\.) +")
_TAG = re.compile(r"</?(?:details|summary|sup|br)[^>]*>")


@dataclass(frozen=True)
class Sentence:
    """One sentence without its marks; `kind` is prose, quote or row, `folded` whether it stands in `<details>`."""

    text: str
    marks: tuple[re.Match[str], ...]
    section: str
    kind: str
    folded: bool


def sentences(text: str, section: str = "") -> tuple[Sentence, ...]:
    """Return the sentences of Markdown text, without code, in the `##` sections in which they stand.

    >>> for one in sentences("## Tails\\n\\nIt is 0.5, e.g. here. It falls. [¶4.2](ledger.md#c4-2) Why?"):
    ...     print(one.section, "|", one.text, "|", [mark["id"] for mark in one.marks])
    Tails | It is 0.5, e.g. here. | []
    Tails | It falls. | ['4.2']
    Tails | Why? | []
    """
    found: list[Sentence] = []
    for block, place in _blocks(text, Sentence("", (), section, "prose", False)):
        for part in _split(block):
            marks = tuple(MARK.finditer(part))
            plain = " ".join(_TAG.sub("", MARK.sub("", part)).split())
            if plain:
                found.append(replace(place, text=plain, marks=marks))
            elif marks and found:  # a mark by itself belongs to what stands before it
                found[-1] = replace(found[-1], marks=found[-1].marks + marks)
            elif marks:
                found.append(replace(place, marks=marks))
    return tuple(found)


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a lesson's Markdown source, or of its executed notebook."""
    if path.suffix == ".ipynb":
        loaded = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in loaded]
    import jupytext

    return list(jupytext.read(path).cells)


def page_sentences(path: Path) -> Iterator[Sentence]:
    """Return the sentences of a lesson, or of a Markdown file that is no notebook: the README."""
    if path.stem == "README":
        yield from sentences(path.read_text(encoding="utf-8"))
        return
    section = ""
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            yield from sentences(cell["source"], section)
            headings = re.findall(r"^## (.*)$", cell["source"], re.MULTILINE)
            section = headings[-1] if headings else section


def _split(block: str) -> Iterator[str]:
    tokens = MARK.sub(lambda mark: "\x02" + "X" * (len(mark[0]) - 2) + "\x03", block)
    masked = _OPAQUE.sub(lambda match: "X" * len(match[0]), tokens)
    start = 0
    for stop in _STOP.finditer(masked):
        if not _ABBREVIATED.search(masked[: stop.start()]):
            yield block[start : stop.end()]
            start = stop.end()
    yield block[start:]


def _blocks(text: str, place: Sentence) -> Iterator[tuple[str, Sentence]]:
    """Paragraphs, list items, quotes and rows of tables, each with an empty sentence that says where it stands."""
    text = _FENCE.sub("", text)
    text = re.sub(r"\n\s*\n(?=\$\$)", "\n", text)  # a displayed formula belongs to its sentence
    text = re.sub(r"(?<=\$\$)\n\s*\n(?=[a-z])", "\n", text)
    lines: list[str] = []
    folded = False
    for line in (*text.split("\n"), ""):
        kind = "quote" if line.startswith(">") else "row" if line.startswith("|") else "prose"
        heading = re.match(r"#+ (.*)", line)
        begins = heading or kind == "row" or _ITEM.match(line) or line.startswith((":::", "<details"))
        if lines and (begins or not line.strip() or kind != place.kind):
            yield " ".join(lines), replace(place, folded=folded)
            lines = []
        place = replace(place, kind=kind)
        folded = (folded or "<details" in line) and "</details" not in line
        if heading and line.startswith("## "):
            place = replace(place, section=heading[1])
        code = not lines and line.startswith("    ")
        if line.strip() and not heading and not code and not line.startswith(":::"):
            lines.append(re.sub(r"^>\s?|<summary>.*?</summary>", "", _ITEM.sub("", line)))
