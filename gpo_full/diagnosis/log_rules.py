"""Rules on the log itself: what its trainer logs wrongly, and a run that does not move. They need no loss."""

__all__ = ["LOG_RULES"]

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import fmean, median

from gpo_full.diagnosis.log import SCALED
from gpo_full.diagnosis.scale import LIKELY, times_f
from gpo_full.diagnosis.view import EARLY, ERRORS, FEWEST_LOGS, MOVING, STILL_X, Metric, View
from gpo_theory.report.result import Analysis

MOST = 0.9  # a share that counts as nearly all
GROWS = 1e3  # times, by which no healthy gradient grows
SOME = 0.1  # of a metric's range, a part that is more than what momentum adds to a margin at rest

Found = tuple[float, str, str] | None  # number, because, limits


def _too_few_logs(view: View) -> Found:
    if len(view.log) >= FEWEST_LOGS:
        return None
    return (len(view.log), f"a trend needs at least {FEWEST_LOGS} logs",
            "no rule about the end of the run was applied; log more often")  # fmt: skip


def _steps_begin_again(view: View, step: Metric) -> Found:
    falls = [at for at, (one, two) in enumerate(pairwise(step), 1) if two < one]
    if not falls:
        return None
    at = falls[0]
    return (len(falls), f"the step falls at {len(falls)} of {len(step)} logs, first from {step[at - 1]:g} to "
            f"{step[at]:g} at log {at + 1}: these are several runs, one that was resumed, or logs out of order",
            "the other findings take them for one run in this order: give the logs of one")  # fmt: skip


def _not_finite(view: View) -> Found:
    rows = _broken(view, harmless=False)
    if not rows:
        return None
    named = ", ".join(view.log.names.get(name, name) for name in view.used)
    after = len(view.log) - 1 - rows[-1]
    tells = (f"the {after} logs after the last of them are finite, so no step made the weights NaN" if after else
             f"{_stretch(view, rows)}, as where the weights are NaN: an earlier checkpoint is whole")  # fmt: skip
    return (len(rows), f"{len(rows)} logs hold a NaN or an infinity ({named}), and {tells}",
            "the logs do not say which pair caused it; a filter may have hidden others")  # fmt: skip


def _steps_skipped(view: View) -> Found:
    rows = _broken(view, harmless=True)
    if not rows:
        return None
    limits = "the log does not name the precision, and holds the norm of one step of each interval"
    if rows[-1] == len(view.log) - 1:
        limits += "; what followed the last log is not known"
    if len(rows) == sum(not math.isnan(value) for value in view.log.columns["grad_norm"]):
        moved = view.moved()
        why = ("and the run moves: the logged norm is not that of the steps that were made" if moved else
               "and nothing moves: every step was skipped")  # fmt: skip
        return (len(rows), f"grad_norm is finite in no log, {why}", limits)
    which = "the first " if rows == [*range(len(rows))] else ""
    return (len(rows), f"grad_norm is not finite in {which}{len(rows)} logs, and the loss is: a step with such a "
            "gradient would make the weights NaN, so it was skipped, as fp16's loss scaling does until its scale fits",
            limits)  # fmt: skip


def _broken(view: View, *, harmless: bool) -> list[int]:
    """Return the logs with a norm alone that is not finite, and with weights that are afterwards; or the others."""
    names, rows = [*view.log.columns], [*zip(*view.log.columns.values(), strict=True)]
    found = []
    for at, row in enumerate(rows):
        bad = [name for name, value in zip(names, row, strict=True) if math.isinf(value)]
        # The weights are finite if a loss or a margin is; transformers logs a loss of 0 in place of a NaN.
        after = rows[at + 1 :] or [row]
        whole = any(math.isfinite(each[names.index(name)]) and each[names.index(name)] for each in after
                    for name in MOVING if name in names)  # fmt: skip
        if bad and (bad == ["grad_norm"] and whole) is harmless:
            found.append(at)
            view.used.update(dict.fromkeys(bad))
    if harmless and found:
        view.used.update(dict.fromkeys(name for name in MOVING if name in names))
    return found


def _stretch(view: View, rows: list[int]) -> str:
    first = next(at for at in rows if {*range(at, len(view.log))} <= {*rows})
    step = view.log.columns.get("step")
    place = f"step {step[first]:g}" if step and math.isfinite(step[first]) else f"log {first + 1}"
    return f"all are from {place} on"


def _no_gradient(view: View, grad_norm: Metric) -> Found:
    share = fmean(value == 0 for value in grad_norm.third())
    if share < MOST or _moved_at_0(view, grad_norm):
        return None
    shown = [*filter(view.holds, MOVING)]
    if len(grad_norm) < FEWEST_LOGS and any(max(values) - min(values) > STILL_X for values in map(view.column, shown)):
        return None  # too few logs to tell a move from the noise of batches
    flat = "" if view.log.method else "every pair lies where f is constant, or "
    return (share, f"the gradient is exactly 0: {flat}no parameter is trainable",
            "a norm below the precision of the dtype is also logged as 0"
            + ("" if shown else "; nothing is logged that shows whether the policy moves"))  # fmt: skip


def _gradient_not_logged(view: View, grad_norm: Metric) -> Found:
    share = fmean(value == 0 for value in grad_norm.third())
    moved = _moved_at_0(view, grad_norm) if share >= MOST else None
    if not moved:
        return None
    return (share, f"grad_norm is 0 while {view.log.names.get(moved, moved)} moves: the logged norm is not the "
            "gradient's, and says nothing about the training",
            f"a move of less than {SOME:.0%} of the range is not reported: momentum moves a margin on when the "
            "gradient is 0")  # fmt: skip


def _gradient_grows(view: View, grad_norm: Metric) -> Found:
    first, last = (median(grad_norm.third(part)) for part in (0, -1))
    if len(grad_norm) < FEWEST_LOGS or not 0 < first * GROWS < last:
        return None
    return (last, f"the median gradient norm grows from {first:.3g} over the first third of the logs to {last:.3g} "
            "over the last: the run diverges, or only clipping holds it",
            f"a norm is logged before it is clipped: steps may be small; reported from {GROWS:g} times on")  # fmt: skip


def _moved_at_0(view: View, grad_norm: Metric) -> str | None:
    """Return a metric that moves over the last stretch of logs with the norm 0, by more than momentum does."""
    zero = [value == 0 for value in grad_norm]
    start = next((at for at in range(len(zero)) if zero[at] and fmean(zero[at:]) >= MOST), len(zero))
    stretch = view.since(start)
    for name in filter(stretch.holds, MOVING):
        if stretch.moves_by(name) > SOME * (max(view.column(name)) - min(view.column(name))):
            return name
    return None


def _loss_multiple(view: View, loss: Metric, analysis: Analysis) -> Found:
    if view.multiple == 1.0 or not view.at_zero:
        return None
    agree = "at the first step" if view.starts_off is None else "where margin and log-ratios are 0"
    if view.multiple is not None:
        k = f"{view.multiple:g}"
        later = f", and later {k} f or more at the logged margin" if "margin" in view.log.columns else ""
        return (view.multiple, f"the logged loss is {k} f(0) {agree}{later}: a multiple, as "
                f"where a trainer logs the sum over {k} steps of gradient accumulation. It is divided by {k} here",
                "a loss that is not the run's, and has another f(0), can look the same")  # fmt: skip
    ratios = times_f(view) if "margin" in view.log.columns and view.to_x else ()
    number = fmean(ratios[: max(2, len(ratios) // 3)]) if ratios else loss[0] / view.at_zero
    compared = "f at the logged margins" if ratios else f"f(0) = {view.at_zero:.4g}"
    return (number, f"the logged loss is about {number:.3g} times {compared} from the first logs on, and the start is "
            "not in the log: a sum over steps of gradient accumulation, or pairs that spread widely. Which of them is "
            "not known, so the loss is not compared with f", f"below {LIKELY:g} times is not reported")  # fmt: skip


def _nothing_moves(view: View, margin: Metric) -> Found:
    if len(margin) < FEWEST_LOGS or view.moved():
        return None
    if view.elsewhere:
        means = {name: fmean(view.column(name)) for name in filter(view.holds, SCALED)}
        far = "margin" if view.column("margin").starts_at else max(means, key=lambda name: abs(means[name]))
        value = means[far]
        return (value, f"no loss, margin or log-ratio has a trend, and {view.log.names.get(far, far)} is {value:.3g} "
                f"{view.unit} from the first log on, where it is 0 if the reference is the policy at the start: "
                "nothing was trained, and the reference is another",
                f"a trend within {ERRORS} standard errors is not seen; a first log within 1/{EARLY} of the run, or "
                "with a gradient of 0, counts as its start")  # fmt: skip
    at_zero = view.from_the_start and view.starts_off == 0.0 and max(map(abs, margin)) * (view.to_x or 1.0) < 0.01
    if not at_zero or (view.loss is not None and view.beta):
        return None  # unknown, or what stuck_at_start says
    return (fmean(margin), "the margin is 0 in every log, so the policy is still its reference: nothing was trained",
            "a learning rate that is too small, frozen weights and a long warm-up look the same")  # fmt: skip


LOG_RULES: tuple[Callable[..., Found], ...] = (
    _too_few_logs, _steps_begin_again, _not_finite, _steps_skipped, _no_gradient, _gradient_not_logged, _gradient_grows,
    _loss_multiple, _nothing_moves
)  # fmt: skip
