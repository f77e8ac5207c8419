"""Whether a log's loss is f, or a multiple of it: trainers that sum over accumulation steps log k times the mean."""

__all__ = ["allowed_at_start", "loss_multiple", "times_f"]

from statistics import fmean, stdev

from gpo_full.diagnosis.view import NOISE_NATS, NOISE_X, View

NOT_INTEGER = 0.3  # distance from an integer
LIKELY = 1.75  # times f(x) that no ordinary spread of the pairs explains so early
STEADY = 0.1  # relative deviation of that ratio over the first third
LEAST = 0.75  # of k f(x), which a mean over pairs of a convex f does not fall below


def allowed_at_start(at_zero: float, slope: float, beta: float | None) -> float:
    """Return how far the precision of a forward pass may move the first step's loss from f(0)."""
    return 1e-3 * max(1.0, abs(at_zero)) + abs(slope) * (beta * NOISE_NATS if beta else NOISE_X)


def times_f(view: View) -> tuple[float, ...]:
    """Return the logged loss over f(x) at the logged mean x, of the logs that hold both, where f(x) > 0."""
    both = view.holding(("loss", "margin"))
    return tuple(loss / f for loss, f in zip(both.column("loss"), both.at_margins, strict=False) if f > 0)


def loss_multiple(view: View) -> float | None:
    """Return k if the logged loss is k times f, 1 if nothing says so, None if it is a multiple that is not known.

    k is an integer of at least 2, found where policy and reference agree: there the loss is k f(0), and no later mean
    is far below k f(x). Without such a log, a loss above f(0) at margins above 0 is a multiple that is not known where
    its ratio to f(x) is steady and above LIKELY.
    """
    if view.log.method or view.log.beside or not view.at_zero or view.at_zero < 0 or view.slope is None:
        return 1.0
    if not view.holds("loss") or view.log.source == "gpo":
        return 1.0  # our own metrics are means of f
    first, off = view.first("loss"), view.starts_off
    if off is None or not view.holds("margin"):
        return _at_first_step(view, first)
    ratios = times_f(view)
    if first is not None and off == 0.0:
        k = _integer(view, first)
        later = all(fmean(part) >= LEAST * k for part in _thirds(ratios)) if ratios else True
        return k if later else 1.0
    early = ratios[: max(2, len(ratios) // 3)]
    steady = len(early) > 1 and min(early) >= LIKELY and stdev(early) <= STEADY * fmean(early)
    # Below f(0) pairs that spread are the usual reason, and no rule depends on it.
    above = view.column("loss").mean(0) > view.at_zero and view.column("margin").mean(0) > 0
    return None if steady and above and not (view.log.columns.get("step", (0.0,))[0] <= 1) else 1.0


def _at_first_step(view: View, first: float | None) -> float | None:
    """Return the same of a log without margins: of its first step, or else of a first log that is far above f(0)."""
    step = view.first("step")
    if first is None or view.at_zero is None:
        return 1.0
    if step is not None and step <= 1:
        return _integer(view, first)
    return None if first >= LIKELY * view.at_zero else 1.0


def _integer(view: View, first: float) -> float:
    assert view.at_zero is not None
    assert view.slope is not None
    ratio = first / view.at_zero
    k = round(ratio)
    near = abs(first / max(k, 1) - view.at_zero) <= allowed_at_start(view.at_zero, view.slope, view.beta)
    return float(k) if k >= 2 and near and abs(ratio - k) <= NOT_INTEGER else 1.0


def _thirds(values: tuple[float, ...]) -> list[tuple[float, ...]]:
    size = max(1, len(values) // 3)
    return [values[:size], values[-size:]]
