"""The accuracy of the torch code: its errors in ulp, against ball arithmetic, and its speed.

`python -m gpo_theory.lowering.accuracy` prints the table of every loss of the catalogue.
"""

__all__ = ["Score", "score"]

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from flint import arb

from gpo_theory.formula.expression import Expr
from gpo_theory.loss import Loss
from gpo_theory.lowering.exact_values import sample_points, taylor_at, ulps
from gpo_theory.lowering.knees import find_knees

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RUNS = 15  # of which the median is taken: other processes make single runs slow


@dataclass(frozen=True)
class Score:
    """The largest error of f, f' and f'', the k-th in ulp of |f^(k)| + |x f^(k+1)|, and the point x of each.

    An ulp is the distance between neighbouring numbers of the dtype, at least its smallest normal number; a value
    that is not finite has error inf.
    """

    value: float
    gradient: float
    second: float
    at: tuple[float, ...]


def score(loss: Loss, f: Callable[["Tensor"], "Tensor"], dtype: "torch.dtype", count: int = 200) -> Score:
    """Return the largest errors of a torch function f of a loss, at `sample_points`, in float64 or float32.

    The exact value beyond a knee is that of the tangent at the knee, and at a kink that of the piece on the right.

    >>> import torch
    >>> from gpo_theory.catalogue import LOSSES
    >>> from gpo_theory.lowering.lower import to_torch
    >>> found = score(LOSSES["logistic"], to_torch(LOSSES["logistic"]), torch.float64)
    >>> found.value <= 4, found.gradient <= 4, found.second <= 4
    (True, True, True)
    >>> score(LOSSES["logistic"], lambda x: torch.log(1 + torch.exp(-x)), torch.float64).value > 1e6
    True
    """
    import torch

    formula, kind = loss.f.primitive(), np.float32 if dtype == torch.float32 else np.float64
    points = np.unique(np.concatenate([sample_points(formula, k, count) for k in range(3)]).astype(kind))
    x = torch.tensor(points, dtype=dtype, requires_grad=True)
    values = [f(x)]
    for _ in range(2):
        last = values[-1]
        zero = 0 * x  # a derivative that does not depend on x has no graph
        values.append(torch.autograd.grad((last + zero).sum(), x, create_graph=True)[0])
    worst = [(0.0, 0.0)] * 3
    for at, *seen in zip(x.tolist(), *(value.double().tolist() for value in values), strict=True):
        truth = _truth(formula, at)
        for k in range(3):
            worst[k] = max(worst[k], (float(ulps(seen[k], truth[k], truth[k + 1] * arb(at), kind)), at))
    (value, gradient, second), places = zip(*worst, strict=True)
    return Score(value, gradient, second, places)


def _truth(f: Expr, x: float) -> list[arb]:
    """Return f and three derivatives at x, or those of the tangent at the knee beyond it."""
    left, right = find_knees(f)
    knee = left if left and x < left.x else right if right and x > right.x else None
    if knee is None:
        return taylor_at(f, x, 3)
    value, slope = taylor_at(f, knee.x, 2)[:2]
    return [value + slope * (arb(x) - arb(knee.x)), slope, arb(0), arb(0)]


def speed(f: Callable[["Tensor"], "Tensor"], elements: int = 1_000_000) -> float:
    """Return the process seconds of one forward and backward pass in float32, the median of 15."""
    import torch

    x = (3 * torch.randn(elements, generator=torch.Generator().manual_seed(1))).requires_grad_()
    spent = []
    for _ in range(_RUNS):
        start = time.process_time()
        torch.autograd.grad(f(x).sum(), x)
        spent.append(time.process_time() - start)
    return sorted(spent)[_RUNS // 2]


def _table() -> None:
    import torch
    from torch.nn import functional

    from gpo_theory.catalogue import LOSSES
    from gpo_theory.lowering.lower import to_torch

    torch.set_num_threads(1)
    base = speed(lambda x: -functional.logsigmoid(x))
    print(f"{'':22}{'float64, ulp':>24}{'float32, ulp':>24}{'ms':>8}{'/ logsigmoid':>14}")
    print(f"{'':22}" + 2 * f"{'f':>8}{'slope':>8}{'second':>8}" + "   forward and backward, 1e6 float32, one thread")
    for name, loss in LOSSES.items():
        f = to_torch(loss)
        cells = [score(loss, f, dtype) for dtype in (torch.float64, torch.float32)]
        spent = speed(f)
        numbers = [n for cell in cells for n in (cell.value, cell.gradient, cell.second)]
        cost = f"{1e3 * spent:8.1f}{spent / base:14.2f}"
        print(f"{name:22}" + "".join(f"{n:8.2f}" for n in numbers) + cost, flush=True)


if __name__ == "__main__":
    _table()
