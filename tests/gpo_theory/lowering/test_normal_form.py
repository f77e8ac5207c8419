"""The normal form means the same as the formula, and nothing in it grows that the formula does not let grow."""

from fractions import Fraction

import mpmath as mp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_theory import LOSSES, InputError, parse
from gpo_theory.formula.expression import Expr
from gpo_theory.lowering.normal_form import Branch, horner, to_normal_form
from tests.support.oracle import evaluate, real
from tests.support.strategies import convex_formulas

POINTS = (-37.25, -5.5, -2.0, -1.0, -0.75, -0.125, 0.0, 0.3125, 0.5, 1.0, 1.25, 2.0, 3.0, 6.875, 41.5)
FUNCTIONS = {
    "exp": mp.exp, "expm1": mp.expm1, "log": mp.log, "log1p": mp.log1p, "atan": mp.atan, "sin": mp.sin, "cos": mp.cos,
    "erfc": mp.erfc, "sigmoid": lambda u: 1 / (1 + mp.exp(-u)), "logsigmoid": lambda u: -mp.log1p(mp.exp(-u)), "acot": lambda u: mp.pi / 2 - mp.atan(u), "max": max, "min": min,
    "erfcx": lambda u: mp.exp(u * u) * mp.erfc(u), "log_erfcx": lambda u: u * u + mp.log(mp.erfc(u)),
    "mills": lambda u: 2 / (mp.sqrt(mp.pi) * mp.exp(u * u) * mp.erfc(u)) - 2 * u, "step": lambda u: mp.mpf(u > 0),
}  # fmt: skip


def meaning(code: Expr, y: mp.mpf) -> mp.mpf:
    """The value of a code tree in mpmath, its letter x standing for y."""
    if code.head == "number":
        return real(code.args[0])
    if code.head in ("x", "pi", "e"):
        return {"x": y, "pi": +mp.pi, "e": mp.e + 0}[code.head]
    if code.head == "where":
        low, high = (meaning(side, y) for side in code.args[0].args)
        return meaning(code.args[1 if low < high else 2], y)
    parts = [meaning(part, y) for part in code.args]
    if code.head == "+":
        return mp.fsum(parts)
    if code.head == "*":
        return mp.fprod(parts)
    return parts[0] ** parts[1] if code.head == "**" else FUNCTIONS[code.head](*parts)


def chosen(branches: tuple[Branch, ...], x: Fraction) -> mp.mpf:
    """What the branches say at x."""
    holding = [b for b in branches if b.low is None or b.low < x or (b.low == x and b.closed)]
    branch = holding[-1]
    v = real(x - branch.centre)
    if branch.left is not None:
        return meaning(branch.right if v >= 0 else branch.left, abs(v))
    return meaning(branch.right, branch.side * v)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_it_means_the_formula(name: str) -> None:
    loss = LOSSES[name]
    branches = to_normal_form(loss.f.primitive())
    with mp.workdps(2500):  # erfcx alone is exp(41.5^2 / 2)
        for x in POINTS:
            right = evaluate(loss.formula, mp.mpf(x), loss.parameters)
            assert abs(chosen(branches, Fraction(x)) - right) <= mp.mpf(10) ** -300 * (1 + abs(right)), f"{name} at {x}"


@settings(max_examples=80, deadline=None)
@given(convex_formulas(), st.fractions(-9, 9, max_denominator=64))
def test_it_means_any_formula(text: str, x: Fraction) -> None:
    try:
        branches, refusal = to_normal_form(parse(text).f.primitive()), ""
    except InputError as error:
        branches, refusal = (), str(error)
    if not branches:
        assert "where" in text
        assert "not rational" in refusal
        return
    with mp.workdps(80):
        right = evaluate(text, real(x))
        assert abs(chosen(branches, x) - right) <= mp.mpf(10) ** -50 * (1 + abs(right)), text


@pytest.mark.parametrize("name", LOSSES)
def test_a_shared_y_meets_no_growing_exponential(name: str) -> None:
    """Where one |x - centre| serves both sides, each is computed on the other's side too: no exponent is above 0."""
    for branch in to_normal_form(LOSSES[name].f.primitive()):
        for code in (branch.right, branch.left) if branch.left is not None else ():
            for node in code.walk():
                if node.head == "exp":
                    assert all(meaning(node.args[0], mp.mpf(y)) <= 0 for y in (0.25, 1, 10, 1000)), f"{name}: {node}"


@pytest.mark.parametrize(
    ("text", "right", "left"),
    [
        # log(1+e^-x) = log1p(e^-y) on the right, y more on the left; 1/2 - atan(x)/pi = acot(x)/pi by the sum of the two.
        ("log(1+exp(-x))", "log1p(exp(-x))", "x + log1p(exp(-x))"),
        ("1/2-atan(x)/pi", "acot(x)/pi", "1/2 - atan(-x)/pi"),
        # log cosh y = y + log((1 + e^-2y)/2), and the logarithm's argument is 1 + expm1(-2y)/2.
        ("log(cosh(x))", "x + log1p(expm1(-2*x)/2)", "x + log1p(expm1(-2*x)/2)"),
        # Recentred at 1, where the exponent turns.
        ("1-exp(-(1-x)**2/2)", "-expm1(-x*x/2)", "-expm1(-x*x/2)"),
        ("1/(1+exp(x))", "exp(-x)/(1 + exp(-x))", "1/(1 + exp(-x))"),
    ],
)
def test_what_cancels_is_written_without_the_cancellation(text: str, right: str, left: str) -> None:
    (branch,) = to_normal_form(parse(text).f.primitive())
    assert [str(branch.right), str(branch.left)] == [right, left]


def test_an_irrational_breakpoint_of_where_is_refused() -> None:
    with pytest.raises(InputError, match="not rational"):
        to_normal_form(parse("where(x**2 < 2, 0, 1)").f.primitive())


def test_horner_is_the_polynomial() -> None:
    code = horner((Fraction(3), Fraction(0), Fraction(-1, 2), Fraction(5)))
    with mp.workdps(50):
        assert meaning(code, mp.mpf(7) / 4) == 3 - mp.mpf(49) / 32 + 5 * (mp.mpf(7) / 4) ** 3
