"""The least value of a formula: proposed for the verifier to prove, or enclosed rigorously.

`exact_infimum` decides by the exact signs of the slope, `infimum_of` by branch and bound in ball arithmetic. Values too
close to be told apart are not ordered: the place of the least is then unknown, or an interval that holds both.
"""

__all__ = ["Enclosure", "Infimum", "exact_infimum", "infimum_of", "proposed_infimum"]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, reduce
from math import inf, isfinite, nextafter
from operator import add

import numpy as np
from flint import arb, ctx

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import UndecidedError, between, bisected, enclose, enclose_between, exact_value, sign_at
from gpo_theory.calculus.constants import as_double, exact, text
from gpo_theory.calculus.half_lines import half_line
from gpo_theory.calculus.isolation import refined
from gpo_theory.calculus.piece import Section
from gpo_theory.calculus.pieces import Piece, UnsplitError, clipped, pieces_of, sign_charts
from gpo_theory.calculus.rational import as_rational
from gpo_theory.calculus.samples import sample, unit
from gpo_theory.calculus.tails import tail
from gpo_theory.formula.expression import Expr, call, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.intervals import interval
from gpo_theory.kernel.zeros import Zero, left_of, right_of

# Limits of the branch and bound: its time, also as long as no value lies below a limit at infinity, and the width of a
# box, in units of f and relative to its distance from 0, at which the value is known to about f'' 2^-80.
MOST_BOXES, MOST_ABOVE, SMALLEST, BITS = 6000, 1000, Fraction(1, 2**40), 192
BRACKET = 128  # bits of a bracket of an irrational breakpoint
LARGEST, MOST_POWER = 10**6, 64  # denominator of a number whose logarithm is looked for, and its powers
SHARP = 33  # bits of a value that is known only as a number: the verifier allows it one part in 1e9
Where = Fraction | float  # a rational point, or an infinite end


@dataclass(frozen=True)
class Infimum:
    """A proposed infimum of a formula, which only the verifier proves: exact text where known, a float, and its place.

    `at` is the least x that attains it ("-inf" where a whole half-line does), "inf" or "-inf" where it is only
    approached there, None where that is not known or a jump leaves it out. `near` tells the verifier where it is
    reached: a rational point, an infinite end, two points between which a factor changes sign, or these and a third
    between them that is written as a logarithm.
    """

    exact: str | None
    value: float
    at: str | None
    near: str | list[str]

    @property
    def number(self) -> dict[str, str | float | None]:
        """The value of a certificate."""
        return {"exact": self.exact, "float": self.value}

    @property
    def negated(self) -> "Infimum":
        """The supremum of the negated formula."""
        turned = None if self.exact is None else text(-exact(parse_constant(self.exact)))
        return replace(self, exact=turned, value=-self.value or 0.0)


@dataclass(frozen=True)
class _Place:
    """Where the infimum may be: at the one stationary point in [low, high], at a point, or at an infinite end.

    `value` is the formula there, a constant at an infinite end; `where` the least x with that value.
    """

    value: Expr
    low: Fraction
    high: Fraction
    where: Where
    attained: bool = True

    @property
    def constant(self) -> Expr | None:
        """The value as a formula without x, None at a stationary point that is not rational."""
        return substitute(self.value, {Expr.x(): Expr.of(self.low)}) if self.low == self.high else None

    @property
    def text(self) -> str | None:
        """The value as exact text."""
        if self.constant is None:
            return None
        known = exact_value(self.constant, Fraction(0))
        return str(known) if known is not None else text(exact(self.constant))

    def ball(self, bits: int) -> arb:
        """Return a ball that holds the value."""
        if self.low == self.high:
            return enclose(self.value, self.low, bits)
        return enclose_between(self.value, self.low, self.high, bits)

    @property
    def level(self) -> Fraction | None:
        """The value where it is shown to be rational: a factor of the rest of the sum changes sign within the place."""
        if self.low == self.high:
            return exact_value(self.value, self.low)
        parts = self.value.args if self.value.head == "+" else (self.value,)
        constant = next((part for part in parts if part.number is not None), Expr.of(0))
        rest = self.value - constant
        for factor in rest.args if rest.head == "*" else (rest,):
            base = factor.args[0] if factor.power is not None and factor.power > 0 else factor
            if {sign_at(base, x) for x in (self.low, self.high)} == {-1, 1}:
                return constant.number
        return None

    def near(self, is_level: bool) -> str | list[str]:
        """Return what shows the verifier that the value is reached."""
        if self.low < self.high:
            return [str(self.low), str(self.high)] if is_level else str((self.low + self.high) / 2)
        return str(self.where) if isinstance(self.where, float) and not self.value.depends_on_x else str(self.low)


def proposed_infimum(pieces: tuple[Piece, ...]) -> Infimum | None:
    """Return the infimum over all pieces: exactly from the signs of the slope, else from an enclosure.

    None where it is not known or beyond the range of doubles.
    """
    found = exact_infimum(pieces) or _enclosed_infimum(pieces) or (_of_range(pieces[0].f) if len(pieces) == 1 else None)
    return found if found is not None and isfinite(found.value) else None


@lru_cache(maxsize=256)
def exact_infimum(pieces: tuple[Piece, ...]) -> Infimum | None:
    """Return the infimum over the pieces of a function that need not be continuous, or None if undecided.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> from gpo_theory.calculus.pieces import split
    >>> exact_infimum(split(parse_formula("max(0, 1-x)").primitive()))
    Infimum(exact='0', value=0.0, at='1', near='1')
    """
    places = _places(pieces)
    if not places:
        return None
    kept, tied = _lowest(places)
    if not kept:
        return None
    best = next((place for place in kept if place.low == place.high), kept[0])
    level = best.level if best.low < best.high else None
    value, known = best.ball(BITS), best.text if level is None else str(level)
    if known is None and value.rel_accuracy_bits() < SHARP:
        return None
    attaining = min((place for place in kept if place.attained), key=lambda place: place.where, default=None)
    ends = [str(place.where) for place in kept if isinstance(place.where, float)]
    at = _shown(attaining) if attaining is not None else ends[0] if ends else None
    number = float(value.mid()) if known is None else as_double(exact(parse_constant(known)))
    return Infimum(known, number, at if tied else None, best.near(level is not None))


def _places(pieces: tuple[Piece, ...]) -> list[_Place]:
    """Return the places of which one holds the infimum; none where that is not decided."""
    charts = list(sign_charts(pieces, 1))
    ends = [(-inf, tail(pieces[0].f, -1)), (inf, tail(pieces[-1].f, 1))]
    if any(chart is None for _, chart in charts) or any(end.verdict != "proved" for _, end in ends):
        return []
    out = [_Place(piece.f, piece.sample, piece.sample, piece.sample) for piece in pieces if piece.is_point]
    for piece, chart in charts:
        assert chart is not None
        if chart.signs == (0,):
            out.append(_Place(piece.f, piece.sample, piece.sample, -inf if piece.low is None else piece.low))
            continue
        out += [_Place(piece.f, root.low, root.high, root.low) for root in chart.roots]
        out += [_Place(piece.f, x, x, x, attained=False) for x in (piece.low, piece.high) if x is not None]
    for where, end in ends:
        if end.limit == "-inf":
            return []
        if end.limit not in ("inf", None):
            out.append(_Place(parse_constant(end.limit), Fraction(0), Fraction(0), where, attained=False))
    return out


def _lowest(places: list[_Place]) -> tuple[list[_Place], bool]:
    """Return the places whose values are not shown to exceed another, and whether these are shown to be equal."""
    for bits in (BITS, 4 * BITS, 16 * BITS):
        balls = [place.ball(bits) for place in places]
        if not all(ball.is_finite() for ball in balls):
            return [], False
        top = _least(ball.upper() for ball in balls)
        places = [place for place, ball in zip(places, balls, strict=True) if ball.lower() <= top]
        if all(_equal(places[0], place) for place in places[1:]):
            return places, True
    levels = {place.level for place in places}
    return places, len(levels) == 1 and None not in levels


def _equal(a: _Place, b: _Place) -> bool:
    """Whether two values are shown to be equal: exact constants, or at mirrored points of an even function."""
    if a.constant is not None and b.constant is not None:
        return a.constant == b.constant or text(exact(a.constant - b.constant)) == "0"
    forms = as_rational(a.value), as_rational(substitute(b.value, {Expr.x(): -Expr.x()}))
    return forms[0] is not None and forms[0] == forms[1] and a.low <= -b.low and -b.high <= a.high


def _shown(place: _Place) -> str:
    """Return the place as text: exact, or a decimal."""
    return str(place.where) if place.low == place.high else repr(float(place.low))


def _enclosed_infimum(pieces: tuple[Piece, ...]) -> Infimum | None:
    """Return the infimum where branch and bound encloses it in a relatively narrow interval."""
    step = unit(reduce(add, (piece.f for piece in pieces)))
    try:
        with ctx.workprec(BITS):
            kept, low, high = _kept([_scaled(piece, step) for piece in pieces])
    except UndecidedError:
        return _lowest_limit(pieces)
    limit = next((leaf for leaf in kept if leaf.limit is not None), None)
    if limit is not None and limit.limit in ("inf", "-inf"):
        return None
    if limit is not None and limit.limit is not None:
        return Infimum(limit.limit, as_double(exact(parse_constant(limit.limit))), None, str(limit.left))
    places = list(_boxes(pieces, kept, step))
    for place in places:
        if place.low < place.high and (level := place.level) is not None:
            return Infimum(str(level), as_double(exact(level)), None, place.near(is_level=True))
        if (named := _named(place, step)) is not None:
            return named
    value = low.union(high)
    sharp = places and value.rel_accuracy_bits() >= SHARP
    return Infimum(None, float(value.mid()), None, places[0].near(is_level=False)) if sharp else None


def _named(place: _Place, step: Fraction) -> Infimum | None:
    """Return the infimum at a rational point or a logarithm log(q)/k where it is rational and the formula is convex."""
    g, slope = place.value, place.value.diff()
    before = sign_at(slope, place.low)
    if before is None or sign_at(slope, place.high) != -before:
        return None
    low, _ = bisected(lambda x: sign_at(slope, x), before, place.low, place.high, lambda _: step / 2**BITS)
    for x in _candidates(g, low):
        value = exact(substitute(g, {Expr.x(): x}))
        for width in (step / 2**n for n in range(40 * bool(value.is_Rational))):
            a, b = (width * (round(low / width) + side) for side in (-1, 1))
            if enclose_between(slope.diff(), a, b, BITS) > 0:
                return Infimum(str(value), as_double(value), None, [str(a), str(b), str(x)])
    return None


def _candidates(g: Expr, x: Fraction) -> Iterator[Expr]:
    """Yield a rational number close to x, and log(q)/k close to x for the exponentials exp(k x) of a formula."""
    yield Expr.of(x.limit_denominator(LARGEST))
    rates = list(filter(None, {node.args[0].diff().number for node in g.walk() if node.head == "exp"}))
    for k in rates:
        # Then exp(rate x) is a whole power of q, of a size that sympy works with.
        if all((rate / k).denominator == 1 and abs(rate / k) <= MOST_POWER for rate in rates):
            mantissa, exponent = map(int, enclose(call("exp", k * Expr.x()), x, BITS).mid().man_exp())
            q = (mantissa * Fraction(2) ** exponent).limit_denominator(LARGEST)
            yield from [call("log", Expr.of(q)) / k] if q > 0 else []


def _of_range(g: Expr) -> Infimum | None:
    """Return the lower end of the range of g composed from its parts, where a sample comes near it, as for a wave."""
    floor, x = float(interval(g, None, None).a), float(unit(g)) * np.linspace(-12, 12, 4801)
    if not isfinite(floor):
        return None
    place = int(np.nanargmin(np.append(sample(g, x)[1:-1], inf))) + 1
    low, high, slope = Fraction(float(x[place - 1])), Fraction(float(x[place + 1])), g.diff()
    try:
        lowest, _ = bisected(lambda at: sign_at(slope, at), -1, low, high, lambda right: unit(g) / 2**40)
    except UndecidedError:
        return None
    return Infimum(None, floor, None, str(lowest))


def _lowest_limit(pieces: tuple[Piece, ...]) -> Infimum | None:
    """Return the lower of the limits at the two ends: a guess, which the verifier may accept."""
    ends = [(tail(pieces[0].f, -1), "-inf"), (tail(pieces[-1].f, 1), "inf")]
    known = [(end.limit, near) for end, near in ends if end.verdict == "proved" and end.limit not in (None, "inf")]
    finite = [(limit, near) for limit, near in known if limit and limit != "-inf"]
    values = [(as_double(exact(parse_constant(limit))), limit, near) for limit, near in finite]
    if len(values) < len(known) or not values:
        return None
    value, limit, near = min(values)
    return Infimum(limit, value, None, near)


def _scaled(piece: Piece, step: Fraction) -> Piece:
    """Return the piece as a function of x / step."""
    low, high = (None if end is None else end / step for end in (piece.low, piece.high))
    return Piece(low, high, substitute(piece.f, {Expr.x(): step * Expr.x()}))


def _boxes(pieces: tuple[Piece, ...], kept: "list[_Leaf]", step: Fraction) -> Iterator[_Place]:
    """Yield the boxes, in units of `step`, that may hold the infimum, those of a piece that touch joined."""
    for piece in pieces:
        found: list[list[Fraction]] = []
        for leaf in sorted(kept, key=lambda leaf: leaf.left):
            ends = [step * x for x in (leaf.left, leaf.right) if isinstance(x, Fraction)] or [piece.sample]
            low, high = ends[0] if piece.low is None else piece.low, ends[-1] if piece.high is None else piece.high
            inside = low <= ends[0] and ends[-1] <= high
            if inside and found and ends[0] <= found[-1][1]:
                found[-1][1] = max(found[-1][1], ends[-1])
            elif inside:
                found.append([ends[0], ends[-1]])
        yield from (_Place(piece.f, a, b, a) for a, b in found)


@dataclass(frozen=True)
class Enclosure:
    """low <= inf g <= high, exact balls; every point that attains it, or end that approaches it, lies in [left, right].

    Where g only approaches it, at a jump, that point does.
    """

    low: arb
    high: arb
    left: float
    right: float


@dataclass(frozen=True)
class _Leaf:
    """A box, a point or an infinite end that may hold the infimum, with the ball of the values there."""

    value: arb
    left: Where
    right: Where
    attained: bool = True
    limit: str | None = None


@lru_cache(maxsize=512)
def infimum_of(g: Expr, low: Fraction | None = None, high: Fraction | None = None) -> Enclosure | None:
    """Return the infimum of a primitive formula over [low, high] (None: no end), or None where it is not certified.

    Branch and bound: where the slope has a sign on a box, the infimum there is at one of its ends; on a half-line the
    exact sign of the slope and the limit of the tail decide.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> found = infimum_of(parse_formula("(x-1)**2 + 1/2").primitive())
    >>> 0.4999999999 < found.low <= 0.5 <= found.high < 0.5000000001, abs(found.left - 1) < 1e-9
    (True, True)
    """
    step = unit(g)
    try:
        with ctx.workprec(BITS):  # the ends of balls are rounded to the working precision
            pieces, beside = _bracketed(clipped(pieces_of(g), low, high), step)
            kept, bottom, top = _kept([_scaled(piece, step) for piece in pieces], beside)
    except (UnsplitError, UndecidedError):
        return None
    # A jump that only approaches the value is no minimiser, where there are others.
    places = [leaf for leaf in kept if leaf.attained] or kept
    left, right = min(leaf.left for leaf in places), max(leaf.right for leaf in places)
    return Enclosure(bottom, top, _outwards(left * step, -inf), _outwards(right * step, inf))


def _bracketed(sections: Iterable[Section], step: Fraction) -> tuple[list[Piece], list[_Leaf]]:
    """Return the pieces between narrow brackets of the irrational breakpoints, and the values on these, in x / step.

    The ball of a formula on a bracket holds its limit at the breakpoint and its values between there and the piece.
    """
    pieces, beside = list[Piece](), list[_Leaf]()
    for p in sections:
        for zero in dict.fromkeys(end for end in (p.low, p.high) if isinstance(end, Zero)):
            narrow = refined(zero, abs(zero.high) / 2**BRACKET)
            value = enclose(p.f, between(narrow.low, narrow.high), BITS)
            if not value.is_finite():
                raise UndecidedError
            beside.append(_Leaf(value, narrow.low / step, narrow.high / step))
            p = Section(narrow if p.low == zero else p.low, narrow if p.high == zero else p.high, p.f)
        if not isinstance(p.low, Zero) or not p.is_point:
            pieces.append(Piece(p.low if p.low is None else right_of(p.low),
                                p.high if p.high is None else left_of(p.high), p.f))  # fmt: skip
    return pieces, beside


def _kept(pieces: list[Piece], beside: Iterable[_Leaf] = ()) -> tuple[list[_Leaf], arb, arb]:
    """Return the leaves that may hold the infimum over the pieces or are already known, and its bounds."""
    jumps = {piece.low for piece in pieces if piece.is_point}
    leaves = [*beside, *(leaf for piece in pieces for leaf in _leaves(piece, jumps))]
    top = _least(leaf.value.upper() for leaf in leaves)
    kept = [leaf for leaf in leaves if leaf.value.lower() <= top]
    if not kept:
        raise UndecidedError
    return kept, _least(leaf.value.lower() for leaf in kept), top


def _least(values: Iterable[arb]) -> arb:
    return reduce(lambda a, b: a if a <= b else b, values, arb("inf"))


def _outwards(where: Where, towards: float) -> float:
    """Return a place as a float, rounded towards -inf or inf where it is no float."""
    number = float(where)
    return number if isinstance(where, float) or Fraction(number) == where else nextafter(number, towards)


def _leaves(piece: Piece, jumps: set[Fraction | None]) -> list[_Leaf]:
    """Return boxes and points of which one holds the infimum over the piece."""
    slope = piece.f.diff()
    form = as_rational(slope)
    if slope.number == 0 or (form is not None and form.is_zero):
        ends = (-inf if piece.low is None else piece.low), (inf if piece.high is None else piece.high)
        return [_Leaf(_value(piece.f, piece.sample), *ends)]
    if piece.is_point:
        return [_leaf(piece.f, piece.sample)]
    out, span = list[_Leaf](), list[Fraction]()
    for end, side in ((piece.low, -1), (piece.high, 1)):
        if end is None:
            found = half_line(replace(piece, f=slope), side)
            if found is None or not found.sign:  # a wave that dies out: it stays above a value taken elsewhere
                found = half_line(replace(piece, f=piece.f - _sampled(piece)), side)
                if found is None or found.sign < 1:
                    raise UndecidedError
            # Where g falls outwards, its limit counts.
            elif found.sign != side:
                out.append(_limit(piece.f, side))
            end = found.start
        span.append(end)
    inside = _search(piece.f, slope, span[0], span[1], _least(leaf.value.upper() for leaf in out))
    return out + [replace(leaf, attained=leaf.left != leaf.right or leaf.left not in jumps) for leaf in inside]


def _sampled(piece: Piece) -> Fraction:
    """Return a low value of the formula on the piece."""
    x = [x for x in (piece.sample + Fraction(k, 8) for k in range(-64, 65)) if piece.contains(x)]
    return Fraction(min(float(_value(piece.f, at).mid()) for at in x))


def _value(g: Expr, x: Fraction) -> arb:
    value = enclose(g, x, BITS)
    if not value.is_finite():
        raise UndecidedError
    return value


def _leaf(g: Expr, x: Fraction) -> _Leaf:
    return _Leaf(_value(g, x), x, x)


def _limit(g: Expr, side: int) -> _Leaf:
    found = tail(g, side)
    if found.verdict != "proved" or found.limit is None:
        raise UndecidedError
    infinite = found.limit in ("inf", "-inf")
    value = arb(found.limit) if infinite else enclose(parse_constant(found.limit), Fraction(0), BITS)
    return _Leaf(value, side * inf, side * inf, limit=found.limit)


def _search(g: Expr, slope: Expr, low: Fraction, high: Fraction, limit: arb) -> list[_Leaf]:
    """Halve [low, high] until each box has a slope with a sign, lies above the limit or a value found, or is small."""
    out = [_leaf(g, low), _leaf(g, high)]
    top, todo, seen = _least((limit, *(leaf.value.upper() for leaf in out))), [(low, high)], 0
    while todo:
        spend()
        seen += 1
        if seen > (MOST_BOXES if top < limit or not limit.is_finite() else MOST_ABOVE):
            raise UndecidedError
        a, b = todo.pop()
        if (there := enclose(g, between(a, b), BITS)) > top:
            continue
        middle = (a + b) / 2
        slopes = enclose_between(slope, a, b, BITS)
        if slopes > 0 or slopes < 0:
            out.append(_leaf(g, a if slopes > 0 else b))
            top = _least((top, out[-1].value.upper()))
            continue
        here = _value(g, middle)
        top = _least((top, here.upper()))
        ways = there, here + slopes * between(a - middle, b - middle)
        values = [way for way in ways if way.is_finite()]
        if any(v > top for v in values):
            continue
        if b - a < SMALLEST and (a <= 0 <= b or b - a < SMALLEST * max(abs(a), abs(b))):
            out.append(_end_of(g, slope, a, b) or _box(values, a, b))
            continue
        todo += [(a, middle), (middle, b)]
    return out


def _end_of(g: Expr, slope: Expr, a: Fraction, b: Fraction) -> _Leaf | None:
    """Return the end of a box at which g is least, where its slope is exactly 0 at one end and monotone between."""
    for end, other in ((a, b), (b, a)):
        if exact_value(slope, end) == 0:
            bend = enclose_between(slope.diff(), a, b, BITS)
            return _leaf(g, end) if bend > 0 else _leaf(g, other) if bend < 0 else None
    return None


def _box(values: list[arb], a: Fraction, b: Fraction) -> _Leaf:
    if not values:
        raise UndecidedError
    return _Leaf(values[-1], a, b)
