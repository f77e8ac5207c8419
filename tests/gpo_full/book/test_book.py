"""The book: every page opens from a file, fetches nothing, and shows formulas and figures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gpo_full.book import book as book_module
from gpo_full.book.book import BookError, build_book, outside_addresses
from gpo_full.course.lessons import lesson_files, notebooks_folder, page_files
from gpo_theory import LOSSES
from gpo_theory.kernel.certificates import verify

LESSONS = tuple(path.stem for path in lesson_files())
PAGES = ("index", *LESSONS, *(path.stem for path in page_files()), "catalogue", "gallery", "ledger", "students", "api", "search")
UNDRAWN = ("catalogue", "ledger", "students", "api", "search")  # pages without a picture


@pytest.mark.parametrize(
    "markup",
    ['<script src="https://cdn.example/x.js"></script>', '<img src="http://example.org/x.png" alt="x">',
     '<link rel="stylesheet" href="//fonts.example/x.css">', '<link rel="preload" href="https://fonts.example/x.woff2">',
     '<iframe src="https://example.org"></iframe>', '<img srcset="a.png 1x, https://example.org/b.png 2x" alt="x">',
     '<script>fetch("https://example.org/x")</script>', "<script>import('//example.org/x.js')</script>",
     "<style>@import url(https://example.org/x.css);</style>", '<p style="background:url(//example.org/x.png)">x</p>'],
)  # fmt: skip
def test_a_planted_outside_address_is_found(tmp_path: Path, markup: str) -> None:
    (tmp_path / "page.html").write_text(f"<html><body>{markup}</body></html>", encoding="utf-8")
    assert len(outside_addresses(tmp_path)) == 1


def test_links_and_inner_addresses_are_no_fetch(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        '<a href="https://arxiv.org/abs/2402.05749">paper</a><link rel="canonical" href="https://example.org/">'
        '<img src="_images/x.svg" alt="x"><script src="_static/x.js?v=1"></script>'
        '<img src="data:image/png;base64,//8A" alt="x">',
        encoding="utf-8",
    )
    (tmp_path / "x.css").write_text("a { background: url(../x.svg) } /* https://example.org */", encoding="utf-8")
    assert outside_addresses(tmp_path) == []


@pytest.mark.parametrize(("name", "text"), [
    ("x.css", '@import "https://example.org/y";'),
    ("x.js", 'fetch("https://example.org/y"); // see https://developer.mozilla.org/en-US/\n'
             'document.createElementNS("http://www.w3.org/2000/svg", "svg")'),
])  # fmt: skip
def test_a_style_sheet_or_script_that_fetches_is_found(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert outside_addresses(tmp_path) == [f"{name}: https://example.org/y"]


@pytest.mark.slow
def test_pages_with_faults_leave_the_old_book_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "book"
    output.mkdir()
    (output / "index.html").write_text("old", encoding="utf-8")
    monkeypatch.setattr(book_module, "write_loss_pages", lambda folder: (folder / "catalogue.md").write_text("# The catalogue\n\n[nowhere](nowhere.md)\n"))
    monkeypatch.setattr(book_module, "write_api_pages", lambda folder: None)  # most of what Sphinx would read
    with pytest.raises(BookError, match="nowhere"):
        build_book([], output)
    assert (output / "index.html").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


def test_the_reading_orders_leave_no_lesson_out() -> None:
    text = (notebooks_folder() / "index.md").read_text(encoding="utf-8").split("## For whom")[1].split("\n## ")[0]
    assert {name for name in LESSONS if f"]({name}.md)" in text} == set(LESSONS)


@pytest.mark.parametrize("path", [*lesson_files(), *page_files()], ids=lambda path: path.stem)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    links = set(re.findall(r"\]\((\w+)\.md[)#]", path.read_text(encoding="utf-8")))
    assert links
    assert links <= set(PAGES)


@pytest.mark.slow
def test_the_catalogue_page_has_a_row_for_every_loss(published: Path) -> None:
    page = (published / "book" / "_sources" / "catalogue.md").read_text(encoding="utf-8")
    lines = [re.sub(r"\[(`\w+`)\]\(losses/\w+\.md\)", r"\1", line) for line in page.splitlines() if line.startswith("| [`")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    size = len(LOSSES)
    facts, verdicts, sources = ({row[0].strip("`"): row[1:] for row in rows[i : i + size]} for i in (0, size, 2 * size))
    assert len(rows) == 3 * size
    assert list(facts) == list(verdicts) == list(sources) == list(LOSSES)
    # By hand, from the definitions: f'(0), f''(0), R; then convex, decreasing, bounded below, Bayes consistent,
    # Bradley-Terry exact.
    minus = "\N{MINUS SIGN}"
    assert facts["logistic"][1:] == [f"{minus}0.5", "0.25", "0.5"]
    assert facts["hinge"][1:] == [f"{minus}1", "0", "0"]
    assert facts["smooth_hinge"][1:] == [f"{minus}1", "none", "0 left, 1 right"]
    assert facts["perceptron"][1:] == ["none"] * 3
    assert verdicts["logistic"] == ["yes"] * 5
    assert verdicts["savage"][0] == "no"
    assert verdicts["savage"][3] == "yes"
    assert verdicts["squared"][1] == "no"
    assert verdicts["perceptron"][3] == "no"
    assert sources["focal"][0] == "gamma = 2"


@pytest.mark.slow
def test_the_book_is_whole(published: Path) -> None:
    book = published / "book"
    assert {f"{page}.html" for page in (*PAGES, "explorer")} == {path.name for path in book.glob("*.html")}
    assert (book / "_static" / "mathjax" / "tex-svg-full.js").is_file()
    assert outside_addresses(book) == []
    assert not list(published.rglob(".book-*"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "search"])
def test_every_picture_has_alternative_text_and_a_file(published: Path, page: str) -> None:
    text = (published / "book" / f"{page}.html").read_text(encoding="utf-8")
    for image in re.findall(r"<img [^>]*>", text):
        alt, source = re.search(r'alt="([^"]*)"', image), re.search(r'src="([^"]*)"', image)
        assert alt is not None
        assert len(alt.group(1)) > 20, image
        assert source is not None
        assert (published / "book" / source.group(1)).is_file()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_from_a_file_and_asks_for_nothing_else(published: Path, browser: Any, name: str) -> None:
    page, requests, failures = browser.new_page(), [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("requestfailed", lambda request: failures.append(request.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    path = published / "book" / f"{name}.html"
    page.goto(path.as_uri())
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
    page.wait_for_load_state("networkidle")
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []
    assert failures == []
    formulas = len(re.findall(r'class="math notranslate', path.read_text(encoding="utf-8")))
    assert page.locator("mjx-container svg").count() >= formulas
    assert formulas > 0 or name not in LESSONS
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert re.findall(r"\\\(.*?\\\)|\x1b\[", page.inner_text(".bd-main")) == []  # no formula as its source, no colour as its code
    widths = page.eval_on_selector_all(".bd-article img", "images => images.map(image => image.naturalWidth)")
    assert all(width > 100 for width in widths)
    assert widths or name not in LESSONS
    assert not widths or name not in UNDRAWN
    page.close()


@pytest.mark.slow
@pytest.mark.browser
def test_search_finds_a_word_from_a_file(published: Path, browser: Any) -> None:
    page, requests = browser.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((published / "book" / "search.html").as_uri() + "?q=mixture")
    page.wait_for_selector("#search-results li a")
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.getAttribute('href'))")
    assert any("06_offline_against_kl" in href for href in found)
    assert [url for url in requests if not url.startswith("file://")] == []
    page.close()


@pytest.mark.slow
def test_each_loss_has_a_page_and_a_certificate_that_replays(published: Path) -> None:
    book = published / "book"
    assert {path.stem for path in (book / "losses").glob("*.html")} == set(LOSSES)
    for name in ("savage", "perceptron"):
        page = (book / "losses" / f"{name}.html").read_text(encoding="utf-8")
        (certificate,) = re.findall(rf'href="\.\./(_downloads/\w+/{name}\.json)"', page)
        assert set(verify(json.loads((book / certificate).read_text(encoding="utf-8"))).values()) <= {"proved", "refuted"}
        assert "%22" + name + "%22" in page  # the explorer opens with this loss


@pytest.mark.slow
@pytest.mark.browser
def test_the_catalogue_sorts_by_a_click_on_a_column(published: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((published / "book" / "catalogue.html").as_uri())
    table = page.locator("table").first
    strengths = lambda: table.locator("tbody td:nth-child(5)").all_inner_texts()  # noqa: E731
    head = table.locator("th button").nth(4)
    head.click()
    numbers = [float(text.split()[0]) for text in strengths() if text[0].isdigit()]
    assert len(numbers) > 30
    assert numbers == sorted(numbers)
    assert table.locator("th").nth(4).get_attribute("aria-sort") == "ascending"
    head.press("Enter")
    assert [float(text.split()[0]) for text in strengths() if text[0].isdigit()] == sorted(numbers, reverse=True)
    page.close()


@pytest.mark.slow
@pytest.mark.browser
def test_a_mark_leads_to_its_line_in_the_ledger_and_back(published: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((published / "book" / "04_which_beta.html").as_uri())
    mark = page.locator("#claim-4-1")
    assert float(mark.evaluate("a => parseFloat(getComputedStyle(a).fontSize)")) < 13
    mark.click()
    assert page.url.endswith("ledger.html#c4-1")
    row = page.locator("tr", has=page.locator("#c4-1"))
    row.locator("a", has_text="tested").first.click()
    assert page.locator("details[open]").count() == 1  # the browser opens what the link leads into
    row.locator("a", has_text="lesson 4").click()
    assert page.url.endswith("04_which_beta.html#claim-4-1")
    page.close()


@pytest.mark.slow
def test_student_notebooks_are_offered(published: Path) -> None:
    text = (published / "book" / "students.html").read_text(encoding="utf-8")
    for name in LESSONS:
        assert f'href="students/{name}.ipynb"' in text
        assert "SOLUTION" not in (published / "book" / "students" / f"{name}.ipynb").read_text(encoding="utf-8")
