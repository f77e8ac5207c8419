"""A formula on an interval or at one point of it, whose ends are rational (`Piece`) or isolated zeros too."""

__all__ = ["Piece", "Section"]

from dataclasses import dataclass
from fractions import Fraction

from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.zeros import Place, left_of, right_of


@dataclass(frozen=True)
class Section:
    """f on the open interval (low, high), None for an infinite end, or at the single point low = high."""

    low: Place | None
    high: Place | None
    f: Expr

    @property
    def is_point(self) -> bool:
        """Whether the piece is a single breakpoint."""
        return self.low is not None and self.low == self.high

    @property
    def sample(self) -> Fraction:
        """A rational point of the piece."""
        if self.low is None:
            return Fraction(0) if self.high is None else left_of(self.high) - 1
        if self.high is None:
            return right_of(self.low) + 1
        return (right_of(self.low) + left_of(self.high)) / 2

    def contains(self, x: Place | float) -> bool:
        """Whether x certainly lies on the piece; the ends of an interval do not."""
        if self.is_point:
            return x == self.low
        return (self.low is None or self.low < x) and (self.high is None or x < self.high)

    def borders(self, x: Place, side: int) -> bool:
        """Whether the piece holds all points close to x on one side (-1 left, 1 right), x itself apart."""
        return not self.is_point and (self.contains(x) or x == (self.high if side < 0 else self.low))


@dataclass(frozen=True)
class Piece(Section):
    """The same with rational ends."""

    low: Fraction | None
    high: Fraction | None
    f: Expr
