"""Compositions of erf and erfc: one probit however it is typed, and constants that a Gaussian tail approaches slowly."""

import mpmath as mp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo_theory import LOSSES, parse
from gpo_theory.claims.proving import accepted
from gpo_theory.claims.smoothness import smooth
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.kernel.expansion import cancelled
from tests.support.oracle import value_of

TYPED = ("-log(erfc(-x/sqrt(2))/2)", "-log((1+erf(x/sqrt(2)))/2)", "-log(1/2+erf(x/sqrt(2))/2)", "-log(0.5*(1+erf(x/2**0.5)))",
         "-log(1-erfc(x/sqrt(2))/2)", "-log((2-erfc(x/sqrt(2)))/2)", "-log_ndtr(x)")  # fmt: skip


@pytest.mark.parametrize("text", TYPED)
def test_a_probit_typed_by_hand_is_the_probit(text: str) -> None:
    assert cancelled(parse(text).f.primitive()) == cancelled(LOSSES["probit"].f.primitive())


NUMBERS = st.fractions(-3, 3, max_denominator=6)


@given(st.lists(st.tuples(NUMBERS, st.sampled_from(["1", "erf(x)", "erfc(x)", "erfc(-2*x)", "x", "erf(x/3-1)", "(1+erf(x))", "(1-erfc(x))"])), min_size=1, max_size=5), NUMBERS)
def test_a_reflected_sum_has_the_same_values(terms: list[tuple[object, str]], x: object) -> None:
    text = " + ".join(f"({c})*{term}" for c, term in terms)
    before, after = (value_of(form, mp.mpf(x.numerator) / x.denominator) for form in (text, str(cancelled(parse_formula(text).primitive()))))  # type: ignore[attr-defined]
    assert before is not None
    assert after is not None
    assert abs(before - after) < mp.mpf(10) ** -40


@pytest.mark.slow
def test_a_constant_approached_in_a_gaussian_tail() -> None:
    """log(erfc(x)) is -x^2 - log(x) + ... far out: |f''| rises to 2, like 2 - 1/x^2."""
    text = "log(erfc(x))"
    f = cancelled(parse(text).f.primitive())
    found = accepted(f, smooth(f))
    assert found.value == {"exact": "2", "float": 2.0}
    with mp.workdps(60):
        bends = [abs(mp.diff(lambda y: value_of(text, y, 200), x, 2, h=mp.mpf(10) ** -12)) for x in range(-9, 10)]
    assert max(bends) < 2
    assert max(bends) > 2 * (1 - mp.mpf(1) / 60)
