"""Figures of losses: what is drawn is f, f' and f'', and the committed picture is what the code draws."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from gpo_theory import LOSSES, parse
from gpo_theory.report import plots
from tests.support.places import ROOT

PAPER = ("logistic", "hinge", "squared", "exponential", "truncated_squared", "savage")
# f, f', f'' by hand, on x where all three exist.
BY_HAND = {
    "logistic": (lambda x: np.log1p(np.exp(-x)), lambda x: -1 / (1 + np.exp(x)), lambda x: np.exp(x) / (1 + np.exp(x)) ** 2),
    "hinge": (lambda x: np.where(x < 1, 1 - x, 0), lambda x: np.where(x < 1, -1.0, 0), lambda x: 0 * x),
    "squared": (lambda x: (x - 1) ** 2, lambda x: 2 * (x - 1), lambda x: 2 + 0 * x),
    "exponential": (lambda x: np.exp(-x), lambda x: -np.exp(-x), lambda x: np.exp(-x)),
    "truncated_squared": (lambda x: np.where(x < 1, (x - 1) ** 2, 0), lambda x: np.where(x < 1, 2 * (x - 1), 0), lambda x: np.where(x < 1, 2.0, 0)),
    # With s = 1/(1 + e^x): f = s^2, s' = -s(1 - s), so f' = -2 s^2 (1 - s) and f'' = s(1 - s)(4 s - 6 s^2).
    "savage": (lambda x: 1 / (1 + np.exp(x)) ** 2, lambda x: -2 * np.exp(x) / (1 + np.exp(x)) ** 3,
               lambda x: np.exp(x) * (4 * np.exp(x) - 2) / (1 + np.exp(x)) ** 4),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_the_lines_are_the_function_its_slope_and_its_curvature(name: str) -> None:
    for axes, expected in zip(plots.shapes([LOSSES[name]]).axes, BY_HAND[name], strict=True):
        (line,) = (line for line in axes.lines if line.get_label() == name.replace("_", " "))
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        away = np.abs(x - 1) > 1e-9  # the kink of the hinge and the jump of the truncated square
        np.testing.assert_allclose(y[away], expected(x)[away], rtol=1e-10, atol=1e-12)
        assert line.get_color() == plots.colour(name)


def test_axes_carry_units_and_names() -> None:
    figure = plots.shapes([LOSSES["logistic"], LOSSES["hinge"]])
    assert [axes.get_title() for axes in figure.axes] == ["$f(x)$", "$f'(x)$", "$f''(x)$"]
    assert all("nats" in axes.get_xlabel() for axes in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["logistic", "hinge"]


@pytest.mark.parametrize(("name", "order", "value"), [("basu", 0, 16 / 3), ("cubed_hinge", 2, 6), ("tangent", 2, 8), ("linex", 2, np.e)])
def test_the_values_at_zero_are_inside_the_panels(name: str, order: int, value: float) -> None:
    low, high = plots.shapes([LOSSES[name]]).axes[order].get_ylim()
    assert low < value < 0.99 * high


def test_one_colour_per_loss_and_grey_beyond() -> None:
    named = [*PAPER, "cdpo", "robust_dpo", "canonical_boosting", "probit"]
    assert len({plots.colour(name) for name in [*named, "mine"]}) == len(named) + 1
    assert plots.colour("mine") == "#555555"
    assert plots.shapes([parse("exp(-x)", name="mine")]).axes[0].lines[0].get_color() == "#555555"


def test_a_tail_that_is_exactly_zero_is_not_drawn() -> None:
    axes = plots.slope_tails([LOSSES["hinge"], LOSSES["exponential"]])
    hinge, exponential = (np.asarray(line.get_ydata()) for line in axes.lines)
    x = np.asarray(axes.lines[0].get_xdata())
    assert np.isnan(hinge[x > 1]).all()
    np.testing.assert_allclose(exponential, np.exp(-x), rtol=1e-10)
    assert axes.get_yscale() == "log"


def curves(svg: Path) -> dict[str, np.ndarray]:
    """The coordinates of every curve that carries a loss and an order in its id."""
    found = {}
    for node in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}g"):
        if re.fullmatch(r"[a-z_]+-[012]", node.get("id", "")):
            paths = [child.get("d", "") for child in node.iter("{http://www.w3.org/2000/svg}path")]
            found[node.get("id", "")] = np.array(re.findall(r"-?\d+(?:\.\d+)?", " ".join(paths)), dtype=float)
    return found


def test_the_committed_picture_is_what_the_code_draws(tmp_path: Path) -> None:
    plots.picture(tmp_path / "losses.svg")
    drawn, committed = curves(tmp_path / "losses.svg"), curves(ROOT / "notebooks" / "_static" / "losses.svg")
    assert set(drawn) == set(committed) == {f"{name}-{order}" for name in PAPER for order in range(3)}
    for name, coordinates in drawn.items():
        # Points of the page; a curve is simplified while it is drawn, so its points are compared where both kept them.
        again = f"{name}: python -m gpo_theory.report.plots notebooks/_static/losses.svg draws it again"
        np.testing.assert_allclose(committed[name], coordinates, atol=0.01, err_msg=again)


def test_the_same_figure_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plots.picture(tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
