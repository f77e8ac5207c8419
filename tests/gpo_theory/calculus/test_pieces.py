"""Pieces of a formula: which points lie on them or border them, and the signs of derivatives, by hand."""

from fractions import Fraction

import pytest

from gpo_theory import parse
from gpo_theory.calculus.pieces import Piece, beside, clipped, sign_charts, split

HINGE = split(parse("max(0, 1-x)").f.primitive())  # 1 - x up to 1, the point 1, 0 from there on


@pytest.mark.parametrize(("x", "on", "left", "right"), [("1/2", 0, 0, 0), ("1", 1, 0, 2), ("3", 2, 2, 2)])
def test_a_point_lies_on_one_piece_and_borders_two(x: str, on: int, left: int, right: int) -> None:
    at = Fraction(x)
    assert [piece.contains(at) for piece in HINGE] == [i == on for i in range(3)]
    assert beside(HINGE, at, -1) is HINGE[left]
    assert beside(HINGE, at, 1) is HINGE[right]


@pytest.mark.parametrize(("low", "high", "ends"), [
    (None, None, [(None, 1), (1, 1), (1, None)]),
    ("0", None, [(0, 1), (1, 1), (1, None)]),
    ("1", "4", [(1, 1), (1, 1), (1, 4)]),
    ("2", "4", [(2, 4)]),
])  # fmt: skip
def test_pieces_are_cut_at_the_ends_of_an_interval(low: str | None, high: str | None, ends: list) -> None:
    found = clipped(HINGE, *(None if end is None else Fraction(end) for end in (low, high)))
    assert [(piece.low, piece.high) for piece in found] == ends


def test_signs_of_derivatives() -> None:
    pieces = split(parse("max(0, 1-x)**3").f.primitive())
    assert [chart.signs for _, chart in sign_charts(pieces, 1) if chart] == [(-1,), (0,)]
    assert [chart.signs for _, chart in sign_charts(pieces, 2) if chart] == [(1,), (0,)]
    whole = (Piece(None, None, parse("x**4 - 6*x**2").f.primitive()),)  # f'' = 12 (x^2 - 1)
    assert [chart.signs for _, chart in sign_charts(whole, 2) if chart] == [(1, -1, 1)]
