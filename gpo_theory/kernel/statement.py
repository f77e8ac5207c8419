"""What all rules work with: a verdict to replay, the parts of f, their joints, and the leading term at infinity."""

__all__ = [
    "Statement",
    "agree",
    "continuous",
    "joints",
    "jumps",
    "kink_slopes",
    "lead_far",
    "need",
    "open_parts",
    "place",
    "sign_on",
    "smooth_parts",
    "witnessed",
]

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from mpmath import iv

from gpo_theory.certificate import Certificate
from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.horizon import Lead, UnresolvedError, lead_beyond
from gpo_theory.kernel.inequality import rational
from gpo_theory.kernel.resolution import Hints, Part, UnprovedError, parts, prove, same_at
from gpo_theory.kernel.zeros import Place, Zero, at

ZERO = Fraction(0)


@dataclass(frozen=True)
class Statement:
    """A verdict on one claim about f, with the hints of its certificate."""

    f: Expr
    certificate: Certificate
    hints: Hints

    @property
    def witness(self) -> dict[str, Any]:
        """The witness of a refutation."""
        return dict(self.certificate.witness or {})


def need(condition: bool, step: str) -> None:
    """Raise UnprovedError with the name of the step unless the condition holds."""
    if not condition:
        raise UnprovedError(step)


def open_parts(pieces: list[Part]) -> list[Part]:
    """Return the parts that are intervals."""
    return [p for p in pieces if not p.is_point]


def joints(pieces: list[Part]) -> list[tuple[Part, Part, Part]]:
    """Return every breakpoint with the intervals on its left and right: (left, point, right)."""
    return [(pieces[i], pieces[i + 1], pieces[i + 2]) for i in range(0, len(pieces) - 2, 2)]


def smooth_parts(f: Expr, hints: Hints) -> list[Part]:
    """Return the parts of f, each analytic inside: no root there of a base that may be 0."""
    pieces = parts(f, hints)
    for p in open_parts(pieces):
        for node in p.f.walk():
            if node.head == "**" and (node.args[1].number is None or node.args[1].number.denominator != 1):
                prove(node.args[0], p.low, p.high, True, hints)
    return pieces


def continuous(pieces: list[Part]) -> None:
    """f is continuous at every breakpoint."""
    for left, point, right in joints(pieces):
        x = place(point)
        need(same_at(left.f, point.f, x) and same_at(right.f, point.f, x), f"continuity at x = {x}")


def place(point: Part) -> Place:
    """Return the x of a breakpoint."""
    assert point.low is not None
    return point.low


def sign_on(g: Expr, part: Part, strict: bool, hints: Hints) -> None:
    """g >= 0 (strict: g > 0) on a part."""
    if not part.is_point:
        prove(g, part.low, part.high, strict, hints)
        return
    value = at(g, place(part))
    need(value.a > 0 or (value.a >= 0 and not strict), f"{g} at x = {part.low}")


def kink_slopes(s: Statement) -> tuple[Any, Any]:
    """Return the one-sided slopes at the breakpoint of a kink, at which f must be continuous."""
    x = witnessed(s)
    for left, point, right in joints(parts(s.f, s.hints)):
        if point.low == x:
            need(same_at(left.f, point.f, x) and same_at(right.f, point.f, x), f"continuity at x = {x}")
            for name, side in (("left", left), ("right", right)) if s.witness["kind"] == "kink" else ():
                said = parse_constant(s.witness[name])
                need(same_at(side.f.diff(), said, x), f"the slope {said}")
            return at(left.f.diff(), x), at(right.f.diff(), x)
    raise UnprovedError(f"a breakpoint at x = {x}")


def witnessed(s: Statement) -> Place:
    """Return the place that a witness names: a rational x, or the breakpoint isolated between `low` and `high`."""
    if s.witness.get("kind") != "break":
        return rational(s.witness["x"])
    ends = rational(s.witness["low"]), rational(s.witness["high"])
    places = [place(point) for _, point, _ in joints(parts(s.f, s.hints))]
    return next(x for x in places if isinstance(x, Zero) and (x.low, x.high) == ends)


def agree(a: Any, b: Any) -> bool:
    """Whether two narrow, bounded intervals agree to nine digits, as irrational values are stated in decimals."""
    if not (abs(a).b < iv.inf and abs(b).b < iv.inf):
        return False
    return bool(abs(a - b).b <= abs(a).a * 1e-9)


def lead_far(g: Expr, side: int, hints: Hints) -> Lead | None:
    """Return the leading behaviour on one side as |x| tends to infinity, with a sign if found; None where g is 0."""
    shift, found = rational(hints.choice("shift") or "0"), list[Lead]()
    for power in (4, 6, 10, 16, 30, 60, 120):
        try:
            lead = lead_beyond(g, side, Fraction(2) ** power, shift)
        except UnresolvedError:
            continue
        if lead is None or lead.sign:
            return lead
        found.append(lead)
    need(bool(found), f"the behaviour of {g} far out")
    return found[0]


def jumps(s: Statement, x: Place) -> bool:
    """Whether f certainly jumps at x."""
    for left, point, right in joints(parts(s.f, s.hints)):
        if point.low == x:
            values = at(left.f, x), at(point.f, x), at(right.f, x)
            return any((a - b).a > 0 or (a - b).b < 0 for a, b in pairwise(values))
    return False
