"""The generated pages' texts: `notebooks/pages/NAME.md`, in which @name stands for what the code fills in."""

__all__ = ["page", "text"]

from string import Template

from gpo_full.course.lessons import notebooks_folder


class _Page(Template):
    delimiter = "@"  # formulas are full of dollars


def text(template: str) -> str:
    """Return the text of a page as it is written."""
    return (notebooks_folder() / "pages" / f"{template}.md").read_text(encoding="utf-8")


def page(template: str, /, **values: str) -> str:
    """Return the text of a page with `values`, one for each of its names."""
    return _Page(text(template)).substitute(values)
