"""Gradient flow on one pair whose preference is certain: x' = -f'(x), x(0) = 0."""

__all__ = ["Flow", "gradient_flow"]

from dataclasses import dataclass
from fractions import Fraction

from gpo_theory.calculus.asymptotics import Growth
from gpo_theory.calculus.balls import UndecidedError, enclose_between, exact_value, sign_at
from gpo_theory.calculus.constants import text
from gpo_theory.calculus.pieces import Piece, UnsplitError, beside, pieces_of
from gpo_theory.calculus.rational import as_rational, fraction
from gpo_theory.calculus.tails import leading
from gpo_theory.dynamics.reversals import Bracket, runs
from gpo_theory.formula.expression import Expr, call, piecewise, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.expansion import expanded
from gpo_theory.kernel.zeros import Zero, left_of, simplified, solution
from gpo_theory.kernel.zeros import at as value_at
from gpo_theory.loss import Loss

X, T, ZERO = Expr.x(), Expr("parameter", ("t",)), Fraction(0)
NEAR = (Fraction(1, 2**20), Fraction(1, 2**80))  # distances from a point within which f'' is looked at


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


def gradient_flow(loss: Loss) -> Flow:
    """Return the gradient flow from 0, in closed form where f' is piecewise constant, affine, exponential or a power.

    Else its rate, from the proved tail of -f': with -f' ~ a exp(-k x), x ~ log(k a t)/k; with a Gaussian
    exp(-k x^n), (log(t)/k)^(1/n); with a x^m log(x)^b, m < 1, ((1-m) a t (log(t)/(1-m))^b)^(1/(1-m)).

    At a kink where f'(x-) <= 0 <= f'(x+) the flow rests. A zero of f' is reached only where the integral of 1/|f'| up
    to it is finite, which it is not where f'' is bounded. Nothing is returned where the flow is not unique, as from a
    corner that is a maximum, and where it leaves for infinity in finite time. A jump of f does not show in f'.

    >>> from gpo_theory.loss import parse
    >>> gradient_flow(parse("max(0, 1-x)"))
    Flow(formula='where(t < 1, t, 1)', rate=None, limit='1', stops='1')
    >>> gradient_flow(parse("exp(-x)"))
    Flow(formula='log(1 + t)', rate='log(t)', limit='inf', stops='inf')
    """
    f = loss.f.primitive()
    try:
        sides = [side for side in (1, -1) if _leaves(f, ZERO, side)]
        if len(sides) + _rests(f, ZERO) != 1:
            return Flow()
        if not sides:
            return Flow("0", None, "0", "0")
        return _rightwards(f) if sides == [1] else _mirrored(_rightwards(substitute(f, {X: -X})))
    except (UnsplitError, UndecidedError):
        return Flow()


def _slope_sign(f: Expr, at: Fraction, side: int) -> int:
    """Return the sign of f' at a point on one side."""
    return _sign(beside(pieces_of(f), at, side).f.diff(), at)


def _sign(slope: Expr, at: Fraction) -> int:
    for form in (slope, expanded(slope)):
        sign = sign_at(form, at) if form is not None else None
        if sign is not None:
            return sign
    raise UndecidedError


def _rests(f: Expr, at: Fraction) -> bool:
    return _slope_sign(f, at, -1) <= 0 <= _slope_sign(f, at, 1)


def _leaves(f: Expr, at: Fraction, side: int) -> bool:
    """Whether a flow from a point to one side exists: it falls there, and less flat than a parabola if f' is 0."""
    falls = -side * _slope_sign(f, at, side)
    return falls > 0 or (falls == 0 and _in_finite_time(beside(pieces_of(f), at, side).f.diff(), at, side, side))


def _in_finite_time(slope: Expr, at: Fraction, side: int, way: int) -> bool:
    """Whether x' = -f'(x) has the direction `way` on one side of a zero of f', and takes finite time between the two.

    It does not where f'' is bounded. Else y = side/(x - at) goes up to infinity at the speed y^2 |f'(at + side/y)|.
    """
    around = [(min(at, at + side * h), max(at, at + side * h)) for h in NEAR]
    if any(enclose_between(slope.diff(), *ends).is_finite() for ends in around):
        return False
    found = leading(-way * X**2 * substitute(slope, {X: at + side / X}), 1)
    if found is None:
        raise UndecidedError
    return found[2] > 0 and not _endless(found[0])


def _endless(speed: Growth) -> bool:
    """Whether a flow of this speed takes for ever to reach infinity: the integral of 1/speed diverges there."""
    q = next(filter(None, speed.q), None)
    return q < 0 if q is not None else speed.a < 1 or (speed.a == 1 and speed.b <= 1)


def _arrives(slope: Expr, goal: Bracket) -> bool:
    """Whether a flow to the right gets to the end of a stretch on which f' < 0, instead of only nearing it."""
    if goal.low is None or goal.high is None:
        found = leading(-slope, 1)
        if found is None or not _endless(found[0]):
            raise UndecidedError
        return False
    if goal.exact is not None:
        return _sign(slope, goal.exact) < 0 or _in_finite_time(slope, goal.exact, -1, 1)
    if not enclose_between(slope.diff(), goal.low, goal.high).is_finite():
        raise UndecidedError
    return False


def _mirrored(found: Flow) -> Flow:
    """Return the flow of f(-x) from that of f: -x(t)."""
    formula, rate = (None if value is None else f"-({value})" for value in (found.formula, found.rate))
    limit = found.limit if found.limit in (None, "0") else f"-{found.limit}"
    return Flow(formula, rate, limit, found.stops)


def _rightwards(f: Expr) -> Flow:
    """Return the flow of an f that falls to the right of 0, followed until it rests or only nears a zero of f'."""
    at, time, parts, ends = ZERO, Expr.of(0), list[Expr](), list[Expr]()
    known = True  # the closed form so far
    while True:
        piece = beside(pieces_of(f), at, 1)
        slope, kink = piece.f.diff(), piece.high
        goal = runs(Piece(at, None if kink is None else left_of(kink), piece.f), slope)[0].end
        if isinstance(kink, Zero) and goal.exact == kink.low:
            return _to_kink(f, at, kink, time if known else None, parts, ends)
        arrives = _arrives(slope, goal)
        found = _solved(slope, at, goal.exact if arrives else None) if known else None
        if found is not None:
            parts.append(substitute(found[0], {T: T - time}))
        known = found is not None
        if not arrives:
            course = str(piecewise(T, ends, parts)) if known else None
            return Flow(course, _rate(slope) if goal.low is None else None, _shown(goal), "inf")
        assert goal.exact is not None
        at = goal.exact
        if found is not None:
            time = time + found[1]
            ends.append(time)
        if _rests(f, at):
            if _leaves(f, at, 1):
                raise UndecidedError
            course = str(piecewise(T, ends, [*parts, Expr.of(at)])) if known else None
            return Flow(course, None, str(at), str(time) if known else None)


def _to_kink(f: Expr, at: Fraction, kink: Zero, time: Expr | None, parts: list[Expr], ends: list[Expr]) -> Flow:
    """Return the flow that comes from `at` at `time` (None: not known) and rests at an irrational kink, or nears it."""
    slope, beyond = (beside(pieces_of(f), kink, side).f.diff() for side in (-1, 1))
    here, place = value_at(slope, kink), solution(kink)
    nears = here.a == here.b == 0 and bool(enclose_between(slope.diff(), kink.low, kink.high).is_finite())
    if not nears and not (here.b < 0 and value_at(beyond, kink).a >= 0):
        raise UndecidedError
    found = None if place is None or time is None else _solved(slope, at, None if nears else place)
    limit = repr(float((kink.low + kink.high) / 2)) if place is None else str(place)
    if found is None or time is None or place is None:
        return Flow(None, None, limit, "inf" if nears else None)
    parts = [*parts, substitute(found[0], {T: T - time})]
    if nears:
        return Flow(str(piecewise(T, ends, parts)), None, limit, "inf")
    stops = simplified(time + found[1])
    return Flow(str(piecewise(T, [*ends, stops], [*parts, place])), None, limit, str(stops))


def _shown(goal: Bracket) -> str:
    if goal.low is None or goal.high is None:
        return "inf"
    return str(goal.exact) if goal.exact is not None else repr(float((goal.low + goal.high) / 2))


def _solved(slope: Expr, at: Fraction, goal: Fraction | Expr | None) -> tuple[Expr, Expr] | None:
    """Return the solution of x' = -f'(x) with x(0) = at, by the shape of f', and the time at which x = goal (or 0)."""
    start = exact_value(slope, at)
    if start is None or start >= 0:
        return None
    line = _line(slope)
    if line is not None:
        return _affine(start, line[0], at, goal)
    rate = _line(slope.diff() / slope)
    if rate is not None and not rate[0]:  # f' = start exp(k (x - at)): exp(-k (x - at)) = 1 + k start t
        k = rate[1]
        end = (call("exp", Expr.of(-k * (goal - at))) - 1) / (k * start) if goal is not None else Expr.of(0)
        return at - call("log", 1 + k * start * T) / k, end
    power = _power_of(slope)
    return None if power is None else _power(start, *power, at, goal)


def _line(node: Expr) -> tuple[Fraction, Fraction] | None:
    """Return (a, b) for a formula that equals a x + b, both rational."""
    form = as_rational(node)
    if form is None or form.denominator.degree() > 0 or form.numerator.degree() > 1 or form.constant.number != 1:
        return None
    if form.slope is not None and form.numerator.degree() > 0:
        return None
    return fraction(form.numerator[1] / form.denominator[0]), fraction(form.numerator[0] / form.denominator[0])


def _power_of(slope: Expr) -> tuple[Fraction, Fraction] | None:
    """Return (n, r) where f' is a multiple of |x - r|^n: f'/f'' is (x - r)/n, or f' is written so."""
    line = _line(slope / slope.diff())
    if line is not None:
        return (1 / line[0], -line[1] / line[0]) if line[0] else None
    *factors, node = slope.args if slope.head == "*" else (slope,)
    base = _line(node.args[0]) if node.power is not None and all(one.number is not None for one in factors) else None
    return None if base is None or node.power is None or not base[0] else (node.power, -base[1] / base[0])


def _affine(start: Fraction, b: Fraction, at: Fraction, goal: Fraction | Expr | None) -> tuple[Expr, Expr]:
    """f' = start + b (x - at): constant, or x - r falls like exp(-b t)."""
    if not b:
        return at - start * T, Expr.of(0 if goal is None else (goal - at) / -start)
    r = at - start / b
    end = Expr.of(0) if goal is None else -call("log", Expr.of((goal - r) / (at - r))) / b
    return r + (at - r) * call("exp", -b * T), end


def _power(start: Fraction, n: Fraction, r: Fraction, at: Fraction, goal: Fraction | Expr | None) -> tuple[Expr, Expr]:
    """f' = start (w/w0)^n, w = x - r, n != 1: w^(1-n) = w0^(1-n) (1 - (1-n) start t / w0)."""
    w0 = at - r
    speed = -(1 - n) * start / w0
    x = r + w0 * (1 + speed * T) ** (1 / (1 - n))
    share = 0 if goal is None else (goal - r) / w0
    return x, ((Expr.of(share) ** (1 - n) if share else 0) - Expr.of(1)) / speed


def _rate(slope: Expr) -> str | None:
    """Return the leading behaviour of x(t) from the proved leading term of -f' on the right."""
    found = leading(-slope, 1)
    assert found is not None
    growth, a = found[0], parse_constant(text(found[1]))
    degree = next((len(growth.q) - i for i, c in enumerate(growth.q) if c), 0)
    if degree:
        k = -growth.q[len(growth.q) - degree]
        if growth == Growth((*growth.q[:-1], -k)) and degree == 1:
            return str(call("log", k * a * T) / k)
        return str((call("log", T) / k) ** Fraction(1, degree))
    rest = 1 - growth.a
    if not rest:
        return None
    whole = rest * a * T * (call("log", T) / rest) ** growth.b if growth.b else rest * a * T
    return str(whole ** (1 / rest))
