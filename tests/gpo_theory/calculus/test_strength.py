"""R = |f''(0)/f'(0)|: one number, or two where f'' jumps, with the signs that R alone would hide."""

import pytest
from hypothesis import given, settings

from gpo_theory import LOSSES, find_loss, parse, strength
from tests.support.oracle import TRUTHS, check_strength, number
from tests.support.session import payload
from tests.support.strategies import rationals


@pytest.mark.parametrize("name", TRUTHS)
def test_strength(name: str) -> None:
    check_strength(name, payload(name)["strength"])


@pytest.mark.parametrize(
    ("name", "exact"),
    [("dpo", "1/2"), ("slic", "0"), ("ipo", "1"), ("ipo-tau", "2"), ("exponential", "1"), ("truncated_squared", "1"), ("savage", "1/2")],
)
def test_strength_of_the_paper_exactly(name: str, exact: str) -> None:
    found = strength(find_loss(name))
    assert found.exact == exact
    assert found.value == float(number(exact))


def test_signs() -> None:
    """SPO bends up, the far side of Cauchy down, the hinge not; LRML at its default descends the wrong way: f'(0) > 0."""
    assert strength(parse("-x*sigmoid(-x)")).sign == 1
    assert strength(parse("log(1+(2-x)**2)")).sign == -1  # g'' = 2(1-u^2)/(1+u^2)^2 at u = 2
    assert strength(LOSSES["hinge"]).sign == 0
    assert strength(LOSSES["discopop"]).sign == -1


def test_sides_where_the_curvature_jumps() -> None:
    """where(x<0, 1-x+x^2, 1-x+2x^2): f'(0) = -1, f'' = 2 and 4."""
    found = strength(parse("where(x<0, 1-x+x**2, 1-x+2*x**2)"))
    assert (found.left, found.right, found.value) == (2, 4, 3)


@pytest.mark.parametrize("text", ["max(0,-x)", "abs(x)", "x**2", "1", "exp(-abs(x))", "cosh(x)", "x**3"])
def test_no_strength_without_a_slope(text: str) -> None:
    """f'(0) is 0 or does not exist: R is not a number, and must not be printed as one."""
    found = strength(parse(text))
    assert found.value is None
    assert found.exact is None


@settings(max_examples=25, deadline=None)
@given(rationals(3).filter(bool), rationals(4), rationals(4).filter(lambda q: abs(q) >= 0.25))
def test_strength_scales_with_its_argument_only(k, shift, weight) -> None:
    """f -> w f + s leaves R alone; f(x) -> f(kx) multiplies it by |k|: here f = e^{-x} + x^2, R = |1 + 2| / 1 = 3."""
    found = strength(parse(f"({weight})*(exp(-({k})*x)+(({k})*x)**2)+({shift})"))
    assert found.value == pytest.approx(float(3 * abs(k)), rel=1e-12)
    assert found.sign == (1 if weight > 0 else -1)


def test_symmetric_losses_do_not_regularise() -> None:
    """P15: f(x) + f(-x) constant, f'' exists, f'(0) != 0: R = 0."""
    for text in ("1/(1+exp(x))", "1/2-atan(x)/pi", "erfc(x)", "-sin(x)", "-x", "-tanh(x)**3-x", "exp(-x)-exp(x)"):
        assert strength(parse(text)).value == 0, text


@pytest.mark.parametrize(
    "text",
    [
        # f'(0) = -9/8 * 1/3 + 3/8 = 0 exactly, though no float says so.
        "(9/8)*(x-1/3)**2/2+(1/4)/(1+((x-1/3)/(1/3))**2)",
        # The exact slope holds exp(-193600/49), which no user may type.
        "(x-193600/49)**2/2+exp(-(x-440/7)**2)",
    ],
)
def test_exact_constants_beyond_the_limits_on_user_text(text: str) -> None:
    """A slope of exactly 0 has no strength; a constant that the package printed itself can be read back."""
    found = strength(parse(text))
    assert (found.value is None) == (text.startswith("(9/8)"))
