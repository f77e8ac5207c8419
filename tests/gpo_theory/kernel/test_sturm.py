"""Exact signs of quotients against polynomials that are built from their roots."""

from fractions import Fraction
from itertools import pairwise
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_theory import parse
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.sturm import Quotient, _multiply, _odd_part, _roots, equals, keeps_sign
from tests.support.strategies import rationals

Q = Fraction
Roots = dict[Fraction, int]
SEARCH = settings(max_examples=120, deadline=None)
ENDS = st.none() | rationals(8, 7)


def polynomial(roots: Roots, scale: Fraction, complex_pairs: int = 0) -> list[Fraction]:
    """scale * prod (t - r)^m * (t^2 + t + 1)^k."""
    out = [scale]
    for root, multiplicity in roots.items():
        for _ in range(multiplicity):
            out = _by(out, [-root, Q(1)])
    for _ in range(complex_pairs):
        out = _by(out, [Q(1), Q(1), Q(1)])
    return out


def _by(p: list[Fraction], q: list[Fraction]) -> list[Fraction]:
    return [sum((p[i] * q[k - i] for i in range(len(p)) if 0 <= k - i < len(q)), Q(0)) for k in range(len(p) + len(q) - 1)]


def roots() -> st.SearchStrategy[Roots]:
    return st.dictionaries(rationals(6, 97), st.integers(1, 3), max_size=5)


def between(low: Fraction | None, high: Fraction | None, x: Fraction) -> bool:
    return (low is None or low < x) and (high is None or x < high)


def ordered(a: Fraction | None, b: Fraction | None) -> tuple[Fraction | None, Fraction | None]:
    return (a, b) if a is None or b is None or a < b else (b, a if a > b else a + 1)


@SEARCH
@given(roots(), rationals(5, 7).filter(bool), st.integers(0, 2), ENDS, ENDS)
def test_the_number_of_roots_in_an_open_interval(known: Roots, scale: Fraction, pairs: int, a: Fraction | None, b: Fraction | None) -> None:
    low, high = ordered(a, b)
    p = polynomial(known, scale, pairs)
    assert _roots(p, low, high) == sum(between(low, high, r) for r in known)


@SEARCH
@given(roots(), rationals(5, 7).filter(bool), st.integers(0, 2))
def test_an_end_at_a_root_is_outside(known: Roots, scale: Fraction, pairs: int) -> None:
    p = polynomial(known, scale, pairs)
    for low in (None, *known):
        for high in (None, *known):
            if low is None or high is None or low < high:
                assert _roots(p, low, high) == sum(between(low, high, r) for r in known)


@SEARCH
@given(roots(), rationals(5, 7).filter(bool))
def test_the_odd_part_has_the_roots_at_which_the_sign_changes(known: Roots, scale: Fraction) -> None:
    found = _odd_part(polynomial(known, scale, 1))
    for root, multiplicity in known.items():
        value = sum(c * root**k for k, c in enumerate(found))
        assert (value == 0) == (multiplicity % 2 == 1)
    assert _multiply(found, [Q(1)]) == found


def truth(top: Roots, bottom: Roots, scale: Fraction, low: Fraction | None, high: Fraction | None, strictly: bool) -> bool:
    """Signs between neighbouring roots: the sign of the factors there, multiplied."""
    if any(between(low, high, r) for r in bottom) or (strictly and any(between(low, high, r) for r in top)):
        return False
    inner = sorted(r for r in top if between(low, high, r))
    edges = [low if low is not None else min([*top, *bottom, high or Q(0)]) - 2, *inner,
             high if high is not None else max([*top, *bottom, low or Q(0)]) + 2]  # fmt: skip
    for a, b in pairwise(edges):
        x = (a + b) / 2
        if scale * prod((x - r) ** m for r, m in top.items()) * prod((x - r) ** m for r, m in bottom.items()) < 0:
            return False
    return True


@SEARCH
@given(roots(), roots(), rationals(5, 7).filter(bool), ENDS, ENDS, st.booleans())
def test_keeps_sign(top: Roots, bottom: Roots, scale: Fraction, a: Fraction | None, b: Fraction | None, strictly: bool) -> None:
    bottom = {r: m for r, m in bottom.items() if r not in top}
    low, high = ordered(a, b)
    form = Quotient(tuple(polynomial(top, scale)), tuple(polynomial(bottom, Q(1), 1)))
    assert keeps_sign(form, low, high, strictly) == truth(top, bottom, scale, low, high, strictly)


@pytest.mark.parametrize(
    ("numerator", "low", "high", "strictly", "expected"),
    [
        ((-2, 1), None, None, False, False),  # exp(x) - 2 changes its sign at log 2
        ((-2, 1), Q(7, 10), None, True, True),  # log 2 = 0.6931...
        ((-2, 1), Q(693, 1000), None, True, False),
        ((2, -1), None, Q(693, 1000), True, True),
        ((2, -1), None, Q(694, 1000), True, False),
        ((-1, 1), Q(0), None, True, True),
        ((-1, 1), Q(-1, 10**9), None, True, False),
        ((1, -2, 1), None, None, False, True),
        ((1, -2, 1), None, None, True, False),
        ((0, 1), None, None, True, True),
        ((), None, None, False, True),
        ((), None, None, True, False),
    ],
)
def test_in_one_exponential(numerator: tuple[int, ...], low: Fraction | None, high: Fraction | None, strictly: bool, expected: bool) -> None:
    form = Quotient(tuple(map(Q, numerator)), (Q(1),), Q(1))
    assert keeps_sign(form, low, high, strictly) is expected


@settings(max_examples=100, deadline=None)
@given(roots(), rationals(5, 7).filter(bool), rationals(3, 7), rationals(3, 5).filter(lambda q: q > 0))
def test_equality_is_exact(known: Roots, scale: Fraction, shift: Fraction, slope: Fraction) -> None:
    """The factored formula equals its own coefficients, in x and in an exponential; one coefficient moved, it does not."""
    p = polynomial(known, scale)
    for t, form in (("x", Quotient(tuple(p), (Q(1),))), (f"exp(({slope})*(x-({shift})))", Quotient(tuple(p), (Q(1),), slope, shift))):
        f = parse("*".join([f"({scale})", *(f"({t}-({r}))**{m}" for r, m in known.items())])).f.primitive()
        assert equals(f, form)
        for k in range(len(p)):
            moved = [c + (Q(1, 10**9) if i == k else 0) for i, c in enumerate(p)]
            assert not equals(f, Quotient(tuple(moved), (Q(1),), form.slope, form.shift))


@pytest.mark.parametrize(
    ("text", "numerator", "denominator", "slope", "shift", "expected"),
    [
        ("1/(1+exp(-x))", (0, 1), (1, 1), 1, 0, True),
        ("1/(1+exp(-x))", (0, 2), (2, 2), 1, 0, True),
        ("1/(1+exp(-x))", (0, 1), (1, 1), -1, 0, False),  # the slope must be positive: the interval of t would turn round
        ("1/(1+exp(-x))", (0, 1), (1, 1), 2, 0, False),
        ("1/(1+exp(-x))", (0, 1), (1, 1), 1, Q(1, 10**9), False),
        ("tanh(x)", (-1, 0, 1), (1, 0, 1), 1, 0, True),
        ("tanh(x)", (-1, 1), (1, 1), 2, 0, True),
        ("exp(x)+exp(2*x+1)", (0, 1, 1), (1,), 1, 0, False),
        ("exp(x-1)+exp(2*x-2)", (0, 1, 1), (1,), 1, 1, True),
        ("x+exp(x)", (0, 1), (1,), 1, 0, False),
        ("sin(x)", (0,), (1,), None, 0, False),
        ("x/(1+x)", (0, 1), (1, 1), None, 0, True),
        ("x/(1+x)", (0, 0, 1), (0, 1, 1), None, 0, True),
        ("x/(1+x)", (0, 1), (0,), None, 0, False),
        ("x**2*(1/x)", (0, 1), (1,), None, 0, True),
        ("x**(1/2)", (0, 1), (1,), None, 0, False),
        ("pi*x", (0, 3), (1,), None, 0, False),
    ],
)  # fmt: skip
def test_quotients(text: str, numerator: tuple[int, ...], denominator: tuple[int, ...], slope: int | None, shift: Fraction, expected: bool) -> None:
    form = Quotient(tuple(map(Q, numerator)), tuple(map(Q, denominator)), None if slope is None else Q(slope), Q(shift))
    assert equals(parse(text).f.primitive(), form) is expected


def test_degrees_that_no_proof_needs_are_refused() -> None:
    f = (Expr.x() + 1) ** 400
    assert not equals(f, Quotient((Q(1),), (Q(1),)))
    assert equals((Expr.x() + 1) ** 30 / (Expr.x() + 1) ** 30, Quotient((Q(1),), (Q(1),)))
