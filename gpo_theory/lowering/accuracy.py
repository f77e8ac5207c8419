"""The accuracy of the array code: the error of value and gradient in ulp, against ball arithmetic, and its speed.

`python -m gpo_theory.lowering.accuracy` prints the table of every loss of the catalogue.
"""

__all__ = ["Score", "score", "score_points"]

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import flint
import numpy as np
from flint import arb
from numpy.typing import NDArray

from gpo_theory.calculus.balls import expand
from gpo_theory.calculus.pieces import beside, split
from gpo_theory.formula.expression import Expr
from gpo_theory.loss import Loss
from gpo_theory.lowering.knees import find_knees

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The exact value is known to 2^-70 of its scale, 17 bits beyond float64, or to 2^-1100, below float64's least number.
_FINEST, _COARSEST = -70, -1100
_RUNS = 15  # of which the median is taken: other processes make single runs slow


@dataclass(frozen=True)
class Score:
    """The largest error of the value, in ulp of |f| + |x f'|, and of the gradient, in ulp of |f'| + |x f''|.

    An ulp is the distance between neighbouring numbers of the dtype, at least its smallest normal number; a value
    that is not finite has error inf. `value_at` and `gradient_at` are the points x where the largest were found.
    """

    value: float
    value_at: float
    gradient: float
    gradient_at: float


def score(loss: Loss, f: Callable[["Tensor"], "Tensor"], dtype: "torch.dtype", count: int = 200) -> Score:
    """Return the largest errors of a torch function f of a loss, at `score_points`, in a floating dtype.

    The exact value beyond a knee is that of the tangent at the knee, and at a kink that of the piece on the right.

    >>> import torch
    >>> from gpo_theory.catalogue import LOSSES
    >>> from gpo_theory.lowering.lower import to_torch
    >>> found = score(LOSSES["logistic"], to_torch(LOSSES["logistic"]), torch.float64)
    >>> found.value <= 4, found.gradient <= 4
    (True, True)
    >>> score(LOSSES["logistic"], lambda x: torch.log(1 + torch.exp(-x)), torch.float64).value > 1e6
    True
    """
    import torch

    formula = loss.f.primitive()
    points = np.unique(score_points(formula, count).astype(np.float32 if dtype == torch.float32 else np.float64))
    x = torch.tensor(points, dtype=dtype, requires_grad=True)
    y = f(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    least = (float(torch.finfo(dtype).eps), float(torch.finfo(dtype).smallest_normal))
    worst = [(0.0, 0.0), (0.0, 0.0)]
    for at, *seen in zip(x.tolist(), y.double().tolist(), slope.double().tolist(), strict=True):
        truth = _truth(formula, at)
        for k in range(2):
            worst[k] = max(worst[k], (_ulps(seen[k], truth[k], truth[k + 1] * arb(at), least), at))
    return Score(*map(float, (*worst[0], *worst[1])))


def score_points(f: Expr, count: int = 200) -> NDArray[np.float64]:
    """Return points of |x| <= 1e4 on all scales, and close to every breakpoint and every zero of f and f'.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> points = score_points(parse_formula("(x-1)**2"))
    >>> len(points), points[0], points[-1], 1.0 in points
    (800, np.float64(-10000.0), np.float64(10000.0), True)
    """
    random = np.random.default_rng(20240213)  # any fixed seed
    sizes = [np.geomspace(1e-12, 1e4, count), *(random.uniform(0, top, count // 5) for top in (5, 50, 800))]
    base = np.concatenate([[0.0], *sizes, *(-size for size in sizes)])
    special = {float(piece.low) for piece in split(f) if piece.is_point and piece.low is not None} | _zeros(f, base)
    near = np.geomspace(1e-12, 0.3, count // 5)
    around = [np.concatenate([[c], c - near * max(1.0, abs(c)), c + near * max(1.0, abs(c))]) for c in special]
    return np.unique(np.concatenate([base, *around]))


def _zeros(f: Expr, base: NDArray[np.float64]) -> set[float]:
    """Return where f or f' changes sign between two points of |x| <= 100."""
    grid = [x for x in np.unique(np.concatenate([base, np.arange(-8, 8, 0.25)])) if abs(x) <= 100]
    signs = [_signs(f, x) for x in grid]
    out = set[float]()
    for (low, before), (high, after) in pairwise(zip(grid, signs, strict=True)):
        for k in range(2):
            if after[k] == 0:
                out.add(float(high))
            elif before[k] * after[k] < 0:
                out.add(_bisected(lambda x, k=k: _signs(f, x)[k], low, high))  # type: ignore[misc]
    return {0.0} | {x for x in out if abs(x) > 1e-9}


def _signs(f: Expr, x: float) -> tuple[int, ...]:
    values = expand(beside(split(f), Fraction(x), 1).f, Fraction(x), 1)
    return tuple(1 if v > 0 else -1 if v < 0 else 0 for v in values)


def _bisected(sign: Callable[[float], int], low: float, high: float) -> float:
    before = sign(low)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if sign(middle) == before else (low, middle)
    return float(high)




def _truth(f: Expr, x: float) -> tuple[arb, arb, arb]:
    """Return f, f', f'' at x, or those of the tangent at the knee beyond it."""
    left, right = find_knees(f)
    knee = left if left and x < left.x else right if right and x > right.x else None
    if knee is None:
        return _derivatives(f, x)
    value, slope, _ = _derivatives(f, knee.x)
    with flint.ctx.workprec(256):
        return value + slope * (arb(x) - arb(knee.x)), slope, arb(0)


def _derivatives(f: Expr, x: float) -> tuple[arb, arb, arb]:
    smooth, bits = beside(split(f), Fraction(x), 1).f, 128
    while bits <= 1 << 15:
        value, slope, half = expand(smooth, Fraction(x), 2, bits)
        with flint.ctx.workprec(bits):
            truth = (value, slope, 2 * half)
            if _sharp(value, slope * arb(x)) and _sharp(slope, 2 * half * arb(x)):
                return truth
        bits *= 2
    raise ArithmeticError(f"{f} at {x}: {bits} bits do not determine the value")


def _sharp(value: arb, drift: arb) -> bool:
    """Whether the ball of a value is narrow beside the scale |value| + |drift|."""
    least = arb(2) ** _COARSEST
    scale = abs(value.mid()) + abs(drift.mid())
    radius = arb(value.rad()) + arb(drift.rad()) * arb(2) ** -60  # the drift only sets the scale
    return bool(value.is_finite() and drift.is_finite() and radius <= least + scale * arb(2) ** _FINEST)


def _ulps(seen: float, truth: arb, drift: arb, least: tuple[float, float]) -> float:
    if not np.isfinite(seen):
        return float("inf")
    with flint.ctx.workprec(2048):
        scale = float(abs(truth.mid()) + abs(drift.mid()))
        spacing = max(2.0 ** np.floor(np.log2(scale)) * least[0] if scale else 0.0, least[1])
        return float(abs(arb(seen) - truth.mid())) / spacing


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
    from gpo_theory.lowering.native import native_kernel

    torch.set_num_threads(1)
    base = speed(lambda x: -functional.logsigmoid(x))
    print(f"{'':22}{'float64, ulp':>16}{'float32, ulp':>16}{'ms':>8}{'/ logsigmoid':>14}   kernel")
    print(f"{'':22}{'value':>8}{'slope':>8}{'value':>8}{'slope':>8}   forward and backward, 1e6 float32, one thread")
    for name, loss in LOSSES.items():
        f = to_torch(loss)
        cells = [score(loss, f, dtype) for dtype in (torch.float64, torch.float32)]
        spent = speed(f)
        numbers: list[Any] = [n for cell in cells for n in (cell.value, cell.gradient)]
        print(f"{name:22}" + "".join(f"{n:8.2f}" for n in numbers) + f"{1e3 * spent:8.1f}{spent / base:14.2f}   "
              f"{'native' if native_kernel(loss.f.primitive()) else 'generated'}", flush=True)  # fmt: skip


if __name__ == "__main__":
    _table()
