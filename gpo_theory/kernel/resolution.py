"""f as smooth parts between given breakpoints, each max, min and where decided by inequalities."""

__all__ = ["Hints", "Part", "UnprovedError", "parts", "prove", "same_at"]

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from operator import add, mul
from typing import Any, Protocol

from gpo_theory.formula.expression import Expr, rebuild
from gpo_theory.kernel.expansion import cancelled, expanded
from gpo_theory.kernel.inequality import Fact, factors, holds, starts
from gpo_theory.kernel.intervals import interval
from gpo_theory.kernel.zeros import Place, Zero, at, is_isolated, is_smooth, left_of, right_of, vanishes


class UnprovedError(Exception):
    """A step of a proof that could not be replayed; the message says which."""


class Hints(Protocol):
    """The proof in a certificate: hints for inequalities, breakpoints, and named choices."""

    def hint(self, fact: Fact) -> Mapping[str, Any] | None:
        """Return the hint for an inequality, None where none is needed."""

    def breakpoints(self, f: Expr) -> tuple[Place, ...]:
        """Return the points between which f is smooth."""

    def choice(self, name: str) -> Any:
        """Return a named choice of the proof, such as the theorem used; None where there is none."""


@dataclass(frozen=True)
class Part:
    """f on the open interval (low, high), None for an infinite end, or at the point low = high."""

    low: Place | None
    high: Place | None
    f: Expr

    @property
    def is_point(self) -> bool:
        """Whether it is a single breakpoint."""
        return self.low is not None and self.low == self.high

    @property
    def sample(self) -> Fraction:
        """A rational point of the part."""
        if self.low is None:
            return Fraction(0) if self.high is None else left_of(self.high) - 1
        if self.high is None:
            return right_of(self.low) + 1
        return (right_of(self.low) + left_of(self.high)) / 2


def prove(g: Expr, low: Place | None, high: Place | None, strict: bool, hints: Hints) -> None:
    """Replay g >= 0 (strict: > 0) on (low, high); raises UnprovedError."""
    ends = _rational_end(g, low, 1, strict), _rational_end(g, high, -1, strict)
    if ends[0] is not None and ends[1] is not None and ends[0] >= ends[1]:
        raise UnprovedError(f"an interval between {low} and {high}")
    forms = (expanded(g) or g, g, g if strict else _divided(g, *ends))
    facts = [Fact(form, *ends, strict) for form in dict.fromkeys(forms)]
    if any(holds(fact, None) for fact in facts):
        return
    for fact in facts:
        hint = hints.hint(fact)
        if holds(fact, hint):
            return
        if hint is not None and hint["by"] == "rise" and starts(fact, hint):
            # g is continuous where it is defined, so it is above its value or limit at the end from which it rises.
            prove(fact.g.diff() * (1 if hint["from"] == "low" else -1), *ends, strict, hints)
            return
    raise UnprovedError(str(facts[0]))


def _divided(g: Expr, low: Fraction | None, high: Fraction | None) -> Expr:
    """Return g without the powers, of bases that are not negative on an interval, that all its terms have in common."""
    terms = [factors(term) for term in (g.args if g.head == "+" else (g,))]
    shared = {base: min(term.get(base, Fraction(0)) for term in terms) for base in terms[0]}
    kept = {base: n for base, n in shared.items() if n > 0 and interval(base, low, high).a >= 0}
    left = (reduce(mul, (base ** (n - kept.get(base, 0)) for base, n in term.items())) for term in terms)
    return reduce(add, left) if kept else g


def _rational_end(g: Expr, end: Place | None, side: int, strict: bool) -> Fraction | None:
    """Return a rational from which on the inequality is left to show, beside an end with all points on its `side`.

    At a zero that is the far end of its bracket where g is 0 there by identity and rises from it (on the side that
    counts), and else the near end, so that the inequality is shown on more than was asked.
    """
    if not isinstance(end, Zero):
        return end
    outer, inner = (end.low, end.high) if side > 0 else (end.high, end.low)
    found = interval(g, end.low, end.high)
    if found.a > 0 or (found.a >= 0 and not strict) or not vanishes(g, end):
        return outer
    rise = side * interval(g.diff(), end.low, end.high)
    return inner if rise.a > 0 or (rise.a >= 0 and not strict) else outer


def same_at(a: Expr, b: Expr, x: Place) -> bool:
    """Whether two formulas have exactly the same value, or limit, at x; at a zero also where all their parts have."""
    difference = at(cancelled(a - b), x)
    if difference.a == 0 and difference.b == 0:
        return True
    alike = a.head == b.head and len(a.children) == len(b.children) > 0
    smooth = isinstance(x, Zero) and is_smooth(a, x) and is_smooth(b, x)
    return alike and smooth and all(same_at(*pair, x) for pair in zip(a.children, b.children, strict=True))


def parts(f: Expr, hints: Hints) -> list[Part]:
    """Return the parts of f from left to right: interval, point, interval, ..., interval."""
    cuts = hints.breakpoints(f)
    if not all(a < b for a, b in pairwise(cuts)):
        raise UnprovedError("breakpoints that do not rise")
    for cut in cuts:
        if isinstance(cut, Zero) and not is_isolated(cut):
            raise UnprovedError(f"{cut}, isolated")
    out: list[Part] = []
    for low, high in pairwise([None, *cuts, None]):
        out += [Part(low, low, branch_at(f, low))] if low is not None else []
        out.append(Part(low, high, resolve(f, low, high, hints)))
    return out


def resolve(node: Expr, low: Place | None, high: Place | None, hints: Hints) -> Expr:
    """Replace each max, min and where by the branch that holds on the whole interval, which is proved."""
    if node.head == "where":
        truth = true_on(node.args[0], low, high, hints)
        return resolve(node.args[1] if truth else node.args[2], low, high, hints)
    children = tuple(resolve(child, low, high, hints) for child in node.children)
    if node.head not in ("max", "min"):
        return rebuild(node, children)
    x, side = Part(low, high, node).sample, 1 if node.head == "max" else -1
    best = children[0]
    for other in children[1:]:
        if at(side * (other - best), x).a > 0:
            best = other
    for other in children:
        if other != best:
            prove(side * (best - other), low, high, False, hints)
    return best


def true_on(condition: Expr, low: Place | None, high: Place | None, hints: Hints) -> bool:
    """Whether a condition holds on the whole interval or nowhere on it, which is proved."""
    if condition.head in ("and", "or"):
        values = [true_on(part, low, high, hints) for part in condition.args]
        return all(values) if condition.head == "and" else any(values)
    a, b = (resolve(side, low, high, hints) for side in condition.args)
    if condition.head in (">", ">="):
        a, b = b, a
    strictly = condition.head in ("<", ">")
    holding = at(b - a, Part(low, high, condition).sample).a > 0
    prove(b - a if holding else a - b, low, high, strictly == holding, hints)
    return bool(holding)


def branch_at(node: Expr, x: Place) -> Expr:
    """Decide every node at a single point by its exact value there."""
    if node.head == "where":
        return branch_at(node.args[1] if true_at(node.args[0], x) else node.args[2], x)
    children = tuple(branch_at(child, x) for child in node.children)
    if node.head not in ("max", "min"):
        return rebuild(node, children)
    best, side = children[0], 1 if node.head == "max" else -1
    for other in children[1:]:
        best = other if _sign(side * (other - best), x) > 0 else best
    return best


def true_at(condition: Expr, x: Place) -> bool:
    """Whether a condition holds at x; raises UnprovedError where a sign is not decided."""
    if condition.head in ("and", "or"):
        values = [true_at(part, x) for part in condition.args]
        return all(values) if condition.head == "and" else any(values)
    sign = _sign(branch_at(condition.args[0], x) - branch_at(condition.args[1], x), x)
    return {"<": sign < 0, "<=": sign <= 0, ">": sign > 0, ">=": sign >= 0}[condition.head]


def _sign(g: Expr, x: Place) -> int:
    value = at(g, x)
    if value.a > 0 or value.b < 0 or value.a == value.b == 0:
        return int(value.a > 0) - int(value.b < 0)
    raise UnprovedError(f"the sign of {g} at x = {x}")
