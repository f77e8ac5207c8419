"""The ledger as a page of the book, and the marks of the lessons as small links to it."""

__all__ = ["linked", "write_ledger_page"]

import re
from collections.abc import Sequence
from pathlib import Path

from gpo_full.book.ledger import KINDS, Claim, Evidence
from gpo_full.book.prose import MARK
from gpo_full.book.templates import page


def linked(text: str, seen: set[str]) -> str:
    """Return Markdown with marks as links to the ledger, the first of each id with an anchor; `seen` collects ids."""

    def link(mark: re.Match[str]) -> str:
        name = mark["id"]
        place = "" if name in seen else f' id="{_place(name)}"'
        seen.add(name)
        title = f"the evidence for claim {name}"
        return f'<a class="claim"{place} href="ledger.html#{_anchor(name)}" title="{title}">¶{name}</a>'

    return MARK.sub(link, text)


def write_ledger_page(claims: Sequence[Claim], folder: Path) -> None:
    """Write `ledger.md`: a table of the claims, and below it each cell of evidence once, folded."""
    kinds = [{one.kind for one in claim.evidence} for claim in claims]
    counts = ", ".join(f"{sum(kind in each for each in kinds)} {kind}" for kind in KINDS)
    several = sum(len(each) > 1 for each in kinds)
    note = f" ({several} of them in more than one way)" if several else ""
    text = page("ledger", counts=f"{len(claims)} claims: {counts}{note}", claims="".join(map(_row, claims)),
                evidence="".join(_folded(claims)))  # fmt: skip
    (folder / "ledger.md").write_text(text, encoding="utf-8")


def _anchor(name: str) -> str:
    return f"c{name.replace('.', '-')}"


def _place(name: str) -> str:
    return f"claim-{name.replace('.', '-')}"


def _row(claim: Claim) -> str:
    where = claim.page
    if where != "README":
        where = f'<a href="{claim.page}.html#{_place(claim.id)}">lesson {int(claim.page[:2])}</a>'
    shown = "; ".join(_short(claim, one) for one in claim.evidence)
    return f'* - <a id="{_anchor(claim.id)}"></a>¶{claim.id}\n  - {_inline(claim.sentence)}\n  - {where}\n  - {shown}\n'


def _inline(sentence: str) -> str:
    """A sentence for a cell of the table: displayed formulas in the line, links within the checkout as their text."""
    sentence = re.sub(r"\$\$(.*?)\$\$", lambda match: f"${match[1].strip()}$", sentence)
    sentence = re.sub(r" +([,;.:?])(?=\s|$)", r"\1", sentence)  # where a mark stood
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", sentence)


def _short(claim: Claim, one: Evidence) -> str:
    if claim.page == "README":
        return f"{one.kind}: `{one.note}`"
    kind = one.kind if one.kind == "cited" else f'<a href="#{_cell(claim, one)}">{one.kind}</a>'
    return f"{kind}: {one.note}" if one.note else kind


def _cell(claim: Claim, one: Evidence) -> str:
    return f"evidence-{claim.page[:2]}-{one.cell}"


def _folded(claims: Sequence[Claim]) -> list[str]:
    """The code of each cell once, with the claims that it shows."""
    shown: dict[str, tuple[Claim, Evidence, list[str]]] = {}
    for claim in claims:
        for one in claim.evidence:
            if one.code and one.kind != "cited":
                shown.setdefault(_cell(claim, one), (claim, one, []))[2].append(claim.id)
    texts = []
    for name, (claim, one, ids) in shown.items():
        marks = " ".join(f'<a href="#{_anchor(id)}">¶{id}</a>' for id in ids)
        language = "ipython3" if re.search(r"^\s*[!%]|= !", one.code, re.MULTILINE) else "python"
        texts.append(page("evidence", lesson=str(int(claim.page[:2])), marks=marks, name=name, language=language,
                          code=one.code))  # fmt: skip
    return texts
