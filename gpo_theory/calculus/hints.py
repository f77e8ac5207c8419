"""The search for a hint: what the verifier needs to be told in order to replay one inequality.

It decides in exact arithmetic (roots of polynomials) or in Arb's balls, and asks the verifier only where a half-line
may begin. What it finds is worth nothing until the verifier has replayed it.
"""

__all__ = ["hint", "shifts_of"]

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

from flint import arb, ctx, fmpq

from gpo_theory.budget import spend
from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.rational import Rational, as_rational, sign_chart
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.kernel.horizon import UnresolvedError, lead_beyond
from gpo_theory.kernel.inequality import Fact

STARTS = tuple(map(Fraction, (8, 16, 32, 64, 256, 1024, 2**14)))
MOST_BOXES, SMALLEST = 2000, Fraction(1, 2**26)
EXACT_DEGREE = 40


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
    return _cover(fact, Fraction(0) if form is None else form.shift)


def _quotient(form: Rational) -> Mapping[str, Any]:
    numerator, denominator = ([str(Fraction(int(c.p), int(c.q))) for c in p.coeffs()]
                              for p in (form.numerator, form.denominator))  # fmt: skip
    return {"by": "quotient", "numerator": numerator, "denominator": denominator,
            "slope": None if form.slope is None else str(form.slope), "shift": str(form.shift)}  # fmt: skip


def _cover(fact: Fact, shift: Fraction) -> Mapping[str, Any] | None:
    out: dict[str, Any] = {"by": "cover"}
    ends: list[Fraction] = []
    for end, side, name in ((fact.low, -1, "left"), (fact.high, 1, "right")):
        found = (end, None) if end is not None else _half_line(fact, side, shift)
        if found is None:
            return None
        ends.append(found[0])
        if found[1]:
            out[name] = str(found[1])
    low, high = ends
    if low >= high:
        low, high = (low, low + 1) if fact.high is None else (high - 1, high)
    for bits in (80, 320):
        cuts, narrow = _boxes(fact, low, high, bits)
        if cuts:
            return out | {"cuts": [str(c) for c in cuts]} | ({"bits": bits} if bits != 80 else {})
        if not narrow:  # more digits help only where a box could not be told although it was small
            return None
    return None


def _half_line(fact: Fact, side: int, shift: Fraction) -> tuple[Fraction, Fraction] | None:
    """Return (x, shift) where the leading term decides the sign from x on."""
    own = shifts_of(fact.g)
    for start in STARTS:
        for s in dict.fromkeys((shift, Fraction(0), *own)):
            spend()
            end = s + side * start
            if (fact.low is not None and end <= fact.low) or (fact.high is not None and end >= fact.high):
                continue
            try:
                lead = lead_beyond(fact.g, side, start, s)
            except UnresolvedError:
                continue
            if lead is None:
                return None if fact.strict else (end, s)
            if lead.sign:
                return (end, s) if lead.sign == 1 else None
    return None


@lru_cache(maxsize=1024)
def shifts_of(g: Expr) -> tuple[Fraction, ...]:
    """Return where the arguments of exponentials and Gaussian tails vanish or turn: there coefficients are rational."""
    out: list[Fraction] = []
    for node in g.walk():
        form = as_rational(node.args[0]) if node.head in ("exp", "erfc") and node.depends_on_x else None
        if form is None or form.slope is not None or form.denominator.degree() or form.numerator.degree() not in (1, 2):
            continue
        p = form.numerator
        root = -p[0] / p[1] if p.degree() == 1 else -p[1] / (2 * p[2])
        out.append(Fraction(int(root.p), int(root.q)))
    return tuple(dict.fromkeys(out))[:4]


def _boxes(fact: Fact, low: Fraction, high: Fraction, bits: int) -> tuple[list[Fraction], bool]:
    """Return cuts of [low, high] between which balls show the sign, or none and whether a small box was at fault."""
    orders = [fact.g, fact.g.diff()]
    orders += [orders[1].diff()]
    inner = sorted(x for x in shifts_of(fact.g) if low < x < high)
    todo, done = list(reversed(list(pairwise([low, *inner, high])))), list[Fraction]()
    while todo:
        spend()
        a, b = todo.pop()
        if _shown(orders, a, b, fact, bits, (a == fact.low, b == fact.high)):
            done.append(b)
            continue
        if b - a < SMALLEST or len(todo) + len(done) > MOST_BOXES or _fails(fact, (a + b) / 2, bits):
            return [], b - a < SMALLEST
        middle = (a + b) / 2
        todo += [(middle, b), (a, middle)]
    return [low, *done], False


def _fails(fact: Fact, x: Fraction, bits: int) -> bool:
    value = enclose(fact.g, x, bits)
    return bool(value < 0) or bool(fact.strict and value <= 0)


def _ball(a: Fraction, b: Fraction) -> arb:
    middle, radius = (a + b) / 2, (b - a) / 2
    return arb(fmpq(middle.numerator, middle.denominator)) + arb(0, 1) * arb(fmpq(radius.numerator, radius.denominator))


def _shown(orders: list[Expr], a: Fraction, b: Fraction, fact: Fact, bits: int, free: tuple[bool, bool]) -> bool:
    """Try the range, the mean value form, and a rise from an end: the steps that the verifier knows."""
    with ctx.workprec(bits):
        box = _ball(a, b)
    g, slope, bend = orders
    values = enclose(g, box, bits)
    if values > 0 or (not fact.strict and values >= 0):
        return True
    slopes = enclose(slope, box, bits)
    middle = (a + b) / 2
    with ctx.workprec(bits):
        linear = enclose(g, middle, bits) + slopes * (box - arb(fmpq(middle.numerator, middle.denominator)))
    if linear > 0:
        return True
    for end, rise, is_free in ((a, 1, free[0]), (b, -1, free[1])):
        # A rise from an inner cut matters only where g touches 0 there.
        if end not in (fact.low, fact.high) and not enclose(g, end, bits).contains(0):
            continue
        start = enclose(substitute(g, {Expr.x(): Expr.of(end)}), end, bits)
        if not (start > 0 or (start >= 0 and (is_free or not fact.strict))):
            continue
        with ctx.workprec(bits):
            first = rise * slopes
            at_end = rise * enclose(slope, end, bits)
            second = at_end + rise * enclose(bend, box, bits) * (box - arb(fmpq(end.numerator, end.denominator)))
            curved = rise * rise * enclose(bend, box, bits)
        strict = fact.strict and not start > 0
        if first > 0 or second > 0 or (not strict and (first >= 0 or second >= 0)):
            return True
        if at_end >= 0 and (curved > 0 or (not strict and curved >= 0)):
            return True
    return False
