"""The figure of the benchmark: what a step costs beside the ideal, cell by cell."""

__all__ = ["bench_bars"]

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure


def bench_bars(report: Mapping[str, Any]) -> Figure:
    """Draw seconds and peak memory per step of every contender, one row of panels per cell of `bench.json`."""
    cells = report["cells"]
    names = [*cells[0]["contenders"]]
    figure = Figure(figsize=(9, 0.9 + len(cells) * (0.6 + 0.22 * len(names))), layout="constrained")
    for row, cell in zip(figure.subplots(len(cells), 2, squeeze=False), cells, strict=True):
        made = [cell["contenders"][name] for name in names]
        for axes, key in zip(row, ("seconds", "peak_mib"), strict=True):
            values = [each[key] for each in made]
            bars = axes.barh(names, values, color=["0.2", *["0.7"] * (len(names) - 1)])
            axes.bar_label(bars, [f"{value / values[0]:.1f}x" for value in values], padding=3, fontsize=8)
            axes.invert_yaxis()
            axes.margins(x=0.12)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].axvline(cell["ideal_seconds"], color="0.4", linestyle=":", linewidth=1, label="ideal")
        row[0].set_title(f"{cell['shape']}, {cell['size']}", loc="left", fontsize=10)
        row[1].tick_params(labelleft=False)
    row[0].set_xlabel(f"{report['unit']} per step")
    row[1].set_xlabel("peak memory, MiB")
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure
