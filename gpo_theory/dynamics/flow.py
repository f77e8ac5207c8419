"""Gradient flow on one pair whose preference is certain: x' = -f'(x), x(0) = 0."""

__all__ = ["Flow", "gradient_flow"]

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from gpo_theory.calculus.asymptotics import Growth, NoExpansionError, at_infinity
from gpo_theory.calculus.balls import exact_value, sign_at
from gpo_theory.calculus.constants import text
from gpo_theory.calculus.pieces import Piece, UnsplitError, beside, split
from gpo_theory.calculus.rational import as_rational
from gpo_theory.calculus.tails import slope_tail
from gpo_theory.dynamics.reversals import Bracket, reversals_of
from gpo_theory.formula.expression import Expr, call, piecewise, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.loss import Loss

X, T = Expr.x(), Expr("parameter", ("t",))
# Tails of -f' on the right under which the flow does not reach infinity in finite time.
_SLOW = ("super_exponential", "exponential", "power", "constant", "logarithmic", "linear")


@dataclass(frozen=True)
class Flow:
    """x(t) as text in `t` (t >= 0), its growth, its limit, and the time at which it reaches the limit.

    `rate`: a formula in `t` to which x(t) is asymptotic (their quotient tends to 1) where it grows without bound.
    `limit`: lim x(t) as t -> infinity, exact text, a decimal where it is bracketed, or "inf" / "-inf". `stops`: the
    time from which on x(t) = `limit`, "inf" where it is only approached. None where not derived.
    """

    formula: str | None = None
    rate: str | None = None
    limit: str | None = None
    stops: str | None = None


@dataclass(frozen=True)
class _Leg:
    """On one piece of f, from time `start` on: x(t), and the time of leaving it (None: never)."""

    x: Expr
    end: Expr | None


class _OpenError(Exception):
    """The flow on some piece has no closed form."""


def gradient_flow(loss: Loss) -> Flow:
    """Return the gradient flow from 0, in closed form where f' is piecewise constant, affine, exponential or a power.

    Else its rate, from the proved tail of -f': with -f' ~ a exp(-k x), x ~ log(k a t)/k; with a Gaussian
    exp(-k x^n), (log(t)/k)^(1/n); with a x^-m, ((m+1) a t)^(1/(m+1)); with a constant a, a t.

    >>> from gpo_theory.loss import parse
    >>> gradient_flow(parse("max(0, 1-x)"))
    Flow(formula='where(t < 1, t, 1)', rate=None, limit='1', stops='1')
    >>> gradient_flow(parse("exp(-x)"))
    Flow(formula='log(1 + t)', rate='log(t)', limit='inf', stops='inf')
    """
    f = loss.f.primitive()
    try:
        pieces = split(f)
        right, left = (_slope_sign(pieces, side) for side in (1, -1))
    except UnsplitError:
        return Flow()
    if right is None or left is None or (right == 1 and left == -1):
        return Flow()  # the slopes at 0 are not known, or 0 is a local maximum with a kink
    if right >= 0 >= left or (right == 0 == left):
        return Flow("0", None, "0", "0")
    if right < 0:
        return _rightwards(loss, f)
    mirrored = _rightwards(Loss(loss.name, substitute(loss.f, {X: -X})), substitute(f, {X: -X}))
    return _mirrored(mirrored)


def _slope_sign(pieces: tuple[Piece, ...], side: int) -> int | None:
    """Return the sign of f' next to 0 on one side."""
    return sign_at(beside(pieces, Fraction(0), side).f.diff(), Fraction(0))


def _mirrored(found: Flow) -> Flow:
    """Return the flow of f(-x) from that of f: -x(t)."""
    formula, rate = (None if value is None else f"-({value})" for value in (found.formula, found.rate))
    limit = found.limit if found.limit in (None, "0") else f"-{found.limit}"
    return Flow(formula, rate, limit, found.stops)


def _rightwards(loss: Loss, f: Expr) -> Flow:
    """Return the flow of an f that falls to the right of 0."""
    rest = _rest(loss, f)
    try:
        legs = list(_legs(f))
    except _OpenError:
        legs = []
    formula, stops = _joined(legs), None
    if legs and legs[-1].end is None and legs[-1].x.number is not None:
        stops = "0" if len(legs) == 1 else str(legs[-2].end)
    elif rest is not None and (legs or rest[1]):
        stops = "inf"
    limit = rest[0] if rest else None
    rate = _rate(f) if limit == "inf" else None
    return Flow(None if formula is None else str(formula), rate, limit, stops)


def _rest(loss: Loss, f: Expr) -> tuple[str, bool] | None:
    """Return the first point on the right at which f' >= 0, and whether it is a smooth zero, only approached."""
    places = reversals_of(loss)
    if places is None:
        return None
    ahead = [place for place in places if place.high is not None and place.high > 0]
    flats = [p.low for p in split(f) if not p.is_point and p.low is not None and p.f.diff().number == 0]
    flat = next((x for x in flats if x > 0), None)
    first = min(ahead, key=lambda place: place.low or Fraction(0), default=None)
    if flat is not None and (first is None or first.low is None or flat <= first.low):
        return str(flat), False
    if first is None:
        # Where -f' grows faster than any multiple of x, the flow may reach infinity in finite time.
        return ("inf", True) if slope_tail(f, 1).kind in _SLOW else None
    return _shown(first), _smooth(f, first)


def _shown(place: Bracket) -> str:
    if place.exact is not None:
        return str(place.exact)
    assert place.low is not None
    return repr(float(place.low))


def _smooth(f: Expr, place: Bracket) -> bool:
    """Whether f' passes 0 inside a piece, not by a jump at a breakpoint."""
    edges = {x for piece in split(f) for x in (piece.low, piece.high)}
    return place.exact is None or place.exact not in edges


def _legs(f: Expr) -> Iterator[_Leg]:
    """Follow the flow from piece to piece, while f' < 0."""
    at, time = Fraction(0), Expr.of(0)
    for piece in split(f):
        if not piece.borders(at, 1):
            continue
        slope = piece.f.diff()
        start = exact_value(slope, at)
        if start is None:
            raise _OpenError
        if start >= 0:
            yield _Leg(Expr.of(at), None)
            return
        leg = _solved(slope, start, at, time, piece.high)
        yield leg
        if leg.end is None or piece.high is None:
            return
        at, time = piece.high, leg.end


def _solved(slope: Expr, start: Fraction, at: Fraction, time: Expr, high: Fraction | None) -> _Leg:
    """Solve x' = -f'(x), x(time) = at, where f' = `start` < 0, by the shape of f'; the piece ends at `high`."""
    form = as_rational(slope)
    since = T - time
    if form is None:
        raise _OpenError
    top, bottom = form.numerator, form.denominator
    if form.slope is None and bottom.degree() == 0 and top.degree() == 0:
        x = at - start * since
        return _Leg(x, None if high is None else time + (high - at) / -start)
    if form.slope is None and bottom.degree() == 0 and top.degree() == 1:
        # f' = b (x - r): x - r falls like exp(-b t).
        b = slope.diff().number
        if b is None:
            raise _OpenError
        r = at - start / b
        x = r + (at - r) * call("exp", -b * since)
        if high is None or (r > at and r <= high):
            return _Leg(x, None)
        return _Leg(x, time - call("log", Expr.of((high - r) / (at - r))) / b)
    return _power(slope, start, at, time, high) or _exponential(slope, start, at, time, high)


def _exponential(slope: Expr, start: Fraction, at: Fraction, time: Expr, high: Fraction | None) -> _Leg:
    """f'(x) = start exp(k (x - at)): exp(-k (x - at)) = 1 + k start t."""
    form = as_rational(slope.diff() / slope)
    if form is None or form.numerator.degree() != 0 or form.denominator.degree() != 0 or form.constant.number != 1:
        raise _OpenError
    k = Fraction(str(form.numerator[0] / form.denominator[0]))
    if k > 0 and high is None:
        raise _OpenError
    x = at - call("log", 1 + k * start * (T - time)) / k
    if high is None:
        return _Leg(x, None)
    return _Leg(x, time + (call("exp", Expr.of(-k * (high - at))) - 1) / (k * start))


def _power(slope: Expr, start: Fraction, at: Fraction, time: Expr, high: Fraction | None) -> _Leg | None:
    """f' = start (w / w0)^n, w = x - r: f'/f'' = w / n is affine; w^(1-n) = w0^(1-n) (1 - (1-n) start t / w0)."""
    form = as_rational(slope / slope.diff())
    if form is None or form.slope is not None or form.denominator.degree() > 0 or form.numerator.degree() != 1:
        return None
    scale = Fraction(str(form.denominator[0]))
    b, a = (Fraction(str(form.numerator[k])) / scale for k in (0, 1))
    n, r = 1 / a, -b / a
    w0 = at - r
    speed = -(1 - n) * start / w0 if n != 1 else Fraction(0)
    if speed == 0 or (speed < 0 and high is None):
        return None
    growth = 1 + speed * (T - time)
    x = r + w0 * growth ** (1 / (1 - n))
    if high is None or (w0 < 0 and r <= high and n >= 1):
        return _Leg(x, None)
    share = (high - r) / w0
    if share <= 0:
        return None
    return _Leg(x, time + (Expr.of(share) ** (1 - n) - 1) / speed)


def _joined(legs: list[_Leg]) -> Expr | None:
    if not legs or (legs[-1].end is not None and legs[-1].x.number is None):
        return None
    return piecewise(T, [leg.end for leg in legs[:-1] if leg.end is not None], [leg.x for leg in legs])


def _rate(f: Expr) -> str | None:
    """Return the leading behaviour of x(t) from the proved leading term of -f' on the right."""
    if slope_tail(f, 1).verdict != "proved":
        return None
    try:
        growth, coefficient = at_infinity(-split(f)[-1].f.diff(), 1).lead
    except NoExpansionError:
        return None
    degree = next((len(growth.q) - i for i, c in enumerate(growth.q) if c), 0)
    if degree:
        k = -growth.q[len(growth.q) - degree]
        if k > 0 and growth == Growth((*growth.q[:-1], -k)) and degree == 1:
            return str(call("log", k * parse_constant(text(coefficient)) * T) / k)
        return str((call("log", T) / k) ** Fraction(1, degree)) if k > 0 else None
    if growth.b or growth.a > 0:
        return None
    a = parse_constant(text(coefficient))
    return str(a * T) if growth == Growth() else str(((1 - growth.a) * a * T) ** (1 / (1 - growth.a)))
