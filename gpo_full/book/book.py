"""The book: executed lessons and a generated catalogue, as static pages that open from a file without a network."""

__all__ = ["BookError", "build_book", "outside_addresses"]

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from importlib.metadata import distribution
from pathlib import Path

from gpo_full.book.api_pages import write_api_pages
from gpo_full.book.explorer_page import explorer_html
from gpo_full.book.gallery import write_gallery
from gpo_full.book.ledger import BookError, collect
from gpo_full.book.ledger_page import linked, write_ledger_page
from gpo_full.book.loss_pages import write_loss_pages
from gpo_full.book.student_export import write_student_page
from gpo_full.course.keys import versions
from gpo_full.course.lessons import notebooks_folder
from gpo_theory.report.plots import picture

_INPUTS = ".inputs"  # a file of the book: the hash of what it was made from
# Elements whose address a browser fetches by itself; a link that a reader follows is none of them.
_FETCHED = {"script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"),
            "embed": ("src",), "object": ("data",), "video": ("src", "poster"), "audio": ("src",), "track": ("src",),
            "input": ("src",), "image": ("href", "xlink:href"), "use": ("href", "xlink:href")}  # fmt: skip
_FETCHED_LINKS = {"stylesheet", "icon", "apple-touch-icon", "preload", "prefetch", "preconnect", "dns-prefetch",
                  "modulepreload", "manifest"}  # fmt: skip
_OUTSIDE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_CSS_ADDRESS = re.compile(r"""(?:url\(|@import)\s*["']?((?:[a-z][a-z0-9+.-]*:)?//[^"')\s;]+)""", re.IGNORECASE)
# A script may fetch any address in it, so each is reported, except: names of namespaces, addresses in comments of the
# scripts of theme, search and MathJax, and what MathJax would load if a reader switched its speech on.
_SCRIPT_ADDRESS = re.compile(r"""(?:https?:|(?<=["'`]))//[a-z0-9-]+\.[^\s"'`<>)\\]+""", re.IGNORECASE)
_NO_FETCH = re.compile(
    r"http://www\.(w3\.org/(1998/Math/MathML|1999/xhtml|1999/xlink|2000/svg|2001/10/synthesis)|apache\.org/licenses/)"
    r"|https://(snowballstem\.org|github\.com/mhchem|www\.mathjax\.org|developer\.mozilla\.org"
    r"|pydata-sphinx-theme\.readthedocs\.io)"
    r"|https://cdn\.jsdelivr\.net/npm/(speech-rule-engine|sre-mathmaps-ie|wicked-good-xpath)@"
)


def build_book(executed: Sequence[Path], output: Path) -> Path:
    """Render executed notebooks, the index and the catalogue into `output` and return its `index.html`.

    `output` is replaced as a whole, and only when the new book is complete and fetches nothing from outside. A book
    that was made from the same pages, docstrings and versions is left as it is.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as name:
        source, pages = Path(name, "source"), Path(name, "pages")
        _gather(executed, source)
        inputs = _hash_of_inputs(source)
        if (output / _INPUTS).is_file() and (output / _INPUTS).read_text(encoding="utf-8") == inputs:
            return output / "index.html"
        _sphinx(source, pages, Path(name, "doctrees"))
        (pages / _INPUTS).write_text(inputs, encoding="utf-8")
        if found := outside_addresses(pages):
            raise BookError("the book would fetch from outside: " + "; ".join(found))
        if output.exists():
            output.rename(Path(name, "previous"))
        pages.rename(output)
    return output / "index.html"


def _hash_of_inputs(source: Path) -> str:
    """A hash of all that Sphinx reads: the pages, the packages' docstrings (here: their files), its own version."""
    digest = hashlib.sha256(json.dumps(versions(), sort_keys=True).encode())
    packages = Path(__file__).resolve().parents[2]
    code = (path for name in ("gpo_theory", "toy_models", "gpo_full") for path in (packages / name).rglob("*.py"))
    for root, paths in ((source, source.rglob("*")), (packages, code)):
        for path in sorted(each for each in paths if each.is_file()):
            digest.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _gather(executed: Sequence[Path], source: Path) -> None:
    """Lay out what Sphinx reads: the checkout's pages, executed lessons, generated pages and picture, MathJax."""
    source.mkdir()
    shutil.copy(notebooks_folder() / "conf.py", source)
    shutil.copytree(notebooks_folder() / "_static", source / "_static")
    for written in (notebooks_folder() / "index.md", *executed):
        (source / written.name).write_text(_for_the_book(written, executed), encoding="utf-8")
    lessons = [page for page in executed if page.stem[:2].isdigit()]
    write_ledger_page(collect(lessons, notebooks_folder().parent / "README.md"), source)
    write_loss_pages(source)
    write_api_pages(source)
    write_gallery(executed, source)
    picture(source / "_static" / "losses.svg")
    (source / "_extra").mkdir()
    write_student_page(lessons, source)
    (source / "_extra" / "explorer.html").write_text(explorer_html(), encoding="utf-8")
    mathjax = source / "_static" / "mathjax"
    mathjax.mkdir()
    for name in ("es5/tex-svg-full.js", "LICENSE"):
        shutil.copy(str(distribution("django-static-mathjax").locate_file(f"mathjax/static/mathjax/{name}")), mathjax)


def _for_the_book(page: Path, executed: Sequence[Path]) -> str:
    """The text of a page with its links as the book needs them: to notebooks for lessons, to the ledger for marks."""
    text = page.read_text(encoding="utf-8")
    for notebook in executed:
        text = text.replace(f"]({notebook.stem}.md", f"]({notebook.name}")
    if page.suffix != ".ipynb":
        return text
    document, seen = json.loads(text), set[str]()
    for cell in document["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = linked("".join(cell["source"]), seen)
    return json.dumps(document, ensure_ascii=False, allow_nan=False)


def _sphinx(source: Path, pages: Path, doctrees: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-j", "2", "-d", doctrees,
               source, pages]  # fmt: skip
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BookError(f"sphinx found faults in the pages:\n{done.stderr.strip()}")
    (pages / ".buildinfo").unlink(missing_ok=True)


class _Addresses(HTMLParser):
    """Collects the outside addresses that a browser fetches when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        names = _FETCHED.get(tag, ())
        if tag == "link" and _FETCHED_LINKS & set(values.get("rel", "").lower().split()):
            names = ("href",)
        candidates = [part for name in names for part in _parts(name, values.get(name, ""))]
        self.found += [address.strip() for address in candidates if _OUTSIDE.match(address)]
        self.found += _CSS_ADDRESS.findall(values.get("style", ""))
        self._within = tag

    def handle_data(self, data: str) -> None:
        if self._within == "style":
            self.found += _CSS_ADDRESS.findall(data)
        if self._within == "script":
            self.found += _in_script(data)

    def handle_endtag(self, tag: str) -> None:
        self._within = ""


def _in_script(text: str) -> list[str]:
    return [address for address in _SCRIPT_ADDRESS.findall(text) if not _NO_FETCH.match(address)]


def _parts(attribute: str, value: str) -> list[str]:
    # Only a srcset is a list; a data: address may hold commas of its own.
    return value.split(",") if attribute == "srcset" else [value]


def outside_addresses(folder: Path) -> list[str]:
    """Return `page: address` for every address outside `folder`'s files that a browser would fetch by itself.

    Markup (`script`, `img`, `link rel=stylesheet`, ...), style sheets and scripts are read; a hyperlink is not a fetch.
    An address that a script composes while it runs is not found; the tests count requests in a real browser.
    """
    readers: dict[str, Callable[[str], list[str]]] = {
        ".html": _in_page, ".css": _CSS_ADDRESS.findall, ".js": _in_script}  # fmt: skip
    return sorted({f"{path.relative_to(folder)}: {address}" for suffix, addresses in readers.items()
                   for path in folder.rglob(f"*{suffix}")
                   for address in addresses(path.read_text(encoding="utf-8", errors="replace"))})  # fmt: skip


def _in_page(text: str) -> list[str]:
    parser = _Addresses()
    parser.feed(text)
    return parser.found
