"""Bounds on a whole half-line against values at many far points, in hundreds of digits."""

import random
from fractions import Fraction
from typing import Any

import mpmath as mp
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpo_theory import parse
from gpo_theory.kernel.horizon import DEGREE, ONE, Lead, UnresolvedError, _Beyond, lead_beyond
from tests.support.oracle import evaluate, real
from tests.support.strategies import far_formulas

SEARCH = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
STARTS = (Fraction(8), Fraction(17), Fraction(64))
LARGEST = 1400  # digits that cancel between terms exp(-q(y)); beyond, the nearer points have to do


def size_at(size: tuple[Fraction, ...], y: Any) -> Any:
    """exp(q(y)) y^a log(y)^b."""
    exponent = sum((real(c) * y ** (DEGREE - i) for i, c in enumerate(size[:DEGREE])), mp.mpf(0))
    return mp.exp(exponent) * y ** real(size[-2]) * mp.log(y) ** real(size[-1])


def points(start: Fraction) -> list[Fraction]:
    """From the very start to a thousand times as far, with denominators that are no powers of two."""
    near = [start, start + Fraction(1, 97), start * Fraction(113, 97), start + 1, 2 * start]
    return [*near, start * Fraction(355, 113), 10 * start, 1000 * start]


def digits(formula: str, y: Fraction) -> int:
    """Enough for what is left when every exponential cancels twice."""
    if "exp" not in formula and "erfc" not in formula:
        return 400
    return 200 + int(y * y if "exp(-x**2" in formula or "erfc" in formula else 4 * y)


def check(formula: str, side: int, start: Fraction, lead: Lead | None) -> int:
    """The claimed coefficient holds f/size at every point; returns how many points were looked at."""
    seen = 0
    for y in points(start):
        if digits(formula, y) > LARGEST:
            continue
        with mp.workdps(digits(formula, y)):
            x = real(side * y)
            value = evaluate(formula, x)
            if lead is None:
                scale = 1 + abs(x) ** 64
                assert abs(value) <= scale * mp.mpf(10) ** (20 - mp.mp.dps), f"{formula} is not 0 at {side * y}"
            else:
                share = value / size_at(lead.size, mp.mpf(real(y)))
                low, high = (mp.make_mpf(end) for end in lead.coefficient._mpi_)
                noise = abs(share) * mp.mpf(10) ** (40 - mp.mp.dps)
                assert low - noise <= share <= high + noise, f"{formula} at {side * y}: {mp.nstr(share, 20)} outside [{low}, {high}]"
                if lead.sign:
                    assert mp.sign(value) == lead.sign
        seen += 1
    return seen


@pytest.mark.parametrize(
    ("formula", "sign"),
    [
        ("log(1+exp(-x)) - exp(-x)", -1), ("log(1+exp(-x)) - exp(-x) + exp(-2*x)/2", 1),
        ("log(1+1/x) - 1/x + 1/(2*x**2)", 1), ("atan(x) + 1/x - pi/2", 1), ("atan(1/x) - 1/x", -1),
        ("sqrt(x**2+1) - x - 1/(2*x)", -1), ("erfc(x)*x*exp(x**2)*sqrt(pi) - 1", -1),
        ("erfc(x)*x*exp(x**2)*sqrt(pi) - 1 + 1/(2*x**2)", 1), ("1/(1-1/x) - 1 - 1/x", 1), ("exp(1/x) - 1 - 1/x", 1),
        ("log(erfc(x)) + x**2", -1), ("sin(x) + x/100", 0), ("exp(x)*exp(-x) - 1", None), ("x**2 - x*x", None),
    ],
)
def test_known_leading_terms(formula: str, sign: int | None) -> None:
    """Signs from the textbook expansions; what cancels identically is None, what is not yet decided at 8 has sign 0."""
    lead = lead_beyond(parse(formula).f.primitive(), 1, Fraction(8))
    assert (lead is None) == (sign is None)
    assert lead is None or lead.sign == sign
    assert check(formula, 1, Fraction(8), lead) >= 5


@SEARCH
@given(far_formulas(), st.sampled_from(STARTS))
def test_the_lead_holds_far_out(formula: str, start: Fraction) -> None:
    try:
        lead = lead_beyond(parse(formula).f.primitive(), 1, start)
    except UnresolvedError:
        return
    assume(check(formula, 1, start, lead))  # a Gaussian at 64 has 4,000 digits to itself: nothing was looked at


@settings(SEARCH, max_examples=30)
@given(far_formulas(), st.fractions(-4, 4, max_denominator=12))
def test_the_left_and_a_shift(formula: str, shift: Fraction) -> None:
    """f(-y) on the left, and f in powers of x - shift, are the same bounds moved."""
    f = parse(formula).f.primitive()
    mirrored = formula.replace("exp", "EXP").replace("x", "(-x)").replace("EXP", "exp")
    try:
        right, left = lead_beyond(f, 1, Fraction(16)), lead_beyond(parse(mirrored).f.primitive(), -1, Fraction(16))
    except UnresolvedError:
        return
    assert (right is None) == (left is None)
    assert right is None or left is None or (right.size == left.size and right.sign == left.sign)
    try:
        moved = lead_beyond(f, 1, Fraction(16), shift)
    except UnresolvedError:
        return
    if moved is not None and moved.sign:
        with mp.workdps(2000):
            for y in (Fraction(16), Fraction(113, 7), Fraction(40)):
                assert mp.sign(evaluate(formula, real(shift + y))) == moved.sign


def test_the_lead_of_what_is_no_half_line_formula() -> None:
    for formula in ("max(x,0)", "where(x<0,x,0)", "min(x,1)", "abs(x)"):
        with pytest.raises(UnresolvedError):
            lead_beyond(parse(formula).f.primitive(), 1, Fraction(8))


def test_what_grows_and_what_vanishes() -> None:
    for formula, grows, vanishes in (("exp(x)", True, False), ("log(x)", True, False), ("1/x", False, True), ("2+1/x", False, False),
                                     ("exp(-x)*x**5", False, True), ("x-log(x)", True, False), ("log(x)/x", False, True),
                                     ("1/log(x)", False, True), ("log(x)**(1/2)", True, False), ("x/log(x)**3", True, False)):  # fmt: skip
        lead = lead_beyond(parse(formula).f.primitive(), 1, Fraction(64))
        assert lead is not None
        assert (lead.grows, lead.vanishes) == (grows, vanishes), formula


def _sizes(random_: random.Random) -> tuple[Fraction, ...]:
    quarter = [Fraction(random_.randint(-8, 8), random_.choice((1, 2, 7))) for _ in range(DEGREE + 2)]
    front = (c if random_.random() < 0.4 else Fraction(0) for c in quarter[:-2])
    return (*front, quarter[-2], Fraction(random_.randint(-3, 3)))


def test_a_ratio_bounds_every_later_value() -> None:
    """sup over y >= Y by dense sampling, also just above Y, where a size may still rise."""
    random_, resolved = random.Random(5), 0
    for _ in range(600):
        size = _sizes(random_)
        start = random_.choice(STARTS)
        if size == ONE:
            continue
        try:
            bound = _Beyond(1, start).ratio(size)
        except UnresolvedError:
            continue
        resolved += 1
        with mp.workdps(30):
            top = mp.make_mpf(bound._mpi_[1]) * (1 + mp.mpf(10) ** -15)
            assert mp.make_mpf(bound._mpi_[0]) <= 0
            for k in [*range(40), *range(40, 400, 12), 2000, 20_000]:
                y = real(start) * (1 + mp.mpf(k) / 40)
                value = size_at(size, y)
                assert value <= top, f"{size} at {y}: {mp.nstr(value, 15)} > {mp.nstr(top, 15)}"
    assert resolved > 100


def test_a_size_that_rises_first_is_refused() -> None:
    for power, rate in ((40, 1), (9, 1), (100, 3)):
        size = (*ONE[: DEGREE - 1], Fraction(-rate), Fraction(power), Fraction(0))
        with pytest.raises(UnresolvedError):
            _Beyond(1, Fraction(8)).ratio(size)
        assert _Beyond(1, Fraction(2 * power)).ratio(size).a == 0


def test_dropped_terms_stay_accounted_for() -> None:
    """A sum of more terms than are kept still holds the exact value, and 13 terms of either sign are no free lunch."""
    start = Fraction(8)
    for coefficients in ([1] * 20, [(-1) ** k * 3**k for k in range(20)], [1, *[0] * 14, -(10**15)]):
        terms = {(*ONE[:-2], Fraction(-k), Fraction(0)): Fraction(c) for k, c in enumerate(coefficients) if c}
        kept = _Beyond(1, start).made(terms)
        lead = _Beyond(1, start).lead(kept)
        with mp.workdps(40):
            for y in points(start):
                value = sum(mp.mpf(c) * real(y) ** -k for k, c in enumerate(coefficients))
                low, high = (mp.make_mpf(end) for end in lead.coefficient._mpi_)
                assert low <= value / size_at(lead.size, real(y)) <= high
