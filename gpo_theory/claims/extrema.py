"""The least value over pieces whose ends may be irrational, proposed for the verifier to prove."""

__all__ = ["least"]

from dataclasses import replace
from fractions import Fraction

from gpo_theory.calculus.infimum import Infimum, proposed_infimum
from gpo_theory.calculus.isolation import refined
from gpo_theory.calculus.piece import Piece, Section
from gpo_theory.kernel.zeros import Place, Zero, vanishes

SHARP = tuple(Fraction(1, 2**k) for k in (60, 30))  # relative widths of the brackets of irrational ends, tried in turn
CLOSE = 1e-9  # relative distance within which a value at an irrational end is taken for a constant beside it


def least(pieces: tuple[Section, ...]) -> Infimum | None:
    """Return the infimum over all pieces; one reached at an irrational end is exact where it is 0 or a constant there.

    >>> from gpo_theory.calculus.pieces import pieces_of
    >>> from gpo_theory.formula.grammar import parse_formula
    >>> least(pieces_of(parse_formula("abs(x-log(2))").primitive())).exact
    '0'
    """
    found, irrational = None, any(isinstance(x, Zero) for p in pieces for x in (p.low, p.high))
    for width in SHARP if irrational else SHARP[:1]:
        found = found or proposed_infimum(tuple(Piece(_near(p.low, width), _near(p.high, width), p.f) for p in pieces))
    if found is None or found.near in ("inf", "-inf"):
        return found
    left, right = (found.near, found.near) if isinstance(found.near, str) else found.near[:2]
    ends = [(x, p.f) for p in pieces for x in (p.low, p.high) if isinstance(x, Zero)]
    around = [(x, f) for x, f in ends if x.low <= Fraction(right) and Fraction(left) <= x.high]
    constants = [(x, f.number) for x, f in around if f.number is not None]
    constants += [(x, Fraction(0)) for x, f in around if vanishes(f, x)]
    for x, c in constants:
        if abs(float(c) - found.value) <= CLOSE * (abs(c) or 1):
            return replace(found, exact=str(c), value=float(c), near=str((x.low + x.high) / 2))
    return replace(found, exact=None, near=left) if around else found


def _near(end: Place | None, width: Fraction) -> Fraction | None:
    """Return an end, or a rational close to an irrational one."""
    if not isinstance(end, Zero):
        return end
    found = refined(end, abs(end.high) * width)
    return (found.low + found.high) / 2
