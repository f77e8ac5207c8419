"""The rule for `total`: every operation that is evaluated has an argument in its domain."""

__all__ = ["asks", "fails_at", "fails_between", "total", "undefined"]

from collections.abc import Iterator
from fractions import Fraction

from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.inequality import rational
from gpo_theory.kernel.resolution import Hints, Part, UnprovedError, branch_at, parts, resolve, true_at, true_on
from gpo_theory.kernel.statement import Statement, need, place, sign_on
from gpo_theory.kernel.zeros import at


def total(s: Statement) -> None:
    """Every operation is defined on each part of f where it is used; where f has no parts, on all of R."""
    try:
        pieces = parts(s.f, s.hints)
    except UnprovedError:
        for node in dict.fromkeys(s.f.walk()):
            if asks(node) is not None:
                _in_domain(node, node.args[0], Part(None, None, node), s.hints)
        return
    for p in pieces:
        _defined(s.f, p, s.hints)


def asks(node: Expr) -> str | None:
    """Return what an operation requires of its first argument: "positive", "nonnegative", "nonzero" or nothing."""
    power = node.power
    if node.head == "log" or (node.head == "**" and power is None):
        return "positive"
    if power is None:
        return None
    if power.denominator == 1:
        return "nonzero" if power <= 0 else None
    return "positive" if power < 0 else "nonnegative"


def _in_domain(node: Expr, argument: Expr, part: Part, hints: Hints) -> None:
    """Prove that the argument of an operation is in its domain on one part."""
    asked = asks(node)
    if asked == "nonzero":
        x = part.low if part.is_point and part.low is not None else part.sample
        argument = argument if at(argument, x).a > 0 else -argument
    sign_on(argument, part, asked != "nonnegative", hints)


def _defined(node: Expr, part: Part, hints: Hints) -> None:
    """Every logarithm, quotient and root that is evaluated on the part has an argument in its domain."""
    if node.head == "where":
        condition, yes, no = node.children
        for side in _sides(condition):
            _defined(side, part, hints)
        # Branches of equal value differ in where they are defined, so the condition decides which one is taken.
        holds = true_at(condition, place(part)) if part.is_point else true_on(condition, part.low, part.high, hints)
        _defined(yes if holds else no, part, hints)
        return
    for child in node.children:
        _defined(child, part, hints)
    if asks(node) is not None:
        _in_domain(node, _on_part(node.args[0], part, hints), part, hints)


def _sides(condition: Expr) -> Iterator[Expr]:
    """Yield what a condition compares, all of which is evaluated."""
    return (side for c in (condition.args if condition.head in ("and", "or") else (condition,)) for side in c.args)


def _on_part(node: Expr, part: Part, hints: Hints) -> Expr:
    """Return the smooth formula that a node is on one part."""
    return branch_at(node, place(part)) if part.is_point else resolve(node, part.low, part.high, hints)


def undefined(s: Statement) -> None:
    """An operation that is evaluated has an argument outside its domain: at the point, or somewhere between two."""
    if s.witness.get("kind") == "break":
        low, high = rational(s.witness["low"]), rational(s.witness["high"])
        need(low < high and fails_between(s.f, low, high), f"f undefined between {low} and {high}")
        return
    x = rational(s.witness["x"])
    need(fails_at(s.f, x), f"f undefined at x = {x}")


def fails_between(node: Expr, low: Fraction, high: Fraction) -> bool:
    """Whether a formula is certainly undefined at some x of [low, high].

    An argument that must not be 0 has opposite signs at the ends. Without `where` it is continuous wherever it is
    defined, so that it is undefined or 0 in between; and it is evaluated everywhere, as it stands in no branch.
    """
    inside = _sides(node.args[0]) if node.head == "where" else node.children
    if any(fails_between(part, low, high) for part in inside):
        return True
    asked = asks(node) if node.head == "log" or node.power is not None else None
    return asked in ("positive", "nonzero") and _crosses(node.args[0], low, high)


def _crosses(g: Expr, low: Fraction, high: Fraction) -> bool:
    """Whether g, its base or a factor has opposite signs at two points, with no jump between them."""
    if g.head == "*" or (g.power is not None and g.power > 0):
        return any(_crosses(factor, low, high) for factor in (g.args if g.head == "*" else g.args[:1]))
    ends = [at(g, x) for x in (low, high)]
    return all(n.head != "where" for n in g.walk()) and bool(ends[0].b < 0 < ends[1].a or ends[1].b < 0 < ends[0].a)


def fails_at(node: Expr, x: Fraction) -> bool:
    """Whether a formula is certainly undefined at x."""
    if node.head == "where":
        if any(fails_at(side, x) for side in _sides(node.args[0])):
            return True
        return fails_at(node.args[1] if true_at(node.args[0], x) else node.args[2], x)
    if any(fails_at(child, x) for child in node.children):
        return True
    asked = asks(node)
    if asked is None:
        return False
    value = at(node.args[0], x)
    below, zero = bool(value.b < 0), bool(value.a == 0 and value.b == 0)
    if node.head == "**" and node.power is None:  # an exponent such as g*pi, which must not be an integer
        n = at(node.args[1], x)
        whole = int(float(n.a) // 1)
        return (below and bool(n.a > whole and n.b < whole + 1)) or (zero and bool(n.b < 0))
    return (below and asked != "nonzero") or (zero and asked != "nonnegative")
