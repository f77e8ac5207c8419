"""One inequality: what is shown holds at every point looked at, and no hint shows what does not hold."""

import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import mpmath as mp
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpo_theory import ParseError, parse
from gpo_theory.certificate import Verdict, refuted
from gpo_theory.claims.proving import accepted
from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.kernel.expansion import cancelled, expanded
from gpo_theory.kernel.inequality import Fact, at, holds, positive, rational, root_factors
from gpo_theory.kernel.size import pole_at
from tests.support.generated import generate
from tests.support.oracle import value_of
from tests.support.soak import budget
from tests.support.strategies import formulas, rationals, rooted_formulas

Q = Fraction
SEARCH = settings(max_examples=budget(40, 100), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
POINTS = [Q(n, 97) for n in (-970, -310, -97, -40, -1, 0, 41, 113, 194, 301, 900)]


def f(text: str) -> Expr:
    try:
        return parse(text).f.primitive()
    except ParseError:
        assume(False)
        raise


def sign(text: str, x: Fraction) -> int | None:
    """The sign; None where the formula is not defined, or where its value may be 0 up to the noise of 1,500 digits under roots."""
    found = value_of(text, x, 1500)
    return None if found is None or (found and abs(found) < mp.mpf(10) ** -180) else int(mp.sign(found))


# --- from a hint ---------------------------------------------------------------------------------------------------


def cover(*cuts: Fraction | int | str, **more: Any) -> dict[str, Any]:
    return {"by": "cover", "cuts": [str(c) for c in cuts], **more}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("gap", [Q(0), Q(1, 10**6), Q(-1, 10**6), Q(-1, 90000)])
@pytest.mark.parametrize("place", [Q(113, 97), Q(-22, 7), Q(1, 3)])
def test_a_parabola_that_touches_or_crosses(place: Fraction, gap: Fraction, strict: bool) -> None:
    """(x - a)^2 + gap: shown exactly where gap > 0, or gap = 0 and equality is allowed; with every hint that could help."""
    g = f(f"(x-({place}))**2 + ({gap})")
    fact = Fact(g, None, None, strict)
    hints = [None, cover(-20, 20), cover(-20, place, 20), cover(-20, place - 1, place - Q(1, 300), place, place + Q(1, 300), 20),
             cover(-20, place, 20, bits=320),
             {"by": "quotient", "numerator": [str(place**2 + gap), str(-2 * place), "1"], "denominator": ["1"], "slope": None, "shift": "0"}]  # fmt: skip
    shown = [holds(fact, hint) for hint in hints]
    if gap < 0 or (gap == 0 and strict):
        assert not any(shown)
    else:
        assert shown[-1]
        assert any(shown[1:5])


@pytest.mark.slow
@settings(SEARCH, max_examples=budget(100, 250))
@given(st.lists(rationals(5, 97), min_size=1, max_size=4), rationals(3, 7).filter(bool), rationals(9, 13), st.booleans(), st.data())
def test_no_cover_shows_what_does_not_hold(roots: list[Fraction], scale: Fraction, low: Fraction, strict: bool, data: st.DataObject) -> None:
    """A polynomial of known roots, random cuts, ends at roots or not: shown implies true at and between all roots."""
    g = f("*".join([f"({scale})", *(f"(x-({r}))" for r in roots)]))
    low = data.draw(st.sampled_from([low, *roots]))
    high = data.draw(st.sampled_from([None, low + 1, low + 20, *(r for r in roots if r > low)]))
    inner = data.draw(st.lists(rationals(40, 97) | st.sampled_from(roots), max_size=4))
    top = high if high is not None else max([low, *roots]) + 12
    cuts = [low, *sorted({x for x in inner if low < x < top}), top]
    if not holds(Fact(g, low, high, strict), cover(*cuts)):
        return
    edges = sorted({low, *(r for r in roots if r > low and (high is None or r < high)), top, top + 30 if high is None else top})
    for a, b in pairwise(edges):
        for x in (b, (a + b) / 2) if b != edges[-1] else ((a + b) / 2,):
            exact = at(g, x)
            assert exact.b > 0 or (exact.b >= 0 and not strict), f"{g} at {x} on ({low}, {high})"


@pytest.mark.slow
@SEARCH
@given(formulas(), rationals(9, 13), st.integers(1, 20), st.booleans(), st.sampled_from(["inside", "right", "all"]))
def test_what_is_shown_of_any_formula_holds(text: str, low: Fraction, width: int, strict: bool, kind: str) -> None:
    """max, min and where are decided before: this is about the rest; points where g is not defined say nothing."""
    g = f(text)
    assume(not any(n.head in ("max", "min", "where") for n in g.walk()))
    left, right = (None if kind == "all" else low), (low + width if kind == "inside" else None)
    cuts = cover(low, low + Q(1, 3), low + width) if kind != "right" else cover(low, low + 30)
    try:
        shown = holds(Fact(g, left, right, strict), cuts)
    except (ZeroDivisionError, ValueError):
        return
    if shown:
        for x in [low + Q(k * width, 113) for k in range(1, 113)] + ([low + 50, low + 1000] if right is None else []):
            exact = sign(text, x)
            assert exact is None or exact > 0 or (exact == 0 and not strict), f"{text} at {x}"


@pytest.mark.parametrize(
    "hint",
    [
        {"by": "cover", "cuts": []}, {"by": "cover", "cuts": ["1", "0"]}, {"by": "cover", "cuts": ["0", "0"]}, {"by": "none"},
        {"by": "cover", "cuts": ["0", "1"], "bits": 8}, {"by": "cover", "cuts": ["0", "1"], "bits": 10**6},
        {"by": "cover", "cuts": ["0", "1/2"]}, {"by": "cover", "cuts": ["1/3", "1"]},
        {"by": "quotient", "numerator": ["1"], "denominator": ["1"], "slope": None, "shift": "0"},
        {"by": "quotient", "numerator": ["1"], "denominator": [], "slope": None, "shift": "0"},
    ],
)  # fmt: skip
def test_hints_that_are_none(hint: dict[str, Any]) -> None:
    """x (1 - x) > 0 on (0, 1) is true, and none of these shows it."""
    assert not holds(Fact(f("x*(1-x)"), Q(0), Q(1), True), hint)
    assert holds(Fact(f("x*(1-x)"), Q(0), Q(1), True), cover(0, Q(1, 2), 1))


def test_a_half_line_begins_far_enough_out() -> None:
    g = f("x-7")
    assert not holds(Fact(g, Q(7), None, True), cover(7))
    assert holds(Fact(g, Q(7), None, True), cover(7, 9))
    assert not holds(Fact(f("x-100"), Q(8), None, True), cover(8))
    assert not holds(Fact(f("1-x"), Q(8), None, True), cover(8))


# --- exact values and shapes ---------------------------------------------------------------------------------------


@SEARCH
@given(formulas(), rationals(5, 97))
def test_values_at_a_point(text: str, x: Fraction) -> None:
    exact = value_of(text, x)
    if exact is not None and abs(exact) < mp.mpf(10) ** 1000:
        found = at(f(text), x)
        low, high = (mp.make_mpf(end) for end in found._mpi_)
        with mp.workdps(60):
            assert low - (1 + abs(exact)) * mp.mpf(10) ** -40 <= exact <= high + (1 + abs(exact)) * mp.mpf(10) ** -40


def test_what_cancels_is_exactly_zero() -> None:
    for text, x in (("exp(x)-exp(x)", "1/3"), ("x-113/97", "113/97"), ("log(1+exp(-x))-log(1+exp(-x))", "5"), ("exp(x-1)-1", "1"), ("atan(x-2)", "2")):
        found = at(f(text), Q(x))
        assert found.a == found.b == 0, text


@SEARCH
@given(formulas())
def test_positive_by_shape(text: str) -> None:
    g = f(text)
    assume(not any(n.head in ("max", "min", "where") for n in g.walk()))
    if positive(g, None, None):
        for x in POINTS:
            exact = value_of(text, x, 400)
            assert exact is None or exact > 0, f"{text} at {x}"


@pytest.mark.parametrize("text", ["", "1.5", "1e9", "1e9999999999", " 1", "1/", "1/-2", "--1", "0x10", "1/2/3", "inf", "nan", "1_000", "9" * 2001, "½"])
def test_a_number_is_digits_over_digits(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        rational(text)
    for value_ in (1, 1.5, None, True, ["1"]):
        with pytest.raises(ValueError, match="fraction"):
            rational(value_)  # type: ignore[arg-type]
    assert rational("-113/97") == Q(-113, 97)


# --- multiplied out ------------------------------------------------------------------------------------------------


def _same_sign(text: str, other: Expr, strict: bool = True) -> None:
    for x in POINTS:
        ours, theirs = sign(text, x), sign(str(other), x)
        assert ours is None or theirs is None or ours == theirs, f"{text} has sign {ours} at {x}, {other} has {theirs}"


@SEARCH
@given(formulas())
def test_multiplying_out_keeps_the_sign(text: str) -> None:
    g = f(text)
    assume(not any(n.head in ("max", "min", "where") for n in g.walk()))
    found = expanded(g)
    if found is not None:
        _same_sign(str(g), found)


@pytest.mark.slow
@settings(SEARCH, max_examples=budget(12, 25))
@given(rooted_formulas())
def test_multiplying_out_roots_and_denominators_keeps_the_sign(text: str) -> None:
    g = f(text)
    found = expanded(g)
    if found is not None:
        _same_sign(str(g), found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", random.Random(3).sample(range(0, 2000, 2), 30)[: budget(12, 30)])
def test_multiplying_out_a_second_derivative_keeps_its_sign(seed: int) -> None:
    """f'' of generated formulas: the long products of exponentials and roots that proofs are made of."""
    g = f(generate(seed).formula)
    if any(n.head in ("max", "min", "where") for n in g.walk()):
        return
    bend = g.diff().diff()
    found = expanded(bend)
    if found is not None:
        _same_sign(str(bend), found)


@pytest.mark.parametrize(
    "text",
    ["sqrt(x**2)-x", "sqrt(x**2)+x", "(x**2)**(3/2)-x**3", "sqrt(exp(2*x))-exp(x)", "sqrt((x-1)**2*exp(x))", "1/(sqrt(1+x**2)-x)", "1/(x-sqrt(1+x**2))",
     "1/(sqrt(4+x**2)+x)**3", "sqrt(2)*sqrt(2)-2", "x*exp(x)+x", "x**3/(1+x**2)-x**5/(1+x**2)**2", "-x/(1+exp(x))", "1/(-1-x**2)", "(x-1)/(x**2+x+1)",
     "sqrt((1+x**2)*exp(-x))-1", "(-2-x**2)**3", "sqrt(sin(x)**2)-sin(x)", "exp(x**2)*exp(-x**2)-1", "1/(1-exp(x))**2", "x/sqrt(x**2)", "(1+x**2)**(-1/2)-1"],
)  # fmt: skip
def test_signs_that_roots_and_denominators_could_turn(text: str) -> None:
    g = f(text)
    found = expanded(g)
    assert found is not None
    _same_sign(text, found)


@SEARCH
@given(formulas())
def test_cancelling_keeps_every_value_of(text: str) -> None:
    g = f(text)
    for x in POINTS:
        ours, theirs = value_of(str(g), x), value_of(str(cancelled(g)), x)
        if ours is not None:  # only what is defined everywhere is ever cancelled in
            assert theirs is not None, f"{text} is defined at {x}"
            with mp.workdps(60):
                assert abs(ours - theirs) <= (1 + abs(ours)) * mp.mpf(10) ** -35, f"{text} at {x}"


@settings(SEARCH, max_examples=60)
@given(st.sampled_from(["1+x**2", "exp(x)+2", "3+cos(x)"]), st.sampled_from(["1/2", "-1/2", "3/2", "-5/3"]), st.sampled_from(["x", "exp(-x)", "x-2"]))
def test_common_roots_are_found(base: str, power: str, rest: str) -> None:
    g = f(f"({base})**({power})*({rest}) + ({base})**({power})*({rest})**2")
    powers, left = root_factors(g)
    assert powers == {f(base): Q(power)}
    for x in POINTS:
        with mp.workdps(60):
            whole = value_of(str(g), x) - value_of(f"({base})**({power})", x) * value_of(str(left), x)
            assert abs(whole) <= mp.mpf(10) ** -40 * (1 + abs(value_of(str(g), x)))


@pytest.mark.parametrize(("text", "pole"), [
    ("1/(1-x)", True), ("exp(x)/sqrt(1-x) + x", True), ("(1-x)**(-1/100)*atan(x)", True), ("3/4*(1-x)**(-1/2) - x**2", True),
    ("sqrt(1-x)", False), ("(1-x)/sqrt(1-x)", False), ("1/sqrt(1-x) - 1/sqrt(1-x)", False), ("1/sqrt(1-x) - 1/(1-x)", False),
    ("log(x)/sqrt(1-x)", False), ("1/sqrt(1-x) + log(1-x)", False), ("1/(1+x)", False), ("(x-1)/(1-x)", False), ("x", False),
])  # fmt: skip
def test_a_pole_is_one_term_that_has_no_bound_beside_others_that_do(text: str, pole: bool) -> None:
    """Bounded, cancelling or undecided forms are no poles: a factor that may be 0, two poles, a logarithm of 0."""
    assert pole_at(parse_formula(text).primitive(), Fraction(1)) is pole


def test_a_false_pole_is_not_replayed() -> None:
    for text, claim in (("max(0,1-x)**3", "lipschitz"), ("max(0,1-x)**(3/2)", "lipschitz"), ("max(0,1-x)**2", "smooth"), ("max(0,1-x)**(5/2)", "smooth")):
        said = refuted(claim, "planted", kind="point", x="1")
        assert accepted(parse_formula(text).primitive(), said).verdict is Verdict.UNKNOWN, text
