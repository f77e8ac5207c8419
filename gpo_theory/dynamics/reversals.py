"""Where the gradient of a loss reverses, and how far from 0 the loss stays convex."""

__all__ = ["Bracket", "convex_around_zero", "reversals_of", "runs"]

from dataclasses import dataclass
from fractions import Fraction

from gpo_theory.calculus.balls import UndecidedError
from gpo_theory.calculus.isolation import isolated
from gpo_theory.calculus.pieces import Piece, UnsplitError, joints, split, without_roots
from gpo_theory.calculus.rational import sign_chart
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.expansion import expanded
from gpo_theory.loss import Loss


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
class Run:
    """A formula keeps the sign (0: vanishes) from `start` to `end`."""

    sign: int
    start: Bracket
    end: Bracket


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
        found = [run for piece in split(loss.f.primitive()) for run in runs(piece, piece.f.diff())]
    except (UnsplitError, UndecidedError):
        return None
    out: list[Bracket] = []
    last: Run | None = None
    for run in found:
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
        concave = [run for piece in pieces for run in _merged(runs(piece, piece.f.diff().diff())) if run.sign < 0]
        bad = _concave_joints(pieces)
    except (UnsplitError, UndecidedError):
        return None
    falls = [Bracket(x, x) for x in bad]
    lefts = [run.end for run in concave if run.end.low is not None and run.end.low <= 0]
    rights = [run.start for run in concave if run.start.high is not None and run.start.high >= 0]
    if any(_inside(run, Fraction(0)) for run in concave) or Fraction(0) in bad:
        return None
    lefts += [place for place in falls if place.low is not None and place.low < 0]
    rights += [place for place in falls if place.low is not None and place.low > 0]
    nowhere = Bracket(None, None)
    left = max(lefts, key=lambda b: b.high or Fraction(0), default=nowhere)
    right = min(rights, key=lambda b: b.low or Fraction(0), default=nowhere)
    apart = left.high is None or right.low is None or left.high < right.low
    return (left, right) if apart else None


def _inside(run: Run, x: Fraction) -> bool:
    return (run.start.high is None or run.start.high < x) and (run.end.low is None or x < run.end.low)


def _concave_joints(pieces: tuple[Piece, ...]) -> list[Fraction]:
    found = joints(pieces)
    if any(joint.continuous is None or joint.bend is None for joint in found):
        raise UndecidedError
    concave = [joint.x for joint in found if not joint.continuous or joint.bend == -1]
    return [x for x in concave if isinstance(x, Fraction)]  # all of them: these pieces have rational ends


def runs(piece: Piece, g: Expr) -> list[Run]:
    """Return the runs of equal sign of g on an open piece, from left to right; between two of them g is 0.

    Raises UndecidedError where the zeros are not all isolated.
    """
    if piece.is_point:
        return []
    low, high = Bracket(piece.low, piece.low), Bracket(piece.high, piece.high)
    chart = sign_chart(without_roots(expanded(g) or g), piece.low, piece.high)
    if chart is None:
        places, signs = isolated(g, piece)
        edges = [low, *(Bracket(*ends) for ends in places), high]
        return _merged([Run(sign, edges[i], edges[i + 1]) for i, sign in enumerate(signs)])
    if not chart.defined:
        raise UndecidedError
    edges = [low, *(Bracket(root.low, root.high) for root in chart.roots), high]
    return [Run(sign, edges[i], edges[i + 1]) for i, sign in enumerate(chart.signs)]


def _merged(found: list[Run]) -> list[Run]:
    out = found[:1]
    for run in found[1:]:
        if run.sign == out[-1].sign:
            out[-1] = Run(run.sign, out[-1].start, run.end)
        else:
            out.append(run)
    return out
