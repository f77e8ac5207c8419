"""Taylor polynomials with certified remainder, for the points where the normal form is measured to cancel."""

__all__ = ["TaylorPolynomial", "polynomials_near_zeros"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import flint
import numpy as np
from flint import arb

from gpo_theory.calculus.balls import ball, bisected, exact_value, expand
from gpo_theory.calculus.pieces import Piece, UnsplitError, split
from gpo_theory.formula.expression import Expr

LIMIT = 2.0  # ulp; a larger error near a zero calls for a Taylor polynomial
ORDERS = range(6, 42, 4)  # of the polynomials tried, the lowest first
_ODD = Fraction(11, 14)  # points beside the powers of two, at which products are exact and hide the error
PARTS = 64  # cells of half-width r / 64 on which the derivatives are enclosed
# Where zeros of f' are looked for: quarters to 8, then wider steps.
_GRID = [sign * Fraction(step, 4) for sign in (-1, 1) for step in (*range(1, 33), 40, 48, 64, 96, 128)]


@dataclass(frozen=True)
class TaylorPolynomial:
    """f = sum_k coefficients[k] (x - centre)^k on |x - centre| < radius, to 2^-56 of |f| + |x f'|."""

    centre: Fraction
    radius: Fraction
    coefficients: tuple[Fraction, ...]


def polynomials_near_zeros(f: Expr, run: Callable[[float], float]) -> tuple[TaylorPolynomial, ...]:
    """Return the polynomials that `run`, the normal form of a primitive formula f in float64, needs.

    Candidates are the points where |f| + |x f'| vanishes, so that any rounding error is large beside it: the double
    zeros of f, and 0 where f(0) = 0. None is made where the error nearby is at most 2 ulp.
    """
    try:
        pieces = [piece for piece in split(f) if not piece.is_point]
    except UnsplitError:
        return ()
    found = (_polynomial(piece, centre, run) for piece in pieces for centre in _zeros(piece))
    return tuple(polynomial for polynomial in found if polynomial is not None)


def _zeros(piece: Piece) -> Iterator[Fraction]:
    inside = [x for x in sorted({*_GRID, Fraction(0)}) if piece.contains(x)]
    if Fraction(0) in inside and exact_value(piece.f, Fraction(0)) == 0:
        yield Fraction(0)
    signs = [(x, _sign(piece.f, x)) for x in inside]
    for (low, before), (high, after) in pairwise(signs):
        if before * after >= 0 and after != 0:
            continue
        centre = high if after == 0 else _bisected(piece.f, low, high, before)
        value, _, bend = expand(piece.f, centre, 2)
        if centre and bool(abs(value) < abs(bend) * ball(centre * centre / 2**40)):
            yield centre


def _sign(f: Expr, x: Fraction) -> int:
    slope = expand(f, x, 1)[1]
    return 1 if slope > 0 else -1 if slope < 0 else 0


def _bisected(f: Expr, low: Fraction, high: Fraction, before: int) -> Fraction:
    """Return the zero of f' to a double, so that x - centre is exact near it."""
    here = bisected(lambda x: 1 if _sign(f, x) == before else -1, 1, low, high, lambda x: abs(x) / 2**60)
    return Fraction(float(here[0]))


def _polynomial(piece: Piece, centre: Fraction, run: Callable[[float], float]) -> TaylorPolynomial | None:
    f, steps = piece.f, [Fraction(1, 2**k) for k in range(24)]
    steps = [step for step in steps if piece.contains(centre - step) and piece.contains(centre + step)]
    sides = (-1, 1, -_ODD, _ODD)
    bad = [step for step in steps for side in sides if _error(f, centre + side * step, run) > LIMIT]
    balls = expand(f, centre, ORDERS[-1])
    if not bad or not all(c.is_finite() for c in balls):
        return None
    # A polynomial does not converge up to a singularity of f or a breakpoint: then a smaller radius is tried.
    for radius in (step for step in (2 * max(bad), max(bad), max(bad) / 2) if step in steps):
        bounds = _bounds(f, centre, radius)
        for order in ORDERS:
            if bounds[order + 1] * ball(radius) ** (order + 1) * (order + 1) < _allowed(balls, centre, radius, order):
                return TaylorPolynomial(centre, radius, tuple(Fraction(float(c.mid())) for c in balls[: order + 1]))
    return None


def _error(f: Expr, x: Fraction, run: Callable[[float], float]) -> float:
    """Return the error of the normal form at the double next to x, in ulp of |f| + |x f'|."""
    x = Fraction(float(x))
    value, slope = expand(f, x, 1)
    scale = float(abs(value).mid()) + abs(float(x)) * float(abs(slope).mid())
    with flint.ctx.workprec(256):
        return float(abs(arb(run(float(x))) - value).mid()) / float(np.spacing(max(scale, 1e-290)))


def _bounds(f: Expr, centre: Fraction, radius: Fraction) -> list[arb]:
    """Return bounds of |f^(k)| / k! over |x - centre| <= r for every k: by Lagrange the remainders of all orders."""
    width = radius / PARTS
    largest = [arb(0)] * (ORDERS[-1] + 2)
    for k in range(1 - PARTS, PARTS, 2):
        cell = arb(ball(centre + k * width).mid(), float(width) * (1 + 2**-20))
        found = expand(f, cell, ORDERS[-1] + 1)
        sizes = [arb(b.abs_upper()) if b.is_finite() else arb("inf") for b in found]
        largest = [a.max(b) for a, b in zip(largest, sizes, strict=True)]
    return largest


def _allowed(coefficients: list[arb], centre: Fraction, radius: Fraction, order: int) -> arb:
    """Return 2^-56 of the scale at distance r, which falls no faster towards the centre than the remainder does."""
    if centre:
        return abs(coefficients[2]) * ball(abs(centre) * radius / 2**56)
    first = next(k for k, c in enumerate(coefficients) if not c.contains(0))
    return abs(coefficients[first]) * ball(radius**first / 2**56) if first <= order else arb(0)
