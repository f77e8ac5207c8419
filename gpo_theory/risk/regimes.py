"""The minimiser of C_p in closed form: for which p > 1/2 it lies on which piece of f, and its formula there."""

__all__ = ["P", "Regime", "regimes_of"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import inf, nextafter

from gpo_theory.calculus.balls import enclose, exact_value, sign_at
from gpo_theory.calculus.infimum import infimum_of
from gpo_theory.calculus.inverse import inverses
from gpo_theory.calculus.pieces import Piece, UnsplitError, beside, split
from gpo_theory.calculus.tails import slope_tail
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.formula.expression import Expr, call, substitute
from gpo_theory.formula.grammar import parse_constant

P, X = Expr("parameter", ("p",)), Expr.x()
HALF, ONE = Fraction(1, 2), Fraction(1)


@dataclass(frozen=True)
class Regime:
    """For low < p < high the least minimiser of C_p is `x`, a formula in p; f is `ahead` there and `behind` at -x."""

    low: Fraction
    high: Fraction
    x: Expr
    ahead: Expr
    behind: Expr

    @property
    def both_sides(self) -> bool:
        """Whether one formula holds for p < 1/2 too, because f is one piece all the way."""
        return self.ahead == self.behind and any(node == P for node in self.x.walk())


class _OpenError(Exception):
    """For some p no closed form of the minimiser is found."""


def regimes_of(f: Expr, claims: Mapping[str, Certificate]) -> tuple[Regime, ...]:
    """Return the regimes that cover 1/2 < p < 1 for a Bradley-Terry exact or a convex f; empty where not all are found.

    >>> from gpo_theory.analysis import analyze
    >>> from gpo_theory.loss import parse
    >>> loss = parse("max(0, 1-x)**3")
    >>> [str(r.x) for r in regimes_of(loss.f.primitive(), analyze(loss).claims)]
    ['(p**(1/2) - (1 - p)**(1/2))/(p**(1/2) + (1 - p)**(1/2))']
    """
    try:
        pieces = [piece for piece in split(f) if not piece.is_point]
        exact = claims["bradley_terry_exact"]
        if exact.verdict is Verdict.PROVED and exact.value is not None:
            found = [_logit(pieces, parse_constant(exact.value["exact"]))]
        elif claims["convex"].verdict is Verdict.PROVED:
            found = list(_outwards(f, pieces))
        else:
            return ()
    except (UnsplitError, _OpenError):
        return ()
    covered = bool(found) and found[0].low == HALF and found[-1].high == ONE
    return tuple(found) if covered and all(_confirmed(f, regime) for regime in found) else ()


def _logit(pieces: list[Piece], c: Expr) -> Regime:
    """P3: x* = c log(p/(1-p)), where f is one piece on each side of 0."""
    if any(piece.low not in (None, Fraction(0)) for piece in pieces):
        raise _OpenError
    return Regime(HALF, ONE, c * call("log", P / (1 - P)), pieces[-1].f, pieces[0].f)


def _outwards(f: Expr, pieces: list[Piece]) -> Iterator[Regime]:
    """Follow r(x) = f'(-x)/f'(x), the odds p/(1-p) at which x is optimal, from x = 0 on; r rises for a convex f."""
    edges = sorted({abs(x) for piece in pieces for x in (piece.low, piece.high) if x is not None} | {Fraction(0)})
    reached = ONE  # the odds up to which the minimiser is known
    for a, b in pairwise([*edges, None]):
        assert a is not None
        middle = a + 1 if b is None else (a + b) / 2
        ahead, behind = (beside(pieces, side * middle, 1).f for side in (1, -1))
        mirrored = substitute(behind.diff(), {X: -X})
        start = _odds(ahead.diff(), mirrored, a)
        if start is None or start > reached:
            yield Regime(_p(reached), _p(start), Expr.of(a), ahead, behind)
            if start is None:
                return
            reached = start
        end = _odds(ahead.diff(), mirrored, b) if b is not None else None
        if b is None and not _odds_unbounded(f):
            raise _OpenError
        if end is None or end > reached:
            yield _solved(f, Regime(_p(reached), _p(end), Expr.of(a), ahead, behind), mirrored)
            if end is None:
                return
            reached = end


def _p(odds: Fraction | None) -> Fraction:
    """Return the probability with these odds, 1 where they are infinite (None)."""
    return ONE if odds is None else odds / (1 + odds)


def _odds(slope: Expr, mirrored: Expr, x: Fraction) -> Fraction | None:
    """Return f'(-x)/f'(x) at an edge, None where it is infinite."""
    if slope == substitute(mirrored, {X: -X}) and x == 0 and sign_at(slope, x) == -1:
        return ONE
    if sign_at(slope, x) in (0, 1) and sign_at(mirrored, x) == -1:
        return None
    values = exact_value(slope, x), exact_value(mirrored, x)
    if values[0] is None or values[1] is None or values[0] >= 0:
        raise _OpenError
    return values[1] / values[0]


def _odds_unbounded(f: Expr) -> bool:
    """Whether f' tends to 0 or to a positive limit as x -> inf, so that the odds tend to infinity."""
    end = slope_tail(f, 1)
    return end.verdict == "proved" and end.limit is not None and (end.limit == "0" or end.limit.startswith("-"))


def _solved(f: Expr, regime: Regime, mirrored: Expr) -> Regime:
    """Return the regime with x solved from (1-p) f'(-x) = p f'(x) and confirmed."""
    for x in inverses(mirrored, regime.ahead.diff(), (P, 1 - P)):
        found = Regime(regime.low, regime.high, x, regime.ahead, regime.behind)
        if _confirmed(f, found):
            return found
    raise _OpenError


def _confirmed(f: Expr, regime: Regime) -> bool:
    """Whether the formula lies in the certified enclosure of the minimiser at points of its range."""
    width = regime.high - regime.low
    for share in (Fraction(1, 7), HALF, Fraction(9, 10)):
        p = regime.low + share * width
        found = infimum_of(p * f + (1 - p) * substitute(f, {X: -X}))
        value = enclose(substitute(regime.x, {P: Expr.of(p)}), Fraction(0), 192)
        if found is None or not value.is_finite():
            return False
        low, high = nextafter(float(value.lower()), -inf), nextafter(float(value.upper()), inf)
        if high < found.left or low > found.right:
            return False
    return True
