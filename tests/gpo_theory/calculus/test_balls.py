"""Ball arithmetic: values on an interval against mpmath, and bisection against roots known by hand."""

from fractions import Fraction

import mpmath as mp
import pytest

from gpo_theory import LOSSES
from gpo_theory.calculus.balls import UndecidedError, bisected, enclose_between
from tests.support.oracle import evaluate, real


def _sign(x: Fraction) -> int:
    return (x * x > 2) - (x * x < 2)


def test_bisection_closes_in_on_the_square_root_of_two() -> None:
    low, high = bisected(_sign, -1, Fraction(0), Fraction(2), lambda end: end / 2**60)
    assert low * low < 2 < high * high
    assert high - low <= high / 2**60


def test_a_falling_sign_is_bisected_too() -> None:
    low, high = bisected(lambda x: -_sign(x), 1, Fraction(0), Fraction(2), lambda _: Fraction(1, 2**20))
    assert low * low < 2 < high * high


def test_an_exact_zero_ends_the_bisection() -> None:
    assert bisected(lambda x: (x > 1) - (x < 1), -1, Fraction(0), Fraction(2), lambda _: Fraction(1, 8)) == (1, 1)


def test_beside_a_point_without_a_sign_another_one_is_tried() -> None:
    low, high = bisected(lambda x: None if x == 1 else (x > 1) - (x < 1), -1, Fraction(0), Fraction(2), lambda _: Fraction(1))
    assert low < 1 < high
    assert high - low <= Fraction(33, 32)


def test_no_sign_anywhere_is_an_error() -> None:
    with pytest.raises(UndecidedError):
        bisected(lambda _: None, -1, Fraction(0), Fraction(2), lambda _: Fraction(1, 8))


@pytest.mark.parametrize("name", ["logistic", "squared", "savage", "probit", "cauchy"])
@pytest.mark.parametrize(("a", "b"), [("-1/3", "-1/4"), ("-1/7", "1/97"), ("2", "2000001/1000000")])
def test_the_ball_on_an_interval_holds_the_values_there(name: str, a: str, b: str) -> None:
    loss, low, high = LOSSES[name], Fraction(a), Fraction(b)
    ball = enclose_between(loss.f.primitive(), low, high)
    with mp.workdps(40):
        for share in (0, Fraction(1, 3), Fraction(1, 2), Fraction(9, 10), 1):
            x = low + share * (high - low)
            value = evaluate(str(loss.f), real(x))
            assert mp.mpf(str(ball.lower().str(30, radius=False))) - mp.mpf(10) ** -25 <= value
            assert value <= mp.mpf(str(ball.upper().str(30, radius=False))) + mp.mpf(10) ** -25
