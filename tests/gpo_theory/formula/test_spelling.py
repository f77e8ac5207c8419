"""Formulas as people write them: what is accepted has the value that mpmath gives its tree; what is refused says what to type."""

import re

import mpmath as mp
import pytest
from hypothesis import HealthCheck, assume, given, settings

from gpo_theory import ParseError, analyze, parse
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.formula.operations import OPERATIONS
from gpo_theory.formula.spelling import CHARACTERS, PREFIXES, SPELLINGS
from gpo_theory.kernel.certificates import verify
from gpo_theory.report.certificate_file import certificate_document
from tests.gpo_theory.formula.test_parser_fuzz import outcome
from tests.support.dialects import dialects
from tests.support.oracle import evaluate, value_of

POINTS = [mp.mpf(k) / 7 for k in (-16, -9, -2, 3, 8, 24)]


def value_by(function, x):
    """The function's value; None where it is not real and finite."""
    try:
        found = function(x)
    except (ZeroDivisionError, OverflowError, TypeError, ValueError):
        return None
    return found if isinstance(found, mp.mpf) and mp.isfinite(found) and abs(found) < 1e50 else None


def agrees(text: str, function) -> None:
    """Where the function has a value, the parsed formula has it."""
    formula = parse(text).formula
    with mp.workdps(60):
        for x in POINTS:
            expected = value_by(function, x)
            if expected is not None:
                found = evaluate(formula, x)
                assert abs(found - expected) <= mp.mpf(10) ** -30 * max(1, abs(expected)), f"{text} read as {formula}, at {x}"


def same(text: str, meant: str) -> None:
    agrees(text, lambda x: value_of(meant, x))
    assert any(value_of(meant, x) is not None for x in POINTS)


REFUSALS = ("exponent", "powers multiply", "exp may be nested", "constant", "division by zero", "zero to a power")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dialects())
def test_every_dialect_has_the_value_of_its_tree(written) -> None:
    text, function = written
    result = outcome(text)
    if isinstance(result, ParseError):  # the limits of the grammar, and 0 for a denominator; never the spelling
        assert any(reason in str(result) for reason in REFUSALS), str(result)
        assume(False)
    agrees(text, function)


@pytest.mark.parametrize(("text", "meant"), [
    ("1+x^2", "1+(x**2)"), ("-x^2", "-(x**2)"), ("2^-x", "exp(-x*log(2))"), ("2^3^x", "exp(exp(x*log(3))*log(2))"), ("x^-2", "1/(x*x)"),
    ("(1+x^2)^(1/2)", "sqrt(1+x*x)"), ("x^2*3", "3*x*x"), ("2*x^2+1", "2*(x*x)+1"), ("x^2^3", "x**8"), ("6/x^2", "6/(x*x)"), ("x ^ 2", "x*x"),
    ("x^1/2", "x/2"), ("max(0,1-x)^2", "max(0,1-x)**2"), ("e^-x", "exp(-x)"), ("e^(-x)", "exp(-x)"), ("e**(-x/2)", "exp(-x/2)"),
    ("log(1+e^-x)", "log(1+exp(-x))"), ("pi^x", "exp(x*log(pi))"), ("(1/2)^x", "exp(-x*log(2))"), ("0.5**x", "exp(-x*log(2))"),
    ("2**pi*x", "exp(pi*log(2))*x"), ("|x|", "abs(x)"), ("||x|-1|", "abs(abs(x)-1)"), ("|x|-|x-1|", "abs(x)-abs(x-1)"),
    ("|1-x|^2", "(1-x)**2"), ("-|x|", "-abs(x)"), ("2*|-x|", "2*abs(x)"), ("|x|*|x|", "x*x"), ("exp(-|x|)", "exp(-abs(x))"),
    ("e^-|x|", "exp(-abs(x))"), ("|x*|x||", "x*x"), ("where(|x|<1, |x|, 1)", "min(abs(x), 1)"), ("|max(|x|, 1)-|x||", "max(abs(x),1)-abs(x)"),
    ("relu(1-x)", "max(0,1-x)"), ("ReLU(1-x)^2", "max(0,1-x)**2"), ("ln(1+exp(-x))", "log(1+exp(-x))"), ("-logsigmoid(x)", "log(1+exp(-x))"),
    ("-F.logsigmoid(x)", "log(1+exp(-x))"), ("F.softplus(-x)", "log(1+exp(-x))"), ("-log(expit(x))", "log(1+exp(-x))"),
    ("-log(sigma(x))", "log(1+exp(-x))"), ("Phi(-x)", "erfc(x/sqrt(2))/2"), ("-log(Phi(x))", "-log_ndtr(x)"), ("LOG(1+EXP(-x))", "log(1+exp(-x))"),
    ("np.log(1+np.exp(-x))", "log(1+exp(-x))"), ("torch.exp(-x)", "exp(-x)"), ("math.log1p(torch.exp(-x))", "log(1+exp(-x))"),
    ("nn.functional.relu(1-x)", "max(0,1-x)"), ("torch.nn.functional.relu(1 - x)**2", "max(0,1-x)**2"), ("np.maximum(0, 1-x)", "max(0,1-x)"),
    ("torch.where(x < 1, (1-x)**2, 0)", "max(0,1-x)**2"), ("np.logaddexp(0, -x)", "log(1+exp(-x))"), ("pow(1-x, 2)", "(1-x)**2"),
    ("torch.square(x - 1)", "(x-1)**2"), ("np.pi*x", "pi*x"), ("\u03c0*x", "pi*x"), ("Pi*x", "pi*x"), ("1\u2212x", "1-x"), ("2\u00b7x", "2*x"),
    ("2\u00d7x", "2*x"), ("(1\u2212x)\u00b2", "(1-x)**2"), ("x\u207b\u00b2", "1/x**2"), ("x\u00b9\u2070", "x**10"), ("\u221a(1+x\u00b2)", "sqrt(1+x**2)"),
    ("where(x \u2264 1, 1\u2212x, 0)", "max(0,1-x)"), ("exp(\u2212x)\n", "exp(-x)"), ("1\u00a0-\u2009x", "1-x"), ("x\u00f72", "x/2"),
    ("log2(1+2^-x)", "log(1+exp(-x*log(2)))/log(2)"), ("1 - scipy.stats.norm.cdf(x)", "erfc(x/sqrt(2))/2"),
])  # fmt: skip
def test_accepted_spellings(text: str, meant: str) -> None:
    same(text, meant)


def test_a_parameter_keeps_its_name() -> None:
    assert parse("exp(-sigma*x)", {"sigma": 2}).formula == "exp(-sigma*x)"
    assert parse("u*relu(v*x)+Exp", {"u": 1, "v": 2, "Exp": 3}).formula == "u*max(0, v*x) + Exp"
    for name in ("sigma", "ln", "Exp", "F"):
        with pytest.raises(ParseError, match=f"'{name}' is a parameter; a product is written with *"):
            parse(f"{name}(1-x)", {name: 2})
    assert parse("F.relu(F*x)", {"F": 2}).formula == "max(0, F*x)"


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_one_function(name: str) -> None:
    """A name or a formula in u and v that the grammar itself reads; no name of the grammar has a second meaning."""
    meant = SPELLINGS[name]
    assert name not in OPERATIONS
    if meant not in OPERATIONS:
        parse_formula(meant, {*re.findall(r"\b[uv]\b", meant)})


# The wrong text, words of the error, and what the text to write instead means (None: nothing is certain).
WRONG: tuple[tuple[str, str, str | None], ...] = (
    ("2x", "a product is written with *", "2*x"), ("2(1-x)", "a product is written with *", "2*(1-x)"), ("x(1-x)", "written with *", "x*(1-x)"),
    ("(1-x)(1+x)", "written with *", "1-x**2"), ("(1-2x)^2", "written with *", "(1-2*x)**2"), ("2|x|", "bar at character 2", "2*abs(x)"),
    ("2sqrt(1+x^2)", "written with *", "2*sqrt(1+x**2)"), ("3x exp(-x)", "written with *", "3*x*exp(-x)"), ("x x", "", "x*x"),
    ("e^-2x", "written with *", None), ("1/2x", "written with *", None), ("|x|x||", "", None), ("|x", "not closed", None),
    ("|(x|)", "abs(...)", None), ("x|", "abs(...)", None), ("x\u00b2^3", "parentheses", None),
    (r"\log(1+e^{-x})", "LaTeX", "log(1+exp(-x))"), (r"\frac{1}{1+e^{x}}", "LaTeX", "1/(1+exp(x))"), (r"\frac12 (1-x)^2", "LaTeX", "(1-x)**2/2"),
    (r"\frac{1}{2}\left(1-x\right)^{2}", "LaTeX", "(1-x)**2/2"), (r"-\log \sigma(x)", "LaTeX", "log(1+exp(-x))"),
    (r"-\log\sigma(\beta\rho)", "LaTeX", "log(1+exp(-x))"), (r"\max\{0, 1-x\}^2", "LaTeX", "max(0,1-x)**2"), ("$e^{-x}$", "LaTeX", "exp(-x)"),
    (r"\ln\left(1+e^{-2x}\right)", "LaTeX", "log(1+exp(-2*x))"), (r"\sqrt{1+x^2}-x", "LaTeX", "sqrt(1+x**2)-x"), ("(1-x)^{2}", "LaTeX", "(1-x)**2"),
    (r"\dfrac{1}{2}\cdot\lvert x\rvert", "LaTeX", "abs(x)/2"), (r"\operatorname{ReLU}(1-x)", "LaTeX", "max(0,1-x)"), (r"\tanh(-x)", "LaTeX", "tanh(-x)"),
    ("[1-x]_+", "max(0, ...)", "max(0,1-x)"), ("(1-x)_+", "max(0, ...)", "max(0,1-x)"), ("(1-x)_+^2", "max(0, ...)", "max(0,1-x)**2"),
    ("[1-x]_{+}^2", "max(0, ...)", "max(0,1-x)**2"), ("(1-x)^+", "max(0, ...)", "max(0,1-x)"), ("[1-x]+", "max(0, ...)", "max(0,1-x)"),
    ("((1-x)_+)^3/2", "max(0, ...)", "max(0,1-x)**3/2"), ("([1-x]_+ + 1)^2", "max(0, ...)", "(max(0,1-x)+1)**2"),
    ("1_{x<0}", "where(condition, 1, 0)", "where(x<0,1,0)"), ("1_{x<0}(1-x)", "where(condition, 1, 0)", "where(x<0,1-x,0)"),
    ("1[x<0]*(1-x)", "where(condition, 1, 0)", "where(x<0,1-x,0)"), ("I(x \u2264 0)", "where(condition, 1, 0)", "where(x<=0,1,0)"),
    (r"\mathbb{1}[x<0]", "where(condition, 1, 0)", "where(x<0,1,0)"), ("x<0", "where(x < 0, ..., ...)", None), ("x==0", "where", None),
    ("(x<0)*(1-x)", "where(x < 0, ..., ...)", "where(x<0,1-x,0)"), ("1-x if x<0 else exp(-x)", "where(condition", "where(x<0,1-x,exp(-x))"),
    ("x<0 ? 1-x : exp(-x)", "where(condition", "where(x<0,1-x,exp(-x))"), ("where((x<0) & (x>-1), 1, 0)", "and", "where(x<0 and x>-1,1,0)"),
    ("where(x<-1 || x>1, 1, 0)", "or", "where(x<-1 or x>1,1,0)"), ("where((x<-1) | (x>1), 1, 0)", "or", "where(x<-1 or x>1,1,0)"),
    ("where(-1<x<1, 1, 0)", "and/or", "where(-1<x and x<1,1,0)"), ("where(x<0 AND x>-1, 1, 0)", "and", "where(x<0 and x>-1,1,0)"),
    ("exp(-\u03b2*\u03c1)", "x is beta * rho", "exp(-x)"), ("-log \u03c3(x)", "write sigmoid(...)", "log(1+exp(-x))"),
    ("-log \u03c3(\u03b2\u03c1)", "write sigmoid(...)", "log(1+exp(-x))"), ("exp(-\u03c1)", "x is beta * rho", "exp(-x)"),
    ("exp(-\u03c4*x)", "may be called tau", None), ("1-\u03a6(x)", "write Phi(...)", "erfc(x/sqrt(2))/2"),
    ("max(0, 1-margin)", "x is beta * rho", "max(0,1-x)"), ("exp(-rho)", "x is beta * rho", "exp(-x)"), ("exp(-beta*rho)", "x is beta * rho", "exp(-x)"),
    ("log(1+exp(-beta*x))", "x is beta * rho", "log(1+exp(-x))"), ("(1-beta*x)**2", "x is beta * rho", "(1-x)**2"),
    ("-logsigmoid(beta * logits)", "x is beta * rho", "log(1+exp(-x))"), ("(2*rho*beta-1)^2", "x is beta * rho", "(2*x-1)**2"),
    ("(beta*x^2-1)", "x is beta * rho", None), ("x-rho", "x is beta * rho", None),
    ("f(x)=exp(-x)", "a formula in x alone", "exp(-x)"), ("f(x) := max(0, 1-x)", "a formula in x alone", "max(0,1-x)"), ("loss = x^2", "alone", "x**2"),
    ("f(z) = exp(-z)", "a formula in x alone", "exp(-x)"), ("lambda x: exp(-x)", "a formula in x alone", "exp(-x)"),
    ("lambda t: max(0, 1-t)^2", "a formula in x alone", "max(0,1-x)**2"), ("return exp(-x)", "a formula in x alone", "exp(-x)"),
    ("def f(x): return exp(-x)", "a formula in x alone", "exp(-x)"), ("'exp(-x)'", "quotation marks", "exp(-x)"),
    ("exp(-z)", "unknown name 'z'", "exp(-x)"), ("(1-X)^2", "unknown name 'X'", "(1-x)**2"), ("exp(-a*x)", "a parameter needs a value", None),
    ("torch.clamp(1-x, min=0)", "plain calls", "max(0,1-x)"), ("np.clip(x, -1, 1)", "plain calls", "min(1,max(-1,x))"),
    ("(1-x).clamp(min=0)**2", "plain calls", "max(0,1-x)**2"), ("F.relu(1-x).pow(2)", "plain calls", "max(0,1-x)**2"),
    ("x.sigmoid().log()", "plain calls", "log(sigmoid(x))"), ("log^2(1+x^2)", "behind its argument", "log(1+x**2)**2"),
    ("exp^(-x)", "behind its argument", "exp(-x)"), ("log sigma(x)", "", "log(sigmoid(x))"), ("log x(1-x)", "", None), ("log sigmoid(x)/2", "", None),
    ("1-log sigmoid(x)+x", "", "1-log(sigmoid(x))+x"), ("lgo(x)", "did you mean 'log'?", None),
    ("logsigmid(x)", "did you mean 'logsigmoid'?", None), ("phi(x)", "did you mean 'Phi'?", None), ("x^x", "depends on x; write exp(...)", None),
    ("exp(-x);", "", "exp(-x)"), ("\uff45\uff58\uff50(x)", "printable ASCII", "exp(x)"), ("sigma*x", "needs its argument in parentheses", None),
)  # fmt: skip


@pytest.mark.parametrize(("text", "words", "meant"), WRONG, ids=[text for text, _, _ in WRONG])
def test_a_wrong_text_is_told_what_to_type(text: str, words: str, meant: str | None) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith((f"in '{text}': ", f"in {text!r}: "))
    assert words in said
    instead = re.search(r"; write '(.*)'$", said)
    assert (instead is None) == (meant is None), said
    if instead and meant:
        same(instead[1], meant)


def test_a_long_text_is_refused_without_a_correction() -> None:
    with pytest.raises(ParseError) as caught:
        parse("+".join(["2x"] * 80))
    assert "; write '" not in str(caught.value)


@pytest.mark.parametrize(("text", "place"), [("1\u2212\u00b5x", 3), ("x\u00b2+\u0436", 4), ("|x|^2+\u0436", 7)])
def test_a_place_in_an_error_is_the_place_in_what_was_typed(text: str, place: int) -> None:
    with pytest.raises(ParseError, match=rf"at character {place} is not printable ASCII"):
        parse(text)
    with pytest.raises(ParseError, match="not a formula at character 9"):
        parse("|x|^2+1+]")


@pytest.mark.parametrize("text", ["(1\u2212x)\u00b2 + |x|", "-logsigmoid(x)", "ln(1+e^-x)", "np.maximum(0, 1-x)^2", "2^-x", "1-Phi(x)"])
def test_a_certificate_carries_the_text_of_the_grammar_and_is_replayed(text: str) -> None:
    """Whatever was typed, the formula in the file is that of the grammar, so that both give one certificate."""
    typed = certificate_document(analyze(parse(text)))
    plain = certificate_document(analyze(parse(parse(text).formula)))
    assert typed == plain
    assert typed["loss"]["formula"].isascii()
    assert "^" not in typed["loss"]["formula"]
    assert verify(typed)["convex"] in ("proved", "refuted")


def test_the_tables_name_nothing_twice() -> None:
    assert not {*CHARACTERS} & {*map(chr, range(33, 127))}
    assert not {*PREFIXES} & {*OPERATIONS, *SPELLINGS, "x", "e", "pi"}


@pytest.mark.parametrize(("text", "reason"), [
    ("2,5*x", "a number has a decimal point, not a comma"), ("log(1+exp(-x*1,5))", "a number has a decimal point"),
    ("hinge, savage", "one loss or formula is needed"), ("logistic,trl-ipo,hinge", "one loss or formula is needed"),
])  # fmt: skip
def test_a_comma_that_is_no_argument_s_is_explained(text: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse(text)
