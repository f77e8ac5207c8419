"""What a margin says about the label: the probability p of the pair's order at which x minimises C_p."""

__all__ = ["Implied", "implied", "probability_at"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import inf

from flint import arb, ctx

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.inverse import simplified
from gpo_theory.calculus.pieces import Piece, UnsplitError, beside, split
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, call, piecewise, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.loss import Loss

X, BITS = Expr.x(), 256


@dataclass(frozen=True)
class Implied:
    """p as a formula in the scaled margin x for low <= x <= high; at a breakpoint p may be an interval.

    `formula` is None where none is found, `refusal` says why x has no such meaning for this loss. `low` and `high` are
    exact text where they are known, None where not.
    """

    formula: str | None = None
    low: str | None = None
    high: str | None = None
    refusal: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """Return the JSON form."""
        return {"formula": self.formula, "low": self.low, "high": self.high, "refusal": self.refusal}


def implied(loss: Loss, claims: Mapping[str, Certificate], target: str | None) -> Implied:
    """Return the implied probability f'(-x)/(f'(x) + f'(-x)) as a formula with its domain; `target` is x*(1).

    It is sigmoid(x/c) for a loss that is proved Bradley-Terry exact. Where a convex f rises beyond its target t, no
    probability makes a margin outside [-t, t] optimal.

    >>> from gpo_theory.analysis import analyze
    >>> analyze("squared").implied
    Implied(formula='(1 + x)/2', low='-1', high='1', refusal=None)
    >>> analyze("exponential").implied.formula
    'sigmoid(2*x)'
    """
    exact, reason = claims["bradley_terry_exact"], _reason(loss, claims)
    if exact.verdict is Verdict.PROVED and exact.value is not None:
        return Implied(str(call("sigmoid", X / parse_constant(exact.value["exact"]))), "-inf", "inf")
    if reason is not None:
        return Implied(refusal=reason)
    high = "inf" if claims["monotone_decreasing"].verdict is Verdict.PROVED else target
    low = None if high is None else f"-{high}"
    most = inf if high in (None, "inf") else float(Fraction(str(high)))
    try:
        found = list(_regimes(split(loss.f.primitive()), most))
    except UnsplitError:
        found = []
    formulas = [formula for _, formula in found if formula is not None]
    whole = piecewise(X, [end for end, _ in found[:-1]], formulas) if found and len(formulas) == len(found) else None
    return Implied(None if whole is None else str(whole), low, high)


def probability_at(loss: Loss, x: Fraction, claims: Mapping[str, Certificate]) -> tuple[float, float]:
    """Return the least and the largest p at which the scaled margin x minimises C_p(x) = p f(x) + (1-p) f(-x).

    Raises InputError with the reason where there is none, and for a loss for which that is not shown.

    >>> from gpo_theory.analysis import analyze
    >>> from gpo_theory.catalogue import LOSSES
    >>> probability_at(LOSSES["hinge"], Fraction(1), analyze("hinge").claims)
    (0.5, 1.0)
    """
    reason = _reason(loss, claims)
    if reason is not None:
        raise InputError(reason)
    try:
        pieces = split(loss.f.primitive())
    except UnsplitError as error:
        raise InputError(f"the pieces of {loss.name} are not known exactly: {error}") from None
    right, left = (_slope(pieces, x, side) for side in (1, -1))
    behind, ahead = (_slope(pieces, -x, side) for side in (-1, 1))
    low, high = arb(0), arb(1)
    with ctx.workprec(BITS):
        # C_p' from the right, p f'(x+) - (1-p) f'(-x-) >= 0, and from the left, p f'(x-) - (1-p) f'(-x+) <= 0.
        for total, part in ((right + behind, behind), (-(left + ahead), -ahead)):
            if total < 0:
                high = high.min(part / total)
            elif total > 0:
                low = low.max(part / total)
            elif part > 0 and part > total:
                low = arb(2)
            elif not (total.is_zero() and part <= 0):
                raise InputError(f"the sign of f'(x) + f'(-x) of {loss.name} at x = {x} is not decided")
        if low > high and not (low - high).contains(0):
            raise InputError(f"no probability makes x = {x} optimal for {loss.name}: beyond its target x*(1) f rises")
    return float(low.mid()), float(high.mid())


def _reason(loss: Loss, claims: Mapping[str, Certificate]) -> str | None:
    """Return why a stationary margin of a loss is not shown to tell p, None where it does."""
    if claims["bayes_consistent"].verdict is not Verdict.PROVED:
        return f"{loss.name} is not proved Bayes consistent: its best margin does not tell which response is preferred"
    if any(claims[name].verdict is Verdict.PROVED for name in ("convex", "bradley_terry_exact")):
        return None
    return (f"{loss.name} is not proved convex or Bradley-Terry exact: a margin at which its expected loss is "
            "stationary need not be the best, so it implies no probability")  # fmt: skip


def _slope(pieces: tuple[Piece, ...], x: Fraction, side: int) -> arb:
    return enclose(substitute(beside(pieces, x, side).f.diff(), {X: Expr.of(x)}), x, BITS)


def _regimes(pieces: tuple[Piece, ...], most: float) -> Iterator[tuple[Expr, Expr | None]]:
    """Yield the right end and p for each interval of [-most, most] between the breakpoints of f(x) and f(-x)."""
    edges = {side * x for piece in pieces for x in (piece.low, piece.high) if x is not None for side in (1, -1)}
    for a, b in pairwise([None, *sorted(x for x in edges if abs(x) < most), None]):
        middle = Piece(a, b, X).sample
        slope = beside(pieces, middle, 1).f.diff()
        mirrored = substitute(beside(pieces, -middle, 1).f.diff(), {X: -X})
        yield Expr.of(b or 0), simplified(mirrored, slope + mirrored)
