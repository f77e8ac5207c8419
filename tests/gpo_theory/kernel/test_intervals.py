"""Interval values hold the values: at rational points, on half-lines, where a formula is not defined everywhere."""

from fractions import Fraction
from typing import Any

import mpmath as mp
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpo_theory import ParseError, parse
from gpo_theory.kernel.intervals import interval, span
from tests.support.oracle import real, value_of
from tests.support.strategies import formulas, rationals

SEARCH = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
INSIDE = (Fraction(0), Fraction(1), Fraction(1, 2), Fraction(113, 355), Fraction(1, 1000), Fraction(971, 1000))


def ends(found: Any) -> tuple[Any, Any]:
    low, high = (mp.make_mpf(end) for end in found._mpi_)
    return low, high


def holds(found: Any, value: Any) -> bool:
    low, high = ends(found)
    with mp.workdps(60):
        noise = (1 + abs(value)) * mp.mpf(10) ** -40
        return bool(low - noise <= value <= high + noise)


def primitive(formula: str) -> Any:
    try:
        return parse(formula).f.primitive()
    except ParseError:
        assume(False)


@SEARCH
@given(formulas(), rationals(20, 97), rationals(9, 97))
def test_every_value_on_an_interval_is_inside(formula: str, low: Fraction, width: Fraction) -> None:
    high = low + abs(width)
    found = interval(primitive(formula), low, high)
    for share in INSIDE:
        value = value_of(formula, low + share * (high - low))
        assert value is None or holds(found, value), f"{formula} on [{low}, {high}]: {mp.nstr(value, 30)} not in {found}"


@SEARCH
@given(formulas(), rationals(20, 97), st.sampled_from(["left", "right", "both"]))
def test_every_value_on_a_half_line_is_inside(formula: str, end: Fraction, side: str) -> None:
    found = interval(primitive(formula), None if side != "right" else end, None if side != "left" else end)
    for far in (Fraction(0), Fraction(1, 97), Fraction(7, 3), Fraction(30), Fraction(1000)):
        for x in (end + far,) if side == "right" else (end - far,) if side == "left" else (end + far, end - far):
            value = value_of(formula, x)
            assert value is None or holds(found, value), f"{formula} at {x}: {mp.nstr(value, 30)} not in {found}"


@settings(SEARCH, max_examples=100)
@given(formulas(), rationals(6, 97))
def test_more_bits_are_never_wider(formula: str, x: Fraction) -> None:
    f = primitive(formula)
    (a, b), (c, d) = ends(interval(f, x, x, 80)), ends(interval(f, x, x, 320))
    if all(map(mp.isfinite, (a, b, c, d))):
        with mp.workdps(120):
            assert d - c <= (b - a) * (1 + mp.mpf(10) ** -20)
            assert c <= b
            assert d >= a


@pytest.mark.parametrize(
    ("formula", "low", "high", "least", "most"),
    [
        ("1/(1+x**2)", None, None, 0, 1), ("x**2", -1, 2, 0, 4), ("x**3", -2, 1, -8, 1), ("exp(-x)", 0, None, 0, 1),
        ("1/(1+exp(-x))", None, None, 0, 1), ("max(x, 1)", -3, 0, 1, 1), ("min(x, 1)", 0, 3, 0, 1),
        ("where(x<0, 5, 7)", -1, 1, 5, 7), ("where(x<0, 5, 7)", 0, 1, 7, 7), ("where(x<=0, 5, 7)", -1, 0, 5, 5),
        ("where(x>0 and x<1, 5, 7)", 2, 3, 7, 7), ("where(x<0 or x>1, 5, 7)", 2, 3, 5, 5),
        ("sin(x)", None, None, -1, 1), ("atan(x)*2/pi", None, None, -1, 1), ("erfc(x)", None, None, 0, 2),
        ("sqrt(x)", -1, 4, 0, 2), ("1/x", 0, 1, 1, mp.inf), ("1/x", -1, 1, -mp.inf, mp.inf),
        ("log(x)", 0, 1, -mp.inf, 0),
    ],
)
def test_ranges_by_hand(formula: str, low: int | None, high: int | None, least: Any, most: Any) -> None:
    found = ends(interval(parse(formula).f.primitive(), *(None if e is None else Fraction(e) for e in (low, high))))
    for got, wanted in zip(found, (least, most), strict=True):
        assert got == wanted or abs(got - wanted) < mp.mpf(10) ** -20


def test_ends_are_rounded_outwards() -> None:
    for x in (Fraction(113, 97), Fraction(-22, 7), Fraction(1, 3), Fraction(10**40 + 1, 10**40)):
        low, high = ends(span(x, x))
        with mp.workdps(80):
            exact = real(x)
            assert low < exact < high
            assert high - low < mp.mpf(10) ** -14
    assert ends(span(Fraction(1, 2), None)) == (mp.mpf("0.5"), mp.inf)


@pytest.mark.parametrize("x", [Fraction(-40), Fraction(-3, 7), Fraction(0), Fraction(1), Fraction(113, 97), Fraction(30)])
def test_the_complementary_error_function(x: Fraction) -> None:
    """Against its integral representation erfc x = 2/sqrt(pi) * integral over (x, inf) of exp(-t^2), by the tail or by symmetry."""
    with mp.workdps(40):
        far = abs(real(x))
        tail = 2 / mp.sqrt(mp.pi) * mp.exp(-(far**2)) * mp.quad(lambda t: mp.exp(-t * t - 2 * far * t), [0, 1, 4, 12])
        wanted = tail if x >= 0 else 2 - tail
        low, high = ends(interval(parse("erfc(x)").f.primitive(), x, x))
        assert low * (1 - mp.mpf(10) ** -30) <= wanted <= high * (1 + mp.mpf(10) ** -30)
        assert high - low <= abs(wanted) * mp.mpf(10) ** -20
