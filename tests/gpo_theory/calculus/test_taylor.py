"""Taylor coefficients at 0: exact text, equal to hand derivation for the table and to mpmath for random formulas."""

import mpmath as mp
import pytest
from hypothesis import HealthCheck, assume, given, settings

from gpo_theory import LOSSES, ParseError, parse, taylor
from tests.support.oracle import TRUTHS, check_taylor, evaluate, number
from tests.support.session import payload
from tests.support.strategies import formulas

# Read by eye from THEORY.md and the expansions in oracle.py.
EXACT = {
    "logistic": ["log(2)", "-1/2", "1/8", "0", "-1/192"], "hinge": ["1", "-1", "0", "0", "0"], "squared": ["1", "-2", "1", "0", "0"],
    "exponential": ["1", "-1", "1/2", "-1/6", "1/24"], "truncated_squared": ["1", "-2", "1", "0", "0"],
    "savage": ["1/4", "-1/4", "1/16", "1/48", "-1/96"], "perceptron": ["0", None, None, None, None],
}


@pytest.mark.parametrize("name", EXACT)
def test_texts_of_the_paper(name: str) -> None:
    assert payload(name)["taylor"] == EXACT[name]


@pytest.mark.parametrize("name", TRUTHS)
def test_coefficients(name: str) -> None:
    check_taylor(name, payload(name)["taylor"])


@pytest.mark.parametrize("name", TRUTHS)
def test_text_and_float_are_one_number(name: str) -> None:
    for coefficient in taylor(LOSSES[name], 4):
        if coefficient is not None:
            with mp.workdps(40):
                exact = number(coefficient.text)
            assert abs(exact - coefficient.value) <= 4e-16 * max(1, abs(exact)), f"{coefficient} is off its float"


def test_any_order() -> None:
    """e^{-x} = sum (-x)^k / k!; the logistic's odd coefficients beyond the first vanish; order 0 is f(0)."""
    assert [c.text for c in taylor(LOSSES["exponential"], 8)] == ["1", "-1", "1/2", "-1/6", "1/24", "-1/120", "1/720", "-1/5040", "1/40320"]
    logistic = taylor(LOSSES["logistic"], 9)
    assert [c.text for c in logistic[3::2]] == ["0", "0", "0", "0"]
    assert logistic[6].text == "1/2880"  # log cosh u = u^2/2 - u^4/12 + u^6/45 at u = x/2
    assert [c.text for c in taylor(LOSSES["squared"], 0)] == ["1"]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("max(0,-x)", 1), ("abs(x)", 1), ("max(x,2*x)", 1), ("where(x<0, 1-x, 1+x)", 1), ("where(x<0, 0, x**2)", 2),
        ("where(x<0, 0, x**3)", 3), ("where(x<0, x**4, -x**4)", 4), ("abs(x)**3", 3), ("max(0,x)**2", 2), ("abs(x)*x", 2),
        ("abs(x-1)", 5), ("max(x, 2*x-1)", 5), ("max(x-x, 0)", 5), ("abs(x)**2", 5), ("max(x,x)", 5), ("abs(abs(x))", 1),
        ("where(x<0, exp(x), 1+x+x**2/2+x**3/6)", 4), ("where(x<=0, 1, 1)", 5), ("exp(-abs(x))", 1), ("max(0,x)+max(0,-x)", 1),
        ("max(0,x)-max(0,-x)", 5), ("log(1+exp(abs(x)))", 1), ("min(1,exp(x))", 1),
    ],
)  # fmt: skip
def test_a_coefficient_exists_exactly_as_far_as_the_derivatives_do(text: str, known: int) -> None:
    """`known` by hand: the first derivative whose one-sided values at 0 differ ends the list (Heaviside(0) is not 1/2)."""
    coefficients = taylor(parse(text), 4)
    assert [c is not None for c in coefficients] == [k < known for k in range(5)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(formulas())
def test_random_formulas_against_numerical_differentiation(text: str) -> None:
    assume("where" not in text and "max" not in text and "min" not in text and "abs" not in text)
    try:
        coefficients = taylor(parse(text), 3)
    except ParseError:
        return
    with mp.workdps(60):
        try:
            numeric = mp.taylor(lambda x: evaluate(text, x), mp.mpf(0), 3)
        except (ZeroDivisionError, OverflowError, ValueError, TypeError):
            return
        if any(isinstance(value, mp.mpc) or not mp.isfinite(value) or abs(value) > 1e30 for value in numeric):
            return
        if any(abs(evaluate(text, side * mp.mpf(10) ** -15) - numeric[0]) > 1e-9 for side in (-1, 1)):
            return  # not analytic at 0
        for k, (coefficient, expected) in enumerate(zip(coefficients or (), numeric, strict=False)):
            if coefficient is not None:
                assert abs(number(coefficient.text) - expected) < mp.mpf(10) ** -15 * max(1, abs(expected)), (f"{text}: {k}")
