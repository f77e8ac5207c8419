"""Tests of a user's function in each dtype: nothing infinite, and the values of float64 to the dtype's digits."""

__all__ = ["finite", "precision"]

from collections.abc import Iterator
from functools import partial

import numpy as np

from gpo_theory.checking.calling import Finding, Floats, Function, UserCodeError, evaluate
from gpo_theory.checking.conduct import Batches, compared, slack
from gpo_theory.checking.margins import LADDER


def finite(function: Function, dtype: str, random: Floats) -> Iterator[Finding]:
    """Look at the ladder first, so that a finding there has a number that is easily read."""
    seen = set[tuple[str, int]]()
    for margins in (np.array(LADDER), random):
        x = _rounded(margins, dtype)
        x = x[np.argsort(abs(x), kind="stable")]
        try:
            results = evaluate(function, x, dtype)
        except UserCodeError:
            if dtype == "bfloat16":  # a function may refuse it
                return
            raise
        for name, values in zip(("value", "gradient"), results, strict=True):
            for side in {(name, -1), (name, 1)} - seen:
                bad = np.flatnonzero(~np.isfinite(values) & ((x < 0) == (side[1] < 0)))
                if bad.size:
                    seen.add(side)
                    also = f"; also at {bad.size - 1} margins farther out" if bad.size > 1 else ""
                    yield Finding("finite", dtype, float(x[bad[0]]), f"the {name} is {values[bad[0]]}{also}")


def precision(function: Function, batches: Batches) -> Iterator[Finding]:
    """Compare the dtypes for |x| <= 1, where no exponential saturates, and see whether float64's digits are used."""
    draw = np.random.default_rng(batches.seed)
    near = np.concatenate([[0.0, 1.0], draw.uniform(-1, 1, min(200, batches.count))])
    for dtype, half in (("float32", 2.0**-11), ("bfloat16", 2.0**-5)):
        x = _rounded(near, dtype)
        right = evaluate(function, x, "float64")
        try:
            found = evaluate(function, x, dtype)
        except UserCodeError:
            return
        allowed = slack(partial(evaluate, function, dtype="float64"), x, right, half)
        known = tuple(np.where(np.isfinite(got), part, np.inf) for got, part in zip(found, allowed, strict=True))
        yield from compared("dtype", dtype, x, right, found, known, "is not that of float64")
    value, slope = evaluate(function, near, "float64")
    moved, _ = evaluate(function, near + 1e-9, "float64")
    clear = abs(slope) * 1e-9 > 1e-13 * (abs(value) + abs(value[:2]).sum())
    still = np.flatnonzero(clear & (moved == value))
    if 2 * still.size > clear.sum():
        i = still[0]
        yield Finding("dtype", "float64", float(near[i]), f"the value {value[i]:.9g} is the same at x + 1e-9, with the "
                      f"gradient {slope[i]:.6g}: it is rounded to fewer digits than float64 has")  # fmt: skip


def _rounded(x: Floats, dtype: str) -> Floats:
    import torch

    rounded: Floats = torch.tensor(x, dtype=getattr(torch, dtype)).double().numpy()
    return rounded
