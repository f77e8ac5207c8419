"""Figures of the controlled experiment: each takes a result and returns axes."""

__all__ = ["displacement", "kl_against_regularizer", "kl_against_strength", "sandwich", "training_curves",
           "win_rate_against_kl", "win_rate_against_strength", "write_figures"]  # fmt: skip

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gpo_full.experiment.predictions import p11_bounds
from gpo_full.experiment.result import ExperimentResult, Run
from gpo_full.files import atomic_file
from gpo_theory.report.plots import colour, draw_line

_Z = 1.96  # standard errors on each side of a 95% interval
_GROUP = 1.26  # ratio of the places of the last and the first loss that share beta R, so that none hides another
_DASHED: dict[str, Any] = {"color": "0.6", "linewidth": 1, "linestyle": "--"}
_ZERO: dict[str, Any] = {"color": "0.7", "linewidth": 0.8, "zorder": 0}
_BESIDE: dict[str, Any] = {"frameon": False, "fontsize": 9, "loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
_MORE = ("#661100", "#117733", "#332288")  # for losses beyond gpo_theory's palette


@dataclass(frozen=True)
class _Quantity:
    """What an axis shows of a run: its label, its value, and the lengths of its 95% interval below and above."""

    label: str
    of: Callable[[Run], float]
    error: Callable[[Run], tuple[float, float]] | None = None


_KL = _Quantity(r"KL$(\pi\,\|\,\pi_{\mathrm{ref}})$ on samples (nats per response)", lambda one: one.kl,
                lambda one: (_Z * one.kl_se,) * 2)  # fmt: skip
_REGULARIZER = _Quantity(r"offline regulariser $E_\mu[\rho^2/2]$ on held-out pairs (nats$^2$)",
                         lambda one: one.regularizer, lambda one: (_Z * one.regularizer_se,) * 2)  # fmt: skip
_WIN_RATE = _Quantity("golden win rate against the SFT start", lambda one: one.win_rate,
                      lambda one: (one.win_rate - one.win_low, one.win_high - one.win_rate))  # fmt: skip
_WIDTH = _Quantity(r"width $w$ of $\log\,\pi/\pi_{\mathrm{ref}}$ seen between two draws (nats)", lambda one: one.width)
_RATIO = _Quantity("KL over the regulariser (1/nat)", lambda one: one.kl / one.regularizer,
                   lambda one: (_Z * one.kl_se / one.regularizer,) * 2)  # fmt: skip
_CHOSEN = _Quantity(r"$\log\,\pi/\pi_{\mathrm{ref}}$ of the chosen response (nats)", lambda one: one.log_ratio_chosen)
_REJECTED = _Quantity(r"$\log\,\pi/\pi_{\mathrm{ref}}$ of the rejected response (nats)",
                      lambda one: one.log_ratio_rejected)  # fmt: skip


def win_rate_against_kl(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's golden win rate over its KL, both with 95% intervals: the frontier."""
    axes = _scatter(result, axes, _KL, _WIN_RATE)
    _join(axes, result, _KL, _WIN_RATE)
    axes.axhline(0.5, zorder=0, **_DASHED)
    return _with_legend(axes, result)


def kl_against_regularizer(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's KL over its offline regulariser, beside KL = regulariser / 2, which holds near the reference."""
    axes = _scatter(result, axes, _REGULARIZER, _KL)
    largest = max(one.regularizer for one in result.runs)
    axes.plot([0, largest], [0, largest / 2], zorder=0, **_DASHED, label="half the regulariser")
    return _with_legend(axes, result)


def sandwich(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's KL over its regulariser L over the width w of its log-ratios, between P11's bounds.

    P11 takes the width over all responses; w is the largest seen between two samples of the reference.
    """
    axes = _scatter(result, axes, _WIDTH, _RATIO)
    widths = np.linspace(0, 1.05 * max(one.width for one in result.runs), 101)
    bounds = [p11_bounds(replace(result.runs[0], width=float(w), regularizer=1.0)) for w in widths]
    axes.plot(widths, [high for _, high in bounds], color="0.4", linewidth=1, label=r"$\kappa(\pm w)$, proposition P11")
    axes.plot(widths, [low for low, _ in bounds], color="0.4", linewidth=1)
    axes.plot([0, widths[-1]], [0.5, 0.5], **_DASHED, label="1/2")
    axes.set_yscale("log")
    return _with_legend(axes, result)


def displacement(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's log-ratio of the chosen responses over that of the rejected, means over its last steps' pairs.

    On the diagonal the margin is 0; below 0 the chosen responses themselves have become less likely.
    """
    axes = _scatter(result, axes, _REJECTED, _CHOSEN)
    ends = [value for one in result.runs for value in (one.log_ratio_rejected, one.log_ratio_chosen, 0.0)]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], zorder=0, **_DASHED, label="margin 0")
    axes.axhline(0, **_ZERO)
    axes.axvline(0, **_ZERO)
    return _with_legend(axes, result)


def win_rate_against_strength(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's golden win rate over beta R, as `kl_against_strength` does."""
    axes = _over_strength(result, axes, _WIN_RATE)
    axes.axhline(0.5, zorder=0, **_DASHED)
    return _with_legend(axes, result)


def kl_against_strength(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's KL over beta R; losses with R = 0 stand at the left edge.

    Runs that share beta R are drawn a little apart, in the order of the legend.
    """
    axes = _over_strength(result, axes, _KL)
    axes.set_ylim(bottom=0)
    return _with_legend(axes, result)


def training_curves(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw the mean scaled margin beta rho of each step's pairs, one line per loss, at the matched betas.

    A dotted line marks the end of the first pass over the pairs: what follows is measured on pairs trained on before.
    """
    axes = axes or _new()
    for one in result.runs:
        if one.matched and one.seed == result.seed:
            steps = range(1, len(one.scaled_margin) + 1)
            draw_line(axes, one.loss, steps, one.scaled_margin).set_color(_shade(result, one.loss))
    axes.axhline(0, **_ZERO)
    first_pass = ceil(result.labels.get("pairs", 0) / result.settings.get("pairs_per_step", 1))
    if 0 < first_pass < max(len(one.scaled_margin) for one in result.runs):
        axes.axvline(first_pass + 0.5, color="0.4", linewidth=1, linestyle=":", zorder=0)
        axes.annotate("every pair seen once", (first_pass + 0.5, 1), xycoords=("data", "axes fraction"), color="0.3",
                      fontsize=9, ha="right", va="top", xytext=(-4, -4), textcoords="offset points")  # fmt: skip
    axes.set(xlabel="optimiser step", ylabel=r"mean $\beta\rho$ of the step's pairs ($\rho$ in nats)")
    axes.legend(**_BESIDE)
    return axes


def _scatter(result: ExperimentResult, axes: Axes | None, x: _Quantity, y: _Quantity) -> Axes:
    axes = axes or _new()
    faint = 0.35 if len(result.runs) > 20 else 0.9  # many intervals hide the points
    for one in result.runs:
        across, along = (each.error and [[side] for side in each.error(one)] for each in (x, y))
        shade, first = _shade(result, one.loss), one.seed == result.seed
        axes.errorbar(
            x.of(one), y.of(one), xerr=across, yerr=along, color=shade, marker="o", markersize=6 if first else 3.5,
            markerfacecolor=shade if one.matched else "white", elinewidth=0.8, alpha=0.9 if first else 0.5,
            linestyle="none", ecolor=(shade, faint),
        )  # fmt: skip
    axes.set(xlabel=x.label, ylabel=y.label)
    return axes


def _join(axes: Axes, result: ExperimentResult, x: _Quantity, y: _Quantity) -> None:
    """Draw a thin line through a loss's runs in the order of beta, where there are more than two."""
    for loss in dict.fromkeys(one.loss for one in result.runs):
        runs = [one for one in result.runs if one.loss == loss and one.seed == result.seed]
        if len(runs) > 2:
            runs.sort(key=lambda one: one.beta)
            axes.plot([x.of(one) for one in runs], [y.of(one) for one in runs], color=_shade(result, loss),
                      linewidth=0.9, alpha=0.6, zorder=1)  # fmt: skip


def _shade(result: ExperimentResult, loss: str) -> str:
    """Return the loss's colour; those that share the palette's grey get colours of their own."""
    grey = colour("")
    others = [name for name in dict.fromkeys(one.loss for one in result.runs) if colour(name) == grey]
    return _MORE[others.index(loss) % len(_MORE)] if loss in others else colour(loss)


def _over_strength(result: ExperimentResult, axes: Axes | None, y: _Quantity) -> Axes:
    smallest = min(one.beta_R for one in result.runs if one.beta_R is not None)
    # R = 0 has no place on a logarithmic axis: such runs keep their order at the edge.
    factors = sorted({one.factor for one in result.runs})
    edge = {factor: smallest / 3 * 1.5 ** (place / max(1, len(factors) - 1)) for place, factor in enumerate(factors)}
    sharing = list(dict.fromkeys(one.loss for one in result.runs if one.beta_R))
    apart = {loss: _GROUP ** (place / max(1, len(sharing) - 1) - 1 / 2) for place, loss in enumerate(sharing)}

    x = _Quantity(r"strength $\beta R$ (1/nat)",
                  lambda one: one.beta_R * apart[one.loss] if one.beta_R else edge[one.factor])  # fmt: skip
    axes = _scatter(result, axes, x, y)
    _join(axes, result, x, y)
    axes.set_xscale("log")
    axes.axvline(smallest / 1.7, color="0.8", linewidth=0.8)
    present = sorted({one.beta_R for one in result.runs if one.beta_R is not None})
    ticks = [smallest / 2.45, *(value for i, value in enumerate(present) if i == 0 or value > 1.05 * present[i - 1])]
    axes.set_xticks(ticks, ["R = 0", *(f"{value:.3g}" for value in ticks[1:])])
    axes.minorticks_off()
    return axes


def _with_legend(axes: Axes, result: ExperimentResult) -> Axes:
    """Return the axes with a legend of the losses, the betas, and the lines that have a label."""
    def dot(shade: str, fill: str, **style: Any) -> Line2D:
        return Line2D([], [], marker="o", linestyle="none", color=shade, markerfacecolor=fill, **style)

    losses = {one.loss: _shade(result, one.loss) for one in result.runs}
    others = sorted({one.factor for one in result.runs} - {1.0})
    ends = " to ".join(f"{factor:g}" for factor in dict.fromkeys((*others[:1], *others[-1:])))
    lines, names = axes.get_legend_handles_labels()
    handles = [*(dot(shade, shade) for shade in losses.values()), dot("0.3", "0.3"), *lines]
    labels = [*(loss.replace("_", " ") for loss in losses), r"matched $\beta$", *names]
    if others:
        handles.append(dot("0.3", "white"))
        labels.append(rf"{ends} times that $\beta$")
    if any(one.seed != result.seed for one in result.runs):
        handles.append(dot("0.3", "0.3", markersize=3.5, alpha=0.5))
        labels.append(r"other seeds, matched $\beta$")
    axes.legend(handles, labels, **_BESIDE)
    return axes


def _new() -> Axes:
    return plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1]


FIGURES = (win_rate_against_kl, win_rate_against_strength, kl_against_strength, kl_against_regularizer, sandwich,
           displacement, training_curves)  # fmt: skip


def write_figures(result: ExperimentResult, folder: Path) -> list[Path]:
    """Write every figure as `folder/NAME.svg`; return the paths."""
    paths = []
    for draw in FIGURES:
        figure: Any = draw(result).figure
        paths.append(folder / f"{draw.__name__}.svg")
        with atomic_file(paths[-1]) as temporary:
            figure.savefig(temporary)
        plt.close(figure)
    return paths
