"""What happens at the breakpoints of f: is it continuous there, and which way does the slope jump?"""

__all__ = ["Joint", "joints"]

from dataclasses import dataclass
from fractions import Fraction

from gpo_theory.calculus.balls import enclose, exact_value, sign_at
from gpo_theory.calculus.pieces import Piece
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.expansion import cancelled


@dataclass(frozen=True)
class Joint:
    """One breakpoint: `continuous` (None: undecided), `bend` the sign of f'(x+) - f'(x-), the two slopes as text."""

    x: Fraction
    continuous: bool | None
    bend: int | None
    left_slope: str
    right_slope: str


def joints(pieces: tuple[Piece, ...]) -> list[Joint]:
    """Return the breakpoints of a split formula from left to right.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> from gpo_theory.calculus.pieces import split
    >>> joints(split(parse_formula("max(0, -x)").primitive()))
    [Joint(x=Fraction(0, 1), continuous=True, bend=1, left_slope='-1', right_slope='0')]
    """
    return [_joint(*pieces[i : i + 3]) for i in range(0, len(pieces) - 1, 2)]


def _joint(left: Piece, point: Piece, right: Piece) -> Joint:
    x = point.sample
    signs = [_difference(side.f, point.f, x) for side in (left, right)]
    continuous = None if None in signs else signs == [0, 0]
    slopes = [side.f.diff() for side in (left, right)]
    return Joint(x, continuous, _difference(slopes[1], slopes[0], x), *(_text(slope, x) for slope in slopes))


def _difference(a: Expr, b: Expr, x: Fraction) -> int | None:
    return 0 if a == b else sign_at(cancelled(a - b), x)


def _text(slope: Expr, x: Fraction) -> str:
    exact = exact_value(slope, x)
    return str(exact) if exact is not None else enclose(slope, x).str(12, radius=False)
