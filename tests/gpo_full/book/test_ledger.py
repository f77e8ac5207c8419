"""The claims ledger: every claim has evidence that ran, and a planted false or untested claim stops the book."""

import json
from pathlib import Path

import pytest

from gpo_full.book import book as book_module
from gpo_full.book.book import BookError, build_book
from gpo_full.book.claim_review import Answer, answers, review
from gpo_full.book.ledger import KINDS, LedgerError, collect
from gpo_full.book.ledger_page import linked, write_ledger_page
from gpo_full.book.prose import sentences
from gpo_full.course.execution import LessonError, execute
from gpo_full.course.lessons import lesson_files, notebooks_folder
from gpo_theory.errors import InputError
from tests.support.lessons import lesson
from tests.support.places import ROOT

PAGES = (*lesson_files(), ROOT / "README.md")
CLAIM = "The margin falls. [¶4.1](ledger.md#c4-1)"


# --- this checkout ----------------------------------------------------------------------------------------------------


def test_every_mark_of_this_checkout_has_its_evidence() -> None:
    claims = collect()
    assert len({claim.id for claim in claims}) == len(claims)
    assert {claim.page for claim in claims} == {path.stem for path in PAGES}, "a page without a claim"
    assert all(claim.evidence and claim.sentence for claim in claims)
    assert {one.kind for claim in claims for one in claim.evidence} <= set(KINDS)


def test_the_review_list_of_this_checkout_is_empty() -> None:
    """A sentence that sounds like a claim has a mark, or a reason in notebooks/review.toml."""
    missing, stale = review(PAGES, answers(notebooks_folder() / "review.toml"))
    assert [f"{one.page}: mark it, or give a reason in review.toml: {one.sentence}" for one in missing] == []
    assert [f"{one.page}: no such sentence needs this answer: {one.sentence}" for one in stale] == []


# --- planted faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cells", "fault"),
    [
        (CLAIM, (), "claim 4.1 has no evidence: 'The margin falls.'"),
        ("It falls.", ("# claim 4.1 tested\nassert 1 < 2",), "evidence for claim 4.1, which no sentence makes"),
        (CLAIM, ("# claim 4.1 tested\nprint('assert nothing')",), "asserts nothing"),
        (CLAIM, ("# claim 4.1 tested\n# assert 1 < 2",), "asserts nothing"),
        (CLAIM, ("# claim 4.1 proved\nassert 1 < 2",), "neither asserts on a verdict"),
        (CLAIM, ("# claim 4.1 cited",), "names no source"),
        (CLAIM, ("# claim 4.1 believed\nassert 1 < 2",), "not a line of evidence"),
        (f"{CLAIM} Once more. [¶4.1](ledger.md#c4-1)", ("# claim 4.1 tested\nassert 1 < 2",), "used twice"),
        ("It falls. [¶4.1](ledger.md#c4-2)", ("# claim 4.1 tested\nassert 1 < 2",), "should read"),
        ("It falls. [¶5.1](ledger.md#c5-1)", ("# claim 5.1 tested\nassert 1 < 2",), "should read"),
    ],
)  # fmt: skip
def test_a_fault_of_the_ledger_is_named(tmp_path: Path, text: str, cells: tuple[str, ...], fault: str) -> None:
    with pytest.raises(LedgerError, match="04_small: ") as raised:
        collect([lesson(tmp_path, text, *cells)])
    assert fault in str(raised.value)


def test_evidence_of_each_kind_is_read(tmp_path: Path) -> None:
    text = "A. [¶4.1](ledger.md#c4-1) B. [¶4.2](ledger.md#c4-2) C. [¶4.3](ledger.md#c4-3)\n\n## Summary\n\n- A. [¶4.1](ledger.md#c4-1)"
    cells = ("# claims 4.1, 4.2 tested: by hand\nassert 1 < 2", "# claim 4.2 proved\nassert verdict is Verdict.PROVED",
             "# claim 4.3 cited: Tang et al., Eq. (16)")  # fmt: skip
    found = {claim.id: claim for claim in collect([lesson(tmp_path, text, *cells)])}
    assert [claim.sentence for claim in found.values()] == ["A.", "B.", "C."]
    assert [(one.kind, one.note) for one in found["4.2"].evidence] == [("tested", "by hand"), ("proved", "")]
    assert found["4.3"].evidence[0].note == "Tang et al., Eq. (16)"


def test_a_claim_of_the_readme_names_a_test_that_exists(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_y() -> None:\n    assert 1 < 2\n", encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text("It falls. <!-- claim R.1: test_x.py::test_y -->\n", encoding="utf-8")
    (claim,) = collect([], readme)
    assert (claim.sentence, claim.evidence[0].note) == ("It falls.", "test_x.py::test_y")
    for wrong in ("test_x.py::test_z", "test_w.py::test_y", "test_x.py"):
        readme.write_text(f"It falls. <!-- claim R.1: {wrong} -->\n", encoding="utf-8")
        with pytest.raises(LedgerError, match="no test of this checkout"):
            collect([], readme)


def test_an_untested_claim_stops_the_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "_sphinx", lambda *_: pytest.fail("the book was built"))
    cell = {"cell_type": "markdown", "metadata": {}, "source": ["# Small\n", CLAIM]}
    notebook = tmp_path / "04_small.ipynb"
    notebook.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    with pytest.raises(BookError, match=r"claim 4\.1 has no evidence"):
        build_book([notebook], tmp_path / "book")
    assert not (tmp_path / "book").exists()


def test_evidence_that_was_not_executed_stops_the_book(tmp_path: Path) -> None:
    code = {"cell_type": "code", "metadata": {}, "source": "# claim 4.1 tested\nassert 1 < 2", "execution_count": None}
    cells = [{"cell_type": "markdown", "metadata": {}, "source": CLAIM}, code]
    notebook = tmp_path / "04_small.ipynb"
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    with pytest.raises(LedgerError, match="cell 1 was not executed"):
        collect([notebook])
    code["execution_count"] = 1
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert len(collect([notebook])) == 1


def test_a_false_claim_stops_the_lesson_and_with_it_the_book(tmp_path: Path) -> None:
    false = lesson(tmp_path, CLAIM, "# claim 4.1 tested\nassert 2 < 1, 'the margin rises'")
    assert len(collect([false])) == 1  # in form it is a claim with evidence
    with pytest.raises(LessonError, match="the margin rises"):
        execute([false], tmp_path / "out", {}, {})


# --- the review list --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "listed"),
    [
        ("A larger $\\beta$ lowers the KL.", True), ("Tails never end.", True), ("The sky is higher.", False),
        ("Convexity is defined next.", False), ("Is the KL larger?", False), (f"{CLAIM}", False),
        ("> The KL is larger.", False), ("## The KL is larger", False), ("| the KL | is larger |", False),
        ("- Item: the gradient is always 0.", True), ("```\nthe KL is larger\n```", False),
        ("## True or false\n\nThe KL is larger.", False),
        ("## True or false\n\n<details><summary>Answer</summary>\n\nThe KL is larger.\n\n</details>", True),
    ],
)  # fmt: skip
def test_what_the_review_lists(tmp_path: Path, sentence: str, listed: bool) -> None:
    missing, stale = review([lesson(tmp_path, sentence)], ())
    assert (len(missing), stale) == (int(listed), ())


def test_an_answer_takes_a_sentence_off_the_list_as_long_as_it_stands(tmp_path: Path) -> None:
    path, given = lesson(tmp_path, "The KL is\nlarger."), Answer("04_small", "The KL is larger.", "definition")
    assert review([path], [given]) == ((), ())
    changed = lesson(tmp_path, "The KL is not larger.")
    assert review([changed], [given]) == ((Answer("04_small", "The KL is not larger.", ""),), (given,))


def test_a_reason_is_one_of_those_listed(tmp_path: Path) -> None:
    path = tmp_path / "review.toml"
    path.write_text('[[answer]]\npage = "README"\nsentence = "The KL is larger."\nreason = "defintion"\n', encoding="utf-8")
    with pytest.raises(InputError, match="unknown reason 'defintion'; did you mean 'definition'"):
        answers(path)


# --- sentences and the page -------------------------------------------------------------------------------------------


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = """By hand, e.g. for $f(x) = 1. Then$, it is 0.5. **It falls.** [¶4.1](ledger.md#c4-1) The rate is

$$
r = 1 .
$$

for every loss. [¶4.2](ledger.md#c4-2)

- One [¶4.3](ledger.md#c4-3), and
  on. (logits 3)

    code. With a stop.
"""
    found = [(one.text, [mark["id"] for mark in one.marks]) for one in sentences(text)]
    assert found == [
        ("By hand, e.g. for $f(x) = 1. Then$, it is 0.5.", []), ("**It falls.**", ["4.1"]),
        ("The rate is $$ r = 1 . $$ for every loss.", ["4.2"]), ("One , and on.", ["4.3"]), ("(logits 3)", []),
    ]  # fmt: skip


def test_marks_become_links_that_lead_there_and_back(tmp_path: Path) -> None:
    seen: set[str] = set()
    text = linked(f"{CLAIM} Again [¶4.1](ledger.md#c4-1)", seen)
    assert text.count('href="ledger.html#c4-1"') == 2
    assert text.count('id="claim-4-1"') == 1
    source = lesson(tmp_path, "The margin is $$|x| \\| y$$ as [here](01_one.md). [¶4.1](ledger.md#c4-1)", "# claim 4.1 tested\nassert 1 < 2")
    write_ledger_page(collect([source]), tmp_path)
    page = (tmp_path / "ledger.md").read_text(encoding="utf-8")
    assert '<a id="c4-1"></a>¶4.1' in page
    assert 'href="04_small.html#claim-4-1"' in page
    assert "The margin is $|x| \\| y$ as here." in page
    assert page.count("assert 1 < 2") == 1
