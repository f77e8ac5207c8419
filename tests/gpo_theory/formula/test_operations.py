"""Laws over the whole table of operations; every expected value comes from mpmath, through the oracle's own evaluator."""

import os
import pickle
import subprocess
import sys
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest

from gpo_theory import ParseError, parse
from gpo_theory.calculus.asymptotics import NoExpansionError, at_infinity
from gpo_theory.calculus.balls import enclose, exact_value
from gpo_theory.calculus.constants import exact, function
from gpo_theory.calculus.samples import sample
from gpo_theory.calculus.series import taylor
from gpo_theory.formula.expression import Expr, call, fold, slope_of
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.formula.operations import COMPARISONS, NEGATED, OPERATIONS, PRIMITIVES, operation
from gpo_theory.formula.typeset import latex
from tests.support.oracle import evaluate, real, value_of

X = Expr.x()
POINTS = tuple(Fraction(n, 7) for n in (-15, -9, -2, 3, 8, 11))
UNARY = sorted(name for name, each in OPERATIONS.items() if each.arguments == (1, 1))
DEFINED = sorted(name for name, each in OPERATIONS.items() if each.definition)


def truth(name: str, x: Fraction | float) -> mp.mpf | None:
    """The value by mpmath; None where the function is not real."""
    return value_of(f"{name}(x)", x, 40)


def points(name: str) -> list[Fraction]:
    """Those of `POINTS` at which mpmath has a real value."""
    found = [x for x in POINTS if truth(name, x) is not None]
    assert len(found) >= 3
    return found


def close(value: object, expected: object, digits: int) -> None:
    assert abs(mp.mpf(value) - expected) <= mp.mpf(10) ** -digits * max(1, abs(expected)), (value, expected)


def test_the_table_holds_the_grammar() -> None:
    words = """where abs max min exp log log1p expm1 sqrt sigmoid softplus tanh sinh cosh atan asinh erf erfc log_ndtr
    sin cos"""
    assert {*OPERATIONS} == {*words.split()}


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_each_derivative_is_the_slope(name: str) -> None:
    slope = str(slope_of(name, X))
    with mp.workdps(40):
        for x in points(name):
            close(evaluate(slope, x), mp.diff(lambda u: evaluate(f"{name}(x)", u), real(x)), 15)


@pytest.mark.parametrize("name", UNARY)
def test_each_definition_is_the_function(name: str) -> None:
    primitive = call(name, X).primitive()
    assert not {part.head for part in primitive.walk()} & {*DEFINED}
    with mp.workdps(40):
        for x in points(name):
            close(evaluate(str(primitive), x), truth(name, x), 35)


@pytest.mark.parametrize("name", UNARY)
def test_every_arithmetic_evaluates_the_function(name: str) -> None:
    primitive = call(name, X).primitive()
    with mp.workdps(40):
        for x in points(name):
            expected = truth(name, x)
            ball = enclose(primitive, x, 160)
            assert ball.is_finite()
            close(mp.mpf(ball.mid().str(38, radius=False)), expected, 35)
            close(float(sample(primitive, np.array([float(x)]))[0]), truth(name, float(x)), 13)
            if name != "abs":  # a choice has no exact form
                at = call(name, x).primitive()
                close(mp.mpf(str(exact(at).evalf(38))), expected, 35)


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
@pytest.mark.parametrize("x", [*POINTS, Fraction(0), Fraction(1), Fraction(-1)])
def test_where_the_value_is_rational(name: str, x: Fraction) -> None:
    """By Lindemann-Weierstrass, and its like for erfc, the table's point is the only rational one among a few."""
    found = exact_value(call(name, X), x)
    with mp.workdps(40):
        value = truth(name, x)
        whole = value is not None and abs(value - mp.nint(value)) < mp.mpf(10) ** -30
        assert (found is not None) == whole
        if found is not None:
            close(real(found), value, 35)


@pytest.mark.parametrize("name", UNARY)
def test_the_partial_functions_are_undefined_somewhere(name: str) -> None:
    assert operation(name).partial == any(truth(name, x) is None for x in (-3, -1, Fraction(-1, 2), 0, 2))


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_the_taylor_coefficients_of_every_primitive(name: str) -> None:
    """Of a quadratic inside, so that the chain rule shows in every order."""
    text = f"{name}(1/3+x/2-x**2)"
    with mp.workdps(30):
        expected = mp.taylor(lambda u: evaluate(text, u), 0, 4)
        for coefficient, value in zip(taylor(parse(text), 4), expected, strict=True):
            assert coefficient is not None
            close(evaluate(coefficient.text, 0), value, 12)


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
@pytest.mark.parametrize("text", ["x", "1/x", "exp(-x)", "2+1/x"])
def test_expansions_at_infinity(name: str, text: str) -> None:
    """Where there is one, its leading term is what the function comes near to."""
    try:
        growth, coefficient = at_infinity(parse_formula(f"{name}({text})").primitive(), 1).lead
    except NoExpansionError:
        return
    assert name not in ("sin", "cos")
    with mp.workdps(60):
        x = mp.mpf(60)
        size = mp.exp(sum(mp.mpf(str(c)) * x ** (len(growth.q) - i) for i, c in enumerate(growth.q)))
        size *= x ** mp.mpf(str(growth.a)) * mp.log(x) ** growth.b * mp.mpf(str(coefficient.evalf(30)))
        assert abs(evaluate(f"{name}({text})", x) / size - 1) < mp.mpf(1) / 20


def test_at_infinity_every_primitive_but_the_circular_ones_expands() -> None:
    for name in PRIMITIVES - {"sin", "cos"}:
        assert at_infinity(call(name, X), 1).terms


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_number_of_arguments(name: str) -> None:
    least, most = operation(name).arguments
    for count in range(1, most + 2):
        first = "x < 1" if name == "where" else "x"
        text = f"{name}({', '.join([first] + ['x'] * (count - 1))})"
        if least <= count <= most:
            parse(text)
        else:
            with pytest.raises(ParseError, match=f"{name} takes"):
                parse(text)


@pytest.mark.parametrize("name", UNARY)
def test_latex_of_every_function(name: str) -> None:
    shown = latex(call(name, X + 1))
    assert "x + 1" in shown
    assert "%" not in shown
    assert shown.count("{") == shown.count("}")
    assert shown.count(r"\left") == shown.count(r"\right")
    assert shown not in {latex(call(other, X + 1)) for other in UNARY if other != name}


@pytest.mark.parametrize("head", COMPARISONS)
def test_a_comparison_or_its_negation_holds(head: str) -> None:
    for a, b in ((1, 2), (2, 2), (2, 1)):
        holds = evaluate(f"where(x {head} {b}, 1, 0)", mp.mpf(a)) == 1
        assert COMPARISONS[head](a, b) is holds
        assert COMPARISONS[NEGATED[head]](a, b) is not holds
        branch = call("where", call(head, X, b), 1, 0)
        assert enclose(branch, Fraction(a)) == int(holds)
        assert sample(branch, np.array([float(a)]))[0] == int(holds)


def test_an_unknown_operation_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="'tan' is no function of the grammar; known: exp, log"):
        operation("tan")
    with pytest.raises(ValueError, match="'tan' is no function of the grammar"):
        call("tan", X).diff()
    with pytest.raises(ValueError, match="'tan' is no function of the grammar"):
        latex(call("tan", X))
    with pytest.raises(ValueError, match="tan is not a primitive function"):
        function("tan", exact(1))
    with pytest.raises(ValueError, match="tan is not a primitive function"):
        enclose(call("tan", X), Fraction(0))
    with pytest.raises(ValueError, match="max is no primitive function"):
        call("max", X, 1 - X).diff()


def test_a_fold_computes_a_repeated_part_once() -> None:
    u = call("exp", X)
    seen = []

    def size(part: Expr, of: object) -> int:
        seen.append(part)
        return 1 + sum(map(of, part.children))

    assert fold(call("log", 1 + u) + u**2, size) == 10
    assert len(seen) == len(set(seen))


def test_a_formula_of_another_process_is_found_in_tables() -> None:
    """Python hashes texts differently in each process; a hash that went along would find nothing, or another formula."""
    code = "import pickle, sys; from gpo_theory import parse; sys.stdout.buffer.write(pickle.dumps(parse('log(1+exp(-x))').f))"
    for seed in "12":
        made = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True)
        assert pickle.loads(made.stdout) in {parse("log(1+exp(-x))").f}  # noqa: S301
