"""One inequality on one interval, g > 0 or g >= 0, and its replay from a hint: the only kind of step in a proof.

The hint is not trusted: where it is wrong, the replay fails.
"""

__all__ = ["Fact", "at", "factors", "folded", "holds", "positive", "rational", "root_factors", "starts"]

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from operator import add, mul
from typing import Any

from gpo_theory.formula.expression import Expr, rebuild, substitute
from gpo_theory.kernel.horizon import UnresolvedError, lead_beyond
from gpo_theory.kernel.intervals import Interval, interval, rational_root, span
from gpo_theory.kernel.sturm import Quotient, equals, keeps_sign

X, NOWHERE = Expr.x(), Fraction(0)
# Derivatives used on one box, of which each takes two (one where the one before is 0 at the end), and halvings of it
# where the cuts of a hint are too coarse: limits on time. Half-lines start at |x - shift| >= 8, where its log is > 2.
ORDER, HALVINGS, LEAST_START, MOST_POWER = 6, 3, 8, 64
# A certificate may come from anybody, and 1e9999999999 is a short text: more digits than these are refused.
DIGITS = 2000
NUMBER = re.compile(rf"-?\d{{1,{DIGITS}}}(/\d{{1,{DIGITS}}})?")


@dataclass(frozen=True)
class Fact:
    """g >= 0 (strict: g > 0) for every x of the open interval (low, high); None for an infinite end."""

    g: Expr
    low: Fraction | None
    high: Fraction | None
    strict: bool

    def __str__(self) -> str:
        ends = "-inf" if self.low is None else self.low, "inf" if self.high is None else self.high
        return f"{self.g} {'>' if self.strict else '>='} 0 on ({ends[0]}, {ends[1]})"


def at(g: Expr, x: Fraction, bits: int = 80) -> Interval:
    """Return an interval for g(x), with equal terms cancelled first: f(0) - f(0) is exactly 0."""
    return interval(folded(substitute(g, {X: Expr.of(x)})), x, x, bits)


_KNOWN: dict[tuple[str, Fraction | int], int] = {
    ("exp", 0): 1, ("log", 1): 0, ("atan", 0): 0, ("erfc", 0): 1, ("sin", 0): 0, ("cos", 0): 1,
}  # fmt: skip


def folded(g: Expr) -> Expr:
    """Return a constant with exp(0), log(1), exp(2 log(3)), sqrt(4), ... evaluated, so that rationals stay exact."""
    g = rebuild(g, tuple(map(folded, g.children)))
    if g.head == "exp":
        front, log = (Expr.of(1), *g.args[0].args)[-2:] if g.args[0].head == "*" else (Expr.of(1), g.args[0])
        n, base = front.number, log.args[0].number if log.head == "log" else None
        if base and n is not None and n.denominator == 1 and abs(n) <= MOST_POWER:
            return Expr.of(base ** int(n))
    inside = g.children[0].number if g.children else None
    if g.head == "**" and inside is not None and inside > 0 and (n := g.power) is not None:
        root = rational_root(inside, n.denominator) if n.denominator <= MOST_POWER and abs(n) <= MOST_POWER else None
        return g if root is None else Expr.of(root**n.numerator)
    return Expr.of(_KNOWN[g.head, inside]) if inside is not None and (g.head, inside) in _KNOWN else g


def _product(powers: Mapping[Expr, Fraction]) -> Expr:
    return reduce(mul, (base**n for base, n in powers.items()), Expr.of(1))


def root_factors(g: Expr) -> tuple[dict[Expr, Fraction], Expr]:
    """Return {base: exponent} of the roots that all terms of g have in common, and g without them."""
    terms = [factors(term) for term in (g.args if g.head == "+" else (g,))]
    roots = {base: n for base, n in terms[0].items() if n.denominator != 1
             and all((term.get(base, Fraction(0)) - n).denominator == 1 for term in terms)}  # fmt: skip
    left = [{base: n - roots.get(base, 0) for base, n in term.items()} for term in terms]
    return roots, reduce(add, map(_product, left))


def factors(term: Expr) -> dict[Expr, Fraction]:
    """Return {base: exponent} of a product; a factor that is no rational power is a base with exponent 1."""
    out: dict[Expr, Fraction] = {}
    for factor in term.args if term.head == "*" else (term,):
        exponent = factor.args[1].number if factor.head == "**" else None
        base = factor.args[0] if exponent is not None else factor
        # A base under a root is not negative, so the exponents multiply.
        while base.head == "**" and exponent and (inner := base.args[1].number) and inner.denominator != 1:
            base, exponent = base.args[0], exponent * inner
        out[base] = out.get(base, Fraction(0)) + (exponent if exponent is not None else 1)
    return out


def holds(fact: Fact, hint: Mapping[str, Any] | None) -> bool:
    """Whether the inequality is shown: by its range alone, or as the hint says.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> g = parse_formula("x*(1-x)").primitive()
    >>> holds(Fact(g, Fraction(0), Fraction(1), True), {"by": "cover", "cuts": ["0", "1/2", "1"]})
    True
    """
    if _within(fact.g, fact.low, fact.high, fact.strict):
        return True
    if hint is None:
        return False
    if "unit" in hint and (unit := rational(hint["unit"])) > 0:  # in y = x / unit
        low, high = (None if end is None else end / unit for end in (fact.low, fact.high))
        fact = Fact(substitute(fact.g, {X: unit * X}), low, high, fact.strict)
    if hint["by"] == "quotient":
        slope = None if hint["slope"] is None else rational(hint["slope"])
        form = Quotient(_rationals(hint["numerator"]), _rationals(hint["denominator"]), slope, rational(hint["shift"]))
        return equals(fact.g, form) and keeps_sign(form, fact.low, fact.high, fact.strict)
    return hint["by"] == "cover" and _covered(fact, hint)


def rational(text: str) -> Fraction:
    """Return the number that a certificate spells as p or p/q; raises ValueError for any other or longer text."""
    if not isinstance(text, str) or not NUMBER.fullmatch(text):
        raise ValueError(f"{str(text)[:40]!r} is no fraction p/q of at most {DIGITS} digits")
    return Fraction(text)


def _rationals(texts: list[str]) -> tuple[Fraction, ...]:
    return tuple(map(rational, texts))


def _within(g: Expr, low: Fraction | None, high: Fraction | None, strict: bool) -> bool:
    """Whether the range of g on the interval shows the inequality."""
    found = interval(g, low, high)
    return bool(found.a > 0 or (found.a >= 0 and (not strict or positive(g, low, high))))


def positive(g: Expr, low: Fraction | None, high: Fraction | None) -> bool:
    """Whether g > 0 by its shape: exponentials and erfc do not reach their lower bound 0."""
    match g.head:
        case "exp" | "erfc":
            return True
        case "+":
            return all(interval(p, low, high).a >= 0 for p in g.args) and any(positive(p, low, high) for p in g.args)
        case "*":
            return all(positive(factor, low, high) for factor in g.args)
        case "**":
            return positive(g.args[0], low, high)
        case "log":
            return positive(g.args[0] - 1, low, high)
    return bool(interval(g, low, high).a > 0)


def starts(fact: Fact, hint: Mapping[str, Any]) -> bool:
    """Whether g is not below 0 at the end that a hint names, or tends there to a limit that is not."""
    side, end = (1, fact.low) if hint["from"] == "low" else (-1, fact.high)
    if end is not None:
        return bool(at(fact.g, end).a >= 0)
    try:
        lead = lead_beyond(fact.g, -side, rational(hint["start"]))
    except UnresolvedError:
        return False
    return lead is None or lead.vanishes or lead.sign > 0


def _covered(fact: Fact, hint: Mapping[str, Any]) -> bool:
    """Replay a cover: a half-line at each infinite end, and boxes between the cuts."""
    cuts, bits = _rationals(hint["cuts"]), int(hint.get("bits", 80))
    if not cuts or any(a >= b for a, b in pairwise(cuts)) or not 32 <= bits <= 4096:
        return False
    for end, cut, side, name in ((fact.low, cuts[0], -1, "left"), (fact.high, cuts[-1], 1, "right")):
        if end is None and not _beyond(fact, side, cut, rational(hint.get(name) or "0"), bits):
            return False
        if end is not None and end != cut:
            return False
    open_ends = fact.low is not None, fact.high is not None
    last = len(cuts) - 2
    return all(_box(fact.g, a, b, fact.strict, (i == 0 and open_ends[0], i == last and open_ends[1]), bits, HALVINGS)
               for i, (a, b) in enumerate(pairwise(cuts)))  # fmt: skip


def _beyond(fact: Fact, side: int, cut: Fraction, shift: Fraction, bits: int) -> bool:
    """Whether the leading term of g shows the inequality on the half-line from a cut outwards."""
    start = side * (cut - shift)
    if start < LEAST_START:
        return False
    try:
        lead = lead_beyond(fact.g, side, start, shift, bits)
    except UnresolvedError:
        return False
    return not fact.strict if lead is None else lead.sign == 1


def _box(g: Expr, a: Fraction, b: Fraction, strict: bool, free: tuple[bool, bool], bits: int, halvings: int) -> bool:
    """Whether the inequality holds on [a, b]; at an end that is `free`, g may be 0 even where strict."""
    if _on_box(g, a, b, strict, free, bits, ORDER):
        return True
    middle = (a + b) / 2
    return (
        halvings > 0
        and _box(g, a, middle, strict, (free[0], False), bits, halvings - 1)
        and _box(g, middle, b, strict, (False, free[1]), bits, halvings - 1)
    )


def _on_box(g: Expr, a: Fraction, b: Fraction, strict: bool, free: tuple[bool, bool], bits: int, order: int) -> bool:
    """By the range; by the mean value theorem from the middle; by the sign of g at one end and of g' on the box."""
    found = interval(g, a, b, bits)
    if found.a > 0 or (found.a >= 0 and not strict):
        return True
    if order <= 0:
        return False
    slope = g.diff()
    middle = (a + b) / 2
    found = interval(g, middle, middle, bits) + interval(slope, a, b, bits) * (span(a, b) - span(middle, middle))
    if found.a > 0 or (found.a >= 0 and not strict):
        return True
    for end, rise, may_be_zero in ((a, slope, free[0]), (b, -slope, free[1])):
        start = at(g, end, bits)
        if start.a > 0 or (start.a >= 0 and (may_be_zero or not strict)):
            rises = strict and not start.a > 0
            if _on_box(rise, a, b, rises, (True, True), bits, order - 1 - (not start.a == start.b == 0)):
                return True
    return False
