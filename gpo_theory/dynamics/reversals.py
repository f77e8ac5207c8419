"""Where the gradient of a loss reverses, and how far from 0 the loss stays convex."""

__all__ = ["Bracket", "convex_around_zero", "reversals_of"]

from dataclasses import dataclass
from fractions import Fraction

from flint import arb, ctx

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import ball, enclose, sign_at
from gpo_theory.calculus.breakpoints import joints
from gpo_theory.calculus.infimum import half_line
from gpo_theory.calculus.pieces import Piece, UnsplitError, split
from gpo_theory.calculus.rational import sign_chart
from gpo_theory.formula.expression import Expr
from gpo_theory.loss import Loss

MOST_BOXES = 4000  # examined before a sign is left undecided; measured: of the catalogue probit needs most, 2,300
SMALLEST = Fraction(1, 2**40)  # least width of a box, and of the bracket around a sign change


@dataclass(frozen=True)
class Bracket:
    """A point known to lie in [low, high]; exact where they are equal. None stands for an infinite end."""

    low: Fraction | None
    high: Fraction | None

    @property
    def exact(self) -> Fraction | None:
        """The point itself where it is rational and known."""
        return self.low if self.low == self.high else None


@dataclass(frozen=True)
class _Run:
    """A formula keeps the sign (0: vanishes) from `start` to `end`."""

    sign: int
    start: Bracket
    end: Bracket


class _UndecidedError(Exception):
    """A sign is not decided."""


def reversals_of(loss: Loss) -> tuple[Bracket, ...] | None:
    """Return every place where f' changes sign, from left to right; None where they are not all isolated.

    Beyond such a place the gradient on a pair without label noise has the opposite sign. Where f' vanishes on an
    interval between the two signs, the bracket holds that interval. A place where f' is 0 without a change of sign is
    none.

    >>> from gpo_theory.loss import parse
    >>> reversals_of(parse("(x-1)**2")), reversals_of(parse("max(0, 1-x)"))
    ((Bracket(low=Fraction(1, 1), high=Fraction(1, 1)),), ())
    """
    try:
        runs = [run for piece in split(loss.f.primitive()) for run in _runs(piece, piece.f.diff())]
    except (UnsplitError, _UndecidedError):
        return None
    out: list[Bracket] = []
    last: _Run | None = None
    for run in runs:
        if run.sign == 0:
            continue
        if last is not None and run.sign == -last.sign:
            out.append(Bracket(last.end.low, run.start.high))
        last = run
    return tuple(out)


def convex_around_zero(loss: Loss) -> tuple[Bracket, Bracket] | None:
    """Return the two ends of the largest interval around 0 on which f is convex.

    There f'' >= 0 on the pieces, and f is continuous with a slope that does not fall at its breakpoints. None where
    there is none, or where it is not decided.

    >>> from gpo_theory.loss import parse
    >>> left, right = convex_around_zero(parse("1/(1+exp(x))**2"))
    >>> round(float(left.low), 9), right.low
    (-0.693147181, None)
    """
    f = loss.f.primitive()
    try:
        pieces = split(f)
        runs = [run for piece in pieces for run in _runs(piece, piece.f.diff().diff())]
        bad = _concave_joints(pieces)
    except (UnsplitError, _UndecidedError):
        return None
    falls = [Bracket(x, x) for x in bad]
    lefts = [run.end for run in runs if run.sign < 0 and run.end.low is not None and run.end.low <= 0]
    rights = [run.start for run in runs if run.sign < 0 and run.start.high is not None and run.start.high >= 0]
    if any(run.sign < 0 and _inside(run, Fraction(0)) for run in runs) or Fraction(0) in bad:
        return None
    lefts += [place for place in falls if place.low is not None and place.low < 0]
    rights += [place for place in falls if place.low is not None and place.low > 0]
    nowhere = Bracket(None, None)
    left = max(lefts, key=lambda b: b.high or Fraction(0), default=nowhere)
    right = min(rights, key=lambda b: b.low or Fraction(0), default=nowhere)
    apart = left.high is None or right.low is None or left.high < right.low
    return (left, right) if apart else None


def _inside(run: _Run, x: Fraction) -> bool:
    return (run.start.high is None or run.start.high < x) and (run.end.low is None or x < run.end.low)


def _concave_joints(pieces: tuple[Piece, ...]) -> list[Fraction]:
    found = joints(pieces)
    if any(joint.continuous is None or joint.bend is None for joint in found):
        raise _UndecidedError
    return [joint.x for joint in found if not joint.continuous or joint.bend == -1]


def _runs(piece: Piece, g: Expr) -> list[_Run]:
    """Return the runs of equal sign of g on an open piece, from left to right."""
    if piece.is_point:
        return []
    low, high = Bracket(piece.low, piece.low), Bracket(piece.high, piece.high)
    chart = sign_chart(g, piece.low, piece.high)
    if chart is None:
        return _isolated(piece, g)
    if not chart.defined:
        raise _UndecidedError
    edges = [low, *(Bracket(root.low, root.high) for root in chart.roots), high]
    return _merged([_Run(sign, edges[i], edges[i + 1]) for i, sign in enumerate(chart.signs)])


def _merged(runs: list[_Run]) -> list[_Run]:
    out = runs[:1]
    for run in runs[1:]:
        if run.sign == out[-1].sign:
            out[-1] = _Run(run.sign, out[-1].start, run.end)
        else:
            out.append(run)
    return out


def _isolated(piece: Piece, g: Expr) -> list[_Run]:
    """Isolate the sign changes by balls: boxes on which g has a sign, and boxes on which it is monotone."""
    tails = [None if end is not None else half_line(piece, g, side) for end, side in ((piece.low, -1), (piece.high, 1))]
    first = piece.low if piece.low is not None else tails[0] and tails[0][0]
    last = piece.high if piece.high is not None else tails[1] and tails[1][0]
    if first is None or last is None:
        raise _UndecidedError
    low, high = Bracket(piece.low, piece.low), Bracket(piece.high, piece.high)
    slope, todo, seen = g.diff(), [(first, last)], 0
    places, signs = list[Bracket](), list[int]()
    while todo:
        spend()
        seen += 1
        a, b = todo.pop()
        found = _sign_on(g, a, b)
        if found:
            signs.append(found)
            places.append(Bracket(b, b))
            continue
        ends = [sign_at(g, x) for x in (a, b)]
        if _sign_on(slope, a, b) and None not in ends:
            inner = [sign for sign in ends if sign]
            change = len(inner) == 2 and inner[0] != inner[1]
            for sign, place in ((inner[0], _narrowed(g, a, b, inner[0]) if change else Bracket(b, b)),
                                *(((inner[1], Bracket(b, b)),) if change else ())):  # fmt: skip
                signs.append(sign)
                places.append(place)
            continue
        if b - a < SMALLEST or seen > MOST_BOXES:
            raise _UndecidedError
        middle, _ = _cut(g, a, b)
        todo += [(middle, b), (a, middle)]
    starts = [low, *places[:-1]]
    places[-1] = high
    return _merged([_Run(*run) for run in zip(signs, starts, places, strict=True)])


def _sign_on(g: Expr, a: Fraction, b: Fraction) -> int:
    """Return the sign of g on [a, b] where balls show one, else 0."""
    with ctx.workprec(128):
        offset = arb(0, 1) * ball((b - a) / 2)
        box = ball((a + b) / 2) + offset
        values = enclose(g, box)
        if not (values > 0 or values < 0):
            values = enclose(g, (a + b) / 2) + enclose(g.diff(), box) * offset
    return 1 if values > 0 else -1 if values < 0 else 0


def _cut(g: Expr, a: Fraction, b: Fraction) -> tuple[Fraction, int]:
    """Return a point between a and b with the sign of g there: the middle, or one beside it where g vanishes there."""
    for share in (Fraction(1, 2), Fraction(31, 64), Fraction(27, 64)):
        sign = sign_at(g, a + share * (b - a))
        if sign is not None:
            return a + share * (b - a), sign
    raise _UndecidedError


def _narrowed(g: Expr, a: Fraction, b: Fraction, sign: int) -> Bracket:
    """Bisect the sign change of g in [a, b], where g has the given sign at a."""
    while b - a > SMALLEST:
        middle, here = _cut(g, a, b)
        if here == 0:
            return Bracket(middle, middle)
        a, b = (middle, b) if here == sign else (a, middle)
    return Bracket(a, b)
