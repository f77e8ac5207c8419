"""The parser: the grammar it promises, printing as its inverse, and texts that try to hurt."""

import re

import mpmath as mp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpo_theory import LOSSES, InputError, ParseError, parse
from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_formula
from tests.gpo_theory.formula.test_parser_fuzz import outcome
from tests.support.oracle import evaluate, value_of
from tests.support.soak import budget
from tests.support.strategies import awkward_formulas, formulas

POINTS = [mp.mpf(k) / 7 for k in (-31, -9, -2, 0, 3, 7, 8, 40)]


def numbers_agree(left: str, right: str) -> None:
    """Wherever the right one has a value, the left one has the same."""
    for x in POINTS:
        b = value_of(right, x)
        if b is not None:
            with mp.workdps(60):
                assert abs(evaluate(left, x) - b) <= mp.mpf(10) ** -40 * max(1, abs(b)), f"{left} and {right} differ at {x}"


@pytest.mark.parametrize(
    "text",
    [
        "x", "-x", "+x", "1-x", "x-1", "2*x", "x/2", "1/(1+x**2)", "x**2", "x**3", "x**0", "(x-1)**2", "-x**2", "(-x)**2", "x*x",
        "log(1+exp(-x))", "max(0,1-x)**2", "max(0, x, 2*x-1, 1)", "min(x, 1)", "abs(x)", "where(x<1, (1-x)**2, 0)",
        "where(x<=1 and x>-1, x, 1)", "where(x<-1 or x>=1, 0, 1-x**2)", "where(-1<x and x<1, 1, 0)", "sqrt(1+x**2)",
        "sigmoid(x)", "softplus(-x)", "tanh(x)", "sinh(x)", "cosh(x)", "atan(x)", "asinh(x)", "erf(x)", "erfc(x)", "log_ndtr(x)",
        "sin(x)", "cos(x)", "log1p(exp(x))", "expm1(-x)", "pi*x+e", "0.1*x", "1e-3*x", "1.5e2+x", ".5*x", "5.*x",
        "exp(x)**(1/2)", "sigmoid(x)**0.05", "exp(-x**2/2)", "x - -x", "--x", "x*-1", "2*-x", "((((x))))", " x ",
        "1-2*x+x**2", "x-(1-x)", "x/(2/3)", "x/2/3", "2-(x-(3-x))", "(x+1)*(x-1)", "-(x+1)", "x**2/2", "(x/2)**3", "1/(x**2+1)",
        "exp(exp(-x**2))", "log(2)*x", "sqrt(2)*x", "e**(-1)*x", "pi**2*x",
    ],
)  # fmt: skip
def test_the_grammar(text: str) -> None:
    loss = parse(text)
    assert parse(loss.formula).formula == loss.formula
    numbers_agree(loss.formula, text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(formulas())
def test_printing_is_the_inverse_of_parsing(text: str) -> None:
    result = outcome(text)
    if isinstance(result, ParseError):
        return  # refusing is allowed here; what is accepted must mean what was written
    formula = result.formula
    assert parse(formula).formula == formula
    numbers_agree(formula, text)


def read_again(text: str, parameters: tuple[str, ...] = ()) -> Expr | str:
    """The formula of a text, which is printed as text of the same formula; or why the text is refused."""
    try:
        f = parse_formula(text, parameters)
    except ParseError as error:
        return str(error)
    assert parse_formula(str(f), parameters) == f, text
    return f


REFUSALS = r"60 digits|not positive|division by zero|nested at most|several denominators|multiply to more|is too large|above 32|at most \d+ (are|operations)"


@settings(max_examples=budget(400, 20_000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(awkward_formulas())
def test_what_is_printed_is_the_same_tree(text: str) -> None:
    """parse(print(f)) = f: long numbers, large exponents, roots, inverses of inverses, parameters in exponents."""
    found = read_again(text, ("g", "h"))
    if isinstance(found, str):
        assert re.search(REFUSALS, found), found
        assert "written out" not in found or len(text) > 250, found


@pytest.mark.parametrize("name", LOSSES)
def test_the_catalogue_is_printed_as_the_same_tree(name: str) -> None:
    loss = LOSSES[name]
    assert parse_formula(loss.formula, loss.parameters) == loss.body
    assert parse_formula(str(loss.f)) == loss.f


@pytest.mark.parametrize(("text", "printed"), [
    ("(x-1)**2-1e30*x", "(x - 1)**2 - 1e30*x"), ("x**20*x**20-x", "x**32*x**8 - x"), ("1/(x**20*x**20+1)", "1/(x**32*x**8 + 1)"),
    ("x**(63/4)*x**(67/4)", "(x**(65/4))**2"), ("123456789012345678901234567890*10*x+x", "(1*1e30 + 234567890123456789012345678901)*x"),
    ("1e-40*x", "x/1e40"), ("x/7e45+1e35/3", "x/7e45 + 1e35/3"), ("x+3*(1+x)-2*(1+x)", "2*x + 1"), ("x*(-(1+x)*exp(x))", "x*(-1 - x)*exp(x)"),
    ("-1*((1+x)*exp(x))", "-((1 + x)*exp(x))"), ("1/x*exp(x)", "exp(x)/x"), ("1/x**(1/2)", "1/x**(1/2)"), ("1/(1/x)**2", "1/(1/x**2)"),
    ("x**(1/3)*x**(2/3)", "(x**(1/2))**2"), ("x**(1/3)*x**(1/3)", "x**(2/3)"), ("exp(x)**(1/3)*exp(x)**(2/3)", "exp(x)"),
    ("log(x)**0", "1 + 0*log(x)"), ("(2+x**2)**0", "1"), ("(1/x)/(1/(2*x))", "2/(x*(1/x))"),
])  # fmt: skip
def test_how_it_is_printed(text: str, printed: str) -> None:
    assert str(read_again(text)) == printed
    numbers_agree(printed, text)


def test_numbers_and_lengths_that_cannot_be_printed_are_refused() -> None:
    for text, words in (("x*1e50*1e50", "more than 60 digits"), ("(1e30*x)**3", "more than 60 digits"),
                        ("x+" + "1e-40+x*" * 120 + "1", "at most"), (" " * 1500 + "x*" * 300 + "1", "at most")):  # fmt: skip
        with pytest.raises(ParseError, match=words):
            parse_formula(text)
    short = "+".join(f"exp({k}e-25*x)" for k in range(1, 38))  # each 1e-25 is printed as 1/10000000000000000000000000
    with pytest.raises(ParseError, match=r"too large when it is written out: \d+ characters"):
        parse_formula(short)
    dense = "-".join(f"log_ndtr(sigmoid(softplus({k}*x)))" for k in range(10, 38))
    assert len(dense) <= 1000 < len(str(parse_formula(str(parse_formula(dense))))), "the spaces of the printed formula do not count"


def test_most_random_formulas_are_accepted() -> None:
    """A parser that refuses everything would pass the law above: of these, none may be refused."""
    for text in ("(x + (1.5)**2)", "max((x)/(2+(x)**2),sinh(x))", "where(0<x and x<2, atan(x), exp(-(x)))", "(x)**4*(x - 13/7)"):
        assert not isinstance(outcome(text), ParseError), text


@pytest.mark.parametrize(
    "text", ["1/(0/x)", "(0*log(x))**-2", "1/0", "x/0", "0**-1", "x/(1-1)", "log(0)", "log(-1)*x", "sqrt(-1)", "log(x)", "1/x", "0**0*x", "(-x)**(1/2)", "x**0.5"],
)
def test_where_f_is_undefined_is_not_the_parsers_question(text: str) -> None:
    """It may refuse or accept, never crash: whether f is total is a claim of the analysis."""
    outcome(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "(", ")", "x)", "x x", "2x", "x+", "*x", "x**", "lambda: x", "lambda x: x", "(y := x)", "x if x else 1",
        "f'{x}'", "f\"{x!r}\"", "'x'", "b'x'", "x.real", "x.__class__", "(1).__class__.__bases__[0].__subclasses__()", "x[0]",
        "[x]", "(x, 1)", "{x}", "{x: 1}", "[x for x in x]", "x; x", "x = 1", "x\nx", "import os", "__import__('os')",
        "eval('x')", "exec('x')", "open('f')", "print(x)", "breakpoint()", "globals()", "exp", "exp()", "exp(x, x)", "exp(x=1)",
        "exp(*x)", "exp(**x)", "max(x)", "max()", "min(x)", "where(x, 1, 2)", "where(x<1, 2)", "where(x==1, 1, 2)",
        "where(x!=1, 1, 2)", "where(x<1 and x<2 and x<3, 1, 2)", "where(x in x, 1, 2)", "where(not x<1, 1, 2)", "x<1",
        "x and 1", "not x", "~x", "x % 2", "x // 2", "x @ x", "x << 1", "x & 1", "x | 1", "True*x", "None", "...",
        "1j*x", "0x10*x", "1_000*x", "0b1", "inf*x", "nan", "1e400*x", "1e999999999", "9" * 40, "y", "X",
        "x**x", "x**33", "x**-33", "x**100000", "(x**32)**32", "((x**8)**8)**8",
        "9**9**9**9", "9**9**9**9*x", "2**2**2**2**2**2", "(9**32)**32", "((9**30)**30)**30*x", "(-2)**x", "0**x", "(x**2)**x",
        "exp(exp(exp(9999)))", "exp(exp(exp(9999)))*x", "exp(exp(exp(x)))**32**2",
        "-" * 100000, "-" * 100000 + "x", "(" * 5000 + "x" + ")" * 5000, "[" * 200,
        "+".join(["x"] * 600), "exp(" * 45 + "x" + ")" * 45, "x" + "+1" * 2000, "x*" * 400 + "x", "max(" + ",".join(["x"] * 9) + ")",
        "\x00", "x\x00", "x+\x001", "х", "ехр(x)", "x²³⁴", "x·", "−", "１+x", "∞", "\ufeffx", "x\u200b", "\u202ex", "\ud800",
        "ｅｘｐ(x)", "𝓍", "x #", "x # comment", "x\\\n+1", "\t\n", "await x", "yield x", "async", "return x", "del x", "assert x",
    ],
)  # fmt: skip
def test_what_is_no_formula_is_refused(text: str) -> None:
    result = outcome(text)
    assert isinstance(result, ParseError), f"{text[:60]!r} was accepted as {getattr(result, 'formula', result)!r}"
    assert len(str(result)) < 1000


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**40), st.integers(-60, 60), st.sampled_from(["{a}**{b}", "({a}**{b})*x", "x**{b}/{a}", "{a}e{b}*x", "exp({a}*x)**{b}"]))
def test_towers_of_numbers_are_cheap(a: int, b: int, shape: str) -> None:
    outcome(shape.format(a=a, b=b))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lgo(x)", ("lgo", "log")), ("softpuls(x)", ("softpuls", "softplus")), ("exp(-a*x)", ("a",)), ("x**x", ("x**x",)),
        ("x.real", ("x.real",)), ("exp(\u2212\u00b5)", ("'\u00b5' at character 6 is not printable ASCII",)),
        ("\u00df", ("'\u00df' at character 1 is not printable ASCII",)),
    ],
)
def test_errors_quote_the_input_and_name_what_is_near(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert text in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("value", [0.1, "abc", "", "1/0", "1e999", "inf", "nan", "1" * 60, None, "0x1", "1_0", "--1"])
def test_parameters_that_are_no_exact_numbers_are_refused(value: object) -> None:
    with pytest.raises(InputError):
        parse("a*x", {"a": value})


@pytest.mark.parametrize("name", ["x", "e", "pi", "exp", "where", "and", "or", "lambda", "", "1a", "a.b", "__class__", "é", "a b"])
def test_reserved_or_strange_parameter_names_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        parse("x", {name: 1})


def test_unused_parameters_are_refused() -> None:
    with pytest.raises(InputError, match="a"):
        parse("x", {"a": 1})


@pytest.mark.parametrize(("text", "reason"), [
    ("-logsigmod(x)", "unknown function 'logsigmod'; did you mean 'logsigmoid'?;"),
    ("lnn(1+exp(-x))", "unknown function 'lnn'; did you mean 'ln'?;"),
    ("2(1-x)", "'2' is no function; a product is written with *"),
    ("x(1-x)", "'x' is no function; a product is written with *"),
    ("(1-x)(1-x)", "'1 - x' is no function; a product is written with *"),
    ("2x", "a product is written with *"),
    ("(1-beta*x)**2", "'beta' is no part of f: x is beta * rho already"),
])  # fmt: skip
def test_common_slips_are_named(text: str, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert reason in str(caught.value)
