"""The exact values of f, f', f'', to which the errors of code are measured, and the points where they are."""

__all__ = ["KNEE", "Measure", "piece_at", "sample_points", "special_points", "taylor_at", "ulps"]

import math
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import flint
import numpy as np
from flint import arb
from numpy.typing import NDArray

from gpo_theory.calculus.balls import bisected, enclose, expand
from gpo_theory.calculus.pieces import UnsplitError, beside, near, split
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, rebuild

KNEE = 2.0**64  # of |f| or |f'|: the square root of 2^128, where float32 overflows
# The exact value is known to 2^-70 of its scale, 17 bits beyond float64, or to 2^-1100, below float64's least number.
_FINEST, _COARSEST = -70, -1100
_FADING = (86, 106), (706, 748)  # |x| where exp(-|x|) underflows in float32 and in float64, though x exp(-|x|) may not
_GRID = [sign * Fraction(step, 4) for sign in (-1, 1) for step in (*range(1, 33), 40, 48, 64, 96, 128)]


def piece_at(f: Expr, x: Fraction) -> Expr:
    """Return the smooth formula that holds at x and on its right, as far as that is decided."""
    with suppress(UnsplitError):
        return beside(split(f), x, 1).f
    with suppress(UnsplitError):
        return near(f, x, 1)
    if any(node.head == "where" for node in f.walk()):
        raise InputError(f"{str(f)!r} has a breakpoint that is not rational: it cannot be run exactly")
    return _active(f, x)


def _active(node: Expr, at: Fraction) -> Expr:
    """Return the formula with each max and min replaced by its argument that is the largest or smallest at a point."""
    children = tuple(_active(child, at) for child in node.children)
    if node.head in ("max", "min"):
        choose = max if node.head == "max" else min
        return choose(children, key=lambda child: float(enclose(child, at).mid()))
    return rebuild(node, children)


def taylor_at(f: Expr, x: float, order: int) -> list[arb]:
    """Return f and its derivatives at x up to `order`, each sharp beside |f^(k)| + |x f^(k+1)|.

    Raises ArithmeticError where 32,768 bits do not suffice.
    """
    smooth, bits = piece_at(f, Fraction(x)), 128
    while bits <= 1 << 15:
        coefficients = expand(smooth, Fraction(x), order, bits)
        with flint.ctx.workprec(bits):
            values = [math.factorial(k) * c for k, c in enumerate(coefficients)]
            if all(_sharp(value, slope * arb(x)) for value, slope in pairwise(values)):
                return values
        bits *= 2
    raise ArithmeticError(f"{f} at {x}: {bits} bits do not determine the value")


def _sharp(value: arb, drift: arb) -> bool:
    """Whether the ball of a value is narrow beside the scale |value| + |drift|."""
    scale = abs(value.mid()) + abs(drift.mid())
    radius = arb(value.rad()) + arb(drift.rad()) * arb(2) ** -60  # the drift only sets the scale
    return bool(value.is_finite() and drift.is_finite() and radius <= arb(2) ** _COARSEST + scale * arb(2) ** _FINEST)


def ulps(seen: float, truth: arb, drift: arb, dtype: type) -> float:
    """Return the error in ulp of |truth| + |drift|, inf for a number that is not finite.

    An ulp is the distance between neighbouring numbers of the dtype, at least its smallest normal number.
    """
    if not np.isfinite(seen):
        return math.inf
    least = np.finfo(dtype)
    with flint.ctx.workprec(2048):
        scale = float(abs(truth.mid()) + abs(drift.mid()))
        spacing = 2.0 ** np.floor(np.log2(scale)) * float(least.eps) if scale else 0.0
        return float(abs(arb(seen) - truth.mid())) / max(spacing, float(least.smallest_normal))


@lru_cache(maxsize=64)
def sample_points(f: Expr, order: int, count: int) -> NDArray[np.float64]:
    """Return points of |x| <= 1e6 on all scales, close to breakpoints and zeros of f^(order) and its slope, and where
    exp(-|x|) underflows.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> points = sample_points(parse_formula("(x-1)**2"), 0, 40)
    >>> float(points[0]), float(points[-1]), 1.0 in points
    (-1000000.0, 1000000.0, True)
    """
    random = np.random.default_rng(20240213)  # any fixed seed
    parts = ((2 * count, 5), (count // 5, 50), (count // 5, 800))
    sizes = [np.geomspace(1e-12, 1e6, count), *(random.uniform(0, top, number) for number, top in parts)]
    sizes += [np.linspace(*ends, 21) for ends in _FADING]
    near = np.geomspace(1e-12, 0.3, count // 5)
    special = special_points(f, order)
    around = [np.concatenate([[c], c - near * max(1.0, abs(c)), c + near * max(1.0, abs(c))]) for c in special]
    return np.unique(np.concatenate([*sizes, *(-size for size in sizes), *around]))


@lru_cache(maxsize=256)
def special_points(f: Expr, order: int) -> tuple[float, ...]:
    """Return 0, the breakpoints, and where f^(order) or its slope changes sign between two points of a grid."""
    try:
        out = {0.0, *(float(piece.low) for piece in split(f) if piece.is_point and piece.low is not None)}
    except UnsplitError:
        out = {0.0}
    grid = sorted({*_GRID, Fraction(0)})
    rows = [_signs(f, x, order) for x in grid]
    for (low, before), (high, after) in pairwise(zip(grid, rows, strict=True)):
        for k in range(2):
            if after[k] == 0:
                out.add(float(high))
            elif before[k] * after[k] < 0:
                end = bisected(lambda x, k=k: _signs(f, x, order)[k], before[k], low, high, _width)  # type: ignore[misc]
                out.add(float(end[0]))
    return tuple(x for x in out if not x or abs(x) > 1e-9)


def _width(x: Fraction) -> Fraction:
    return max(abs(x) / 2**60, Fraction(1, 2**60))


def _signs(f: Expr, x: Fraction, order: int) -> tuple[int, ...]:
    values = expand(piece_at(f, x), x, order + 1)[order:]
    return tuple(1 if v > 0 else -1 if v < 0 else 0 for v in values)


@dataclass(frozen=True)
class Measure:
    """Points x of one dtype, with the exact value of f^(order) there and its drift x f^(order + 1)."""

    x: NDArray[np.floating]
    truth: tuple[tuple[arb, arb], ...]

    @staticmethod
    def of(f: Expr, order: int, dtype: type, count: int) -> "Measure":
        """Return `sample_points` where |f| and |f'| are below 2^64 and the exact value is determined."""
        kept, truth = [], []
        for x in np.unique(sample_points(f, order, count).astype(dtype)):
            try:
                values = taylor_at(f, float(x), order + 1)
            except ArithmeticError:
                continue
            if all(abs(float(v.mid())) < KNEE for v in values[:2]):
                kept.append(x)
                truth.append((values[order], values[order + 1] * arb(float(x))))
        return Measure(np.array(kept, dtype), tuple(truth))

    def errors(self, seen: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the error of each value in ulp of |f^(order)| + |x f^(order + 1)|."""
        dtype = self.x.dtype.type
        return np.array([ulps(float(y), *exact, dtype) for y, exact in zip(seen, self.truth, strict=True)])
