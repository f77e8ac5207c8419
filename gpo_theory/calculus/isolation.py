"""Where a smooth formula changes sign: its zeros in brackets, from exact signs or isolated by balls."""

__all__ = ["Signs", "isolated", "refined", "signs_of"]

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from itertools import pairwise

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import Sign, UndecidedError, bisected, decided, enclose_between, sign_at
from gpo_theory.calculus.half_lines import half_line, shifts_of
from gpo_theory.calculus.piece import Piece
from gpo_theory.calculus.rational import Root, sign_chart
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.kernel.expansion import expanded
from gpo_theory.kernel.zeros import Place, Zero, at, is_isolated

X = Expr.x()
MOST_BOXES = 4000  # examined before a sign is left undecided; measured: of the catalogue probit needs most, 2,300
SMALL, SMALLEST = Fraction(1, 2**16), Fraction(1, 2**40)  # widths of boxes: where a rational zero is tried, the least
# Widths of brackets relative to their ends: as isolated, and as written; and the least width.
RELATIVE, WRITTEN, NARROW = Fraction(1, 2**80), Fraction(1, 2**48), Fraction(1, 2**300)
ORDERS = 6  # derivatives looked at where a formula is 0
PLAIN = 2**12  # the largest denominator of a rational zero that is looked for
USUAL = tuple(map(Fraction, (0, 1, -1, 2, -2)))  # places where a formula as people write it may touch 0


@dataclass(frozen=True)
class Signs:
    """`signs[i]` is the sign between `places[i-1]` and `places[i]`; `touches`: 0 also where it is not isolated."""

    places: tuple[Place, ...]
    signs: tuple[int, ...]
    touches: bool = False


@lru_cache(maxsize=1024)
def signs_of(g: Expr, low: Fraction | None, high: Fraction | None) -> Signs:
    """Return the zeros of a smooth formula on (low, high), from left to right, and its signs between them.

    A zero without a change of sign is among the places where it is rational. Raises UndecidedError.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> found = signs_of(parse_formula("exp(-x)-1+x"), None, None)
    >>> found.places, found.signs
    ((Fraction(0, 1),), (1, 1))
    """
    form = expanded(g) or g
    if form.number is not None:
        return Signs((), ((form.number > 0) - (form.number < 0),))
    for shape in dict.fromkeys((g, form)):
        chart = sign_chart(shape, low, high)
        if chart is not None:
            return _charted(g, chart.roots, chart.signs)
    places, signs = isolated(g, Piece(low, high, g))
    return Signs(tuple(_zero(g, place) for place in places), signs)


def _charted(g: Expr, roots: tuple[Root, ...], signs: tuple[int, ...]) -> Signs:
    places, kept, touches = list[Place](), [signs[0]], False
    for root, sign in zip(roots, signs[1:], strict=True):
        if root.exact is not None:
            places.append(root.exact)
        elif root.pole:
            raise UndecidedError
        elif sign == kept[-1]:
            touches = True
            continue
        else:
            places.append(_zero(g, (root.low, root.high)))
        kept.append(sign)
    return Signs(tuple(places), tuple(kept), touches)


def _zero(g: Expr, bracket: tuple[Fraction, Fraction]) -> Place:
    """Return the zero of g in a bracket, with ends of a few digits where it stays isolated, as its text is read."""
    low, high = bracket
    if low == high:
        return low
    try:
        written = parse_formula(str(g)).primitive()
    except ValueError:
        raise UndecidedError from None
    step = _power_of_two(max(abs(low), abs(high)) * WRITTEN)
    zeros = [Zero(written, (low // step - 1) * step, (high // step + 2) * step), Zero(written, low, high)]
    found = next((zero for zero in zeros if is_isolated(zero)), None)
    if found is None:
        raise UndecidedError
    return found


def _power_of_two(x: Fraction) -> Fraction:
    return Fraction(2) ** (x.numerator.bit_length() - x.denominator.bit_length())


@lru_cache(maxsize=1024)
def refined(zero: Zero, width: Fraction) -> Zero:
    """Return the same zero in a bracket of at most this width."""
    before = _sign(zero.g, zero.low)
    low, high = bisected(partial(_sign, zero.g), before or 0, zero.low, zero.high, lambda _: width)
    if low == high:
        raise UndecidedError
    return Zero(zero.g, low, high)


def _sign(g: Expr, x: Fraction) -> int | None:
    """Return the sign at x, where equal terms are cancelled first."""
    value = at(g, x)
    shown = value.a > 0 or value.b < 0 or value.a == value.b == 0
    return int(value.a > 0) - int(value.b < 0) if shown else sign_at(g, x)


def isolated(g: Expr, piece: Piece) -> tuple[list[tuple[Fraction, Fraction]], tuple[int, ...]]:
    """Isolate the zeros of g inside a piece by balls: boxes with a sign, or with a slope that has one.

    Returns their brackets (two equal ends: that number itself) and the signs between them; raises UndecidedError.
    """
    sign = lru_cache(maxsize=None)(partial(_sign, g))
    orders, steady = [g], _steady(g, piece)
    low, high = _edge(piece, g, -1), _edge(piece, g, 1)
    inner = sorted(x for x in {*USUAL, *shifts_of(g)} if low < x < high and sign(x) == 0)
    todo, seen = list(reversed(list(pairwise([low, *inner, high])))), 0
    places, signs = list[tuple[Fraction, Fraction]](), list[int]()
    while todo:
        spend()
        seen += 1
        a, b = todo.pop()
        found = _on_box(orders, sign, a, b, steady(a, b))
        if found is None:
            if b - a < SMALLEST or seen > MOST_BOXES:
                raise UndecidedError
            middle = _middle(sign, a, b)
            todo += [(middle, b), (a, middle)]
            continue
        first, *change = found
        if not signs or (sign(a) == 0 and a > low):
            places += [(a, a)] if signs else []
            signs.append(first)
        if change:
            ends = bisected(sign, first, a, b, lambda x: max(abs(x) * RELATIVE, NARROW))
            plain = ((ends[0] + ends[1]) / 2).limit_denominator(PLAIN)
            places.append((plain, plain) if ends[0] <= plain <= ends[1] and sign(plain) == 0 else ends)
            signs += change
    return places, tuple(signs)


def _middle(sign: Sign, a: Fraction, b: Fraction) -> Fraction:
    """Return a point near the middle of a box: a zero with a small denominator where the box is already small."""
    plain = ((a + b) / 2).limit_denominator(PLAIN)
    if b - a < SMALL and a < plain < b and sign(plain) == 0:
        return plain
    return decided(sign, a, b)[0]


def _steady(g: Expr, piece: Piece) -> Callable[[Fraction, Fraction], int]:
    """Return a function that says which sign the slope of g has between two points, from its exact signs; 0 if none."""
    slope = g.diff()
    chart = sign_chart(expanded(slope) or slope, piece.low, piece.high)
    if chart is None or not chart.defined:
        return lambda a, b: 0

    def sign(a: Fraction, b: Fraction) -> int:
        before = sum(root.high <= a for root in chart.roots)
        return chart.signs[before] if all(root.low >= b for root in chart.roots[before:]) else 0

    return sign


def _on_box(orders: list[Expr], sign: Sign, a: Fraction, b: Fraction, steady: int) -> tuple[int, ...] | None:
    """Return the sign on (a, b), two where it changes once there; None where that is not shown.

    `steady` is the sign of the slope there, 0 where it is not known. Where the formula and its first derivatives are 0
    at an end, the sign of the next one on the box decides.
    """
    found = _sign_on(orders[0], a, b)
    if found:
        return (found,)
    ends = sign(a), sign(b)
    if None in ends:
        return None
    slope = steady or _sign_on(_order(orders, 1), a, b)
    if slope and ends[0] and ends[1]:
        return (ends[0],) if ends[0] == ends[1] else (ends[0], ends[1])
    for end, side, here in ((a, 1, ends[0]), (b, -1, ends[1])):
        if here == 0 and steady:
            return (steady * side,)
        k = 0
        while here == 0 and k < ORDERS:
            k += 1
            here = _sign(_order(orders, k), end)
            if here and _sign_on(_order(orders, k), a, b) == here:
                return (here * side**k,)
    return None


def _order(orders: list[Expr], k: int) -> Expr:
    while len(orders) <= k:
        orders.append(orders[-1].diff())
    return orders[k]


def _edge(piece: Piece, g: Expr, side: int) -> Fraction:
    """Return a point of the piece beyond which g keeps its sign up to the end of the piece, as its leading term shows.

    At a finite end where g is 0 that is the leading term in y = 1/|x - end|; the end itself where g is not 0 there.
    """
    end = piece.low if side < 0 else piece.high
    assert not isinstance(end, Zero)
    if end is None:
        for form in dict.fromkeys((g, expanded(g) or g)):
            far = half_line(Piece(piece.low, piece.high, form), side)
            if far is not None and far.sign:
                return far.start
        raise UndecidedError
    if _sign(g, end):
        return end
    width = None if piece.low is None or piece.high is None else piece.high - piece.low
    inside = Piece(2 / width if width else Fraction(0), None, substitute(g, {X: end - side / X}))
    far = half_line(inside, 1)
    return end - side / far.start if far is not None and far.sign else end


def _sign_on(g: Expr, a: Fraction, b: Fraction) -> int:
    """Return the sign of g on [a, b] where balls show one, else 0."""
    values = enclose_between(g, a, b)
    return 1 if values > 0 else -1 if values < 0 else 0
