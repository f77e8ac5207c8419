"""Isolated zeros as breakpoints: what counts as one, what is 0 there, how they are ordered, and lies about them."""

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath as mp
import pytest

from gpo_theory import InputError, analyze
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.kernel import seal, verify
from gpo_theory.kernel.resolution import UnprovedError, parts, prove, same_at
from gpo_theory.kernel.zeros import Place, Zero, at, is_isolated, vanishes
from gpo_theory.report.certificate_file import certificate_document
from tests.support.oracle import CLAIMS, evaluate


def zero(g: str, low: str, high: str) -> Zero:
    return Zero(parse_formula(g).primitive(), Fraction(low), Fraction(high))


LOG3, ROOT2 = zero("x - log(3)", "1", "6/5"), zero("x**2-2", "1", "2")
MIXED = zero("log(1+exp(-x)) - (x-1)**2/2", "3/2", "17/10")  # no closed form


class Cuts:
    """A proof of breakpoints alone."""

    def __init__(self, *cuts: Place) -> None:
        self.cuts = cuts

    def hint(self, fact: object) -> Mapping[str, Any] | None:
        return None

    def breakpoints(self, f: object) -> tuple[Place, ...]:
        return self.cuts

    def choice(self, name: str) -> Any:
        return None


@pytest.mark.parametrize(("g", "low", "high", "is_one"), [
    ("x**2-2", "1", "2", True), ("x**2-2", "-2", "-1", True), ("exp(-x)-1/9", "2", "3", True),
    ("x**2-2", "-2", "2", False),  # equal signs, and 0 lies inside
    ("x**2-2", "-1", "2", False),  # opposite signs, but the slope changes sign: 0 lies inside
    ("x**3-3*x+1/2", "-2", "2", False),  # three zeros
    ("1/(x-3/2)", "1", "2", False),  # opposite signs and no zero
    ("(x-3/2)**(-3)", "1", "2", False), ("1/(x-3/2) + 1/(x-3/2)**3", "1", "2", False),
    ("(x-log(3))**3", "1", "6/5", False),  # the slope is 0 there
    ("(x-log(3))**2", "1", "6/5", False),  # no change of sign
    ("sqrt(x-1)-1/2", "1", "2", False), ("log(x-1)+1", "1", "2", False),  # not defined, or not smooth, at the end
    ("sqrt(x-1)-1/2", "11/10", "2", True),
    ("max(x-3/2, 2*x-3)", "1", "2", False),  # not smooth
    ("x-3/2", "2", "1", False), ("x-3/2", "3/2", "2", False), ("x-1/4", "-1", "1", False), ("x-5", "1", "2", False),
])  # fmt: skip
def test_what_is_an_isolated_zero(g: str, low: str, high: str, is_one: bool) -> None:
    assert is_isolated(zero(g, low, high)) is is_one


IDENTITIES = [
    (LOG3, "log(9)-2*x", True), (LOG3, "exp(x)-3", True), (LOG3, "exp(-2*x)-1/9", True), (LOG3, "(x-log(3))**2*cos(x)", True),
    (LOG3, "log(1+exp(-x))-log(4/3)", True), (LOG3, "exp(x)*x-3*log(3)", True), (LOG3, "x - 10986122886681098/10**16", False),
    (LOG3, "exp(x)-3-1/10**30", False), (LOG3, "(x-log(3))/(exp(x)-3)", False), (LOG3, "(x-log(3))*(exp(x)-3)**(-1)", False),
    (LOG3, "(x-log(3))/(x-log(3))", False), (LOG3, "x**2-log(3)", False), (LOG3, "cos(x)", False), (LOG3, "x+log(3)", False),
    (ROOT2, "x**4-4", True), (ROOT2, "x-sqrt(2)", True), (ROOT2, "x+sqrt(2)", False), (ROOT2, "x**3-2*x", True),
    (ROOT2, "x**2-2+1/10**30", False), (ROOT2, "sqrt(x)-2**(1/4)", True), (ROOT2, "log(x)-log(2)/2", False),
]  # fmt: skip


@pytest.mark.parametrize(("place", "h", "known"), IDENTITIES, ids=lambda case: str(case)[:24])
def test_what_is_zero_there_by_identity(place: Zero, h: str, known: bool) -> None:
    """Whatever is said to vanish does so to 60 digits; `known` is what is shown today."""
    found = vanishes(parse_formula(h).primitive(), place)
    with mp.workdps(80):
        x = mp.log(3) if place == LOG3 else mp.sqrt(2)
        near = [abs(evaluate(h, x + e)) for e in (mp.mpf(10) ** -70, -(mp.mpf(10) ** -70))]
    assert found is known
    assert not found or max(near) < mp.mpf(10) ** -60


def test_multiples_of_a_difference_without_closed_form() -> None:
    for h in ("3*log(1+exp(-x)) - 3*(x-1)**2/2", "(x-1)**2 - 2*log(1+exp(-x))", "(log(1+exp(-x)) - (x-1)**2/2)**2*exp(x)"):
        assert vanishes(parse_formula(h).primitive(), MIXED)
    assert not vanishes(parse_formula("log(1+exp(-x)) - (x-1)**2/2 + 1/10**30").primitive(), MIXED)


def test_the_order_is_claimed_only_where_it_is_certain() -> None:
    assert Fraction(1) < LOG3 < Fraction(6, 5)
    assert Fraction(1) < LOG3
    assert not Fraction(11, 10) > LOG3  # true, and not certain from the bracket
    assert not Fraction(11, 10) < LOG3
    other = zero("exp(x)-3", "1", "6/5")
    known = (other > LOG3, other < LOG3, other == LOG3, other >= LOG3, other <= LOG3)
    assert not any(known)
    assert not at(parse_formula("x-log(3)"), other).b > 0
    assert same_at(parse_formula("x").primitive(), parse_formula("log(3)"), other)


@pytest.mark.parametrize("cuts", [
    (LOG3, zero("exp(x)-3", "1", "6/5")), (ROOT2, LOG3), (LOG3, LOG3), (LOG3, Fraction(11, 10)), (zero("1/(x-1)", "1/2", "3/2"),),
    (zero("x-log(3)", "2", "3"),),
])  # fmt: skip
def test_breakpoints_that_overlap_or_are_none_are_refused(cuts: tuple[Place, ...]) -> None:
    with pytest.raises(UnprovedError):
        parts(parse_formula("max(0, x-log(3))").primitive(), Cuts(*cuts))


@pytest.mark.parametrize(("g", "low", "high", "strict", "true"), [
    ("x-log(3)", LOG3, None, True, True), ("log(3)-x", None, LOG3, True, True), ("x-log(3)", None, LOG3, False, False),
    ("log(3)-x", LOG3, None, False, False), ("x-109/100", LOG3, None, True, False), ("(x-log(3))**3", LOG3, Fraction(2), False, True),
    ("x-log(3)-1/10**20", LOG3, None, False, False), ("2-x**2", LOG3, ROOT2, True, True), ("x**2-2", LOG3, ROOT2, False, False),
])  # fmt: skip
def test_a_fact_between_isolated_zeros(g: str, low: Place | None, high: Place | None, strict: bool, true: bool) -> None:
    try:
        prove(parse_formula(g).primitive(), low, high, strict, Cuts())
        shown = True
    except UnprovedError:
        shown = False
    assert shown <= true
    assert shown or not true or "**" in g


FORMULA = "max(0, log(9)-x)"


def changed(claim: str, entry: object) -> bool:
    """Whether a certificate of the hinge at log(9) is accepted with other breakpoints for one claim."""
    whole = json.loads(json.dumps(certificate_document(analyze(FORMULA))))
    blank = {"verdict": "unknown", "because": "", "witness": None, "value": None, "proof": None}
    whole["claims"] = {name: whole["claims"][name] if name in ("total", claim) else blank for name in CLAIMS}
    cuts = whole["claims"][claim]["proof"]["breakpoints"]
    assert cuts
    for f in cuts:
        cuts[f] = entry if entry is not None else cuts[f]
    try:
        verify(seal(whole))
    except InputError:
        return False
    return True


@pytest.mark.parametrize("claim", ["convex", "lipschitz", "bounded_below", "monotone_decreasing", "bayes_consistent"])
def test_breakpoints_of_a_file_are_replayed(claim: str) -> None:
    assert changed(claim, None)
    assert changed(claim, [["x - 2*log(3)", "2", "9/4"]])  # the same zero, of another formula
    if claim == "convex":  # a maximum of convex parts needs no breakpoints
        return
    for lie in ([], ["2"], ["11/5"], [["x - 11/5", "2", "9/4"]], [["x - log(9)", "9/4", "3"]], [["1/(x-log(9))", "2", "9/4"]],
                [["x - log(9)", "2", "9/4"]] * 2, [["x - log(9)", "2"]], [["x - log(9)", 2, 3]], [["nonsense(x)", "2", "3"]],
                [["x - log(9)", "-3", "9/4"]], [["x - log(8)", "2", "9/4"]], [None], [{}]):  # fmt: skip
        assert not changed(claim, lie), lie
