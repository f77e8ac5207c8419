"""Figures of the controlled experiment: a result in, axes out; only here and in `run_plots` is matplotlib imported."""

__all__ = ["kl_against_regularizer", "kl_against_strength", "training_curves", "win_rate_against_kl",
           "win_rate_against_strength"]  # fmt: skip

from collections.abc import Callable, Sequence
from math import ceil

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gpo_full.experiment import ExperimentResult, Run
from gpo_theory.plots import colour, draw_line

_Z = 1.96  # standard errors on each side of a 95% interval
_APART = 1.06  # between neighbours that share beta R, else one hides the other
_KL = r"KL$(\pi\,\|\,\pi_{\mathrm{ref}})$ on samples (nats per response)"
_REGULARIZER = r"offline regulariser $E_\mu[\rho^2/2]$ on held-out pairs (nats$^2$)"
_WIN_RATE = "golden win rate against the SFT start"


def win_rate_against_kl(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's golden win rate over its KL, both with 95% intervals: the frontier."""
    axes = _scatter(result, axes, lambda one: one.kl, lambda one: one.win_rate, _kl_error, _win_error)
    _half(axes)
    axes.set(xlabel=_KL, ylabel=_WIN_RATE)
    return axes


def kl_against_regularizer(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's KL over its offline regulariser, beside KL = regulariser / 2, which holds near the reference."""
    axes = _scatter(result, axes, lambda one: one.regularizer, lambda one: one.kl,
                    lambda one: (_Z * one.regularizer_se,) * 2, _kl_error)  # fmt: skip
    largest = max(one.regularizer for one in result.runs)
    half = axes.plot([0, largest], [0, largest / 2], color="0.6", linewidth=1, linestyle="--", zorder=0,
                     label="half the regulariser")  # fmt: skip
    _legend(axes, result, half)
    axes.set(xlabel=_REGULARIZER, ylabel=_KL)
    return axes


def win_rate_against_strength(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's golden win rate over beta R, as `kl_against_strength` does."""
    axes = _over_strength(result, axes, lambda one: one.win_rate, _win_error)
    _half(axes)
    axes.set_ylabel(_WIN_RATE)
    return axes


def kl_against_strength(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw each run's KL over beta R; losses with R = 0 stand at the left edge.

    Runs that share beta R are drawn a little apart, in the order of the legend.
    """
    axes = _over_strength(result, axes, lambda one: one.kl, _kl_error)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(_KL)
    return axes


def training_curves(result: ExperimentResult, axes: Axes | None = None) -> Axes:
    """Draw the mean scaled margin beta rho of each step's pairs, one line per loss, at the matched betas.

    A dotted line marks the end of the first pass over the pairs: what follows is measured on pairs trained on before.
    """
    axes = axes or _new()
    for one in result.runs:
        if one.matched:
            steps = range(1, len(one.scaled_margin) + 1)
            draw_line(axes, one.loss, steps, one.scaled_margin)
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    first_pass = ceil(result.labels.get("pairs", 0) / result.settings.get("pairs_per_step", 1))
    if 0 < first_pass < max(len(one.scaled_margin) for one in result.runs):
        axes.axvline(first_pass + 0.5, color="0.4", linewidth=1, linestyle=":", zorder=0)
        axes.annotate("every pair seen once", (first_pass + 0.5, 1), xycoords=("data", "axes fraction"), color="0.3",
                      fontsize=9, ha="right", va="top", xytext=(-4, -4), textcoords="offset points")  # fmt: skip
    axes.set(xlabel="optimiser step", ylabel=r"mean $\beta\rho$ of the step's pairs ($\rho$ in nats)")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


def _scatter(
    result: ExperimentResult, axes: Axes | None, x: Callable[[Run], float], y: Callable[[Run], float],
    x_error: Callable[[Run], tuple[float, float]] | None, y_error: Callable[[Run], tuple[float, float]],
) -> Axes:  # fmt: skip
    axes = axes or _new()
    for one in result.runs:
        across = None if x_error is None else [[side] for side in x_error(one)]
        axes.errorbar(
            x(one), y(one), xerr=across, yerr=[[side] for side in y_error(one)], color=colour(one.loss),
            marker="o", markersize=6, markerfacecolor=colour(one.loss) if one.matched else "white",
            elinewidth=0.8, alpha=0.9, linestyle="none",
        )  # fmt: skip
    _legend(axes, result)
    return axes


def _over_strength(
    result: ExperimentResult, axes: Axes | None, y: Callable[[Run], float],
    y_error: Callable[[Run], tuple[float, float]],
) -> Axes:  # fmt: skip
    smallest = min(one.beta_R for one in result.runs if one.beta_R is not None)
    # R = 0 has no place on a logarithmic axis: such runs keep their order at the edge, matched first.
    edge = {True: smallest / 3, False: smallest / 2.4}
    sharing = list(dict.fromkeys(one.loss for one in result.runs if one.beta_R))
    apart = {loss: _APART ** (place - (len(sharing) - 1) / 2) for place, loss in enumerate(sharing)}
    axes = _scatter(result, axes, lambda one: one.beta_R * apart[one.loss] if one.beta_R else edge[one.matched], y,
                    None, y_error)  # fmt: skip
    axes.set_xscale("log")
    axes.axvline(smallest / 1.7, color="0.8", linewidth=0.8)
    present = sorted({one.beta_R for one in result.runs if one.beta_R is not None})
    ticks = [smallest / 2.68, *(value for i, value in enumerate(present) if i == 0 or value > 1.05 * present[i - 1])]
    axes.set_xticks(ticks, ["R = 0", *(f"{value:.3g}" for value in ticks[1:])])
    axes.minorticks_off()
    axes.set_xlabel(r"strength $\beta R$ (1/nat)")
    return axes


def _legend(axes: Axes, result: ExperimentResult, lines: Sequence[Line2D] = ()) -> None:
    def dot(shade: str, filled: bool) -> Line2D:
        return Line2D([], [], marker="o", linestyle="none", color=shade, markerfacecolor=shade if filled else "white")

    losses = dict.fromkeys(one.loss for one in result.runs)
    handles = [*(dot(colour(loss), True) for loss in losses), dot("0.3", True), dot("0.3", False), *lines]
    larger = rf"{result.settings.get('unmatched', 4):g} times that $\beta$"
    labels = [*map(_label, losses), r"matched $\beta$", larger, *(str(line.get_label()) for line in lines)]
    axes.legend(handles, labels, frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _label(loss: str) -> str:
    return loss.replace("_", " ")


def _half(axes: Axes) -> None:
    axes.axhline(0.5, color="0.6", linewidth=1, linestyle="--", zorder=0)


def _kl_error(one: Run) -> tuple[float, float]:
    return _Z * one.kl_se, _Z * one.kl_se


def _win_error(one: Run) -> tuple[float, float]:
    return one.win_rate - one.win_low, one.win_high - one.win_rate


def _new() -> Axes:
    _, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    return axes
