"""Where to look for what f does: fast float samples, and the unit of x. They suggest, and decide nothing."""

__all__ = ["pace", "rounded", "sample", "unit"]

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import pairwise
from math import inf, log2, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpo_theory.calculus.rational import as_rational
from gpo_theory.formula.expression import Expr, fold
from gpo_theory.formula.operations import CHOICES, COMPARISONS, CONSTANTS, PRIMITIVES

_REDUCED: dict[str, Callable[[Any, Any], Any]] = {"+": np.add, "*": np.multiply, "max": np.maximum, "min": np.minimum,
                                                  "and": np.logical_and, "or": np.logical_or}  # fmt: skip


def sample(f: Expr, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float values of a primitive formula at the points x; NaN or infinity where floats fail."""

    def value(part: Expr, of: Callable[[Expr], Any]) -> Any:
        if part.number is not None:
            return float(part.number)
        if part.head == "x" or part.head in CONSTANTS:
            return x if part.head == "x" else getattr(np, part.head)
        values = list(map(of, part.children))
        if part.head == "where":
            return np.where(*values)
        if part.head == "**":
            n = part.power
            return np.power(values[0], int(n) if n is not None and n.denominator == 1 and n > 0 else values[1])
        if part.head in _REDUCED:
            return reduce(_REDUCED[part.head], values)
        if part.head in COMPARISONS:
            return COMPARISONS[part.head](*values)
        return _function(part.head)(*values)

    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(fold(f, value), dtype=np.float64), x.shape)


def _function(name: str) -> Callable[..., Any]:
    if hasattr(np, name):
        return getattr(np, name)  # type: ignore[no-any-return]
    from scipy import special  # takes 0.3 s, and few formulas need it

    return getattr(special, name)  # type: ignore[no-any-return]


@lru_cache(maxsize=1024)
def unit(f: Expr) -> Fraction:
    """Return a power of two that is about the length on which f changes: 1 unless all lengths in it are far from 1.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> unit(parse_formula("max(0, 1 - x/1000)").primitive())
    Fraction(1024, 1)
    """
    found = [size for node in dict.fromkeys(f.walk()) for size in _lengths(node)]
    if not found or (min(found) <= 4 and max(found) >= -4):
        return Fraction(1)
    return Fraction(2) ** round(min(found) if min(found) > 0 else max(found))


def pace(f: Expr) -> Fraction:
    """Return a step of which multiples by powers of two show f well: for sin(pi x) these are no integers."""
    return Fraction(1, 7) if any(node.head in ("sin", "cos") for node in f.walk()) else Fraction(1)


def rounded(x: float, step: float) -> Fraction:
    """Return a rational with a small denominator near x, in units of a step that is a power of two."""
    return Fraction(step) * Fraction(x / step).limit_denominator(2**12)


def _lengths(node: Expr) -> Iterator[float]:
    """Yield log2 of the lengths at which two terms of a polynomial are equal, or the argument of a function is 1."""
    inside = node.args[0] if node.head in PRIMITIVES and node.head != "log" else None
    form = as_rational(node if inside is None else inside) if node.head == "+" or inside is not None else None
    if form is None and inside is not None and not any(part.head in CHOICES for part in inside.walk()):
        slope = inside.diff()  # a constant where x has an irrational factor
        size = nan if slope.depends_on_x else abs(float(sample(slope, np.zeros(1))[0]))
        yield from [-log2(size)] if 0 < size < inf else []
        return
    if form is None or form.slope is not None or form.denominator.degree():
        return
    sizes = [(n, log2(abs(int(c.p))) - log2(int(c.q))) for n, c in enumerate(form.numerator.coeffs()) if c]
    if inside is not None:
        scale = form.denominator[0]
        sizes = [(0, log2(abs(scale.p)) - log2(scale.q)), *((n, size) for n, size in sizes if n)]
    for (n, size), (m, other) in pairwise(sizes):
        yield (size - other) / (m - n)
