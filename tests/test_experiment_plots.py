"""The experiment's figures, on a result made up by hand."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from gpo_full import plots
from gpo_full.experiment import ExperimentResult, Run
from gpo_full.scales import LOSS_NAMES
from gpo_theory.plots import colour


def one(loss: str, matched: bool, place: int) -> Run:
    r = None if loss == "hinge" else 0.5
    beta = 0.1 if matched else 0.4
    return Run(
        name=f"{loss}-{matched}", loss=loss, formula="f", beta=beta, matched=matched, strength=r,
        beta_R=r and beta * r, matching="strength", kl=1.0 + place, kl_se=0.1, kl_sequence=1.0, kl_sequence_se=0.2,
        win_rate=0.5 + place / 100, win_low=0.4, win_high=0.7, ties=0, length_ratio=1.0, copied=0.1, reward=0.4,
        reference_reward=0.4, regularizer=2.0 + place, regularizer_se=0.3, n=100, seed=0, examples=(), accuracy=0.6,
        log_ratio_chosen=0.0, log_ratio_rejected=0.0, scaled_margin=(0.0, 0.5, 1.0), objective=(1.0, 0.9, 0.8),
        cpu_seconds=1.0,
    )  # fmt: skip


@pytest.fixture
def result() -> Iterator[ExperimentResult]:
    runs = tuple(one(loss, matched, i) for i, loss in enumerate(LOSS_NAMES) for matched in (True, False))
    empty: dict[str, Any] = {}
    yield ExperimentResult("smoke", 0, {}, "p", "r", empty, empty, empty, empty, empty, None, runs, (), ())
    plt.close("all")


@pytest.mark.parametrize("name", plots.__all__)
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
