"""Where a formula is least, in floats refined by balls: a proposal for the verifier, which proves the bound itself."""

__all__ = ["Lowest", "lowest", "reached"]

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.pieces import Piece
from gpo_theory.calculus.samples import sample
from gpo_theory.calculus.tails import tail
from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_constant

_STEPS = np.concatenate([np.linspace(0, 8, 1601), np.geomspace(8, 1000, 200)[1:]])
_GRID = np.concatenate([-_STEPS[:0:-1], _STEPS])
FAR = tuple(Fraction(2) ** k for k in (3, 4, 5, 6, 8, 10, 14, 20, 30, 45, 60))


@dataclass(frozen=True)
class Lowest:
    """The infimum as a float, exact text where it is the limit of a proved tail, and a point that comes near it."""

    value: float
    exact: str | None
    near: Fraction


@lru_cache(maxsize=256)
def lowest(pieces: tuple[Piece, ...]) -> Lowest | None:
    """Return the infimum over the open pieces, or None where a tail is not known or falls without bound."""
    found: list[Lowest] = []
    for piece in pieces:
        inside = [float(end) for end in (piece.low, piece.high) if end is not None]
        if not piece.is_point:
            points = [x for x in _GRID if piece.contains(x)]
            found += _refined(piece, np.array(sorted({*points, *inside, float(piece.sample)})))
    for side, outer in ((-1, pieces[0].f), (1, pieces[-1].f)):
        end = tail(outer, side)
        if end.verdict != "proved" or end.limit == "-inf":
            return None
        if end.limit not in ("inf", None):
            limit = _float(parse_constant(end.limit or "0"))
            near = reached(pieces, side, limit)
            found += [Lowest(limit, end.limit, near)] if near is not None else []
    return min(found, key=lambda one: (one.value, one.exact is None), default=None)


def _float(g: Expr, x: Fraction = Fraction(0)) -> float:
    return float(enclose(g, x, 192).mid())


def reached(pieces: tuple[Piece, ...], side: int, limit: float) -> Fraction | None:
    """Return a far point at which the outer piece is within a millionth of its limit."""
    outer = pieces[0 if side < 0 else -1]
    inside = (side * x for x in FAR if outer.contains(side * x))
    return next((x for x in inside if abs(_float(outer.f, x) - limit) < 9e-7 * (1 + abs(limit))), None)


def _refined(piece: Piece, grid: np.ndarray) -> list[Lowest]:
    values = sample(piece.f, grid)
    if not np.isfinite(values).any():
        return []
    # Floats can lie where a formula cancels: the best few are looked at again in balls.
    order = np.argsort(np.where(np.isfinite(values), values, np.inf))[:24]
    best = min(map(int, order), key=lambda i: _float(piece.f, Fraction(float(grid[i]))))
    a, b = (Fraction(float(grid[i])) for i in (max(best - 1, 0), min(best + 1, len(grid) - 1)))
    edges = [(_float(piece.f, x), x) for x in (piece.low, piece.high) if x is not None]
    for _ in range(70):  # thirds: the value settles long before the place does
        spend()
        left, right = a + (b - a) / 3, b - (b - a) / 3
        a, b = (a, right) if enclose(piece.f, left, 192).mid() < enclose(piece.f, right, 192).mid() else (left, b)
        a, b = a.limit_denominator(2**60), b.limit_denominator(2**60)
    middle = ((a + b) / 2).limit_denominator(10**9)
    return [Lowest(v, None, x) for v, x in [*edges, *([(_float(piece.f, middle), middle)] if piece.contains(middle) else [])]
            if np.isfinite(v)]  # fmt: skip
