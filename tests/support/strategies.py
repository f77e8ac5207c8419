"""Hypothesis strategies: formulas whose truth is known by construction, random grammar text and margins."""

__all__ = ["awkward_formulas", "convex_formulas", "far_formulas", "formulas", "margins", "rationals", "rooted_formulas"]

from fractions import Fraction

from hypothesis import strategies as st


def rationals(bound: int = 6, denominator: int = 12) -> st.SearchStrategy[Fraction]:
    """Fractions with small, also non-dyadic, denominators."""
    return st.integers(1, denominator).flatmap(lambda d: st.integers(-bound * d, bound * d).map(lambda numerator: Fraction(numerator, d)))


def _text(q: Fraction) -> str:
    body = str(q.numerator) if q.denominator == 1 else f"{q.numerator}/{q.denominator}"
    return body if q >= 0 and q.denominator == 1 else f"({body})"


def _positive(bound: int = 4) -> st.SearchStrategy[Fraction]:
    return rationals(bound).map(lambda q: abs(q) + Fraction(1, 8))


@st.composite
def _affine(draw: st.DrawFn) -> str:
    slope = draw(st.sampled_from([-1, 1])) * (abs(draw(rationals(3))) + Fraction(1, 4))
    return f"({_text(slope)}*x+{_text(draw(rationals(3)))})"


# Convex functions of an affine u; several are the same function in another guise, so that no rule of thumb sees through.
_CONVEX = (
    "exp({u})",
    "{u}**2",
    "({u}*{u})",
    "{u}**4",
    "abs({u})",
    "max(0,{u})",
    "max(0,{u})**2",
    "where({u}<0,0,{u})",
    "where({u}>0,{u}**2,0)",
    "log(1+exp({u}))",
    "softplus({u})",
    "({u}+log(1+exp(-{u})))",
    "log1p(exp({u}))",
    "-log(sigmoid(-{u}))",
    "log(exp({u})+exp(-{u}))",
    "log(2+exp({u})+exp(-2*{u}))",
    "sqrt(1+{u}**2)",
    "(sqrt(4+{u}**2)-{u})",
    "({u}**2-4*{u}+6)*exp({u})",  # second derivative u^2 e^u
    "cosh({u})",
    "(exp({u})/2+exp(-{u})/2)",
    "max({u},-{u}/2)",
    "where(abs({u})<1,{u}**2/2,abs({u})-1/2)",
)
_HIDE = ("{f}", "({f}+x-x)", "(2*{f}-{f})", "-(-{f})", "{f}*(1+x-x)", "{f}/1")


@st.composite
def convex_formulas(draw: st.DrawFn) -> str:
    """Sums and maxima of convex functions of affine arguments with positive weights: convex by construction."""
    terms = draw(st.lists(st.tuples(st.sampled_from(_CONVEX), _affine(), _positive()), min_size=1, max_size=2))
    parts = [f"{_text(weight)}*({shape.format(u=u)})" for shape, u, weight in terms]
    joined = f"max({parts[0]},{parts[1]})" if len(parts) == 2 and draw(st.integers(0, 3)) == 0 else "+".join(parts)
    return draw(st.sampled_from(_HIDE)).format(f=f"({joined})") + f"+{_text(draw(rationals(3)))}*x"


_UNARY = ("exp", "log1p", "expm1", "sigmoid", "softplus", "tanh", "sinh", "cosh", "atan", "asinh", "erf", "erfc",
          "log_ndtr", "sin", "cos", "abs", "sqrt", "log")  # fmt: skip


def _numbers() -> st.SearchStrategy[str]:
    return st.sampled_from(["0", "1", "2", "7", "0.25", "1.5", "0.1", "1e-3", "2.50", "pi", "e", "13/7"])


def _extend(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} {} {})".format, children, st.sampled_from(["+", "-", "*"]), children),
        st.builds("({})/(2+({})**2)".format, children, children),
        st.builds("({})**{}".format, children, st.integers(0, 4)),
        st.builds("-({})".format, children),
        st.builds("{}({})".format, st.sampled_from(_UNARY), children),
        st.builds("{}({},{})".format, st.sampled_from(["max", "min"]), children, children),
        st.builds("max({},{},{})".format, children, children, children),
        st.builds("where({} {} {}, {}, {})".format, children, st.sampled_from(["<", "<=", ">", ">="]), children, children, children),
        st.builds("where({}<x and x<{}, {}, {})".format, _numbers(), _numbers(), children, children),
    )


def formulas() -> st.SearchStrategy[str]:
    """Any text of the grammar of moderate size; not always defined on all of R."""
    return st.recursive(st.just("x") | _numbers(), _extend, max_leaves=7)


_AWKWARD = ("x", "x", "x", "1", "2", "0", "3/7", "1e30", "1e-25", "1e59", "9" * 29, "0.1", "pi", "e", "g", "h", "-1")
_EXPONENTS = ("2", "-1", "1/2", "-1/2", "1/3", "2/3", "0", "20", "3", "-2", "31/2", "32", "5/2", "13/3", "g", "-g", "1+g", "h*g", "1-g")


def _awkward(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    exponents = st.sampled_from(_EXPONENTS)
    return st.one_of(
        st.builds("({}){}({})".format, children, st.sampled_from("+-*/"), children),
        st.builds("{}{}{}".format, children, st.sampled_from("+-*/"), children),
        st.builds("({})**({})".format, children, exponents),
        st.builds("({0})**({1})*({0})**({2})".format, children, exponents, exponents),
        st.builds("({0})/({0})**({1})".format, children, exponents),
        st.builds("-({})".format, children),
        st.builds("{}({})".format, st.sampled_from(["exp", "log", "sqrt", "abs", "sigmoid", "relu", "softplus", "sin"]), children),
        st.builds("where({}{}{},{},{})".format, children, st.sampled_from(["<", ">="]), children, children, children),
        st.builds("max({},{})".format, children, children),
    )


def awkward_formulas() -> st.SearchStrategy[str]:
    """Text of the grammar with parameters g and h that is hard to print: long numbers, large exponents, roots, inverses."""
    return st.recursive(st.sampled_from(_AWKWARD), _awkward, max_leaves=8)


def margins(bound: float = 1e4) -> st.SearchStrategy[float]:
    """Scaled margins over all scales, both signs, zero included."""
    return (st.floats(-bound, bound, allow_nan=False) | st.floats(-5, 5) | st.sampled_from([0.0, 1.0, -1.0, 20.0, -20.0, 88.8]))


# For x far to the right: sums, products and functions of these keep a leading term that exponentials and powers spell.
_FAR = ("x", "x**2", "exp(-x)", "exp(-x/3)", "exp(x/2)", "1/x", "log(x)", "sqrt(x)", "x**(-3/2)", "exp(-x**2/2)", "x**3*exp(-2*x)",
        "1/(1+x**2)", "log(1+exp(-x))", "log(1+exp(x))", "log(1+x**2)", "sqrt(1+x**2)", "1/(1+exp(x))", "1/(2+exp(-x))", "atan(x)",
        "atan(1/x)", "erfc(x)", "erfc(-x/2)", "exp(1/x)", "log(x+log(x))", "1/(x-log(x))", "(1+1/x)**(2/3)", "sqrt(x**2+3*x)-x",
        "sin(x)/x", "cos(3*x)", "log(2+exp(-x)+exp(x))", "exp(x-1/3)", "x*exp(-x/7)", "log(erfc(x))")  # fmt: skip


@st.composite
def far_formulas(draw: st.DrawFn) -> str:
    """Formulas that are defined for every x >= 8, with differences in which the leading terms may cancel."""
    one, two, three = (draw(st.sampled_from(_FAR)) for _ in range(3))
    weight, other = _text(draw(rationals(3))), _text(draw(_positive()))
    shape = draw(st.sampled_from(("{a}", "{a}-{w}*{b}", "({a})*({b})-{w}", "{a}-{b}+{w}*{c}", "({a})**2-{p}*({b})*({c})",
                                  "1/({p}+({a})**2)", "log({p}+({a})**2)-{w}*{b}", "exp(-({p}+({a})**2)**(1/2)/9)", "atan({a})-{w}*{b}",
                                  "sqrt({p}+({a})**2)-{b}")))  # fmt: skip
    return shape.format(a=one, b=two, c=three, w=weight, p=other)


_ATOMS = ("x", "(x-2)", "(3-x)", "(-x)", "(1+x**2)", "(-1-x**2)", "(x**2-x+1)", "(x**2-2*x-1)", "exp(x)", "exp(-x/2)", "exp(x**2/3)", "exp(x+1/3)",
          "(1+exp(x))", "(exp(x)-2)", "(exp(2*x)+exp(-x/3))", "(-exp(x)-exp(-x))", "sin(x)", "(2+cos(x))", "atan(x)", "erfc(x)", "log(1+x**2)",
          "log(2+exp(x))", "sqrt(2)", "(1/3)**(1/2)", "pi", "pi**(-1/2)", "exp(1/3)", "log(2)", "(-2/7)", "(113/97)", "12**(-3/2)")  # fmt: skip


def _rooted(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    powers = st.sampled_from(["(1/2)", "(-1/2)", "(3/2)", "(1/3)", "(-5/3)", "2", "3", "(-1)", "(-2)", "(-3)", "4"])
    signs = st.sampled_from(["+", "-", "*", "-2*", "*(-1/3)*", "+x*"])
    return st.one_of(
        st.builds("({})**{}".format, children, powers),
        st.builds("(({})**2)**{}".format, children, powers),
        st.builds("(({})**2*({}))**{}".format, children, children, powers),
        st.builds("({}){}({})".format, children, signs, children),
        st.builds("({})/({})".format, children, children),
        st.builds("({0})/(sqrt(({0})**2+{1})-({0}))".format, children, st.sampled_from(["1", "4", "(7/3)"])),
        st.builds("1/(({0})-2*sqrt((({0})**2+{1})/4))".format, children, st.sampled_from(["1", "5"])),
        st.builds("({0})-sqrt(({0})**2)".format, children),
        st.builds("exp({0})*({1})-({1})*({2})".format, st.sampled_from(["x", "-x/7", "2*x-1"]), children, children),
    )


def rooted_formulas() -> st.SearchStrategy[str]:
    """Roots, denominators and constants of either sign, nested and conjugate: where multiplying out could turn a sign."""
    return st.recursive(st.sampled_from(_ATOMS), _rooted, max_leaves=3)
