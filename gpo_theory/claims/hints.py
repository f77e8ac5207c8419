"""The search for a hint: what the verifier needs to know in order to replay one inequality.

The search works in exact arithmetic (roots of polynomials) or in Arb's balls; only the start of a half-line comes from
the verifier's own bounds. A hint proves nothing until the verifier has replayed it.
"""

__all__ = ["hint"]

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

from flint import arb, ctx

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import ball, between, enclose, exact_value
from gpo_theory.calculus.half_lines import STARTS, half_line, shifts_of
from gpo_theory.calculus.pieces import Piece
from gpo_theory.calculus.rational import Rational, as_rational, fraction, sign_chart
from gpo_theory.calculus.samples import unit
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.kernel.expansion import expanded
from gpo_theory.kernel.inequality import Fact, at, starts

# Limits on the time of the search; the probit's convexity takes 214 boxes.
MOST_BOXES, SMALLEST = 2000, Fraction(1, 2**26)
LARGEST = 10**6  # denominator of a zero at which a box is cut
X = Expr.x()
FLAT = 5  # derivatives of a formula looked at where it is 0
EXACT_DEGREE = 40  # of a quotient that the verifier's Sturm chains replay in milliseconds


@lru_cache(maxsize=2048)
def hint(fact: Fact) -> Mapping[str, Any] | None:
    """Return a hint for an inequality, or None where it is not found to hold.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> hint(Fact(parse_formula("x**2-2*x+1"), None, None, False))["numerator"]
    ['1', '-2', '1']
    """
    form = as_rational(fact.g)
    if form is not None and form.constant.number == 1:
        chart = sign_chart(fact.g, fact.low, fact.high)
        if chart is not None:
            allowed = {1} if fact.strict else {0, 1}
            if not set(chart.signs) <= allowed or (fact.strict and chart.roots) or not chart.defined:
                return None
            if max(form.numerator.degree(), form.denominator.degree()) <= EXACT_DEGREE:
                return _quotient(form)
    shift, step = Fraction(0) if form is None else form.shift, unit(fact.g)
    found = _in_units(fact, shift, step)
    # erfc is close to its expansion at 4 already, and boxes up to 8 would be many.
    if found is None and any(node.head == "erfc" for node in fact.g.walk()):
        found = _in_units(fact, shift, step / 2)
    return found or _rise(fact)


def _rise(fact: Fact) -> Mapping[str, Any] | None:
    """Return the hint that g rises from an end at which it is not below 0, where the exact signs of g' say so."""
    for side, end in ((1, "low"), (-1, "high")):
        slope = side * fact.g.diff()
        chart = sign_chart(expanded(slope) or slope, fact.low, fact.high)
        if chart is None or not set(chart.signs) <= ({1} if fact.strict else {0, 1}):
            continue
        for start in STARTS:
            found = {"by": "rise", "from": end, "start": str(start)}
            if starts(fact, found):
                return found
    return None


def _in_units(fact: Fact, shift: Fraction, step: Fraction) -> Mapping[str, Any] | None:
    """Return the hint of a cover in y = x / step."""
    low, high = (None if end is None else end / step for end in (fact.low, fact.high))
    scaled = fact if step == 1 else Fact(substitute(fact.g, {X: step * X}), low, high, fact.strict)
    found = _cover(scaled, shift / step)
    return found if found is None or step == 1 else {**found, "unit": str(step)}


def _quotient(form: Rational) -> Mapping[str, Any]:
    """Return the hint that g is this quotient of polynomials."""
    numerator, denominator = ([str(fraction(c)) for c in p.coeffs()]
                              for p in (form.numerator, form.denominator))  # fmt: skip
    return {"by": "quotient", "numerator": numerator, "denominator": denominator,
            "slope": None if form.slope is None else str(form.slope), "shift": str(form.shift)}  # fmt: skip


def _cover(fact: Fact, shift: Fraction) -> Mapping[str, Any] | None:
    """Return the hint of half-lines at the infinite ends and boxes between them."""
    out: dict[str, Any] = {"by": "cover"}
    ends: list[Fraction] = []
    for end, side, name in ((fact.low, -1, "left"), (fact.high, 1, "right")):
        if end is not None:
            ends.append(end)
            continue
        found = half_line(Piece(fact.low, fact.high, fact.g), side, shift)
        if found is None or found.sign < (1 if fact.strict else 0):
            return None
        ends.append(found.start)
        if found.shift:
            out[name] = str(found.shift)
    low, high = ends
    if low >= high:
        low, high = (low, low + 1) if fact.high is None else (high - 1, high)
    for bits in (80, 320):
        cuts, narrow = _boxes(fact, low, high, bits)
        if cuts:
            return out | {"cuts": [str(c) for c in cuts]} | ({"bits": bits} if bits != 80 else {})
        if not narrow:  # more bits help only where a small box stayed undecided
            return None
    return None


def _boxes(
    fact: Fact, low: Fraction, high: Fraction, bits: int, zeros: tuple[Fraction, ...] = ()
) -> tuple[list[Fraction], bool]:
    """Return cuts of [low, high] between which balls show the sign; else none, and whether a small box is undecided.

    A rational zero in a small box becomes a cut.
    """
    orders = [fact.g, fact.g.diff()]
    orders += [orders[1].diff()]
    inner = sorted({*zeros, *(x for x in shifts_of(fact.g) if low < x < high)})
    todo, done = list(reversed(list(pairwise([low, *inner, high])))), list[Fraction]()
    while todo:
        spend()
        a, b = todo.pop()
        if _shown(orders, a, b, fact, bits, (a == fact.low, b == fact.high)):
            done.append(b)
            continue
        middle = (a + b) / 2
        if b - a < SMALLEST or len(todo) + len(done) > MOST_BOXES or _fails(fact, middle, bits):
            zero = middle.limit_denominator(LARGEST)
            if b - a < SMALLEST and a < zero < b and exact_value(fact.g, zero) == 0:
                return _boxes(fact, low, high, bits, (*zeros, zero))
            return [], b - a < SMALLEST
        todo += [(middle, b), (a, middle)]
    return [low, *done], False


def _fails(fact: Fact, x: Fraction, bits: int) -> bool:
    """Whether the inequality is certainly false at x."""
    value = enclose(fact.g, x, bits)
    return bool(value < 0) or bool(fact.strict and value <= 0)


def _shown(orders: list[Expr], a: Fraction, b: Fraction, fact: Fact, bits: int, free: tuple[bool, bool]) -> bool:
    """Whether g keeps its sign on [a, b] by a step of the verifier: range, mean value form, or rise from an end."""
    with ctx.workprec(bits):
        box = between(a, b)
    g, slope, bend = orders
    values = enclose(g, box, bits)
    if values > 0 or (not fact.strict and values >= 0):
        return True
    slopes = enclose(slope, box, bits)
    middle = (a + b) / 2
    with ctx.workprec(bits):
        linear = enclose(g, middle, bits) + slopes * (box - ball(middle))
    if linear > 0:
        return True
    for end, rise, is_free in ((a, 1, free[0]), (b, -1, free[1])):
        # A rise from an inner cut matters only where g touches 0 there.
        if end not in (fact.low, fact.high) and not enclose(g, end, bits).contains(0):
            continue
        start = at(g, end, bits)
        if not (start.a > 0 or (start.a >= 0 and (is_free or not fact.strict))):
            continue
        with ctx.workprec(bits):
            first = rise * slopes
            at_end = rise * enclose(slope, end, bits)
            second = at_end + rise * enclose(bend, box, bits) * (box - ball(end))
            curved = rise * rise * enclose(bend, box, bits)
        strict = fact.strict and not start.a > 0
        if first > 0 or second > 0 or (not strict and (first >= 0 or second >= 0)):
            return True
        if (at_end >= 0 or at(rise * slope, end, bits).a >= 0) and (curved > 0 or (not strict and curved >= 0)):
            return True
        if start.a == start.b == 0 and _risen(g, end, rise, box, bits):
            return True
    return False


def _risen(g: Expr, end: Fraction, side: int, box: arb, bits: int) -> bool:
    """Whether the first derivative of g that is not 0 at an end is above 0 on a box, in the direction away from it."""
    for _ in range(FLAT):
        g = side * g.diff()
        here = at(g, end, bits)
        if not here.a == here.b == 0:
            break
    return bool(enclose(g, box, bits) > 0)
