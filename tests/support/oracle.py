"""Independent truth about the catalogue: every f written again in mpmath, every expected fact derived by hand.

Nothing here comes from `gpo_theory`: the functions follow THEORY's literature, the facts are derived in the comments,
and `test_oracle.py` compares the facts with exhaustive numerics. Each `check_*` raises AssertionError on a false
statement, and says nothing about a claim that is honestly left unknown.
"""

__all__ = [
    "CLAIMS", "MUST_DECIDE", "PAPER", "TAIL_CLASSES", "TRUTHS", "Tail", "Truth", "check_chord", "check_claims",
    "check_growth", "check_link", "check_strength", "check_tails", "check_taylor", "check_witness", "evaluate", "evaluated_by",
    "least", "number", "precision_for", "real", "value_of",
]

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import mpmath as mp

PAPER = ("logistic", "hinge", "squared", "exponential", "truncated_squared", "savage")
CLAIMS = (
    "total", "convex", "strictly_convex", "strongly_convex", "lipschitz", "smooth", "bounded_below",
    "monotone_decreasing", "differentiable_at_zero", "bayes_consistent", "bradley_terry_exact",
)
MUST_DECIDE = ("total", "convex", "differentiable_at_zero", "monotone_decreasing", "bounded_below", "bayes_consistent", "bradley_terry_exact")
TAIL_CLASSES = (
    "zero", "super_exponential", "exponential", "power", "logarithmic", "constant", "linear", "polynomial",
    "exponential_growth", "super_exponential_growth", "unknown",
)

Real = Any  # an mpf: mpmath carries no types
Function = Callable[[Real], Real]


# An evaluator of the formula grammar, written from DESIGN.md and not from the parser.


def _not(pole: int, u: Real) -> Real:
    """`u`, where a logarithm has a value: mpmath's is -inf at the pole, and its exponential a number again."""
    if u == pole:
        raise ZeroDivisionError("the logarithm of 0")
    return u


_FUNCTIONS: dict[str, Callable[..., Real]] = {
    "exp": mp.exp, "log": lambda u: mp.log(_not(0, u)), "log1p": lambda u: mp.log1p(_not(-1, u)), "expm1": mp.expm1,
    "sqrt": mp.sqrt, "sigmoid": lambda u: 1 / (1 + mp.exp(-u)), "softplus": lambda u: mp.log1p(mp.exp(u)),
    "tanh": mp.tanh, "sinh": mp.sinh, "cosh": mp.cosh, "atan": mp.atan, "asinh": mp.asinh, "erf": mp.erf,
    "erfc": mp.erfc, "log_ndtr": lambda u: mp.log(mp.erfc(-u / mp.sqrt(2)) / 2), "sin": mp.sin, "cos": mp.cos,
    "abs": abs, "max": max, "min": min,
}
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
    ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}


def real(value: Real) -> Real:
    """Return a number in the current mpmath precision, fractions included."""
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else mp.mpf(value)


def evaluate(formula: str, x: Real, parameters: Mapping[str, Real] | None = None) -> Real:
    """Return the value of a formula of the grammar at x in the current mpmath precision; decimals are exact."""
    return evaluated_by(formula, {"x": x, **(parameters or {})}, _FUNCTIONS, real)


def value_of(formula: str, x: Real, digits: int = 60) -> Real | None:
    """Return the value in `digits` digits; None where the formula is not defined, not real or not finite."""
    with mp.workdps(digits):
        try:
            found = evaluate(formula, real(x))
        except (ZeroDivisionError, OverflowError, TypeError, ValueError):
            return None
        return None if isinstance(found, mp.mpc) or not mp.isfinite(found) else found


def evaluated_by(formula: str, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]], lifted: Callable[[Real], Any]) -> Any:
    """Evaluate a formula in any arithmetic: `lifted` takes a number or a named value into it."""
    text = formula.strip()
    known = {name: lifted(value) for name, value in {"pi": mp.pi, "e": mp.e, **names}.items()}

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return lifted(Fraction(ast.get_source_segment(text, node)))
            case ast.Name():
                return known[node.id]
            case ast.UnaryOp():
                return _OPERATORS[type(node.op)](value(node.operand))
            case ast.BinOp():
                return _OPERATORS[type(node.op)](value(node.left), value(node.right))
            case ast.Call(ast.Name("where"), [condition, one, other]):
                return value(one if holds(condition) else other)
            case ast.Call(ast.Name(name)):
                return functions[name](*map(value, node.args))
        raise AssertionError(f"not in the grammar: {ast.dump(node)}")

    def holds(node: ast.expr) -> bool:
        if isinstance(node, ast.BoolOp):
            return (all if isinstance(node.op, ast.And) else any)(map(holds, node.values))
        assert isinstance(node, ast.Compare)
        sides = [value(part) for part in (node.left, *node.comparators)]
        return all(_OPERATORS[type(op)](left, right) for op, left, right in zip(node.ops, sides, sides[1:], strict=False))

    return value(ast.parse(text, mode="eval").body)


def number(text: str) -> Real:
    """Return the value of a constant of the grammar; `inf` and `-inf` are allowed."""
    return mp.mpf(text) if text in ("inf", "-inf") else evaluate(text, mp.nan)


def precision_for(x: float | Fraction | Real) -> int:
    """Return enough decimal digits for a formula whose smallest retained term is exp(-3 |x|)."""
    return 60 + int(min(abs(float(x)), 1e4) * 3 / 2.3)


def least(g: Function, grid: Sequence[Real], steps: int = 120) -> Real:
    """Return where g is least: at the best point of a grid, by golden sections between that one's neighbours; leftmost of equals."""
    best = min(range(len(grid)), key=lambda i: g(grid[i]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    golden = (mp.sqrt(5) - 1) / 2
    for _ in range(steps):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if g(left) <= g(right) else (left, high)
    return (low + high) / 2


# The truth table.


@dataclass(frozen=True)
class Tail:
    """Leading behaviour at one end: the class and its number (rate, order, limit, or coefficient of |x| or log |x|)."""

    kind: str
    number: str | None = None


@dataclass(frozen=True)
class Truth:
    """What is true of one loss at its default parameters; texts are constants of the grammar, true claims are named."""

    f: Function
    taylor: tuple[str, ...]  # f(0), f'(0), f''(0)/2, ... as far as derived by hand, at least to order 2 if f'' exists
    strength: tuple[str, ...] | None  # (R,), or (left, right) where f'' jumps at 0; None where f'(0) does not exist
    claims: str
    infimum: str
    tails: tuple[Tail, Tail, Tail, Tail]  # f left, -f' left, f right, -f' right
    target: str | None  # lim of x*(p) as p -> 1 from below
    slope: str | None  # dx*/dp at 1/2 where P1 applies; "inf" where x* jumps there; None where 0 is not the minimiser
    c: str | None = None
    kinks: tuple[str, ...] = ()  # points where f is not C^2

    def holds(self, claim: str) -> bool:
        return claim == "total" or claim in self.claims.split()


def _sigma(x: Real) -> Real:
    return 1 / (1 + mp.exp(-x))


def _softplus(x: Real) -> Real:
    return mp.log1p(mp.exp(x))


def _probit(x: Real) -> Real:  # -log Phi(x), in the form that keeps relative accuracy at each end
    if x > 0:
        return -mp.log1p(-mp.erfc(x / mp.sqrt(2)) / 2)
    return -mp.log(mp.erfc(-x / mp.sqrt(2)) / 2)


def _discopop(x: Real) -> Real:  # Lu et al. 2024 (arXiv 2406.08414), LRML: tau = 1/20
    w = _sigma(20 * x)
    return (1 - w) * _softplus(-x) + w * mp.exp(-x)


def _exo(x: Real) -> Real:  # Ji et al. 2024 (arXiv 2402.00856): KL((s, 1-s) || (1-eps, eps)), s = sigma(x)
    s, r, eps = _sigma(x), _sigma(-x), mp.mpf(1) / 1000
    return s * (-_softplus(-x) - mp.log(1 - eps)) + r * (-_softplus(x) - mp.log(eps))


def _huber(x: Real) -> Real:
    u = abs(1 - x)
    return u**2 / 2 if u <= 2 else 2 * (u - 1)


def _rennie(x: Real) -> Real:  # Rennie and Srebro 2005
    return mp.mpf(1) / 2 - x if x <= 0 else max(mp.mpf(0), 1 - x) ** 2 / 2


def _huberised(x: Real) -> Real:  # Chapelle 2007, h = 1/2
    if x > mp.mpf(3) / 2:
        return mp.mpf(0)
    return 1 - x if x < mp.mpf(1) / 2 else (mp.mpf(3) / 2 - x) ** 2 / 2


def _modified_huber(x: Real) -> Real:  # Zhang 2004
    return -4 * x if x < -1 else max(mp.mpf(0), 1 - x) ** 2


def _exp(rate: str = "1") -> Tail:
    return Tail("exponential", rate)


def _grow(rate: str = "1") -> Tail:
    return Tail("exponential_growth", rate)


_power, _const, _line, _poly = (partial(Tail, kind) for kind in ("power", "constant", "linear", "polynomial"))
ZERO = Tail("zero")
GAUSS = Tail("super_exponential")

# Shorthands of claims: a loss that is not convex is neither strictly nor strongly so.
_SMOOTH_CONVEX = "convex strictly_convex differentiable_at_zero bayes_consistent"
_FLAT_CONVEX = "convex differentiable_at_zero bayes_consistent"
_CALIBRATED = "differentiable_at_zero bayes_consistent"

TRUTHS: dict[str, Truth] = {
    # log(1+e^-x) = log 2 - x/2 + log cosh(x/2), and log cosh u = u^2/2 - u^4/12: 1/8, 0, -1/192.
    "logistic": Truth(
        lambda x: _softplus(-x), ("log(2)", "-1/2", "1/8", "0", "-1/192"), ("1/2",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing bradley_terry_exact lipschitz smooth", "0",
        (_line("1"), _const("1"), _exp(), _exp()), "inf", "4", c="1",
    ),
    "hinge": Truth(
        lambda x: max(mp.mpf(0), 1 - x), ("1", "-1", "0", "0", "0"), ("0",),
        f"{_FLAT_CONVEX} bounded_below monotone_decreasing lipschitz", "0", (_line("1"), _const("1"), ZERO, ZERO), "1", "inf", kinks=("1",),
    ),
    "squared": Truth(
        lambda x: (x - 1) ** 2, ("1", "-2", "1", "0", "0"), ("1",), f"{_SMOOTH_CONVEX} strongly_convex bounded_below smooth", "0",
        (_poly("2"), _line("2"), _poly("2"), _line("-2")), "1", "2",
    ),
    # f'(-x) = -e^x = e^{2x} f'(x): c = 1/2.
    "exponential": Truth(
        lambda x: mp.exp(-x), ("1", "-1", "1/2", "-1/6", "1/24"), ("1",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing bradley_terry_exact", "0",
        (_grow(), _grow(), _exp(), _exp()), "inf", "2", c="1/2",
    ),
    "truncated_squared": Truth(
        lambda x: max(mp.mpf(0), 1 - x) ** 2, ("1", "-2", "1", "0", "0"), ("1",),
        f"{_FLAT_CONVEX} bounded_below monotone_decreasing smooth", "0", (_poly("2"), _line("2"), ZERO, ZERO), "1", "2", kinks=("1",),
    ),
    # f = (1-t)^2/4 with t = tanh(x/2) = x/2 - x^3/24 + ...: 1/4 - x/4 + x^2/16 + x^3/48 - x^4/96, and
    # f' = -2 e^x (1+e^x)^-3, f'(-x) = -2 e^{2x} (1+e^x)^-3 = e^x f'(x): c = 1. f'' = -2 s (1-s)^2 (1-3s) < 0 left of -log 2.
    "savage": Truth(
        lambda x: (1 + mp.exp(x)) ** -2, ("1/4", "-1/4", "1/16", "1/48", "-1/96"), ("1/2",),
        f"{_CALIBRATED} bounded_below monotone_decreasing bradley_terry_exact lipschitz smooth", "0",
        (_const("1"), _exp(), _exp("2"), _exp("2")), "inf", "4", c="1",
    ),
    # C_p(x) = p max(0,-x) + (1-p) max(0,x) >= 0 = C_p(0): H = H^- = 0 for every p, so not calibrated.
    "perceptron": Truth(
        lambda x: max(mp.mpf(0), -x), ("0",), None, "convex bounded_below monotone_decreasing lipschitz", "0",
        (_line("1"), _const("1"), ZERO, ZERO), "0", None, kinks=("0",),
    ),
    # logistic(2x): coefficients times 2^k, R times 2, c halved.
    "logitboost": Truth(
        lambda x: _softplus(-2 * x), ("log(2)", "-1", "1/2", "0", "-1/12"), ("1",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing bradley_terry_exact lipschitz smooth", "0",
        (_line("2"), _const("2"), _exp("2"), _exp("2")), "inf", "2", c="1/2",
    ),
    "cubed_hinge": Truth(
        lambda x: max(mp.mpf(0), 1 - x) ** 3, ("1", "-3", "3", "-1", "0"), ("2",),
        f"{_FLAT_CONVEX} bounded_below monotone_decreasing", "0", (_poly("3"), _poly("2"), ZERO, ZERO), "1", "1", kinks=("1",),
    ),
    # f'' jumps from 0 to 1 at 0; x*(p) = 2 - 1/p for p > 1/2, slope 4 = 2 / mean(0, 1).
    "smooth_hinge": Truth(
        _rennie, ("1/2", "-1"), ("0", "1"), f"{_FLAT_CONVEX} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_line("1"), _const("1"), ZERO, ZERO), "1", "4", kinks=("0", "1"),
    ),
    "modified_huber": Truth(
        _modified_huber, ("1", "-2", "1", "0", "0"), ("1",), f"{_FLAT_CONVEX} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_line("4"), _const("4"), ZERO, ZERO), "1", "2", kinks=("-1", "1"),
    ),
    # x*(p) = 3/2 - (1-p)/p on the quadratic piece.
    "huberised_hinge": Truth(
        _huberised, ("1", "-1", "0", "0", "0"), ("0",), f"{_FLAT_CONVEX} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_line("1"), _const("1"), ZERO, ZERO), "3/2", "inf", kinks=("1/2", "3/2"),
    ),
    # with v = 2 atan x, C_p = p (v-1)^2 + (1-p)(v+1)^2 is least at v = 2p-1: x* = tan(p - 1/2).
    # atan x = x - x^3/3: (2a-1)^2 = 1 - 4a + 4a^2 = 1 - 4x + 4x^2 + 4/3 x^3 - 8/3 x^4.
    "tangent": Truth(
        lambda x: (2 * mp.atan(x) - 1) ** 2, ("1", "-4", "4", "4/3", "-8/3"), ("2",), f"{_CALIBRATED} bounded_below lipschitz smooth", "0",
        (_const("(pi+1)**2"), _power("2"), _const("(pi-1)**2"), _power("2")), "sin(1/2)/cos(1/2)", "1",
    ),
    # sigma(-x) = 1/2 - tanh(x/2)/2; f(x) + f(-x) = 1, so C_p = (1-p) + (2p-1) f and x* = +-inf.
    "sigmoid": Truth(
        lambda x: _sigma(-x), ("1/2", "-1/4", "0", "1/48", "0"), ("0",),
        f"{_CALIBRATED} bounded_below monotone_decreasing lipschitz smooth", "0", (_const("1"), _exp(), _exp(), _exp()), "inf", "inf",
    ),
    "unhinged": Truth(
        lambda x: 1 - x, ("1", "-1", "0", "0", "0"), ("0",), f"{_FLAT_CONVEX} monotone_decreasing lipschitz smooth",
        "-inf", (_line("1"), _const("1"), _line("-1"), _const("1")), "inf", "inf",
    ),
    # f(x) + f(-x) = 2: C_p = 2(1-p) + (2p-1) f, least where f = 0; H^- = 1 > 2(1-p). Concave kink at -1.
    "ramp": Truth(
        lambda x: min(mp.mpf(2), max(mp.mpf(0), 1 - x)), ("1", "-1", "0", "0", "0"), ("0",),
        f"{_CALIBRATED} bounded_below monotone_decreasing lipschitz", "0", (_const("2"), ZERO, ZERO, ZERO), "1", "inf", kinks=("-1", "1"),
    ),
    # u = 1-x, log(1+u^2): g'' = 2(1-u^2)/(1+u^2)^2 = 0 at u = 1, g'''(1) = -1. Calibrated by the second branch of flip.
    "cauchy": Truth(
        lambda x: mp.log1p((1 - x) ** 2), ("log(2)", "-1", "0", "1/6"), ("0",),
        f"{_CALIBRATED} bounded_below lipschitz smooth", "0",
        (Tail("logarithmic", "2"), _power("1"), Tail("logarithmic", "2"), _power("1")), "1", "inf",
    ),
    "welsch": Truth(
        lambda x: -mp.expm1(-((1 - x) ** 2) / 2), ("1-exp(-1/2)", "-exp(-1/2)", "0"), ("0",),
        f"{_CALIBRATED} bounded_below lipschitz smooth", "0", (_const("1"), GAUSS, _const("1"), GAUSS), "1", "inf",
    ),
    # e^{1-x} + x - 2
    "linex": Truth(
        lambda x: mp.exp(1 - x) - (1 - x) - 1, ("e-2", "1-e", "e/2", "-e/6", "e/24"), ("e/(e-1)",),
        f"{_SMOOTH_CONVEX} bounded_below", "0", (_grow(), _grow(), _line("1"), _const("-1")), "1", "2*(e-1)/e",
    ),
    # gamma = 2. With r = sigma(-x), L = softplus(-x), r' = -r(1-r), L' = -r: f' = -2 r^2 (1-r) L - r^3, at 0:
    # -(log 2)/4 - 1/8; f'' = (4r^2 - 6r^3)(1-r) L + 2r^3 - 2r^4 + 3r^3 (1-r), at 0: (log 2)/8 + 5/16.
    # Far left f'' ~ e^x (2x+5) < 0.
    "focal": Truth(
        lambda x: _sigma(-x) ** 2 * _softplus(-x), ("log(2)/4", "-log(2)/4-1/8"), ("(5+2*log(2))/(2*(1+2*log(2)))",),
        f"{_CALIBRATED} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_line("1"), _const("1"), _exp("3"), _exp("3")), "inf", "4*(1+2*log(2))/(5+2*log(2))",
    ),
    # f' = -(1-s)(1+s), f'' = 2 s^2 (1-s) > 0.
    "poly1": Truth(
        lambda x: _softplus(-x) + _sigma(-x), ("log(2)+1/2", "-3/4", "1/8", "1/48", "-1/192"), ("1/3",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing lipschitz smooth", "0", (_line("1"), _const("1"), _exp(), _exp()), "inf", "6",
    ),
    "canonical_boosting": Truth(
        lambda x: (mp.sqrt(4 + x**2) - x) / 2, ("1", "-1/2", "1/8", "0", "-1/128"),  # sqrt(1+v) = 1 + v/2 - v^2/8, v = x^2/4
        ("1/2",), f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_line("1"), _const("1"), _power("1"), _power("2")), "inf", "4",
    ),
    "sqrt_hinge": Truth(
        lambda x: mp.sqrt(1 + x**2) - x, ("1", "-1", "1/2", "0", "-1/8"), ("1",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_line("2"), _const("2"), _power("1"), _power("2")), "inf", "2",
    ),
    "arctan": Truth(
        lambda x: mp.mpf(1) / 2 - mp.atan(x) / mp.pi, ("1/2", "-1/pi", "0", "1/(3*pi)", "0"), ("0",),
        f"{_CALIBRATED} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_const("1"), _power("2"), _power("1"), _power("2")), "inf", "inf",
    ),
    # f' = -h, f'' = h (x + h), h = phi/Phi, h(0) = sqrt(2/pi).
    "probit": Truth(
        _probit, ("log(2)", "-sqrt(2/pi)", "1/pi"), ("sqrt(2/pi)",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing smooth", "0", (_poly("2"), _line("1"), GAUSS, GAUSS), "inf", "sqrt(2*pi)",
    ),
    "pinball": Truth(
        lambda x: max(1 - x, (x - 1) / 4), ("1", "-1", "0", "0", "0"), ("0",),
        f"{_FLAT_CONVEX} bounded_below lipschitz", "0", (_line("1"), _const("1"), _line("1/4"), _const("-1/4")), "1", "inf", kinks=("1",),
    ),
    "huber": Truth(
        _huber, ("1/2", "-1", "1/2", "0", "0"), ("1",), f"{_FLAT_CONVEX} bounded_below lipschitz smooth", "0",
        (_line("2"), _const("2"), _line("2"), _const("-2")), "1", "2", kinks=("-1", "3"),
    ),
    "log_cosh": Truth(
        lambda x: mp.log(mp.cosh(1 - x)), ("log(cosh(1))", "-tanh(1)", "1/(2*cosh(1)**2)"), ("2/sinh(2)",),
        f"{_SMOOTH_CONVEX} bounded_below lipschitz smooth", "0", (_line("1"), _const("1"), _line("1"), _const("-1")), "1", "sinh(2)",
    ),
    # logistic + x/10; minimum where sigma(-x) = 1/10, of value the entropy of (1/10, 9/10).
    "cdpo": Truth(
        lambda x: _softplus(-x) + x / 10, ("log(2)", "-2/5", "1/8", "0", "-1/192"), ("5/8",),
        f"{_SMOOTH_CONVEX} bounded_below lipschitz smooth", "log(10)-9/10*log(9)",
        (_line("9/10"), _const("9/10"), _line("1/10"), _const("-1/10")), "log(9)", "16/5",
    ),
    # logistic - x/8
    "robust_dpo": Truth(
        lambda x: _softplus(-x) - x / 8, ("log(2)", "-5/8", "1/8", "0", "-1/192"), ("2/5",),
        f"{_SMOOTH_CONVEX} monotone_decreasing lipschitz smooth", "-inf",
        (_line("9/8"), _const("9/8"), _line("-1/8"), _const("1/8")), "inf", "5",
    ),
    # f' = s(1-s)(x - K), K = log 999: f'(0) = -K/4, f''(0) = 1/4; D(a) = (2 sigma(a) - 1) K > 0: calibrated by flip.
    "exo": Truth(
        _exo, ("-log(2)-log(999/1000000)/2", "-log(999)/4", "1/8"), ("1/log(999)",), f"{_CALIBRATED} bounded_below lipschitz smooth", "0",
        (_const("log(1000)"), _exp(), _const("log(1000/999)"), _exp()), "log(999)", "2*log(999)",
    ),
    # f = L + w (E - L), w = sigma(20 x): f'(0) = 5 (1 - log 2) - 3/4 > 0, f''(0) = 1/4 - 5 + 3/8 = -35/8.
    "discopop": Truth(
        _discopop, ("(1+log(2))/2", "17/4-5*log(2)", "-35/16"), ("(35/8)/(17/4-5*log(2))",),
        f"{_CALIBRATED} bounded_below lipschitz smooth", "0", (_line("1"), _const("1"), _exp(), _exp()), "inf", None,
    ),
    "cell": Truth(
        lambda x: (mp.exp(-x) + _softplus(-x)) / 2, ("(1+log(2))/2", "-3/4", "5/16", "-1/12", "7/384"), ("5/6",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing", "0", (_grow(), _grow(), _exp(), _exp()), "inf", "12/5",
    ),
    # f = -x/2 + (x/2) tanh(x/2). f' = 0 iff x sigma(x) = 1 iff x = 1 + e^-x = 1 + W(1/e), where f = -W(1/e).
    "spo": Truth(
        lambda x: -x * _sigma(-x), ("0", "-1/2", "1/4", "0", "-1/48"), ("1",), f"{_CALIBRATED} bounded_below lipschitz smooth",
        "-0.278464542761073795109358739",  # -W(1/e), recomputed in test_oracle.py
        (_line("1"), _const("1"), _exp(), _exp()), "1.278464542761073795109358739", "2",
    ),
    # f -> 0 at both ends, f >= 0: H = H^- = 0. f' = -s^g (1-s)(1 + g log s), g = 1/20, and with L = log 2
    # f''(0)/f'(0) = d/dx log|f'| = g(1-s) - s + g(1-s)/(1 + g log s) at s = 1/2.
    "focal_po": Truth(
        lambda x: _sigma(x) ** (mp.mpf(1) / 20) * _softplus(-x), ("2**(-1/20)*log(2)", "-2**(-1/20)*(1-log(2)/20)/2"),
        ("19/40-1/(40*(1-log(2)/20))",), "differentiable_at_zero bounded_below lipschitz smooth", "0",
        (_exp("1/20"), _exp("1/20"), _exp(), _exp()), "inf", None,
    ),
    # f' = -(1+e^-x), f'(-x) = -(1+e^x) = e^x f'(x): c = 1.
    "kliep": Truth(
        lambda x: mp.exp(-x) - x, ("1", "-2", "1/2", "-1/6", "1/24"), ("1/2",),
        f"{_SMOOTH_CONVEX} monotone_decreasing bradley_terry_exact", "-inf",
        (_grow(), _grow(), _line("-1"), _const("1")), "inf", "4", c="1",
    ),
    # f' = -e^{-2x} - e^x, f'(-x) = e^x f'(x): c = 1, f' < 0: calibrated; C_1/2 = (cosh 2x - 2 cosh x)/2, least at
    # sinh 2x = sinh x, that is x = 0. f'' = 2 e^{-2x} - e^x < 0 beyond (log 2)/3.
    "lsif": Truth(
        lambda x: mp.exp(-2 * x) / 2 - mp.exp(x), ("-1/2", "-2", "1/2", "-5/6", "7/24"), ("1/2",),
        f"{_CALIBRATED} monotone_decreasing bradley_terry_exact", "-inf", (_grow("2"), _grow("2"), _grow(), _grow()), "inf", "4", c="1",
    ),
    "ipo_tau": Truth(
        lambda x: (x - mp.mpf(1) / 2) ** 2, ("1/4", "-1", "1", "0", "0"), ("2",),
        f"{_SMOOTH_CONVEX} strongly_convex bounded_below smooth", "0", (_poly("2"), _line("2"), _poly("2"), _line("-2")), "1/2", "1",
    ),
    # f'(-x) = e^x f'(x): c = 1.
    "half_exponential": Truth(
        lambda x: mp.exp(-x / 2), ("1", "-1/2", "1/8", "-1/48", "1/384"), ("1/2",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing bradley_terry_exact", "0",
        (_grow("1/2"), _grow("1/2"), _exp("1/2"), _exp("1/2")), "inf", "4", c="1",
    ),
    # gamma = 1/2: x*(p) = 1 - (1-p)/(2p) on the quadratic piece; flat C_1/2 around 0.
    "gamma_hinge": Truth(
        lambda x: mp.mpf(3) / 4 - x if x < mp.mpf(1) / 2 else max(mp.mpf(0), 1 - x) ** 2, ("3/4", "-1", "0", "0", "0"),
        ("0",), f"{_FLAT_CONVEX} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_line("1"), _const("1"), ZERO, ZERO), "1", "inf", kinks=("1/2", "1"),
    ),
    # f(x) + f(-x) = 1; f' = -e^{-x^2}/sqrt(pi).
    "erf_loss": Truth(
        lambda x: mp.erfc(x) / 2, ("1/2", "-1/sqrt(pi)", "0", "1/(3*sqrt(pi))", "0"), ("0",),
        f"{_CALIBRATED} bounded_below monotone_decreasing lipschitz smooth", "0", (_const("1"), GAUSS, GAUSS, GAUSS), "inf", "inf",
    ),
    # f'(-x) = -1 and f'(x) = -e^-x for x > 0: c = 1; f'' jumps from 0 to 1 at 0, mean R = 1/2.
    "huberised_exponential": Truth(
        lambda x: 1 - x if x < 0 else mp.exp(-x), ("1", "-1"), ("0", "1"),
        f"{_FLAT_CONVEX} bounded_below monotone_decreasing bradley_terry_exact lipschitz smooth", "0",
        (_line("1"), _const("1"), _exp(), _exp()), "inf", "4", c="1", kinks=("0",),
    ),
    # logistic(x - 1): f' = -sigma(1-x), f'' = sigma(1-x) sigma(x-1).
    "offset_dpo": Truth(
        lambda x: _softplus(1 - x), ("log(1+e)", "-e/(1+e)", "e/(2*(1+e)**2)"), ("1/(1+e)",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing lipschitz smooth", "0",
        (_line("1"), _const("1"), _exp(), _exp()), "inf", "2*(1+e)",
    ),
    # lam = -1/4: f' = -e^{-3x/4} - e^{-x/4}, f'(-x) = e^x f'(x): c = 1.
    "basu": Truth(
        lambda x: 4 * mp.exp(-3 * x / 4) / 3 + 4 * mp.exp(-x / 4), ("16/3", "-2", "1/2", "-5/48", "7/384"), ("1/2",),
        f"{_SMOOTH_CONVEX} bounded_below monotone_decreasing bradley_terry_exact", "0",
        (_grow("3/4"), _grow("3/4"), _exp("1/4"), _exp("1/4")), "inf", "4", c="1",
    ),
    # g = 1/2: with s' = s r, f' = -(3/2) (s^{1/2} r^2 + s r^{3/2}), and s <-> r multiplies it by s/r = e^x: c = 1. At
    # s = r = 1/2 f' = -3 2^{-5/2}, f'' = 3 2^{-7/2}. From 1 on the left to -2 on the right: not convex.
    "dpd": Truth(
        lambda x: -3 * mp.sqrt(_sigma(x)) + _sigma(x) ** (mp.mpf(3) / 2) + _sigma(-x) ** (mp.mpf(3) / 2),
        ("-sqrt(2)", "-3*sqrt(2)/8", "3*sqrt(2)/32"), ("1/2",),
        f"{_CALIBRATED} bounded_below monotone_decreasing bradley_terry_exact lipschitz smooth", "-2",
        (_const("1"), _exp("1/2"), _const("-2"), _exp("3/2")), "inf", "4", c="1",
    ),
    # F = 1/2 + atan(x)/pi, F(0) = 1/2, F'(0) = 1/pi, F''(0) = 0: f' = -F'/F = -2/pi, f'' = (F'/F)^2 = 4/pi^2. F is about
    # 1/(pi |x|) on the left and 1 - 1/(pi x) on the right. f grows like log|x|: not convex. Calibrated: f(a) < f(-a).
    "cauchit": Truth(
        lambda x: -mp.log(mp.atan2(1, -x) / mp.pi), ("log(2)", "-2/pi", "2/pi**2"), ("2/pi",),
        f"{_CALIBRATED} bounded_below monotone_decreasing lipschitz smooth", "0",
        (Tail("logarithmic", "1"), _power("1"), _power("1"), _power("2")), "inf", "pi",
    ),
    # k = 3/2: (1-x)^k = 1 - k x + k(k-1)/2 x^2 - ..., R = k - 1; f'' = (3/4) (1-x)^{-1/2} has no bound left of 1.
    "hinge_power": Truth(
        lambda x: max(mp.mpf(0), 1 - x) ** (mp.mpf(3) / 2), ("1", "-3/2", "3/8", "1/16", "3/128"), ("1/2",),
        f"{_FLAT_CONVEX} bounded_below monotone_decreasing", "0", (_poly("3/2"), _poly("1/2"), ZERO, ZERO), "1", "4", kinks=("1",),
    ),
}


# Checks of what the toolkit prints, each against the table or against the definition itself; its form is checked by
# test_analysis.py.

_GRID = [mp.mpf(0)] + [mp.mpf(10) ** (mp.mpf(k) / 8) for k in range(-24, 25)]
_GRID = sorted({-u for u in _GRID} | set(_GRID))


def _close(actual: object, expected: Real, what: str, relative: float = 1e-12) -> None:
    assert isinstance(actual, int | float), f"{what}: {actual!r} is not a number"
    if mp.isinf(expected):
        assert mp.mpf(actual) == expected, f"{what}: {actual} is not {expected}"
    else:
        assert abs(actual - expected) <= relative * max(1, abs(expected)), f"{what}: {actual} is not {expected}"


def check_taylor(name: str, coefficients: list[str | None]) -> None:
    """Coefficients as text against the hand-derived ones and against mpmath's differentiation; null only at a kink."""
    truth = TRUTHS[name]
    assert len(coefficients) == 5
    kink = truth.kinks and "0" in truth.kinks
    known = len(truth.taylor) if kink else 5
    assert [c is None for c in coefficients] == [k >= known for k in range(5)], f"{name}: {coefficients}"
    with mp.workdps(50):
        numeric = mp.taylor(truth.f, 0, 4) if not kink else []
        for k, text in enumerate(coefficients[:known]):
            expected = number(truth.taylor[k]) if k < len(truth.taylor) else numeric[k]
            error = abs(number(str(text)) - expected)
            assert error < mp.mpf(10) ** -15, f"{name}: coefficient {k} is {text}, expected {mp.nstr(expected, 20)}"


def check_strength(name: str, strength: Mapping[str, Any]) -> None:
    """R and its sides: one number where f'' is continuous at 0, both sides and their mean where it jumps."""
    truth = TRUTHS[name]
    if truth.strength is None:
        assert strength["value"] is None, f"{name}: R = {strength['value']}, but f'(0) does not exist"
        return
    sides = [number(text) for text in truth.strength]
    if len(sides) == 2:
        _close(strength["left"], sides[0], f"{name}: R from the left")
        _close(strength["right"], sides[1], f"{name}: R from the right")
    else:
        assert strength["left"] is None
        assert strength["right"] is None
    _close(strength["value"], sum(sides) / len(sides), f"{name}: R")
    if len(sides) == 1:
        if strength["exact"] is not None:
            assert abs(number(strength["exact"]) - sides[0]) < 1e-13, f"{name}: R = {strength['exact']}"
        with mp.workdps(40):
            assert strength["sign"] == int(mp.sign(mp.chop(mp.diff(truth.f, 0, 2), tol=1e-20))), f"{name}: sign of f''"


def check_claims(name: str, claims: Mapping[str, Mapping[str, Any]], decided: bool = False) -> None:
    """No printed verdict may contradict the table; `decided` also forbids unknown on the claims that must be known."""
    truth = TRUTHS[name]
    assert set(claims) == set(CLAIMS)
    for claim, certificate in claims.items():
        verdict = certificate["verdict"]
        if verdict == "unknown":
            assert not (decided and claim in MUST_DECIDE), f"{name}: {claim} is undecided"
            continue
        assert (verdict == "proved") == truth.holds(claim), f"{name}: {claim} is printed as {verdict}"
        if verdict == "refuted":
            check_witness(name, truth.f, claim, certificate["witness"])
        else:
            _check_value(name, claim, certificate["value"])


def _check_value(name: str, claim: str, value: Mapping[str, Any] | None) -> None:
    if value is None:
        return
    printed = value["float"]
    if value["exact"] is not None and printed is not None:
        _close(printed, number(value["exact"]), f"{name}.{claim}: exact and float")
    if printed is None:
        return
    truth = TRUTHS[name]
    if claim == "bounded_below":
        _close(printed, number(truth.infimum), f"{name}: infimum", 1e-9)
    elif claim == "bradley_terry_exact":
        _close(printed, number(str(truth.c)), f"{name}: c")
    elif claim in ("lipschitz", "smooth", "strongly_convex"):
        order = 1 if claim == "lipschitz" else 2
        kinks = [number(kink) for kink in truth.kinks]
        with mp.workdps(40):
            seen = [mp.diff(truth.f, x, order) for x in _GRID if min([abs(x - k) for k in kinks], default=1) > 1e-6]
        extreme = min(seen) if claim == "strongly_convex" else max(map(abs, seen))
        _close(printed, extreme, f"{name}: constant of {claim}", 0.03)
        sign = -1 if claim == "strongly_convex" else 1
        assert sign * (printed - extreme) >= -1e-9, f"{name}: {claim} {printed} is violated: {extreme}"


def check_chord(f: Function, witness: Mapping[str, Any], strict: bool = True) -> None:
    """A chord refutes convexity: f(t a + (1-t) b) > t f(a) + (1-t) f(b); refuting strictness allows equality."""
    a, b, t = (Fraction(witness[key]) for key in ("a", "b", "t"))
    assert a < b
    assert 0 < t < 1
    with mp.workdps(2 * precision_for(max(abs(a), abs(b))) + 100):
        left, right, share = map(real, (a, b, t))
        middle = share * left + (1 - share) * right
        chord = share * f(left) + (1 - share) * f(right)
        scale = max(abs(f(left)), abs(f(right)), abs(f(middle)))
        noise = scale * mp.mpf(10) ** (-mp.mp.dps + 10)
        gap = f(middle) - chord
        assert gap > noise if strict else gap >= -noise, f"f is not above its chord at {witness}: {mp.nstr(gap, 5)}"


def check_witness(name: str, f: Function, claim: str, witness: Mapping[str, Any] | None) -> None:
    """Re-verify a refutation from the definition of the claim; a refutation without a point to look at is allowed."""
    if witness is None:
        assert claim not in ("convex", "total"), f"{name}: {claim} is refuted without a witness"
        return
    kind = witness["kind"]
    assert kind in ("chord", "point", "kink", "theta"), witness
    for key, text in witness.items():
        assert key == "kind" or isinstance(text, str), f"{name}.{claim}: {key} is not text"
    if kind == "chord":
        check_chord(f, witness, strict=claim == "convex")
    elif kind == "kink":
        _check_kink(name, f, claim, witness)
    elif kind == "theta":
        assert claim == "bayes_consistent"
        _check_theta(name, f, witness)
    else:
        _check_point(name, f, claim, witness)


def _check_kink(name: str, f: Function, claim: str, witness: Mapping[str, Any]) -> None:
    x = Fraction(witness["x"])

    def shifted(u: Real) -> Real:  # the kink itself at the precision of the step, which mp.diff chooses
        return f(real(x) + u)

    with mp.workdps(60):
        left, right = mp.diff(shifted, 0, direction=-1), mp.diff(shifted, 0, direction=1)
        assert abs(left - number(witness["left"])) < 1e-15, f"{name}: left slope at {x} is {left}"
        assert abs(right - number(witness["right"])) < 1e-15, f"{name}: right slope at {x} is {right}"
    if claim == "convex":
        assert left > right, f"{name}: the slope does not fall at {x}"
    elif claim == "differentiable_at_zero":
        assert x == 0
        assert left != right
    else:
        assert claim in ("smooth", "bradley_terry_exact", "bayes_consistent", "strictly_convex"), claim
        assert left != right


def _check_theta(name: str, f: Function, witness: Mapping[str, Any]) -> None:
    theta = number(witness["theta"])
    assert 0 < abs(theta) <= 1
    p = (1 + theta) / 2
    values = {x: p * f(x) + (1 - p) * f(-x) for x in [*_GRID, mp.mpf(10) ** 5, -(mp.mpf(10) ** 5)]}
    wrong = min(value for x, value in values.items() if x * (2 * p - 1) <= 0)
    assert wrong <= min(values.values()) + mp.mpf(10) ** -9, f"{name}: psi({theta}) > 0"


def _check_point(name: str, f: Function, claim: str, witness: Mapping[str, Any]) -> None:
    x = number(witness["x"])
    if claim in ("lipschitz", "smooth"):
        _check_growth(name, f, claim, x)
        return
    with mp.workdps(precision_for(x)):
        slope = mp.diff(f, x)
        if claim == "monotone_decreasing":
            assert slope > 0, f"{name}: f'({x}) = {slope} does not rise"
        elif claim == "bradley_terry_exact":
            mirrored = mp.diff(f, -x)
            if slope < 0 and mirrored < 0 and x != 0:  # then log(f'(-x)/f'(x))/x is not positive, or not constant
                rates = [mp.log(mp.diff(f, -u) / mp.diff(f, u)) / u for u in (x, x / 2, 2 * x)]
                moves = max(rates) - min(rates) > 1e-9
                assert moves or rates[0] < 1e-9, f"{name}: log(f'(-x)/f'(x))/x is a positive constant around {x}"
        elif claim in ("convex", "strictly_convex", "strongly_convex"):
            curvature = mp.diff(f, x, 2)
            # A point where f'' is small only illustrates that inf f'' = 0; the other two need its sign.
            bound = {"convex": 0, "strictly_convex": 1e-30, "strongly_convex": 1e-2}[claim]
            assert curvature < bound, f"{name}: f''({x}) = {curvature}"
        else:
            assert claim in ("bayes_consistent", "differentiable_at_zero", "bounded_below"), claim


def _check_growth(name: str, f: Function, claim: str, x: Real) -> None:
    """The derivative that has no bound: larger still at twice the point, or not there at all (a kink of f or of f')."""
    order = 1 if claim == "lipschitz" else 2
    with mp.workdps(60):
        near, far = abs(mp.diff(f, x, order)), abs(mp.diff(f, 2 * x, order))
        left, right = (mp.diff(f, x, order, direction=side) for side in (-1, 1))
        assert far > near * 1.01 or abs(left - right) > 1e3, f"{name}: |derivative {order}| is {near} at {x}, then {far}"


def check_growth(g: Function, sign: int, kind: str, size: Real | None, limit: Real | None, what: str) -> None:
    """Measure the class of a tail and its number from the values of g at two points far on one side."""
    near, far = {"exponential": (400, 800), "exponential_growth": (400, 800), "super_exponential": (20, 40),
                 "super_exponential_growth": (4, 6)}.get(kind, (10**7, 4 * 10**7))  # fmt: skip
    with mp.workdps(1200):
        a, b = g(sign * mp.mpf(near)), g(sign * mp.mpf(far))
        if limit is not None:
            assert abs(b - limit) < 1e-6, f"{what}: {mp.nstr(b)} far out"
            a, b = a - limit, b - limit
        if kind == "zero":
            assert a == b == 0, what
        elif kind == "constant":
            assert limit is not None, what
        elif kind == "logarithmic":
            assert abs(b) > abs(a) > 1, what
            assert abs((b - a) / mp.log(4) - size) < 1e-5, what
        elif kind == "linear":
            assert abs(b / far - size) < 1e-6, f"{what}: measured {mp.nstr(b / far)}"
        elif kind in ("power", "polynomial"):
            order = mp.log(abs(b / a)) / mp.log(4) * (-1 if kind == "power" else 1)
            assert abs(order - size) < 1e-5, f"{what}: measured {mp.nstr(order)}"
        elif kind in ("exponential", "exponential_growth"):
            rate = mp.log(abs(b / a)) / (far - near) * (-1 if kind == "exponential" else 1)
            assert abs(rate - abs(size)) < 4e-3, f"{what}: measured {mp.nstr(rate)}"  # a factor |x| adds log(2)/400
        elif kind in ("super_exponential", "super_exponential_growth"):
            assert mp.log(abs(b)) / mp.log(abs(a)) > (3 if kind == "super_exponential" else 2), what
        else:
            assert kind == "unknown", what


def check_tails(name: str, tails: Mapping[str, Any]) -> None:
    """Class and numbers of f and -f' at both ends; the rate of -f' also measured on a far grid."""
    truth = TRUTHS[name]
    expected = dict(zip(_TAIL_KEYS, truth.tails, strict=True))
    for end, which in _TAIL_KEYS:
        printed = tails[end][which]
        if printed["class"] != "unknown":
            _check_tail(f"{name}: {which} at the {end}", printed, expected[end, which])


_TAIL_KEYS = (("left", "loss"), ("left", "slope"), ("right", "loss"), ("right", "slope"))


def _check_tail(what: str, printed: Mapping[str, Any], expected: Tail) -> None:
    assert printed["class"] == expected.kind, f"{what} is printed as {printed}, it is {expected}"
    key = {"exponential": "rate", "exponential_growth": "rate", "linear": "rate", "power": "order",
           "polynomial": "order", "constant": "limit"}.get(expected.kind)  # fmt: skip
    if key is not None and printed[key] is not None:
        value = number(str(printed[key]))
        wanted = number(str(expected.number))
        if key == "rate":  # the sign says where f goes, the size is the rate
            value, wanted = abs(value), abs(wanted)
        assert abs(value - wanted) < 1e-12, f"{what}: {key} {printed[key]}, expected {expected.number}"


def check_link(name: str, link: Mapping[str, Any]) -> None:
    """Slope of the link at 1/2 and target margin of a certain preference; null is allowed, a wrong number is not."""
    truth = TRUTHS[name]
    slope, target = link["slope_at_half"], link["target_at_one"]
    if slope is not None:
        assert truth.slope is not None, (f"{name}: slope {slope}, but 0 is not the unique minimiser of C_1/2 or f is kinked")
        _close(float(slope), number(truth.slope), f"{name}: slope of the link at 1/2")
    if target is not None:
        _close(float(number(str(target))), number(str(truth.target)), f"{name}: target at 1")
