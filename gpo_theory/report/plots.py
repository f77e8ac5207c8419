"""Figures of losses: values in, axes out; the only module of the package that imports matplotlib.

`python -m gpo_theory.report.plots FILE` draws the picture of the README, the paper's six losses with f' and f''.
"""

__all__ = ["colour", "draw_line", "picture", "save", "shapes", "slope_tails"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpo_theory.loss import Loss

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# One colour per loss across the whole book: for the paper's six Okabe and Ito's colour-blind safe palette, for those
# that stand beside them in an experiment some of Tol's.
_PALETTE = {"logistic": "#0072B2", "hinge": "#D55E00", "squared": "#009E73", "exponential": "#CC79A7",
            "truncated_squared": "#E69F00", "savage": "#56B4E9", "cdpo": "#999933", "robust_dpo": "#AA4499",
            "canonical_boosting": "#882255", "probit": "#222222"}  # fmt: skip
# Colour is never the only difference: losses that coincide on a stretch stay visible under one another.
_DASHES = {"hinge": (4, 2), "exponential": (6, 1.5, 1.5, 1.5), "truncated_squared": (2, 1.5), "savage": (7, 2)}
_PAPER = ("logistic", "hinge", "squared", "exponential", "truncated_squared", "savage")
_SCALED_MARGIN = r"scaled margin $x = \beta\rho$ ($\rho$ in nats)"
_NAMES = ("$f(x)$", "$f'(x)$", "$f''(x)$")


def colour(name: str) -> str:
    """Return the hex colour of a catalogue loss, the same in every figure; losses beyond the palette are grey.

    >>> colour("logistic")
    '#0072B2'
    """
    return _PALETTE.get(name, "#555555")


def shapes(losses: Sequence[Loss], low: float = -3.0, high: float = 3.0) -> "Figure":
    """Draw f, f' and f'' over the scaled margin x = beta rho (rho in nats), side by side, one line per loss.

    f'' is the classical second derivative: where f' jumps (the hinge at 1) no impulse is drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    x = np.linspace(low, high, 1201)
    limits = [[-0.3, 5.0], [-5.0, 1.0], [-0.4, 3.0]]  # wider where a value at 0 lies outside
    for loss in losses:
        for order, (axes, values) in enumerate(zip(panels, _derivatives(loss, x), strict=True)):
            line = draw_line(axes, loss.name, x, values)
            line.set_gid(f"{loss.name}-{order}")
            start = 1.25 * float(np.interp(0.0, x, values))
            limits[order] = [min(limits[order][0], start), max(limits[order][1], start)]
    for axes, name, ends in zip(panels, _NAMES, limits, strict=True):
        axes.set(xlabel=_SCALED_MARGIN, title=name, ylim=ends, xlim=(low, high))
        axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        axes.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=min(len(losses), 6), fontsize="small")
    return figure


def slope_tails(losses: Sequence[Loss], axes: "Axes | None" = None, high: float = 12.0) -> "Axes":
    """Draw -f'(x) for x > 0 on a logarithmic scale: the weight of a pair that already has the scaled margin x.

    An exponential tail is a straight line; a line ends where the slope becomes 0 or positive.
    """
    from matplotlib.figure import Figure

    axes = Figure(figsize=(6, 4), layout="constrained").subplots() if axes is None else axes
    x = np.linspace(0.0, high, 1201)
    for loss in losses:
        slope = -_derivatives(loss, x)[1]
        draw_line(axes, loss.name, x, np.where(slope > 0, slope, np.nan))
    axes.set(yscale="log", xlim=(0, high), xlabel=_SCALED_MARGIN, ylabel="push $-f'(x)$")
    axes.legend()
    return axes


def draw_line(axes: "Axes", name: str, x: ArrayLike, y: ArrayLike) -> "Line2D":
    """Draw one line for a catalogue loss, in its colour and with its dashes, labelled with its name."""
    (line,) = axes.plot(x, y, color=colour(name), label=name.replace("_", " "), linewidth=1.8)
    if name in _DASHES:
        line.set_dashes(_DASHES[name])
    return line


def picture(path: "Path | str") -> None:
    """Write the picture of the README and of the book's first page: `shapes` of the paper's six losses."""
    from gpo_theory.catalogue import LOSSES

    save(shapes([LOSSES[name] for name in _PAPER]), path)


def save(figure: "Figure", path: "Path | str") -> None:
    """Write `figure` to `path`; the same figure gives the same file, with no date or version in it."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "gpo"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None} if str(path).endswith("svg") else None)


def _derivatives(loss: Loss, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return f, f' and f'' at x by the torch function that training uses."""
    import torch

    from gpo_theory.lowering.lower import to_torch

    point = torch.tensor(x, requires_grad=True)
    values = [to_torch(loss)(point)]
    for _ in range(2):
        last = values[-1]
        (slope,) = (
            torch.autograd.grad(last.sum(), point, create_graph=True, allow_unused=True, materialize_grads=True)
            if last.requires_grad
            else (torch.zeros_like(point),)
        )
        values.append(slope)
    return tuple(value.detach().numpy() for value in values)


if __name__ == "__main__":
    import sys

    picture(sys.argv[1])
