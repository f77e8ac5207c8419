"""Tests of a user's function that need no formula: its gradient against its values, and what a loss should be."""

__all__ = ["PROPERTIES", "alone"]

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpo_theory.checking.calling import Finding, Floats, Function, evaluate
from gpo_theory.checking.conduct import Batches
from gpo_theory.checking.margins import LADDER, random_margins

# A loss may lack them by its nature; its gradient is always that of its value.
PROPERTIES = ("decrease", "convexity", "consistency")
_PROBABILITIES = (0.6, 0.75, 0.9, 0.99)  # of the preferred response, from doubtful to nearly certain
_ROUNDING = 1e-13  # of a value, relative to the values near 0 and at x, times 1 + |x|


def alone(function: Function, batches: Batches) -> Iterator[Finding]:
    """Yield what is wrong in float64, where differences of values are sharp."""

    def f(x: Floats) -> Floats:
        return evaluate(function, x, "float64")[0]

    size = float(np.abs(f(np.array([-1.0, 0.0, 1.0]))).sum())
    with np.errstate(all="ignore"):
        yield from _gradient(function, size, batches)
        yield from _decrease(f, size)
        yield from _convexity(f, size, batches)
        yield from _consistency(f, size)


def _gradient(function: Function, size: float, batches: Batches) -> Iterator[Finding]:
    """What is outside on a scale is looked at again on others: rounding is another there, and a fault is not."""
    x = np.array(sorted([*LADDER, *random_margins(batches.count, batches.seed)], key=abs))
    _, slope = evaluate(function, x, "float64")
    low = high = x
    for factor in (1, 0.73, 1.37, 0.51, 1.91):
        outside, low, high = _outside(function, x, slope, size, factor)
        x, slope, low, high = x[outside], slope[outside], low[outside], high[outside]
        if not x.size:
            return
    also = f"; also at {x.size - 1} margins farther out" if x.size > 1 else ""
    yield Finding("gradient", "float64", float(x[0]), f"autograd gives {slope[0]:.6g}, differences of the value "
                  f"{low[0]:.6g} to {high[0]:.6g}{also}")  # fmt: skip


def _outside(function: Function, x: Floats, slope: Floats, size: float, factor: float) -> tuple[Any, Floats, Floats]:
    """Return where the gradient is not among four difference quotients around it, on one of three scales, and those.

    It may lie outside by their spread and that of the gradients there; at a kink any slope between is one. On the two
    wide scales quotients count that agree within a factor of two, on the two narrow ones those of values that move.
    Noise is what their mean moves by from one scale to the next.
    """
    result = np.zeros(x.size, bool), np.zeros(x.size), np.zeros(x.size)
    wider = np.full(x.size, np.nan)
    for scale in (1e-2, 1e-4, 1e-6):
        h = factor * scale * np.maximum(1, abs(x))
        points = x + h * np.arange(-2.0, 3.0)[:, None]
        values, slopes = (part.reshape(points.shape) for part in evaluate(function, points.ravel(), "float64"))
        quotients = np.diff(values, axis=0) / np.diff(points, axis=0)
        low, high, mean = quotients.min(axis=0), quotients.max(axis=0), quotients.mean(axis=0)
        spread, steepest, moved = high - low, abs(quotients).max(axis=0), np.nan_to_num(abs(mean - wider))
        rounding = _ROUNDING * (abs(values).sum(axis=0) + size * (1 + abs(x))) / h
        slack = spread + np.ptp(slopes[[0, 1, 3, 4]], axis=0) + 2 * moved + 1e-7 * steepest + rounding
        resolved = ((scale < 1e-5) | (spread <= steepest / 2)) & ((scale > 1e-3) | (quotients != 0).all(axis=0))
        outside = ((slope < low - slack) | (slope > high + slack)) & resolved & np.isfinite(slack) & np.isfinite(slope)
        for kept, new in zip(result, (outside, low, high), strict=True):
            np.copyto(kept, new, where=outside)
        wider = mean
    return result


def _decrease(f: Callable[[Floats], Floats], size: float) -> Iterator[Finding]:
    h = 1e-6
    behind, here, ahead = f(np.array([-h, 0.0, h]))
    left, right = (here - behind) / h, (ahead - here) / h
    if max(left, right) >= -1e-8 * size:
        yield Finding("decrease", "float64", 0.0, f"f does not fall at 0: its slope is about {left:.6g} on the left "
                      f"and {right:.6g} on the right")  # fmt: skip


def _convexity(f: Callable[[Floats], Floats], size: float, batches: Batches) -> Iterator[Finding]:
    draw, count = np.random.default_rng(batches.seed), 2 * batches.count  # near 0, and as many on all scales
    near, far = draw.uniform(-6, 6, count), draw.choice([-1, 1], count) * 10 ** draw.uniform(-2, 2.5, count)
    middle = np.concatenate([near, far])
    width = 10 ** draw.uniform(-2, 2, middle.size)
    a, b = middle - width * draw.uniform(0.1, 1, middle.size), middle + width
    at_a, at_b, at_middle = f(a), f(b), f(middle)
    chord = at_a + (at_b - at_a) * ((middle - a) / (b - a))
    slack = 1e-10 * (abs(at_a) + abs(at_b) + abs(at_middle)) + 1e-13 * size
    excess = np.where(np.isfinite(slack), (at_middle - chord) / slack, -1.0)
    if excess.max() > 1:
        i = int(excess.argmax())
        yield Finding("convexity", "float64", float(middle[i]), f"f = {at_middle[i]:.9g} lies above its chord from "
                      f"{a[i]:.6g} to {b[i]:.6g}, which has {chord[i]:.9g}; so do {int((excess > 1).sum()) - 1} "
                      f"of {middle.size} random chords")  # fmt: skip


def _consistency(f: Callable[[Floats], Floats], size: float) -> Iterator[Finding]:
    x = np.concatenate([np.arange(1, 64 * 20 + 1) / 64, np.geomspace(1e-4, 1e3, 400)])
    ahead, behind, here = f(x), f(-x), f(np.zeros(1))[0]
    for p in _PROBABILITIES:
        right, wrong = p * ahead + (1 - p) * behind, p * behind + (1 - p) * ahead
        if not np.isfinite(right).any():  # another test's finding
            return
        best, worst = np.nanmin(right), np.nanmin([here, np.nanmin(wrong)])
        if not best < worst - 1e-9 * size:
            place = float(x[np.nanargmin(right)])
            yield Finding("consistency", "float64", place, f"a pair preferred with probability {p}: the least expected "
                          f"loss with x > 0 is {best:.9g}, with x <= 0 it is {worst:.9g}")  # fmt: skip
            return
