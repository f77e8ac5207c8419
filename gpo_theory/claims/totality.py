"""Whether f is defined on all of R: the claim on which every other claim rests."""

__all__ = ["total"]

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

from gpo_theory.calculus.balls import UndecidedError
from gpo_theory.calculus.isolation import signs_of
from gpo_theory.calculus.piece import Section
from gpo_theory.calculus.pieces import UnsplitError, pieces_of
from gpo_theory.calculus.rational import sign_chart
from gpo_theory.certificate import Certificate, proved, refuted
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.domain import asks, fails_at
from gpo_theory.kernel.resolution import UnprovedError
from gpo_theory.kernel.zeros import Zero, left_of, right_of

# Points tried first: numbers at which a formula as people write it is undefined.
_PROBES = dict.fromkeys(Fraction(n, d) for n in (0, 1, -1, 2, -2, 3, -3, 10, -10, 100, -100) for d in (1, 2, 3))


def total(f: Expr) -> Iterator[Certificate]:
    """Propose whether a primitive formula is defined at every real x.

    Each logarithm needs an argument above 0, each quotient a denominator without a zero, each root a base of the right
    sign. A branch of `where` need only be defined where it is taken. Refuted with a point, or with a bracket of one.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> next(total(parse_formula("log(x)").primitive())).witness
    {'kind': 'point', 'x': '0'}
    """
    reason, pieces = "every logarithm, quotient and root is defined wherever it is used", [Section(None, None, f)]
    try:
        pieces += pieces_of(f)
    except UnsplitError as error:
        reason = f"every logarithm, quotient and root is defined at every x (not split: {error})"
    found = (x for piece in pieces for node in _partial(piece.f) for x in _bad_points(node, piece))
    bad = next((x for x in chain(_PROBES, found) if _undefined_at(f, x)), None)
    if bad is not None:
        yield refuted("total", f"undefined at x = {bad}", kind="point", x=str(bad))
        return
    yield proved("total", reason)
    for zero in (zero for node in _partial(f) for zero in _zeros(node.args[0])):
        yield refuted("total", f"undefined at x = {zero}", kind="break", low=str(zero.low), high=str(zero.high))


def _partial(f: Expr) -> Iterator[Expr]:
    """Yield the operations of a formula that are not defined for every argument."""
    for node in f.walk():
        if asks(node) is not None:
            yield node


def _zeros(g: Expr) -> list[Zero]:
    """Return the irrational places at which a formula or a factor changes sign, none where they are not isolated."""
    if g.head == "*" or (g.power is not None and g.power > 0):
        return [zero for factor in (g.args if g.head == "*" else g.args[:1]) for zero in _zeros(factor)]
    try:
        return [x for x in signs_of(g, None, None).places if isinstance(x, Zero)]
    except (UndecidedError, ValueError):
        return []


def _bad_points(node: Expr, piece: Section) -> Iterator[Fraction]:
    """Yield rational points of a piece where an operation may be undefined."""
    if piece.is_point:
        yield piece.sample
        return
    low, high = None if piece.low is None else right_of(piece.low), None if piece.high is None else left_of(piece.high)
    chart = sign_chart(node.args[0], low, high)
    if chart is not None:
        yield from (root.exact for root in chart.roots if root.exact is not None)
        if asks(node) != "nonzero":
            yield from (x for x, sign in zip(chart.samples, chart.signs, strict=True) if sign < 0)


def _undefined_at(f: Expr, x: Fraction) -> bool:
    """Whether f is certainly undefined at x, as the verifier will say."""
    try:
        return fails_at(f, x)
    except (UnprovedError, ArithmeticError, ValueError):
        return False
