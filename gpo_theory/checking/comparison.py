"""A user's function against a loss: value and gradient beside f and f' computed with 256 bits."""

__all__ = ["AGAINST_A_LOSS", "against"]

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from math import inf

import numpy as np
from numpy.typing import NDArray

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.pieces import Piece, UnsplitError, beside, split
from gpo_theory.checking.calling import Finding, Floats, Function, evaluate
from gpo_theory.checking.margins import LADDER
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr
from gpo_theory.loss import Loss
from gpo_theory.lowering.lower import to_torch

AGAINST_A_LOSS = ("value", "slope")
_BITS = 256  # of the exact values, far beyond float64's 53
_LARGE = 2.0**64  # values beyond it are not compared: the lowering continues f by its tangent there
_DRAWN = 64  # of the random margins, at which the exact values are computed in any case
_SUSPECTS = 16  # of the other random margins: those where the generated code differs most
_TOLERANCE = {"float32": 2e-5, "float64": 2.0**-26}  # of |f| + |x f'|


def against(function: Function, loss: Loss, dtype: str, random: Floats) -> Iterator[Finding]:
    """Compare at the ladder, beside the breakpoints, at some random margins, and where the generated code differs."""
    try:
        pieces = [piece for piece in split(loss.f.primitive()) if not piece.is_point]
    except UnsplitError as error:
        raise InputError(f"{loss.formula!r} cannot be compared: its pieces are not known exactly: {error}") from None
    ends = [float(end) for piece in pieces for end in (piece.low, piece.high) if end is not None]
    near = [np.nextafter(np.array(ends, dtype), np.array(side, dtype)) for side in (-inf, inf)]
    x = np.concatenate([LADDER, ends, *near, random]).astype(dtype).astype(np.float64)
    seen = evaluate(function, x, dtype)
    first = np.arange(x.size - max(random.size - _DRAWN, 0))
    for chosen in (first, _suspects(loss, x, seen)):
        order = chosen[np.argsort(abs(x[chosen]), kind="stable")]
        found = list(_compared(pieces, loss.name, dtype, x[order], tuple(part[order] for part in seen)))
        yield from found
        if found:
            return


def _suspects(loss: Loss, x: Floats, seen: tuple[Floats, Floats]) -> NDArray[np.int64]:
    """Return where the function differs most from the generated code, whose word is not taken for it."""
    right = evaluate(to_torch(loss), x, "float64")
    with np.errstate(all="ignore"):
        error = [abs(a - b) / (abs(b) + abs(x * right[1])) for a, b in zip(seen, right, strict=True)]
    return np.concatenate([np.argsort(-np.nan_to_num(part, posinf=0.0))[:_SUSPECTS] for part in error])


def _compared(pieces: Sequence[Piece], name: str, dtype: str, x: Floats, seen: tuple[Floats, ...]) -> Iterator[Finding]:
    at_zero = sum(abs(number) for number in _sides(pieces, Fraction(0))[1][:2])
    finite = np.isfinite(seen[0]) & np.isfinite(seen[1])
    for k, test in enumerate(AGAINST_A_LOSS):
        wrong = []
        for at, found, known in zip(x.tolist(), seen[k].tolist(), finite.tolist(), strict=True):
            left, right = _sides(pieces, Fraction(at))
            low, high = sorted((left[k], right[k]))  # at a kink any slope between the two is one
            scale = max(abs(side[k]) + abs(at * side[k + 1]) for side in (left, right))
            slack = _TOLERANCE[dtype] * scale + 8 * float(np.finfo(dtype).eps) * at_zero
            known = known and max(map(abs, (*left, *right))) < _LARGE
            if known and not low - slack <= found <= high + slack:
                wrong.append((at, found, right[k]))
        if wrong:
            at, found, exact = wrong[0]
            also = f"; also at {len(wrong) - 1} margins farther out" if len(wrong) > 1 else ""
            yield Finding(test, dtype, at, f"it is {found:.9g} and {name} has {exact:.9g}{also}")


def _sides(pieces: Sequence[Piece], x: Fraction) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return f, f' and f'' from the left and from the right of x."""
    return _jet(beside(pieces, x, -1).f, x), _jet(beside(pieces, x, 1).f, x)


@lru_cache(maxsize=4096)
def _jet(f: Expr, x: Fraction) -> tuple[float, ...]:
    balls = (enclose(g, x, _BITS) for g in (f, f.diff(), f.diff().diff()))
    return tuple(float(ball.mid()) if abs(ball) < _LARGE else inf for ball in balls)
