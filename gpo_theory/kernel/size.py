"""The rules for Lipschitz and smooth, each with its constant, and what it means that a constant is the least."""

__all__ = [
    "equal_at",
    "lipschitz",
    "not_lipschitz",
    "not_smooth",
    "number_of",
    "pole_at",
    "rounds_to",
    "sharp",
    "smooth",
    "zero_between",
]

from collections.abc import Callable
from fractions import Fraction

from mpmath import iv

from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.inequality import factors, rational
from gpo_theory.kernel.intervals import interval, ratio
from gpo_theory.kernel.resolution import Part, UnprovedError, prove, same_at
from gpo_theory.kernel.statement import (
    Statement,
    continuous,
    joints,
    jumps,
    kink_slopes,
    lead_far,
    need,
    open_parts,
    place,
    smooth_parts,
    witnessed,
)
from gpo_theory.kernel.waves import along
from gpo_theory.kernel.zeros import Place, Zero, at

ZERO = Fraction(0)
LARGE = 10**4  # how much larger |f'| or |f''| is at a witness that it is unbounded than at 1 and -1
TIGHT = Fraction(1, 10**9)  # relative room for the rounding of floats, where a number has no exact form


def rounds_to(exact: Expr, number: float) -> bool:
    """Whether a double is an exact constant, rounded."""
    value, room = interval(exact, ZERO, ZERO, 320), ratio(abs(Fraction(number)) / 2**52 + Fraction(1, 2**1074))
    return bool(abs(value - ratio(Fraction(number))).b <= room.b)


def equal_at(g: Expr, exact: Expr, x: Place) -> bool:
    """Whether g(x) is an exact constant: identically, or to 600 bits where the constant is irrational."""
    if same_at(g, exact, x) or isinstance(x, Zero):
        return same_at(g, exact, x)
    value, gap = at(exact, x, 640), at(g - exact, x, 640)
    return exact.number is None and bool((abs(gap) * 2**600).b <= abs(value).a)


def number_of(s: Statement, below: bool) -> Expr:
    """Return the certificate's number, moved by one part in 1e9 to the safe side where it is not rational."""
    value = s.certificate.value
    if value is None:
        floor = s.hints.choice("floor")
        need(floor is not None, "a bound")
        return Expr.of(rational(floor))
    need(isinstance(value["float"], float | int), "a number")
    number = Fraction(value["float"])
    if value["exact"] is not None:
        exact = parse_constant(value["exact"])
        need(rounds_to(exact, value["float"]), "exact and float that agree")
        if exact.number is not None:
            return exact
    return Expr.of(number - abs(number) * TIGHT if below else number + abs(number) * TIGHT)


def sharp(s: Statement, pieces: list[Part], of: Callable[[Expr], Expr], side: int) -> None:
    """The number is the least value of g (side 1) or the largest of |g| (side -1), as `near` shows.

    One that is exact is taken at `near`, is the limit there ("inf", "-inf"), or is taken between two points or at the
    named point between them; any other is reached at `near` to one part in 1e9.
    """
    value, near = s.certificate.value, s.hints.choice("near")
    if value is None:
        return
    need(near is not None, "a point near which the number is reached")
    signs = (1,) if side > 0 else (1, -1)
    exact = None if value["exact"] is None else parse_constant(value["exact"])
    if near in ("inf", "-inf"):
        end, p = (1, pieces[-1]) if near == "inf" else (-1, pieces[0])
        need(exact is not None and any(_tends(of(p.f) - sign * exact, end, s) for sign in signs), f"a limit at {near}")
        return
    low, high = map(rational, near[:2] if isinstance(near, list) else (near, near))
    number = ratio(Fraction(value["float"]))
    for p in pieces:
        ends = [end for end in (p.low, p.high) if isinstance(end, Zero) and end.low <= low <= high <= end.high]
        if not ends and not ((p.low is None or p.low <= low) and (p.high is None or high <= p.high)):
            continue
        g, x = of(p.f), ends[0] if ends else low  # at an isolated zero: its limit from inside the part
        if low < high and not ends:
            gaps = [] if exact is None else [g - sign * exact for sign in signs]
            if any(_vanishes(gap, low, high) or zero_between(gap, near) for gap in gaps):
                return
        elif exact is not None:
            if any(equal_at(g, sign * exact, x) for sign in signs):
                return
        else:
            here, room = at(g, x, 320), abs(number) * ratio(TIGHT)
            if here.b <= (number + room).b if side > 0 else abs(here).a >= (number - room).a:
                return
    raise UnprovedError(f"the number {value['float']} reached near x = {near}")


def _tends(g: Expr, side: int, s: Statement) -> bool:
    """Whether g tends to 0 on one side."""
    lead = lead_far(g, side, s.hints)
    return lead is None or lead.vanishes


def _vanishes(g: Expr, low: Fraction, high: Fraction) -> bool:
    """Whether g, smooth on [low, high], is 0 somewhere there: it or a factor of it changes sign."""
    for factor in g.args if g.head == "*" else (g,):
        power = factor.power
        base = factor.args[0] if power is not None and power > 0 else factor
        ends = at(base, low, 320), at(base, high, 320)
        if (ends[0].b < 0 < ends[1].a) or (ends[1].b < 0 < ends[0].a):
            return True
    return False


def zero_between(g: Expr, near: list[str]) -> bool:
    """Whether g is 0 at the point that stands last in `near`, between the two others."""
    low, high, x = rational(near[0]), rational(near[1]), parse_constant(near[-1])
    place, value = interval(x, ZERO, ZERO, 320), at(substitute(g, {Expr.x(): x}), ZERO, 320)
    return bool((place - ratio(low)).a > 0 and (ratio(high) - place).a > 0 and value.a == value.b == 0)


def lipschitz(s: Statement) -> None:
    """f is continuous, and |f'| <= L on every part."""
    pieces = smooth_parts(s.f, s.hints)
    continuous(pieces)
    _both_sides(s, pieces, lambda g: g.diff())


def _both_sides(s: Statement, pieces: list[Part], of: Callable[[Expr], Expr]) -> None:
    """|g| is at most the certificate's number on every part, for g = f' or f'', and nearly reaches it."""
    bound = number_of(s, below=False)
    for p in open_parts(pieces):
        for sign in (1, -1):
            prove(bound + sign * of(p.f), p.low, p.high, False, s.hints)
    sharp(s, open_parts(pieces), of, -1)


def smooth(s: Statement) -> None:
    """f and f' are continuous, and |f''| is bounded on every part."""
    pieces = smooth_parts(s.f, s.hints)
    continuous(pieces)
    for left, point, right in joints(pieces):
        x = place(point)
        need(same_at(left.f.diff(), right.f.diff(), x), f"a slope that does not jump at x = {x}")
    _both_sides(s, pieces, lambda g: g.diff().diff())


def not_lipschitz(s: Statement) -> None:
    """f jumps, or f' is unbounded."""
    _unbounded(s, lambda g: g.diff(), "f'")


def not_smooth(s: Statement) -> None:
    """f jumps or has a kink, or f'' is unbounded."""
    kind = s.witness.get("kind")
    if kind == "kink" or (kind == "break" and not jumps(s, witnessed(s))):
        left, right = kink_slopes(s)
        need(abs(left - right).a > 0, "slopes that differ")
    else:
        _unbounded(s, lambda g: g.diff().diff(), "f''")


def _unbounded(s: Statement, of: Callable[[Expr], Expr], name: str) -> None:
    """At the witness f jumps, |g| has a pole, or |g| is 10^4 times its size at 1 and -1, without a bound far out.

    Where g oscillates, that is shown along points that are whole periods away from the witness.
    """
    if jumps(s, witnessed(s)):
        return
    x = rational(s.witness["x"])
    pieces = open_parts(smooth_parts(s.f, s.hints))
    if any(pole_at(of(p.f), x) for p in pieces if x in (p.low, p.high)):
        return
    sizes = [abs(at(of(_right_of(pieces, y).f), y)) for y in (x, Fraction(1), Fraction(-1))]
    need(all((sizes[0] - LARGE * size).a > 0 for size in sizes[1:] if size.b < iv.inf), f"|{name}({x})| that is large")
    for p, side in ((pieces[0], -1), (pieces[-1], 1)):
        lead = lead_far(along(of(p.f), x), side, s.hints)
        if lead is not None and lead.grows:
            return
    raise UnprovedError(f"{name} that grows without bound")


def pole_at(g: Expr, x: Fraction) -> bool:
    """Whether |g| tends to infinity at x: one term divides by a power of what is 0 there, the others are bounded.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> pole_at(parse_formula("exp(x)/sqrt(1-x) + x").primitive(), Fraction(1))
    True
    """
    poles = 0
    for term in g.args if g.head == "+" else (g,):
        values = [(at(base, x), n) for base, n in factors(term).items()]
        zeros = [n for value, n in values if value.a == value.b == 0]
        others = [value for value, _ in values if not value.a == value.b == 0]
        if any(0 in value or not abs(value).b < iv.inf for value in others) or (zeros and min(zeros) < 0 < max(zeros)):
            return False
        poles += any(n < 0 for n in zeros)
    return poles == 1


def _right_of(pieces: list[Part], x: Fraction) -> Part:
    """Return the part that holds all points close to x on its right."""
    return next(p for p in pieces if (p.low is None or p.low <= x) and (p.high is None or x < p.high))
