"""The figure of one training run: a diagnosis in, a figure out."""

__all__ = ["run_curves"]

from matplotlib.figure import Figure

from gpo_full.diagnosis import Diagnosis, View


def run_curves(diagnosis: Diagnosis) -> Figure:
    """Draw a run's loss with f(0), its margin with the target x*(1)/beta, and both log-ratios, over its steps."""
    view = View(diagnosis.log, diagnosis.loss, diagnosis.beta)
    target = view.target / view.beta if view.target is not None and view.beta else None
    panels = (("loss", ("loss",), view.at_zero, "$f(0)$"), ("margin", ("margin",), target, r"$x^*(1)/\beta$"),
              ("log-ratio", ("log_ratio_chosen", "log_ratio_rejected"), 0.0, "reference"))  # fmt: skip
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (title, names, level, label) in zip(figure.subplots(1, 3), panels, strict=True):
        for name, style in zip(names, ("-", "--"), strict=False):
            if name in view.log.columns:
                values = view.column(name)
                steps = view.column("step") if "step" in view.log.columns else range(1, len(values) + 1)
                axes.plot(steps, values, style, color="0.2", linewidth=1.2, label=name.rpartition("_")[2])
        if level is not None:
            axes.axhline(level, color="0.6", linewidth=1, linestyle=":", label=label)
        axes.set(title=title, xlabel="optimiser step", ylabel="loss" if title == "loss" else view.unit)
        if axes.get_lines():
            axes.legend(frameon=False, fontsize=9)
    return figure
