"""R = |f''(0)/f'(0)|: one number, or two where f'' jumps, with the signs that R alone would hide."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_theory import LOSSES, analyze, find_loss, match_beta, parse, strength
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


SLOPES = st.fractions(Fraction(-5), Fraction(5), max_denominator=9)


@settings(max_examples=25, deadline=None)
@given(SLOPES.filter(bool), SLOPES, SLOPES, SLOPES, SLOPES)
def test_curvatures_of_either_sign(slope: Fraction, left: Fraction, right: Fraction, cubic: Fraction, rate: Fraction) -> None:
    """By hand: f'' is `left` and `right` beside 0, and each side has a part x^3 or exp(k x) - 1 - k x - k^2 x^2/2."""
    rest = f"({cubic})*x**3", f"exp(({rate})*x)-1-({rate})*x-({rate})**2*x**2/2"
    found = strength(parse(f"where(x < 0, ({slope})*x+({left})*x**2/2+{rest[0]}, ({slope})*x+({right})*x**2/2+{rest[1]})"))
    mean = (left + right) / 2 / abs(slope)
    assert found.exact == str(abs(mean))
    assert found.sign == (mean > 0) - (mean < 0)
    assert (found.left is None) == (left == right)
    if found.left is not None and found.right is not None:
        signed = [float((found.sign or 1) * side / abs(slope)) for side in (left, right)]
        assert [found.left, found.right] in ([signed] if mean else [signed, signed[::-1]])


def test_a_curvature_that_vanishes_in_the_mean_only() -> None:
    """-x + x^2/2 and -x - x^2/2: P1 divides by 0; so it does where no float tells the two apart."""
    for bend in ("1", "exp(-800)", "exp(-1)"):
        found = strength(parse(f"where(x < 0, -x+{bend}*x**2, -x-{bend}*x**2)"))
        assert (found.exact, found.sign) == ("0", 0)
    assert strength(parse("where(x < 0, -x+x**2, -x-(1-exp(-90))*x**2)")).sign == 1


@pytest.mark.parametrize(("left", "right"), [("3", "-1"), ("-1", "5/2"), ("-1/3", "1/2"), ("7", "-1/1000")])
def test_the_link_and_the_match_follow_the_mean(left: str, right: str) -> None:
    """By hand, near 1/2: p f'(x) = (1-p) f'(-x) gives x = (2p-1)/(p right + (1-p) left); DPO's R is 1/2."""
    text = f"where(x < -1, 1+({left})/2, where(x < 0, -x+({left})*x**2/2, where(x < 1, -x+({right})*x**2/2, -1+({right})/2)))"
    loss, step = parse(text), Fraction(1, 10**6)
    x = 2 * step / ((Fraction(1, 2) + step) * Fraction(right) + (Fraction(1, 2) - step) * Fraction(left))
    slope = analyze(loss).link.slope_at_half
    assert slope == pytest.approx(float(x / step), rel=1e-4)
    matched = match_beta("dpo", text, beta=0.1)
    assert matched.refusal is None
    assert matched.beta_to == pytest.approx(0.1 * 0.5 * slope / 2, rel=1e-14)


def test_no_match_where_the_mean_bends_down() -> None:
    for left, right, why in (("1", "-3", "< 0"), ("-3", "1", "< 0"), ("2", "-2", "R = 0")):
        loss = f"where(x < 0, -x+({left})*x**2/2, -x+({right})*x**2/2)"
        assert why in (match_beta("dpo", loss, beta=0.1).refusal or "")
        assert analyze(parse(loss)).link.slope_at_half is None


def test_a_curvature_of_any_size_keeps_its_sign() -> None:
    """f = exp(-x-s) is a factor of exp(-x): R = 1, though no float holds the square of its slope."""
    assert strength(parse("exp(-x-400)")).exact == "1"
    assert strength(parse("-exp(-x-400)")).sign == -1


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
