"""A formula split at its exact breakpoints into smooth pieces, free of max, min and where, and how these join."""

__all__ = ["Joint", "Piece", "UnsplitError", "beside", "breakpoints", "clipped", "decided", "differences", "joints",
           "sign_charts", "split"]  # fmt: skip

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial, reduce
from itertools import combinations, pairwise

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import constant_at, sign_at
from gpo_theory.calculus.rational import SignChart, sign_chart
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.operations import CHOICES, COMPARISONS
from gpo_theory.kernel.expansion import cancelled, expanded
from gpo_theory.kernel.inequality import root_factors

MAX_PIECES = 64  # nested decisions multiply: a limit on time


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

    @property
    def sample(self) -> Fraction:
        """A rational point of the piece."""
        if self.low is None:
            return Fraction(0) if self.high is None else self.high - 1
        return self.low + 1 if self.high is None else (self.low + self.high) / 2

    def contains(self, x: Fraction | float) -> bool:
        """Whether x lies on the piece; the ends of an interval do not."""
        if self.is_point:
            return x == self.low
        return (self.low is None or self.low < x) and (self.high is None or x < self.high)

    def borders(self, x: Fraction, side: int) -> bool:
        """Whether the piece holds all points close to x on one side (-1 left, 1 right), x itself apart."""
        return not self.is_point and (self.contains(x) or x == (self.high if side < 0 else self.low))


def beside(pieces: Iterable[Piece], x: Fraction, side: int) -> Piece:
    """Return the piece that holds all points close to x on one side (-1 left, 1 right)."""
    return next(piece for piece in pieces if piece.borders(x, side))


def clipped(pieces: Iterable[Piece], low: Fraction | None, high: Fraction | None) -> list[Piece]:
    """Return the parts of the pieces that lie in [low, high], None for no end."""
    out = []
    for piece in pieces:
        left = max((end for end in (piece.low, low) if end is not None), default=None)
        right = min((end for end in (piece.high, high) if end is not None), default=None)
        if left is None or right is None or left <= right:
            out.append(Piece(left, right, piece.f))
    return out


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
    """Return the pieces between all decisions inside f, also where f is the same formula on both sides."""
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
    """Return the sort key from left to right, a point before the interval that starts there."""
    if piece.low is None:
        return (0, Fraction(0), 0)
    return (1, piece.low, 0 if piece.is_point else 1)


def _innermost(node: Expr) -> Expr | None:
    """Return a max, min or where whose decision involves smooth formulas only."""
    for child in node.children if node.head != "where" else node.args[0].children:
        inner = _innermost(child)
        if inner is not None:
            return inner
    return node if node.head in CHOICES else None


def differences(node: Expr) -> list[Expr]:
    """Return the formulas whose signs decide a max, min or where."""
    if node.head == "where":
        comparisons = [n for n in node.args[0].walk() if n.head in COMPARISONS]
        return [c.args[0] - c.args[1] for c in comparisons]
    return [a - b for a, b in combinations(node.args, 2)]


def _cut(piece: Piece, node: Expr) -> list[Piece]:
    """Split a piece where the decision of `node` changes, and decide it on every part."""
    cuts = set[Fraction]()
    if not piece.is_point:
        for difference in differences(node):
            cuts |= _zeros(difference, piece)
    edges = [piece.low, *sorted(cuts), piece.high]
    parts = [Piece(a, b, piece.f) for a, b in pairwise(edges)]
    parts += [Piece(c, c, piece.f) for c in cuts]
    return [Piece(p.low, p.high, substitute(p.f, {node: decided(node, partial(_sign, at=p.sample))})) for p in parts]


def _zeros(difference: Expr, piece: Piece) -> set[Fraction]:
    """Return the zeros of a difference on a piece; raises UnsplitError where they are not known as rationals."""
    if not difference.depends_on_x:
        return set()
    chart = sign_chart(difference, piece.low, piece.high)
    if chart is None:
        raise UnsplitError(f"the sign of {difference} is not decided exactly")
    if any(root.exact is None for root in chart.roots):
        raise UnsplitError(f"{difference} changes sign at an irrational point")
    return {root.exact for root in chart.roots if root.exact is not None}


def decided(node: Expr, sign: Callable[[Expr], int]) -> Expr:
    """Return the argument that a max, min or where takes, given the signs of its `differences`."""
    if node.head == "where":
        condition, yes, no = node.children
        return yes if _holds(condition, sign) else no
    best, *others = node.children
    better = COMPARISONS[">" if node.head == "max" else "<"]
    for other in others:
        best = other if better(sign(other - best), 0) else best
    return best


def _holds(condition: Expr, sign: Callable[[Expr], int]) -> bool:
    if condition.head in ("and", "or"):
        return (all if condition.head == "and" else any)(_holds(part, sign) for part in condition.args)
    return bool(COMPARISONS[condition.head](sign(condition.args[0] - condition.args[1]), 0))


def _sign(node: Expr, at: Fraction) -> int:
    sign = sign_at(node, at)
    if sign is None:
        raise UnsplitError(f"the sign of {node} at x = {at} is not decided")
    return sign


def _merged(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Join interval, point, interval where one formula holds on all three."""
    out = [pieces[0]]
    for point, interval in zip(pieces[1::2], pieces[2::2], strict=True):
        if out[-1].f == point.f == interval.f:
            out[-1] = Piece(out[-1].low, interval.high, out[-1].f)
        else:
            out += [point, interval]
    return tuple(out)


def sign_charts(pieces: Iterable[Piece], order: int) -> Iterator[tuple[Piece, SignChart | None]]:
    """Yield every open piece with the exact signs of a derivative of f on it (None where there is no exact form)."""
    for piece in pieces:
        if not piece.is_point:
            g = reduce(lambda f, _: f.diff(), range(order), piece.f)
            yield piece, sign_chart(_without_roots(expanded(g) or g), piece.low, piece.high)


def _without_roots(g: Expr) -> Expr:
    """Return a formula with the sign of g where g is defined: a root that its terms share, as what stands under it."""
    roots, rest = root_factors(g)
    return reduce(lambda out, root: out * root[0] ** (1 if root[1] > 0 else -1), roots.items(), rest)


@dataclass(frozen=True)
class Joint:
    """One breakpoint: `continuous` (None: undecided), `bend` the sign of f'(x+) - f'(x-), the slopes as exact text."""

    x: Fraction
    continuous: bool | None
    bend: int | None
    left_slope: str
    right_slope: str


def joints(pieces: tuple[Piece, ...]) -> list[Joint]:
    """Return the breakpoints of a split formula from left to right.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> joints(split(parse_formula("max(0, -x)").primitive()))
    [Joint(x=Fraction(0, 1), continuous=True, bend=1, left_slope='-1', right_slope='0')]
    """
    return [_joint(*pieces[i : i + 3]) for i in range(0, len(pieces) - 1, 2)]


def _joint(left: Piece, point: Piece, right: Piece) -> Joint:
    x = point.sample
    signs = [_difference(side.f, point.f, x) for side in (left, right)]
    continuous = None if None in signs else signs == [0, 0]
    slopes = [side.f.diff() for side in (left, right)]
    return Joint(x, continuous, _difference(slopes[1], slopes[0], x), *(str(constant_at(slope, x)) for slope in slopes))


def _difference(a: Expr, b: Expr, x: Fraction) -> int | None:
    return 0 if a == b else sign_at(cancelled(a - b), x)
