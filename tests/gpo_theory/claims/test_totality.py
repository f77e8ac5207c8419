"""`total` is a property of the text as typed: no merging, cancelling or folding hides a point where f is undefined."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from gpo_theory import DomainError, InputError, Verdict, analyze, parse
from gpo_theory.analysis import _replayed
from gpo_theory.certificate import Certificate, proved
from gpo_theory.claims.proving import accepted
from gpo_theory.claims.totality import total
from gpo_theory.formula import expression
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel import seal, verify
from gpo_theory.report.certificate_file import certificate_document
from tests.support.holes import EVERYWHERE, ZERO, UndefinedError, hole, value
from tests.support.oracle import value_of
from tests.support.soak import budget

SEEDS = range(budget(300, 20_000))


def verdict(text: str, parameters: dict[str, Fraction]) -> Verdict:
    """The verdict that a certificate would hold, and that no other proof of totality is replayed where it is refuted."""
    f = parse(text, parameters).f.primitive()
    found = _replayed(f, "total", total(f))
    if found.verdict is Verdict.REFUTED:
        assert accepted(f, proved("total", "a lie")).verdict is Verdict.UNKNOWN, text
    return found.verdict


def undefined(text: str, x: Fraction, parameters: dict[str, Fraction]) -> bool:
    try:
        value(text, x, parameters)
    except UndefinedError:
        return True
    return False


def wrong(seeds: range) -> tuple[list[str], int, int]:
    """The formulas with a false verdict, and how many of the holes and of the others are undecided."""
    found, holes, others = [], 0, 0
    for seed in seeds:
        case = hole(seed)
        says = verdict(case.formula, case.parameters)
        if says is (Verdict.REFUTED if case.point is None else Verdict.PROVED):
            found.append(case.formula)
        holes += case.point is not None and says is Verdict.UNKNOWN
        others += case.point is None and says is Verdict.UNKNOWN
    return found, holes, others


def test_the_holes_are_holes() -> None:
    """By the evaluation of the text, operation by operation; the others have a value wherever it is tried."""
    for seed in SEEDS:
        case = hole(seed)
        if case.point is not None:
            assert undefined(case.formula, case.point, case.parameters), case
        else:
            for n in range(-24, 25, 3):
                assert not undefined(case.formula, Fraction(n, 7), case.parameters), case


def test_no_hole_is_overlooked_and_none_is_invented() -> None:
    found, holes, others = wrong(SEEDS)
    assert found == []
    assert holes <= len(SEEDS) / 50, holes
    assert others <= len(SEEDS) / 20, others


# Formulas of opposite signs at -3 and 3, with irrational zeros only.
IRRATIONAL = ("x-sqrt(2)", "exp(x)-3", "x**3-2", "erf(x)-1/3", "x+exp(x)", "atan(x)+log(2)", "(x-pi)*(2+x**2)-exp(-x)/9")


@pytest.mark.parametrize("base", IRRATIONAL)
def test_a_hole_at_an_irrational_point_is_found(base: str) -> None:
    """Where a base that must not be 0 crosses 0; the same shapes that are defined for every base are not refuted."""
    low, high = value_of(base, -3), value_of(base, 4)
    assert low is not None
    assert high is not None
    assert low * high < 0
    shapes, g = [*ZERO[:10], ZERO[12], *ZERO[17:20], "log(({b})**2)+exp(-x)", "1/sqrt(x**2*({b})**4)"], {"g": Fraction(1, 2)}
    found = {shape: verdict(shape.format(b=base), g if "**g" in shape or "(-g)" in shape else {}) for shape in shapes}
    assert [shape for shape, says in found.items() if says is not Verdict.REFUTED] == ["where(({b})**2<=0, 1/({b}), x)"]  # in a branch
    assert all(verdict(shape.format(b=base), {}) is not Verdict.REFUTED for shape in EVERYWHERE)


@pytest.mark.parametrize(("text", "low", "high", "holds"), [
    ("1/(x-sqrt(2))", "1", "2", True), ("1/(x-sqrt(2))", "2", "3", False), ("1/(x**2-2)", "-2", "2", False), ("(x-sqrt(2))**2", "1", "2", False),
    ("sqrt(max(0,x-sqrt(2)))", "1", "2", False), ("1/(where(x<0, -1, 1))", "-1", "1", False), ("where(x>5, 1/(x-sqrt(2)), x)", "1", "2", False),
    ("log((x-sqrt(2))**2)", "1", "2", True), ("where(1/(x-sqrt(2))>5, 1, 2)", "1", "2", True), ("1/(x-sqrt(2))", "2", "1", False),
])  # fmt: skip
def test_a_refutation_between_two_points_needs_a_change_of_sign(text: str, low: str, high: str, holds: bool) -> None:
    claim = Certificate("total", Verdict.REFUTED, "", {"kind": "break", "low": low, "high": high}, None, {"choices": {}})
    assert (accepted(parse(text).f.primitive(), claim).verdict is Verdict.REFUTED) == holds


@pytest.mark.parametrize("seed", range(0, 120))
def test_what_is_printed_and_what_is_derived_is_undefined_at_the_same_points(seed: int) -> None:
    """The text as typed, as printed, with the parameters put in, and in primitive functions."""
    case = hole(seed)
    loss = parse(case.formula, case.parameters)
    for x in (Fraction(n, 2) for n in range(-9, 10)):
        typed = undefined(case.formula, x, case.parameters)
        for text in (loss.formula, str(loss.f), str(loss.f.primitive())):
            assert undefined(text, x, case.parameters) == typed, (text, x)


def merging(powers: dict[tuple[Expr, bool], Expr], base: Expr, exponent: Expr) -> None:
    """The rule that merged all powers of one base."""
    key = base, exponent.number is not None and exponent.number < 0
    powers[key] = powers[key] + exponent if key in powers else exponent


def folding(power: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr], Expr]:
    """The rule that folded exponent 0 for every base."""
    return lambda base, exponent: Expr.of(1) if exponent.number == 0 else power(base, exponent)


@pytest.mark.parametrize("planted", ["merging", "folding", "dropping", "multiplying"])
def test_the_law_finds_a_constructor_that_hides_a_hole(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    power = expression._power
    name, rule = {
        "merging": ("_collect", merging), "folding": ("_power", folding(power)),
        "dropping": ("_surely_defined", lambda node: True),
        "multiplying": ("_power", lambda base, n: power(base.args[0], base.args[1] * n) if base.head == "**" else power(base, n)),
    }[planted]  # fmt: skip
    expression._primitive.cache_clear()
    monkeypatch.setattr(expression, name, rule)
    found, _, _ = wrong(range(150))
    expression._primitive.cache_clear()
    assert found


ISSUE = (
    ("x**(1/3)*x**(2/3)+exp(-x)", {}), ("sqrt(x)*x**(1/2)+exp(-x)", {}), ("(x**2-1)**(1/2)*(x**2-1)**(1/2)+exp(-x)", {}),
    ("x**g*x**(-g)+exp(-g*x)", {"g": "1/2"}), ("log(x)**0+log(1+exp(-x))", {}), ("where(x>0, x, max(x, x-1+0*sqrt(x)))", {}),
    ("where(log(x)<0, 1, 2)+x**2", {}), ("1/(1/x)+exp(-x)", {}),
)  # fmt: skip


@pytest.mark.parametrize(("text", "parameters"), ISSUE)
def test_an_undefined_loss_is_refused_and_its_certificate_too(text: str, parameters: dict[str, str]) -> None:
    loss = parse(text, parameters)
    with pytest.raises(DomainError, match="undefined at x = "):
        analyze(loss)
    whole = certificate_document(analyze("logistic"))
    lie = {**whole, "loss": {"name": "", "reference": "", "formula": text, "parameters": parameters}}
    with pytest.raises(InputError, match="total proved: not replayed"):
        verify(seal(lie))


def test_branches_of_equal_value_are_told_apart_by_the_condition() -> None:
    """Where x <= 0 the second branch is taken; its value is that of the first, which is defined there."""
    for text in ("where(x>0, x, max(x, x-1+0*sqrt(x)))", "where(x<=0, max(x, x-1+0*sqrt(x)), x)"):
        f = parse(text).f.primitive()
        assert accepted(f, proved("total", "a lie")).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(("text", "truth"), [
    ("where(where(x>0, where(log(x)<0, 1, 2), 1)<3, exp(-x), 2)", True), ("max(0,x)**(g*pi)+exp(-x)", True),
    ("where(x<0, 1, where(sqrt(x)<1, 2, 3))", True), ("where(where(x<0, where(log(x)<0, 1, 2), 1)<3, exp(-x), 2)", False),
])  # fmt: skip
def test_conditions_and_exponents_in_disguise(text: str, truth: bool) -> None:
    """A condition inside a branch is evaluated only where the branch is; 0**(pi/2) is 0."""
    assert verdict(text, {"g": Fraction(1, 2)} if "g*" in text else {}) is not (Verdict.REFUTED if truth else Verdict.PROVED)


@pytest.mark.parametrize(("text", "x", "fails"), [
    ("x**(g*pi)", "-1", True), ("x**(g*pi)", "0", False), ("x**(-g*pi)", "0", True), ("x**(g*sqrt(4))", "-1", False), ("x**(g*pi)", "1", False),
])  # fmt: skip
def test_an_irrational_exponent_needs_a_base_that_is_not_negative(text: str, x: str, fails: bool) -> None:
    """With g = 1: sqrt(4) is 2 in disguise, and (-1)**2 is defined."""
    f = parse(text, {"g": 1}).f.primitive()
    claim = Certificate("total", Verdict.REFUTED, "", {"kind": "point", "x": x}, None, {"choices": {}})
    assert (accepted(f, claim).verdict is Verdict.REFUTED) == fails


@pytest.mark.parametrize("x", ["-1", "0", "1/2", "1"])
def test_a_refutation_needs_a_point_where_an_operation_fails(x: str) -> None:
    """log(x)**0 is undefined for x <= 0 alone: at 1 it is 0**0 = 1."""
    f: Any = parse("log(x)**0+exp(-x)").f.primitive()
    claim = Certificate("total", Verdict.REFUTED, "", {"kind": "point", "x": x}, None, {"choices": {}})
    assert (accepted(f, claim).verdict is Verdict.REFUTED) == (Fraction(x) <= 0)
