"""A formula split at its exact breakpoints into smooth pieces: no max, min or where is left on any of them."""

__all__ = ["Piece", "UnsplitError", "breakpoints", "split"]

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, pairwise

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import exact_value, sign_at
from gpo_theory.calculus.rational import sign_chart
from gpo_theory.formula.expression import COMPARISONS, Expr, rebuild

MAX_PIECES = 64


class UnsplitError(Exception):
    """A breakpoint is irrational or cannot be decided exactly."""


@dataclass(frozen=True)
class Piece:
    """f on the open interval (low, high), None for an infinite end, or at the single point low = high."""

    low: Fraction | None
    high: Fraction | None
    f: Expr

    @property
    def is_point(self) -> bool:
        """Whether the piece is a single breakpoint."""
        return self.low is not None and self.low == self.high

    def beside(self, x: Fraction, side: int) -> bool:
        """Whether the piece is the interval next to x, on its right (side 1) or on its left (side -1)."""
        if side > 0:
            return (self.low is None or self.low <= x) and (self.high is None or x < self.high)
        return (self.low is None or self.low < x) and (self.high is None or x <= self.high)

    @property
    def sample(self) -> Fraction:
        """A rational point of the piece."""
        if self.low is None:
            return Fraction(0) if self.high is None else self.high - 1
        return self.low + 1 if self.high is None else (self.low + self.high) / 2


@lru_cache(maxsize=512)
def split(f: Expr) -> tuple[Piece, ...]:
    """Return the pieces of a primitive formula from left to right: interval, point, interval, ..., interval.

    Raises UnsplitError where a breakpoint is irrational or undecided.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> for piece in split(parse_formula("max(0, 1-x)").primitive()):
    ...     print(piece.low, piece.high, piece.f)
    None 1 1 - x
    1 1 0
    1 None 0
    """
    return _merged(_fine(f))


def breakpoints(f: Expr) -> tuple[Fraction, ...]:
    """Return every point at which a decision inside f changes, also where f itself does not."""
    return tuple(piece.low for piece in _fine(f) if piece.is_point and piece.low is not None)


@lru_cache(maxsize=512)
def _fine(f: Expr) -> list[Piece]:
    todo, done = [Piece(None, None, f)], list[Piece]()
    while todo:
        spend()
        piece = todo.pop()
        node = _innermost(piece.f)
        if node is None:
            done.append(piece)
            continue
        todo += _cut(piece, node)
        if len(todo) + len(done) > MAX_PIECES:
            raise UnsplitError(f"more than {MAX_PIECES} pieces")
    return sorted(done, key=_place)


def _place(piece: Piece) -> tuple[int, Fraction, int]:
    if piece.low is None:
        return (0, Fraction(0), 0)
    return (1, piece.low, 0 if piece.is_point else 1)


def _innermost(node: Expr) -> Expr | None:
    """Return a max, min or where whose decision involves smooth formulas only."""
    for child in node.children if node.head != "where" else node.args[0].children:
        inner = _innermost(child)
        if inner is not None:
            return inner
    return node if node.head in ("max", "min", "where") else None


def _differences(node: Expr) -> list[Expr]:
    """Return the formulas whose signs decide a node."""
    if node.head == "where":
        comparisons = [n for n in node.args[0].walk() if n.head in COMPARISONS]
        return [c.args[0] - c.args[1] for c in comparisons]
    return [a - b for a, b in combinations(node.args, 2)]


def _cut(piece: Piece, node: Expr) -> list[Piece]:
    """Split a piece where the decision of `node` changes, and decide it on every part."""
    cuts = set[Fraction]()
    if not piece.is_point:
        for difference in _differences(node):
            cuts |= _zeros(difference, piece)
    edges = [piece.low, *sorted(cuts), piece.high]
    parts = [Piece(a, b, piece.f) for a, b in pairwise(edges)]
    parts += [Piece(c, c, piece.f) for c in cuts]
    return [Piece(p.low, p.high, _replace(p.f, node, _decide(node, p))) for p in parts]


def _zeros(difference: Expr, piece: Piece) -> set[Fraction]:
    if not difference.depends_on_x:
        return set()
    chart = sign_chart(difference, piece.low, piece.high)
    if chart is None:
        raise UnsplitError(f"the sign of {difference} is not decided exactly")
    if any(root.exact is None for root in chart.roots):
        raise UnsplitError(f"{difference} changes sign at an irrational point")
    return {root.exact for root in chart.roots if root.exact is not None}


def _decide(node: Expr, piece: Piece) -> Expr:
    """Return the branch of `node` that holds on the whole of a piece."""
    at = piece.sample
    if node.head == "where":
        condition, yes, no = node.children
        return yes if _holds(condition, at) else no
    best, *others = node.children
    for other in others:
        sign = _sign(other - best, at)
        if (sign > 0) if node.head == "max" else (sign < 0):
            best = other
    return best


def _holds(condition: Expr, at: Fraction) -> bool:
    if condition.head == "and":
        return all(_holds(part, at) for part in condition.args)
    if condition.head == "or":
        return any(_holds(part, at) for part in condition.args)
    sign = _sign(condition.args[0] - condition.args[1], at)
    return {"<": sign < 0, "<=": sign <= 0, ">": sign > 0, ">=": sign >= 0}[condition.head]


def _sign(node: Expr, at: Fraction) -> int:
    exact = exact_value(node, at)
    sign = sign_at(node, at) if exact is None else (exact > 0) - (exact < 0)
    if sign is None:
        raise UnsplitError(f"the sign of {node} at x = {at} is not decided")
    return sign


def _replace(node: Expr, old: Expr, new: Expr) -> Expr:
    if node == old:
        return new
    return rebuild(node, tuple(_replace(child, old, new) for child in node.children))


def _merged(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Join interval, point, interval where one formula holds on all three: a branch that never differed."""
    out = [pieces[0]]
    for point, interval in zip(pieces[1::2], pieces[2::2], strict=True):
        if out[-1].f == point.f == interval.f:
            out[-1] = Piece(out[-1].low, interval.high, out[-1].f)
        else:
            out += [point, interval]
    return tuple(out)
