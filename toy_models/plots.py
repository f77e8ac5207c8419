"""Figures of toy models: values in, axes out; the only module of the package that imports matplotlib."""

__all__ = ["plot_densities", "plot_simplex", "plot_trace"]

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from gpo_theory.report.plots import colour

# Okabe and Ito's colours in the order of the book's losses, for paths that belong to no loss.
_CYCLE = [colour(name) for name in ("logistic", "hinge", "squared", "exponential", "truncated_squared", "savage")]
# Colours of the KL and of the regulariser, which no loss has.
_KL, _REGULARIZER = "#000000", "#6A3D9A"
_CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, sqrt(3) / 2]], dtype=torch.float64)


def plot_trace(axes: Any, step: Tensor, kl: Tensor, regularizer: Tensor) -> Any:
    """Draw KL (left scale, nats) and regulariser (right scale, nats^2) against the steps, all of shape (T,)."""
    right = axes.twinx()
    axes.plot(step, kl, color=_KL)
    right.plot(step, regularizer, color=_REGULARIZER, linestyle="--")
    axes.set(xlabel="gradient steps", title="KL and regulariser along the descent")
    axes.set_ylabel(r"$\mathrm{KL}(\pi\,\|\,\pi_{\mathrm{ref}})$ (nats, solid)", color=_KL)
    right.set_ylabel(r"regulariser $E_\mu[\rho^2/2]$ (nats², dashed)", color=_REGULARIZER)
    return axes


def plot_simplex(axes: Any, paths: Mapping[str, Tensor], reference: Tensor) -> Any:
    """Draw paths of three-action policies (T, 3) on the simplex, over the contours of KL(pi||pi_ref) in nats."""
    _draw_contours(axes, reference)
    for number, (label, path) in enumerate(paths.items()):
        points, shade = path.to(torch.float64) @ _CORNERS, _CYCLE[number % len(_CYCLE)]
        axes.plot(points[:, 0], points[:, 1], color=shade, linewidth=2, label=label)
        axes.plot(*points[0], marker="o", color=shade, linestyle="none", label="start" if number == 0 else None)
        axes.plot(*points[-1], marker="s", color=shade, linestyle="none", label="end" if number == 0 else None)
    axes.plot(*(reference.to(torch.float64) @ _CORNERS), marker="*", markersize=13, color="black", linestyle="none",
              label=r"$\pi_{\mathrm{ref}}$")  # fmt: skip
    for number, (x, y) in enumerate(_CORNERS.tolist(), 1):
        below = y == 0
        axes.annotate(f"action {number}", (x, y), (0, -12 if below else 6), textcoords="offset points", ha="center")
    axes.set(aspect="equal", xlim=(-0.12, 1.12), ylim=(-0.12, 1.0),
             title="Policies on the simplex, contours of KL in nats")  # fmt: skip
    axes.axis("off")
    axes.legend(loc="upper left", frameon=False)
    return axes


def plot_densities(axes: Any, grid: Tensor, densities: Mapping[str, Tensor]) -> Any:
    """Draw densities over the responses, each of shape (K,) like the grid."""
    styles = ("-", "--", "-.", ":")
    for number, (label, density) in enumerate(densities.items()):
        axes.plot(grid, density, color=_CYCLE[number % len(_CYCLE)], linestyle=styles[number % 4], label=label)
    seen = torch.stack(list(densities.values())).amax(dim=0) > 1e-3
    axes.set(xlabel="response y", ylabel="probability density", title="Densities over responses",
             ylim=(0, 1.3 * max(density.max().item() for density in densities.values())),
             xlim=(grid[seen].min().item(), grid[seen].max().item()))  # fmt: skip
    axes.legend(loc="upper center", ncols=2, frameon=False)
    return axes


def _draw_contours(axes: Any, reference: Tensor) -> None:
    side = torch.linspace(1e-4, 1 - 2e-4, 120, dtype=torch.float64)
    first, second = (one.flatten() for one in torch.meshgrid(side, side, indexing="ij"))
    inside = first + second < 1 - 5e-5
    policy = torch.stack((first, second, 1 - first - second), dim=-1)[inside]
    kl = (policy * (policy / reference).log()).sum(-1)
    x, y = (policy @ _CORNERS).T
    drawn = axes.tricontour(x, y, kl, levels=8, colors="#bbbbbb", linewidths=0.7)
    axes.clabel(drawn, fontsize=7, fmt="%.2g")
    axes.fill(*_CORNERS.T, facecolor="none", edgecolor="black", linewidth=1)
