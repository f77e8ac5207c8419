"""The experiment's figures, on a result made up by hand."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from gpo_full.experiment import plots
from gpo_full.experiment.inputs.scales import LOSS_NAMES
from gpo_full.experiment.result import ExperimentResult
from gpo_theory.report.plots import colour
from tests.support.made_up_results import made_up


@pytest.fixture
def result() -> Iterator[ExperimentResult]:
    yield made_up()
    plt.close("all")


@pytest.fixture
def many() -> Iterator[ExperimentResult]:
    yield made_up((0.25, 0.5, 1.0, 2.0, 4.0), 3, (*LOSS_NAMES, "probit", "cdpo"))
    plt.close("all")


@pytest.mark.parametrize("name", [name for name in plots.__all__ if name != "write_figures"])
def test_every_figure_draws_into_given_or_new_axes_with_units(name: str, result: ExperimentResult) -> None:
    draw = getattr(plots, name)
    axes = plt.figure().subplots()
    assert draw(result, axes) is axes
    assert draw(result) is not axes
    for label in (axes.get_xlabel(), axes.get_ylabel()):
        assert label
    assert axes.get_legend() is not None
    axes.figure.canvas.draw()


def points(axes: Any) -> list[tuple[float, float, str]]:
    """(x, y, colour) of the data points, which are the lines with a marker."""
    found = [line for line in axes.get_lines() if line.get_marker() == "o"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_color()) for line in found]


def test_the_frontier_has_each_run_at_its_place_in_its_colour(result: ExperimentResult) -> None:
    drawn = points(plots.win_rate_against_kl(result))
    assert drawn == [(each.kl, each.win_rate, colour(each.loss)) for each in result.runs]


def test_the_scatter_is_beside_the_line_of_one_half(result: ExperimentResult) -> None:
    axes = plots.kl_against_regularizer(result)
    assert points(axes) == [(each.regularizer, each.kl, colour(each.loss)) for each in result.runs]
    (line,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    np.testing.assert_allclose(line.get_ydata(), np.asarray(line.get_xdata()) / 2)


@pytest.mark.parametrize("name", ["win_rate_against_strength", "kl_against_strength"])
def test_a_loss_without_strength_stands_left_of_all_others(name: str, result: ExperimentResult) -> None:
    axes = getattr(plots, name)(result)
    where = {x for x, _, shade in points(axes) if shade == colour("hinge")}
    others = sorted({x for x, _, shade in points(axes) if shade != colour("hinge")})
    assert len(others) == 10  # five losses share each beta R: side by side, and nearer to it than to the other
    for shared, group in ((0.05, others[:5]), (0.2, others[5:])):
        assert group[2] == pytest.approx(shared)
        assert max(group) / min(group) < 1.4
    assert max(where) < min(others)
    assert axes.get_xticklabels()[0].get_text() == "R = 0"


@pytest.mark.parametrize("extra", [(), ("logistic",)])
def test_a_loss_with_more_betas_than_the_others_is_named_or_none_is(extra: tuple[str, ...]) -> None:
    whole = made_up((0.5, 1.0, 4.0))
    axes = plots.kl_against_strength(replace(whole, runs=tuple(one for one in whole.runs if one.matched or one.loss in extra)))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label for label in labels if "times that" in label] == [r"0.5 to 4 times that $\beta$"] * len(extra)
    assert len(points(axes)) == 6 + 2 * len(extra)
    plt.close("all")


def test_training_curves_show_the_matched_runs(result: ExperimentResult) -> None:
    lines = [line for line in plots.training_curves(result).get_lines() if len(line.get_xdata()) == 3]
    assert [line.get_color() for line in lines] == [colour(loss) for loss in LOSS_NAMES]
    assert all(list(line.get_ydata()) == [0.0, 0.5, 1.0] for line in lines)


def test_training_curves_mark_where_pairs_are_seen_again(result: ExperimentResult) -> None:
    assert "seen" not in "".join(text.get_text() for text in plots.training_curves(result).texts)
    twice = replace(result, labels={"pairs": 7}, settings={"pairs_per_step": 4})
    axes = plots.training_curves(twice)
    (mark,) = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert set(mark.get_xdata()) == {2.5}
    assert [text.get_text() for text in axes.texts] == ["every pair seen once"]


def test_a_loss_s_betas_are_joined_where_there_are_more_than_two(result: ExperimentResult, many: ExperimentResult) -> None:
    assert not [line for line in plots.win_rate_against_kl(result).get_lines() if len(line.get_xdata()) == 5]
    joined = [line for line in plots.kl_against_strength(many).get_lines() if len(line.get_xdata()) == 5]
    assert len(joined) == 8
    assert all(list(line.get_xdata()) == sorted(line.get_xdata()) for line in joined)


def test_losses_beyond_the_palette_are_told_apart(many: ExperimentResult) -> None:
    shades = {each.loss: shade for each, (_, _, shade) in zip(many.runs, points(plots.win_rate_against_kl(many)), strict=True)}
    assert len(set(shades.values())) == 8


def test_displacement_has_chosen_over_rejected(result: ExperimentResult) -> None:
    axes = plots.displacement(result)
    assert [(x, y) for x, y, _ in points(axes)] == [(one.log_ratio_rejected, one.log_ratio_chosen) for one in result.runs]


def test_the_sandwich_is_drawn_by_its_closed_form(result: ExperimentResult) -> None:
    """kappa(a) = (e^a (a - 1) + 1) / a^2."""
    axes = plots.sandwich(result)
    assert [(x, y) for x, y, _ in points(axes)] == [(one.width, one.kl / one.regularizer) for one in result.runs]
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 101]
    for sign, curve in zip((1, -1), curves, strict=True):
        a = sign * np.asarray(curve.get_xdata())[1:]
        np.testing.assert_allclose(np.asarray(curve.get_ydata())[1:], (np.exp(a) * (a - 1) + 1) / a**2, rtol=1e-3)


def test_every_figure_is_written(many: ExperimentResult, tmp_path: Path) -> None:
    before = plt.get_fignums()
    paths = plots.write_figures(many, tmp_path)
    assert {path.stem for path in paths} == set(plots.__all__) - {"write_figures"}
    assert all(path.read_text().startswith("<?xml") for path in paths)
    assert plt.get_fignums() == before
