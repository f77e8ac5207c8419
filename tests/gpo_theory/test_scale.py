"""Nothing depends on the units of f and of x: what is derived of c f(x), f(k x) and f(x) + a follows from that of f.

The expected values are those of the table of the oracle and of f itself, multiplied by a power of c and of k.
"""

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from gpo_theory import LOSSES, analyze
from gpo_theory.calculus.balls import enclose, exact_value
from gpo_theory.certificate import Verdict
from gpo_theory.dynamics.reversals import convex_around_zero, reversals_of
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.certificates import verify
from gpo_theory.loss import Loss
from gpo_theory.report.certificate_file import certificate_document
from gpo_theory.report.result import Analysis
from tests.support.soak import budget

X, ZERO, ONE = Expr.x(), Fraction(0), Fraction(1)
Q = Fraction


@dataclass(frozen=True)
class Change:
    """f becomes c f(k x) + a."""

    c: Q = ONE
    k: Q = ONE
    a: Q = ZERO

    def of(self, loss: Loss) -> Loss:
        return Loss("changed", self.c * substitute(loss.f.primitive(), {X: self.k * X}) + self.a)


# The power of c and of k by which each constant is multiplied.
POWERS = {"lipschitz": (1, 1), "smooth": (1, 2), "strongly_convex": (1, 2), "bounded_below": (1, 0),
          "differentiable_at_zero": (1, 1), "bradley_terry_exact": (0, -1)}  # fmt: skip
SMALL, LARGE = Q(1, 10**30), Q(10**30)
CHANGES = {"c small": Change(c=SMALL), "c large": Change(c=LARGE), "k small": Change(k=Q(1, 10**6)), "k large": Change(k=Q(10**6)),
           "both": Change(c=Q(3, 10**17), k=Q(7, 1000)), "a large": Change(a=Q(10**12)), "a": Change(a=Q(-7, 3))}  # fmt: skip
QUICK = ("logistic", "hinge", "squared", "exponential", "truncated_squared", "savage", "smooth_hinge", "ramp", "huber", "psi_learning",
         "sqrt_hinge", "pinball", "lsif", "unhinged")  # fmt: skip
CASES = [(name, change) for name in LOSSES for change in CHANGES]
SHORT = [(name, list(CHANGES)[(3 * i + j) % len(CHANGES)]) for i, name in enumerate(QUICK) for j in range(2)]


def value(text: str | float | None, **names: Q) -> float | None:
    """Return the number that a text stands for, exactly rounded."""
    if text is None or text in ("inf", "-inf") or isinstance(text, float | int):
        return None if text is None else float(text)
    for name, at in names.items():
        text = re.sub(rf"\b{name}\b", f"({at})", text)
    node = parse_constant(text)
    known = exact_value(node, ZERO)
    return float(enclose(node, ZERO, 600).mid()) if known is None else float(known)


def same(found: float | None, base: float | None, factor: Q, room: float = 1e-9) -> bool:
    """Whether found = factor base, to a relative precision, or both are absent."""
    if found is None or base is None:
        return found is None and base is None
    expected = base * float(factor)
    return found == expected or abs(found - expected) <= room * abs(expected)


def faults(before: Analysis, after: Analysis, change: Change) -> list[str]:
    """Return what of the analysis of c f(k x) + a does not follow from that of f."""
    c, k, out = change.c, change.k, list[str]()

    def expect(name: str, found: Any, base: Any, factor: Q) -> None:
        if not same(found, base, factor):
            out.append(f"{name}: {found}, not {base} times {float(factor):g}")

    for claim, old in before.claims.items():
        new = after.claims[claim]
        if new.verdict is not old.verdict:
            out.append(f"{claim}: {new.verdict.value}, not {old.verdict.value}: {new.because[:150]}")
        elif (new.value is None) != (old.value is None):
            out.append(f"{claim}: {new.value}, not {old.value}")
        elif old.value is not None and new.value is not None:
            powers = POWERS[claim]
            moved = claim == "bounded_below" and change.a
            for form in ("exact", "float"):
                base = value(old.value[form])
                base = base if base is None or not moved else (base * float(c) + float(change.a)) / float(c)
                expect(f"{claim}, {form}", value(new.value[form]), base, c ** powers[0] * k ** powers[1])
    for order, (old_term, new_term) in enumerate(zip(before.taylor, after.taylor, strict=True)):
        if order or not change.a:
            expect(f"Taylor {order}", new_term and new_term.value, old_term and old_term.value, c * k**order)
    expect("R", value(after.strength.exact), value(before.strength.exact), k)
    expect("R as a number", after.strength.value, before.strength.value, k)
    if after.strength.sign != before.strength.sign:
        out.append(f"sign of f''(0): {after.strength.sign}")
    links = before.link, after.link
    expect("link", *(None if one.formula is None else value(one.formula, p=Q(9, 10)) for one in links[::-1]), 1 / k)
    expect("slope of the link", value(after.link.slope_at_half), value(before.link.slope_at_half), 1 / k)
    expect("target", value(after.link.target_at_one), value(before.link.target_at_one), 1 / k)
    expect("psi(1/2)", value(after.psi.at_half), value(before.psi.at_half), c)
    if after.psi.formula is not None and before.psi.formula is not None:  # one that is too long is not printed
        expect("psi", *(value(one.psi.formula, theta=Q(1, 3)) for one in (after, before)), c)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), budget(0, 1) * CASES or SHORT)
def test_what_is_derived_has_no_units(name: str, change: str) -> None:
    loss, after = LOSSES[name], analyze(CHANGES[change].of(LOSSES[name]))
    assert faults(analyze(loss), after, CHANGES[change]) == []
    document = json.loads(json.dumps(certificate_document(after)))
    assert verify(document) == {claim: one.verdict.value for claim, one in after.claims.items()}


@pytest.mark.parametrize("formula", ["exp(-600)*log(1+exp(-x*1e-40))", "exp(-600)*(2*atan(x*1e-40)-1)**2"])
def test_a_number_below_the_doubles_is_not_claimed(formula: str) -> None:
    """The bound of f'' is about 1e-341, so that a double of it would not be it."""
    found = analyze(formula)
    assert found.claims["smooth"].verdict is Verdict.UNKNOWN
    assert found.claims["bounded_below"].verdict is Verdict.PROVED
    document = json.loads(json.dumps(certificate_document(found)))
    assert verify(document) == {claim: one.verdict.value for claim, one in found.claims.items()}


@pytest.mark.parametrize("name", ["savage", "hinge", "huber"])
@pytest.mark.parametrize("change", CHANGES)
def test_where_the_slope_reverses_and_f_is_convex(name: str, change: str) -> None:
    for places in (reversals_of, convex_around_zero):
        before, after = places(LOSSES[name]), places(CHANGES[change].of(LOSSES[name]))
        assert (before is None) == (after is None)
        for old, new in zip(before or (), after or (), strict=True):
            for a, b in ((old.low, new.low), (old.high, new.high)):
                assert same(None if b is None else float(b), None if a is None else float(a), 1 / CHANGES[change].k)
