"""Formulas in the dialects of people and programs, each with its value by mpmath, which no parser has seen."""

__all__ = ["dialects"]

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath as mp
from hypothesis import strategies as st

Value = Callable[[Any], Any]
Written = tuple[str, int, Value]  # the text, how strongly it binds, and the value at x
SUM, PRODUCT, SIGN, POWER, ATOM = 1, 2, 3, 4, 5
LIBRARIES = ("np.", "numpy.", "math.", "torch.", "F.", "torch.nn.functional.", "nn.functional.", "scipy.special.", "jnp.", "tf.math.")
RAISED = str.maketrans("0123456789-", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b")


def _phi(u: Any) -> Any:
    return mp.erfc(-u / mp.sqrt(2)) / 2


# The ways in which one function of one argument is written, and its value.
FUNCTIONS: tuple[tuple[tuple[str, ...], Value], ...] = (
    (("exp",), mp.exp), (("log", "ln"), mp.log), (("log1p",), mp.log1p), (("sqrt", "\u221a"), mp.sqrt), (("tanh",), mp.tanh),
    (("sigmoid", "sigma", "expit"), lambda u: 1 / (1 + mp.exp(-u))), (("softplus",), lambda u: mp.log1p(mp.exp(u))),
    (("relu",), lambda u: max(mp.mpf(0), u)), (("logsigmoid", "log_sigmoid"), lambda u: -mp.log1p(mp.exp(-u))),
    (("Phi", "norm.cdf", "ndtr"), _phi), (("atan", "arctan"), mp.atan), (("asinh", "arcsinh"), mp.asinh), (("abs", "fabs"), abs),
    (("square",), lambda u: u * u), (("log2",), lambda u: mp.log(u) / mp.log(2)), (("log_ndtr", "norm.logcdf"), lambda u: mp.log(_phi(u))),
)  # fmt: skip


def _in(written: Written, least: int) -> str:
    return written[0] if written[1] >= least else f"({written[0]})"


def _name(draw: st.DrawFn, name: str) -> str:
    if not name.isascii():
        return name
    if name != "Phi" and "." not in name:
        name = draw(st.sampled_from((name, name, name.upper(), name.title())))
    return draw(st.sampled_from(("", "", *LIBRARIES))) + name


def _leaf(draw: st.DrawFn) -> Written:
    number = draw(st.sampled_from(("2", "1", "0.1", "3", ".5", "1e-2", "7.")))
    return draw(st.sampled_from((
        ("x", ATOM, lambda x: x), ("x", ATOM, lambda x: x), (number, ATOM, lambda x: mp.mpf(Fraction(number).numerator) / Fraction(number).denominator),
        ("\u03c0", ATOM, lambda x: mp.pi), ("np.pi", ATOM, lambda x: mp.pi), ("e", ATOM, lambda x: mp.e))))  # fmt: skip


def _sum(draw: st.DrawFn, one: Written, two: Written) -> Written:
    sign, gap = draw(st.sampled_from(("+", "-", "\u2212", "\u2013"))), draw(st.sampled_from(("", " ", "\u00a0")))
    plus = sign == "+"
    return (f"{_in(one, SUM)}{gap}{sign}{gap}{_in(two, PRODUCT)}", SUM, lambda x: one[2](x) + two[2](x) if plus else one[2](x) - two[2](x))


def _product(draw: st.DrawFn, one: Written, two: Written) -> Written:
    sign = draw(st.sampled_from(("*", "\u00b7", "\u00d7", " * ", "/")))
    over = sign == "/"
    return (f"{_in(one, PRODUCT)}{sign}{_in(two, SIGN)}", PRODUCT, lambda x: one[2](x) / two[2](x) if over else one[2](x) * two[2](x))


def _power(draw: st.DrawFn, one: Written, two: Written) -> Written:
    """A base to a number, or a positive number or e to anything; a power binds more than the sign before it."""
    base, hat = _in(one, ATOM), draw(st.sampled_from(("^", "^", " ^ ", "**")))
    kind = draw(st.sampled_from(("whole", "raised", "half", "e", "two")))
    n = draw(st.sampled_from((2, 3, -2, -1)))
    if kind == "whole":
        return f"{base}{hat}{n}", POWER, lambda x: one[2](x) ** n
    if kind == "raised":
        return f"{base}{str(n).translate(RAISED)}", POWER, lambda x: one[2](x) ** n
    if kind == "half":
        return f"{base}{hat}(1/2)", POWER, lambda x: mp.sqrt(one[2](x))
    number, name = (mp.e, "e") if kind == "e" else (mp.mpf(2), "2")
    return f"{name}{hat}{_in(two, SIGN)}", POWER, lambda x: (mp.exp(1) if number != 2 else number) ** two[2](x)


def _call(draw: st.DrawFn, one: Written, two: Written) -> Written:
    kind = draw(st.sampled_from(("bars", "bars", "max", "one", "one", "one", "where")))
    if kind == "bars":
        return f"|{one[0]}|", ATOM, lambda x: abs(one[2](x))
    if kind == "max":
        return f"{_name(draw, draw(st.sampled_from(('max', 'maximum'))))}({one[0]}, {two[0]})", ATOM, lambda x: max(one[2](x), two[2](x))
    if kind == "where":
        least = draw(st.sampled_from(("<=", "\u2264")))
        return (f"{_name(draw, 'where')}({one[0]} {least} 1 and |x| < 3, {two[0]}, x)", ATOM,
                lambda x: two[2](x) if one[2](x) <= 1 and abs(x) < 3 else x)  # fmt: skip
    names, value = draw(st.sampled_from(FUNCTIONS))
    return f"{_name(draw, draw(st.sampled_from(names)))}({one[0]})", ATOM, lambda x: value(one[2](x))


def _sign(draw: st.DrawFn, one: Written, two: Written) -> Written:
    return f"{draw(st.sampled_from(('-', chr(0x2212))))}{_in(one, SIGN)}", SIGN, lambda x: -one[2](x)


@st.composite
def _written(draw: st.DrawFn, depth: int) -> Written:
    if depth == 0:
        return _leaf(draw)
    one, two = draw(_written(draw(st.integers(0, depth - 1)))), draw(_written(draw(st.integers(0, depth - 1))))
    return draw(st.sampled_from((_sum, _sum, _product, _power, _power, _call, _call, _sign)))(draw, one, two)


def dialects(depth: int = 3) -> st.SearchStrategy[tuple[str, Value]]:
    """A formula as somebody writes it, with as few parentheses as conventions allow, and its value at x."""
    return _written(depth).map(lambda written: (written[0], written[2]))
