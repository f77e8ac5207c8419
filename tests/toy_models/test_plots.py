"""Figures of the toys: what is drawn is what was given, with units on every axis."""

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from toy_models import Bandit, GaussianMixture, descend
from toy_models.plots import plot_densities, plot_simplex, plot_trace


def test_trace_has_units_and_its_values() -> None:
    bandit = Bandit([0.7, 0.29, 0.01])
    trace = descend(bandit, bandit.start([0.01, 0.5, 0.49]), steps=20)
    figure = Figure()
    axes = plot_trace(figure.subplots(), trace.step, trace.kl, trace.regularizer)
    left, right = figure.axes
    assert_allclose(left.lines[0].get_ydata(), trace.kl)
    assert_allclose(right.lines[0].get_ydata(), trace.regularizer)
    assert "nats" in axes.get_ylabel()
    assert "nats²" in right.get_ylabel()
    assert axes.get_xlabel() == "gradient steps"
    assert axes.get_title()
    figure.canvas.draw()


def test_simplex_puts_the_corners_at_the_corners() -> None:
    figure = Figure()
    axes = plot_simplex(figure.subplots(), {"path": torch.eye(3)}, torch.tensor([0.2, 0.3, 0.5]))
    assert_allclose(axes.lines[0].get_xydata(), [[0, 0], [1, 0], [0.5, 0.75**0.5]])
    assert_allclose(axes.lines[-1].get_xydata(), [[0.3 + 0.25, 0.5 * 0.75**0.5]], rtol=1e-6)
    assert "nats" in axes.get_title()
    figure.canvas.draw()


def test_contours_of_the_simplex_are_those_of_the_kl() -> None:
    figure = Figure()
    reference = torch.tensor([1 / 3, 1 / 3, 1 / 3], dtype=torch.float64)
    axes = plot_simplex(figure.subplots(), {}, reference)
    (contours,) = (one for one in axes.collections if hasattr(one, "levels"))
    drawn = zip(contours.levels, contours.get_paths(), strict=True)
    level, points = next((level, path.vertices) for level, path in drawn if 0.1 < level < 0.5)
    third = points[:, 1] / 0.75**0.5
    second = points[:, 0] - third / 2
    policy = np.stack((1 - second - third, second, third))
    assert_allclose((policy * np.log(3 * policy)).sum(0), level, atol=5e-3)


def test_densities_are_drawn_where_they_are() -> None:
    mixture = GaussianMixture()
    density = mixture.log_reference.exp() / mixture.step
    figure = Figure()
    axes = plot_densities(figure.subplots(), mixture.grid, {"reference": density, "twice": 2 * density})
    assert [line.get_label() for line in axes.lines] == ["reference", "twice"]
    assert_allclose(axes.lines[0].get_ydata(), density)
    low, high = axes.get_xlim()
    assert -7 < low < -4
    assert 4 < high < 7
    assert axes.get_ylim()[0] == 0
    figure.canvas.draw()


def test_no_global_state_is_touched() -> None:
    before = dict(mpl.rcParams)
    plot_densities(Figure().subplots(), torch.linspace(0, 1, 5), {"one": torch.ones(5)})
    assert dict(mpl.rcParams) == before
