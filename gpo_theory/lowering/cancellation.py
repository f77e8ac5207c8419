"""Taylor polynomials with certified remainder, for the points where code is measured to cancel."""

__all__ = ["polynomials_for"]

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from flint import arb
from numpy.typing import NDArray

from gpo_theory.calculus.balls import ball, expand
from gpo_theory.calculus.pieces import Piece, UnsplitError, split
from gpo_theory.formula.expression import Expr
from gpo_theory.lowering.exact_values import special_points
from gpo_theory.lowering.program import TaylorPolynomial

ORDERS = range(6, 42, 4)  # of the polynomials tried, the lowest first
RADII = tuple(Fraction(1, 2**k) for k in range(1, 8))
PARTS = 64  # cells of half-width r / 64 on which the derivatives are enclosed
GAP = 0.25  # between points that are covered together
Points = NDArray[np.float64]


def polynomials_for(f: Expr, order: int, points: Points) -> Iterator[TaylorPolynomial]:
    """Yield polynomials of f^(order) that cover some points and what lies between near ones, as far as there are any.

    A zero of f^(order) or of its slope nearby is a centre, because the scale |f^(order)| + |x f^(order + 1)| may
    vanish there.
    """
    try:
        pieces = [piece for piece in split(f) if not piece.is_point]
    except UnsplitError:
        return
    for piece in pieces:
        inside = np.sort(points[[piece.contains(float(x)) for x in points]]) if len(points) else points
        for group in np.split(inside, np.flatnonzero(np.diff(inside) > GAP) + 1):
            if len(group):
                margin = Fraction(1, 64) + Fraction(group[-1] - group[0]) / 16  # errors beside those seen are as large
                ends = Fraction(group[0]) - margin, Fraction(group[-1]) + margin
                yield from _covering(piece, order, *ends, special_points(f, order))


def _covering(
    piece: Piece, order: int, low: Fraction, high: Fraction, special: tuple[float, ...]
) -> Iterator[TaylorPolynomial]:
    edges, centred = [(low, high)], list[TaylorPolynomial]()
    for centre in (Fraction(c) for c in special if low - Fraction(1, 8) <= c <= high + Fraction(1, 8)):
        found = _polynomial(piece, order, lambda _, c=centre: c, RADII)  # type: ignore[misc]
        if found is not None:
            centred.append(found)
            left, right = found.centre - found.radius, found.centre + found.radius
            edges = [part for a, b in edges for part in ((a, min(b, left)), (max(a, right), b)) if part[0] <= part[1]]
    for a, b in edges:
        radii: tuple[Fraction, ...] = RADII
        while a < b and (found := _polynomial(piece, order, lambda r, a=a: a + r * Fraction(15, 16), radii)):  # type: ignore[misc]
            yield found
            if found.centre + found.radius == piece.high:
                break
            a, radii = found.centre + found.radius * Fraction(15, 16), tuple(r for r in RADII if r <= found.radius)
    yield from centred  # last, so that where others overlap these stand: only they keep the digits at their centre


def _polynomial(
    piece: Piece, order: int, centre_of: Callable[[Fraction], Fraction], radii: tuple[Fraction, ...]
) -> TaylorPolynomial | None:
    """Return the certified polynomial of the largest radius."""
    for radius in radii:
        centre = Fraction(float(centre_of(radius)))
        centre = centre if piece.low is None else max(centre, piece.low + radius)
        centre = centre if piece.high is None else min(centre, piece.high - radius)
        if not piece.contains(centre):
            continue
        coefficients, bounds = _taylor(piece.f, order, centre), _bounds(piece.f, order, centre, radius)
        for n in ORDERS:
            if bounds[n + 1] * ball(radius) ** (n + 1) * (n + 1) < _allowed(coefficients, centre, radius):
                return TaylorPolynomial(centre, radius, tuple(Fraction(float(c.mid())) for c in coefficients[: n + 1]))
    return None


def _taylor(f: Expr, order: int, x: Fraction | arb) -> list[arb]:
    """Return the Taylor coefficients of f^(order) at x."""
    found = expand(f, x, order + ORDERS[-1] + 1)[order:]
    return [c * math.perm(k + order, order) for k, c in enumerate(found)]


def _bounds(f: Expr, order: int, centre: Fraction, radius: Fraction) -> list[arb]:
    """Return bounds of the coefficients all over |x - centre| <= r: by Lagrange the remainders of all orders."""
    width = radius / PARTS
    largest = [arb(0)] * (ORDERS[-1] + 2)
    for k in range(1 - PARTS, PARTS, 2):
        cell = arb(ball(centre + k * width).mid(), float(width) * (1 + 2**-20))
        sizes = [arb(b.abs_upper()) if b.is_finite() else arb("inf") for b in _taylor(f, order, cell)]
        largest = [a.max(b) for a, b in zip(largest, sizes, strict=True)]
    return largest


def _allowed(coefficients: list[arb], centre: Fraction, radius: Fraction) -> arb:
    """Return 2^-56 of the scale at distance r, which falls no faster towards the centre than the remainder does."""
    c, r = [abs(each) for each in coefficients], ball(radius)
    if not all(each.is_finite() for each in c):
        return arb(0)
    if centre:
        parts = [c[0], c[1] * ball(abs(centre)), c[2] * ball(abs(centre)) * r]
    else:
        parts = [each * r**k for k, each in enumerate(c[:4])]
    return arb(max(float(part.lower()) for part in parts)) / 2**56
