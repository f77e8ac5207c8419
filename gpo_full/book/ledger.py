"""The claims ledger: each sentence of the lessons and the README that claims something, beside what shows it."""

__all__ = ["BookError", "Claim", "LedgerError", "collect"]

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpo_full.book.claim_review import REASONS, answers, review
from gpo_full.book.prose import Sentence, cells, page_sentences
from gpo_full.course.lessons import lesson_files, notebooks_folder
from gpo_theory.errors import InputError

KINDS = ("proved", "tested", "measured", "cited")
# Sections that repeat: a mark in them refers to a claim that another section makes.
_REPEATING = ("True or false", "Summary")
_LINE = re.compile(r"^[ \t]*#\s*claims?\s+\d.*$", re.MULTILINE)
_EVIDENCE = re.compile(r"# claims? (\d+\.\d+(?:, \d+\.\d+)*) (proved|tested|measured|cited)(?::? (\S.*))?")
_ASSERTS = re.compile(r"^[ \t]*(?:assert\b|[\w.]*\bassert_\w+\(|.*\braises\()", re.MULTILINE)
_PROOF = re.compile(r"PROVED|REFUTED|[\"'](?:proved|refuted)[\"']|\bcertificates?\b.*\bverify\b", re.DOTALL)


class BookError(RuntimeError):
    """The book does not build, or a page of it would fetch something from outside."""


class LedgerError(BookError):
    """A claim has no evidence, evidence has no claim, or an id is used twice; each line names one fault."""


@dataclass(frozen=True)
class Evidence:
    """What shows a claim: the code of an executed cell (`cell` is its index), a test of the suite, or a source."""

    kind: str
    note: str
    cell: int | None = None
    code: str = ""


@dataclass(frozen=True)
class Claim:
    """A marked sentence, the page where it stands (a lesson's stem, or README), and its evidence."""

    id: str
    sentence: str
    page: str
    evidence: tuple[Evidence, ...]


@dataclass
class _Page:
    """The marks and the evidence found on one page, and its faults, each a whole line of the report."""

    name: str
    marks: list[tuple[str, Sentence]] = field(default_factory=list)
    evidence: dict[str, list[Evidence]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        self.faults.append(f"{self.name}: {text}")


def collect(lessons: Sequence[Path] | None = None, readme: Path | None = None) -> tuple[Claim, ...]:
    """Return the claims of lessons (default: this checkout's, README included), in their order.

    Lessons are Markdown sources, or executed notebooks, whose evidence must have been executed. Raises LedgerError
    that lists every mark without evidence, evidence without a mark, repeated id, and evidence in a cell that asserts
    nothing.
    """
    if lessons is None:
        lessons, readme = lesson_files(), notebooks_folder().parent / "README.md"
    pages = [_lesson(path) for path in lessons] + ([_readme(readme)] if readme is not None else [])
    claims = [claim for page in pages for claim in _joined(page)]
    if faults := [fault for page in pages for fault in page.faults]:
        raise LedgerError("the claims ledger:\n" + "\n".join(faults))
    return tuple(claims)


def _lesson(path: Path) -> _Page:
    page = _Page(path.stem)
    number = int(path.stem[:2])
    for sentence in page_sentences(path):
        for mark in sentence.marks:
            name = mark["id"] or mark["readme"]
            page.marks.append((name, sentence))
            if mark["anchor"] != name.replace(".", "-") or name.split(".")[0] != str(number):
                page.fault(f"the mark {mark[0]} should read [¶{number}.N](ledger.md#c{number}-N)")
    executed = path.suffix == ".ipynb"
    for place, cell in enumerate(cells(path)):
        if cell["cell_type"] == "code":
            _read_evidence(page, place, cell["source"])
            if executed and cell["source"].strip() and not cell["execution_count"]:
                page.fault(f"cell {place} was not executed")
    return page


def _read_evidence(page: _Page, place: int, code: str) -> None:
    for line in _LINE.findall(code):
        found = _EVIDENCE.fullmatch(line.strip())
        if found is None:
            page.fault(f"not a line of evidence: {line.strip()!r}; write '# claim N.M {'|'.join(KINDS)}[: note]'")
            continue
        ids, kind, note = found.groups(default="")
        if kind == "cited" and not note:
            page.fault(f"{line.strip()!r} names no source")
        if kind != "cited" and not _ASSERTS.search(code):
            page.fault(f"{line.strip()!r} stands in a cell that asserts nothing")
        if kind == "proved" and not _PROOF.search(code):
            page.fault(f"{line.strip()!r} stands in a cell that neither asserts on a verdict nor replays a certificate")
        for name in ids.split(", "):
            page.evidence.setdefault(name, []).append(Evidence(kind, note, place, code))


def _readme(path: Path) -> _Page:
    page = _Page(path.stem)
    for sentence in page_sentences(path):
        for mark in sentence.marks:
            name, test = mark["readme"] or mark["id"], mark["test"] or ""
            page.marks.append((name, sentence))
            page.evidence.setdefault(name, []).append(Evidence("tested", test))
            if not _is_test(path.parent, test):
                page.fault(f"claim {name} names {test!r}, which is no test of this checkout")
    return page


def _is_test(root: Path, name: str) -> bool:
    file, _, function = name.partition("::")
    if not (root / file).is_file():
        return False
    return re.search(rf"^def {re.escape(function)}\(", (root / file).read_text("utf-8"), re.MULTILINE) is not None


def _joined(page: _Page) -> Iterator[Claim]:
    made: dict[str, Sentence] = {}
    for name, sentence in page.marks:
        if name not in made:
            made[name] = sentence
        elif not sentence.section.startswith(_REPEATING):
            page.fault(f"the id {name} is used twice: {made[name].text!r} and {sentence.text!r}")
    for name, sentence in made.items():
        if name not in page.evidence:
            page.fault(f"claim {name} has no evidence: {sentence.text!r}")
        if not sentence.text:
            page.fault(f"the mark {name} follows no sentence")
        yield Claim(name, sentence.text, page.name, tuple(page.evidence.get(name, ())))
    for name in sorted(page.evidence.keys() - made.keys()):
        page.fault(f"evidence for claim {name}, which no sentence makes")


def main() -> int:
    """Check the ledger of this checkout, print what is to be answered in review.toml, and return the exit code."""
    folder = notebooks_folder()
    try:
        claims = collect()
        missing, stale = review((*lesson_files(), folder.parent / "README.md"), answers(folder / "review.toml"))
    except (LedgerError, InputError) as error:
        print(error, file=sys.stderr)
        return 1
    for one in missing:
        print(f"[[answer]]\npage = \"{one.page}\"\nsentence = '''{one.sentence}'''\nreason = \"\"\n")
    for one in stale:
        print(f"{one.page}: review.toml answers a sentence that needs none: {one.sentence!r}", file=sys.stderr)
    if missing:
        print(f"mark them, or give a reason: {', '.join(REASONS)}", file=sys.stderr)
    print(f"{len(claims)} claims with their evidence; {len(missing)} sentences without mark or answer", file=sys.stderr)
    return 1 if missing or stale else 0


if __name__ == "__main__":
    sys.exit(main())
