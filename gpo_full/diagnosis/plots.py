"""The figure of one training run: a diagnosis in, a figure out."""

__all__ = ["run_curves"]

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpo_full.diagnosis.rules import Diagnosis
from gpo_full.diagnosis.view import View


def run_curves(diagnosis: Diagnosis) -> Figure:
    """Draw a run's loss with f(0), its margin with the target x*(1)/beta, and both log-ratios, over its steps.

    A run that was sampled gets a fourth panel: win rate, with its interval, against KL.
    """
    view = View(diagnosis.log, diagnosis.loss, diagnosis.beta, multiple=diagnosis.loss_multiple)
    target = view.target / view.beta if view.target is not None and view.beta else None
    panels = (("loss", ("loss",), view.at_zero, "$f(0)$"), ("margin", ("margin",), target, r"$x^*(1)/\beta$"),
              ("log-ratio", ("log_ratio_chosen", "log_ratio_rejected"), 0.0, "reference"))  # fmt: skip
    count = 4 if diagnosis.log.samples else 3
    figure = Figure(figsize=(3 * count, 3), layout="constrained")
    drawn = figure.subplots(1, count)
    if diagnosis.log.samples:
        _frontier(drawn[3], diagnosis.log.samples)
    for axes, (title, names, level, label) in zip(drawn[:3], panels, strict=True):
        for name, style in zip(names, ("-", "--"), strict=False):
            if name in view.log.columns:
                held = view.holding({name, "step"} & view.log.columns.keys())
                values = held.column(name)
                steps = held.column("step") if "step" in view.log.columns else range(1, len(values) + 1)
                axes.plot(steps, values, style, color="0.2", linewidth=1.2, label=name.rpartition("_")[2])
        if level is not None:
            axes.axhline(level, color="0.6", linewidth=1, linestyle=":", label=label)
        axes.set(title=title, xlabel="optimiser step", ylabel="loss" if title == "loss" else view.unit)
        if axes.get_lines():
            axes.legend(frameon=False, fontsize=9)
    return figure


def _frontier(axes: Axes, samples: Sequence[Mapping[str, Any]]) -> None:
    kl, rate, low, high, steps = ([one[name] for one in samples]
                                  for name in ("kl", "win_rate", "win_low", "win_high", "step"))  # fmt: skip
    axes.plot(kl, rate, "-o", color="0.2", linewidth=1.2, markersize=3, label="samples, 95% interval")
    axes.vlines(kl, low, high, color="0.6", linewidth=1)
    for place in (0, -1):
        axes.annotate(f"step {steps[place]}", (kl[place], rate[place]), xytext=(4, 4), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axes.axhline(0.5, color="0.6", linewidth=1, linestyle=":", label="reference")
    axes.set(title="win rate", xlabel="KL to the reference, nats", ylabel="win rate", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=9)
