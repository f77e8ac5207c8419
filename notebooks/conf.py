"""Sphinx configuration of the book: executed notebooks in, static pages out, nothing fetched from outside."""

from importlib.metadata import version as _version
from typing import Any

from gpo_full.book.api_pages import as_restructured_text

project = "Generalized Preference Optimization"
author = "The gpo-toolkit authors"
release = _version("gpo-toolkit")

extensions = ["myst_nb", "sphinx.ext.autodoc"]
default_role = "code"  # in docstrings, single backticks mark code
exclude_patterns = ["_build"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
myst_mathjax_classes = "tex2jax_process|mathjax_process|math|output_area|gpo-analysis"  # an analysis shows its formula
suppress_warnings = ["mystnb.unknown_mime_type"]

# What is tested is what is published: the notebooks arrive executed, nothing is run or cached here.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables in outputs

html_theme = "sphinx_book_theme"
html_title = "One function, many preference losses"
html_static_path = ["_static"]
html_extra_path = ["_extra"]  # whole pages of their own: the explorer
html_css_files = ["book.css"]
html_js_files = ["sort.js"]
html_use_index = False
html_show_copyright = False
html_show_sphinx = False
html_show_search_summary = False  # summaries are fetched page by page, which a browser refuses for files
html_theme_options = {
    "home_page_in_toc": True,
    "use_download_button": True,
    "navbar_persistent": [],  # one search field, in the sidebar
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

# One self-contained file that draws glyphs as SVG: it loads no font and no extension afterwards.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {
    "options": {"enableMenu": False},
    "svg": {"fontCache": "local"},
    "tex": {"macros": {"E": r"\mathbb{E}", "KL": r"\mathrm{KL}", "piref": r"\pi_{\mathrm{ref}}"}},
}


def setup(app: Any) -> None:
    """Connect what turns the docstrings into what Sphinx reads."""
    app.connect("autodoc-process-docstring", as_restructured_text)
