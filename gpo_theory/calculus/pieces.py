"""A formula split at its breakpoints into smooth pieces, free of max, min and where, and how these join.

A breakpoint is a rational number or an isolated zero; only who asks for `pieces_of` is given the latter.
"""

__all__ = ["Joint", "Piece", "UnsplitError", "beside", "breakpoints", "clipped", "cuts_of", "decided", "differences",
           "far", "joints", "near", "pieces_of", "sign_charts", "split", "without_roots"]  # fmt: skip

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial, reduce
from itertools import combinations, pairwise
from typing import TypeVar

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import UndecidedError, constant_at, enclose, sign_at
from gpo_theory.calculus.half_lines import half_line
from gpo_theory.calculus.isolation import ORDERS, refined, signs_of
from gpo_theory.calculus.piece import Piece, Section
from gpo_theory.calculus.rational import SignChart, sign_chart
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.operations import CHOICES, COMPARISONS
from gpo_theory.kernel.expansion import cancelled, expanded
from gpo_theory.kernel.inequality import root_factors
from gpo_theory.kernel.resolution import same_at
from gpo_theory.kernel.zeros import Place, Zero, at, left_of, right_of, vanishes

S = TypeVar("S", bound=Section)
MAX_PIECES = 64  # nested decisions multiply: a limit on time
APART = tuple(Fraction(1, 2**k) for k in (64, 96, 160))  # widths of brackets tried until two zeros are apart


class UnsplitError(Exception):
    """A breakpoint cannot be decided exactly, or is irrational where only rationals are of use."""


def beside(pieces: Iterable[S], x: Place, side: int) -> S:
    """Return the piece that holds all points close to x on one side (-1 left, 1 right).

    Raises UnsplitError where x lies in the bracket of an irrational breakpoint.
    """
    found = next((piece for piece in pieces if piece.borders(x, side)), None)
    if found is None:
        raise UnsplitError(f"whether x = {x} is a breakpoint is not decided")
    return found


def clipped(pieces: Iterable[S], low: Fraction | None, high: Fraction | None) -> list[S]:
    """Return the parts of the pieces that lie in [low, high], None for no end."""
    out = list[S]()
    for piece in pieces:
        left = max((end for end in (piece.low, low) if end is not None), default=None)
        right = min((end for end in (piece.high, high) if end is not None), default=None)
        if left is None or right is None or left <= right:
            out.append(replace(piece, low=left, high=right))
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
    out = list[Piece]()
    for piece in pieces_of(f):
        if isinstance(piece.low, Zero) or isinstance(piece.high, Zero):
            raise UnsplitError(f"it changes at the irrational x = {piece.high if piece.low is None else piece.low}")
        out.append(Piece(piece.low, piece.high, piece.f))
    return tuple(out)


@lru_cache(maxsize=512)
def pieces_of(f: Expr) -> tuple[Section, ...]:
    """Return the pieces of a primitive formula as `split` does, also where breakpoints are irrational.

    Raises UnsplitError where a breakpoint is not isolated.
    """
    return _merged(_fine(f))


def near(f: Expr, x: Fraction, side: int) -> Expr:
    """Return the smooth formula that f is close to x on one side (-1, 1), or at x (0); raises UnsplitError."""

    def sign(g: Expr) -> int:
        for k in range(ORDERS if side else 1):
            here = _sign(g, x)
            if here:
                return here * (side if k % 2 else 1)
            g = g.diff()
        if expanded(g) != Expr.of(0):
            raise UnsplitError(f"the sign of {g} close to x = {x} is not decided")
        return 0

    return _resolved(f, sign if side else partial(_sign, x=x))


def far(f: Expr, side: int) -> Expr:
    """Return the smooth formula that f is far out on one side (-1 left, 1 right); raises UnsplitError."""

    def sign(g: Expr) -> int:
        for form in dict.fromkeys((g, expanded(g) or g)):
            found = half_line(Section(None, None, form), side)
            if found is not None:
                return found.sign
        raise UnsplitError(f"the sign of {g} far out is not decided")

    return _resolved(f, sign)


def _resolved(f: Expr, sign: Callable[[Expr], int]) -> Expr:
    while (node := _innermost(f)) is not None:
        spend()
        f = substitute(f, {node: decided(node, sign)})
    return f


def cuts_of(f: Expr) -> tuple[Place, ...]:
    """Return every place at which a decision inside f changes, also where f itself does not."""
    return tuple(piece.low for piece in _fine(f) if piece.is_point and piece.low is not None)


def breakpoints(f: Expr) -> tuple[Fraction, ...]:
    """Return what `cuts_of` does; raises UnsplitError where one of them is irrational."""
    places = cuts_of(f)
    rational = tuple(place for place in places if isinstance(place, Fraction))
    if len(rational) < len(places):
        raise UnsplitError("a breakpoint is irrational")
    return rational


@lru_cache(maxsize=512)
def _fine(f: Expr) -> list[Section]:
    """Return the pieces between all decisions inside f, also where f is the same formula on both sides."""
    todo, done = [Section(None, None, f)], list[Section]()
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


def _place(piece: Section) -> tuple[int, Fraction, int]:
    """Return the sort key from left to right, a point before the interval that starts there."""
    if piece.low is None:
        return (0, Fraction(0), 0)
    return (1, left_of(piece.low), 0 if piece.is_point else 1)


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


def _cut(piece: Section, node: Expr) -> list[Section]:
    """Split a piece where the decision of `node` changes, and decide it on every part."""
    cuts, ends = list[Place](), [end for end in (piece.low, piece.high) if end is not None]
    for difference in differences(node) if not piece.is_point else ():
        for place in _zeros(difference, piece, node.head == "where"):
            new = _apart(difference, place, [*ends, *cuts])
            cuts += [new] if new is not None and all(a < new < b for a, b in _around(piece, new)) else []
    edges = [piece.low, *sorted(cuts, key=left_of), piece.high]
    parts = [Section(a, b, piece.f) for a, b in pairwise(edges)]
    parts += [Section(c, c, piece.f) for c in cuts]
    return [Section(p.low, p.high, substitute(p.f, {node: decided(node, partial(_sign, x=_inside(p)))})) for p in parts]


def _inside(piece: Section) -> Place:
    """Return a point of the piece, the breakpoint itself where it is one."""
    return piece.low if piece.is_point and piece.low is not None else piece.sample


def _around(piece: Section, x: Place) -> Iterator[tuple[Place, Place]]:
    """Yield (low, high) of the piece, with x beside an infinite end replaced by a point beyond it."""
    low = left_of(x) - 1 if piece.low is None else piece.low
    yield low, right_of(x) + 1 if piece.high is None else piece.high


def _zeros(difference: Expr, piece: Section, at_points: bool) -> tuple[Place, ...]:
    """Return the zeros of a difference on a piece; raises UnsplitError where they are not isolated.

    A maximum need not be cut where its arguments only touch; `at_points`: the zeros themselves matter.
    """
    if not difference.depends_on_x:
        return ()
    low = None if piece.low is None else left_of(piece.low)
    try:
        found = signs_of(difference, low, None if piece.high is None else right_of(piece.high))
    except UndecidedError:
        raise UnsplitError(f"the sign of {difference} is not decided exactly") from None
    if found.touches and at_points:
        raise UnsplitError(f"{difference} is 0 at an irrational point without a change of sign")
    return found.places


def _apart(g: Expr, place: Place, known: list[Place]) -> Place | None:
    """Return a zero of g in a bracket apart from all known places, None where it is one of them."""
    for other in known:
        if place == other or (isinstance(other, Zero) and not (place < other or place > other) and vanishes(g, other)):
            return None
        for width in APART:
            if place < other or place > other:
                break
            if not isinstance(place, Zero):
                raise UnsplitError(f"whether x = {place} is {other} is not decided")
            try:
                place = refined(place, width * max(abs(place.low), abs(place.high)))
            except UndecidedError:
                break
        if not (place < other or place > other):
            raise UnsplitError(f"whether {place} is {other} is not decided")
    return place


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


def _sign(node: Expr, x: Place) -> int:
    value = at(node, x)
    shown = value.a > 0 or value.b < 0 or value.a == value.b == 0
    sign = int(value.a > 0) - int(value.b < 0) if shown else None if isinstance(x, Zero) else sign_at(node, x)
    if sign is None:
        raise UnsplitError(f"the sign of {node} at x = {x} is not decided")
    return sign


def _merged(pieces: list[Section]) -> tuple[Section, ...]:
    """Join interval, point, interval where one formula holds on all three."""
    out = [pieces[0]]
    for point, interval in zip(pieces[1::2], pieces[2::2], strict=True):
        if out[-1].f == interval.f and (point.f == interval.f or same_at(point.f, interval.f, _inside(point))):
            out[-1] = Section(out[-1].low, interval.high, out[-1].f)
        else:
            out += [point, interval]
    return tuple(out)


def sign_charts(pieces: Iterable[S], order: int) -> Iterator[tuple[S, SignChart | None]]:
    """Yield every open piece with the exact signs of a derivative of f on it (None where there is no exact form)."""
    for piece in pieces:
        if not piece.is_point:
            g = reduce(lambda f, _: f.diff(), range(order), piece.f)
            low = None if piece.low is None else right_of(piece.low)
            high = None if piece.high is None else left_of(piece.high)
            yield piece, sign_chart(without_roots(expanded(g) or g), low, high)


def without_roots(g: Expr) -> Expr:
    """Return a formula with the sign of g where g is defined: a root that its terms share, as what stands under it."""
    roots, rest = root_factors(g)
    return reduce(lambda out, root: out * root[0] ** (1 if root[1] > 0 else -1), roots.items(), rest)


@dataclass(frozen=True)
class Joint:
    """One breakpoint: `continuous` (None: undecided), `bend` the sign of f'(x+) - f'(x-), the slopes as exact text.

    At an irrational breakpoint the slopes have no text.
    """

    x: Place
    continuous: bool | None
    bend: int | None
    left_slope: str
    right_slope: str

    @property
    def witness(self) -> dict[str, str]:
        """The witness that f or f' jumps there."""
        if isinstance(self.x, Zero):
            return {"kind": "break", "low": str(self.x.low), "high": str(self.x.high)}
        if not self.continuous:
            return {"kind": "point", "x": str(self.x)}
        return {"kind": "kink", "x": str(self.x), "left": self.left_slope, "right": self.right_slope}


def joints(pieces: tuple[Section, ...]) -> list[Joint]:
    """Return the breakpoints of a split formula from left to right.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> joints(split(parse_formula("max(0, -x)").primitive()))
    [Joint(x=Fraction(0, 1), continuous=True, bend=1, left_slope='-1', right_slope='0')]
    """
    return [_joint(*pieces[i : i + 3]) for i in range(0, len(pieces) - 1, 2)]


def _joint(left: Section, point: Section, right: Section) -> Joint:
    x = _inside(point)
    signs = [_difference(side.f, point.f, x) for side in (left, right)]
    continuous = None if None in signs else signs == [0, 0]
    slopes = [side.f.diff() for side in (left, right)]
    texts = ("", "") if isinstance(x, Zero) else (str(constant_at(slope, x)) for slope in slopes)
    finite = isinstance(x, Zero) or all(enclose(slope, x).is_finite() for slope in slopes)
    return Joint(x, continuous, _difference(slopes[1], slopes[0], x) if finite else None, *texts)


def _difference(a: Expr, b: Expr, x: Place) -> int | None:
    if a == b or (isinstance(x, Zero) and same_at(a, b, x)):
        return 0
    try:
        return _sign(cancelled(a - b), x)
    except UnsplitError:
        return None
