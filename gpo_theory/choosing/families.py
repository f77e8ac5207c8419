"""Families of losses to search: named ones at another beta, and pieces of -f' joined at 0 with a given strength."""

__all__ = ["candidates"]

from collections.abc import Iterator
from fractions import Fraction
from math import floor, lcm

from gpo_theory.analysis import analyze
from gpo_theory.calculus.balls import exact_value
from gpo_theory.catalogue import LOSSES
from gpo_theory.choosing.wishes import TailWish, Wish
from gpo_theory.formula.expression import Expr, call
from gpo_theory.formula.grammar import MAX_EXPONENT
from gpo_theory.loss import Loss
from gpo_theory.report.result import Analysis
from gpo_theory.transforms import scaled

X = Expr.x()
Terms = dict[Expr, Fraction]  # f on one side of 0, up to a constant: a sum of formulas with their coefficients
_NAMED = ("logistic", "exponential", "squared", "truncated_squared", "hinge", "unhinged", "savage", "sigmoid")


def candidates(wish: Wish) -> Iterator[Loss]:
    """Yield losses that are built to have the wished properties; their analyses have to prove it.

    >>> next(candidates(Wish(strength=Fraction(1)))).formula
    'log(1 + exp(-2*x))'
    """
    for name in _NAMED:
        factor = _factor(wish, analyze(LOSSES[name]))
        yield LOSSES[name] if factor == 1 else scaled(LOSSES[name], factor)
    sides = _exact(wish) if wish.exactness is not None else _joined(wish)
    for left, right in sides:
        loss = _made(left, right)
        if loss is not None:
            yield loss


def _factor(wish: Wish, base: Analysis) -> Fraction:
    """Return the multiple of beta at which a known loss has the wished strength, else target, c or tail rate."""
    exact = base.claims["bradley_terry_exact"].value
    pairs = [(wish.strength, base.strength.exact, 1), (wish.target, base.link.target_at_one, -1),
             (wish.exactness, exact and exact["exact"], -1)]  # fmt: skip
    pairs += [(tail.number, base.tails[side]["slope"].rate, 1)
              for side, tail in (("right", wish.right), ("left", wish.left)) if tail and "exponential" in tail.kind]
    for wished, text, power in pairs:
        if isinstance(wished, Fraction) and wished and text not in (None, "0", "inf", "-inf"):
            return abs(wished / Fraction(str(text))) ** power
    return Fraction(1)


def _made(left: Terms, right: Terms) -> Loss | None:
    """Join the sides at 0; f is multiplied so that all its coefficients and the step between them are integers."""
    at_zero = [[exact_value(term, Fraction(0)) for term in side] for side in (left, right)]
    if any(value is None for side in at_zero for value in side):
        return None
    sums = [sum((c * (v or 0) for c, v in zip(side.values(), values, strict=True)), Fraction(0))
            for side, values in zip((left, right), at_zero, strict=True)]  # fmt: skip
    step = sums[1] - sums[0]
    unit = lcm(*(c.denominator for c in (*left.values(), *right.values(), step)))
    bodies = [sum((unit * c * term for term, c in side.items() if c), Expr.of(0)) for side in (left, right)]
    body = call("where", call("<", X, Expr.of(0)), bodies[0] + unit * step, bodies[1])
    return Loss(str(body), body, {}, "made to a wish")


def _exact(wish: Wish) -> Iterator[tuple[Terms, Terms]]:
    """Bradley-Terry exact: -f' = exp(-r x) on the right and exp((r - 1/c) x) on the left."""
    assert wish.exactness is not None
    k = 1 / wish.exactness
    right, left = (None if tail is None else tail.exponent for tail in (wish.right, wish.left))
    rates = [-right] if isinstance(right, Fraction) else []
    rates += [k - left] if isinstance(left, Fraction) else [k / 4, 3 * k / 2]
    for r in rates:
        if r >= 0:
            yield _exponential(r - k), _exponential(-r)


def _exponential(rate: Fraction) -> Terms:
    """-f' = exp(rate x)."""
    return {call("exp", rate * X): -1 / rate} if rate else {X: Fraction(-1)}


def _joined(wish: Wish) -> Iterator[tuple[Terms, Terms]]:
    """-f' = 1 at 0 with slope -R on either side, and the wished tails."""
    target = wish.target if isinstance(wish.target, Fraction) else None
    right = wish.right or TailWish("zero" if target else "exponential")
    R = wish.strength
    if R is None:
        R = 1 / target if target else (right.number or Fraction(1)) / 2
    ahead = _to_target(R, target, right) if target else _ahead(R, right)
    behind = _behind(R, wish.left or TailWish("constant"))
    if ahead and behind:
        yield behind, ahead


def _to_target(R: Fraction, m: Fraction, tail: TailWish) -> Terms:
    """f on the right with its minimum at m: a polynomial up to m, then the wished tail; empty where not provided."""
    rest: dict[str, Terms] = {"zero": {}, "linear": {call("max", Expr.of(0), X - m) ** 2: 1 / (2 * m)},
                              "constant": {call("max", Expr.of(0), X - m): Fraction(1)}}  # fmt: skip
    a = floor(R * m)
    if tail.kind not in rest or a + 2 > MAX_EXPONENT:
        return {}
    if a >= 1:  # -f' = w t^a + (1-w) t^(a+1) with t = 1 - x/m, whose slope at 0 is -(a + 1 - w)/m
        w, t = a + 1 - R * m, call("max", Expr.of(0), 1 - X / m)
        return {t ** (a + 1): m * w / (a + 1), t ** (a + 2): m * (1 - w) / (a + 2), **rest[tail.kind]}
    # -f' = 1 - R x - (1 - R m) (x/m)^2, which falls to 0 at m
    y = call("min", X, Expr.of(m))
    return {y: Fraction(-1), y**2: R / 2, y**3: (1 - R * m) / (3 * m**2), **rest[tail.kind]}


def _ahead(R: Fraction, tail: TailWish) -> Terms:
    """f on the right of 0 without a minimum; empty where the tail is not provided."""
    n = tail.number or Fraction(1)
    if tail.kind == "exponential":
        return _two_exponentials(R, n, 1)
    if tail.kind == "power" and R == 0:  # -f' = (n + 1) u^-n - n u^(-n-1)
        u = 1 + X
        return {**_powers(u, 1 - n, (n + 1) / (n - 1) if n != 1 else -(n + 1)), u**-n: Fraction(-1)}
    if tail.kind == "power":  # -f' = u^-n
        u = 1 + R / n * X
        return _powers(u, 1 - n, n / (R * (n - 1)) if n != 1 else -n / R)
    if tail.kind == "constant":  # -f' = (1 + exp(-2 R x))/2
        return {X: Fraction(-1, 2), call("exp", -2 * R * X): 1 / (4 * R)} if R else {X: Fraction(-1)}
    return {}


def _powers(u: Expr, exponent: Fraction, coefficient: Fraction) -> Terms:
    return {u**exponent if exponent else call("log", u): coefficient}


def _two_exponentials(rho: Fraction, n: Fraction, side: int) -> Terms:
    """-f' = w exp(-n y) + (1-w) exp(-b y), y = side * x, which falls from 1 at the rate rho (rises where rho < 0)."""
    b = 2 * n if rho <= n else 2 * rho - n
    w = (b - rho) / (b - n)
    return {call("exp", -side * n * X): side * w / n, call("exp", -side * b * X): side * (1 - w) / b}


def _behind(R: Fraction, tail: TailWish) -> Terms:
    """f on the left of 0; empty where the tail is not provided."""
    n, zero = tail.number or Fraction(2 if tail.kind == "polynomial" else 1), Expr.of(0)
    match tail.kind:
        case "constant":  # -f' = 2 - exp(R x)
            return {X: Fraction(-2), call("exp", R * X): 1 / R} if R else {X: Fraction(-1)}
        case "linear":  # at R = 0, -f' = 1 down to x = -1
            return {X: Fraction(-1), X**2: R / 2} if R else {X: Fraction(-1),
                                                            call("min", zero, 1 + X) ** 2: Fraction(1, 2)}
        case "polynomial" if n.denominator == 1 and 2 <= n < MAX_EXPONENT:
            return {X: Fraction(-1), X**2: R / 2, (-X) ** int(n + 1): 1 / (n + 1)}
        case "exponential_growth" if n < R:  # -f' = exp(-n x) + 1 - exp((R - n) x)
            return {call("exp", -n * X): 1 / n, X: Fraction(-1), call("exp", (R - n) * X): 1 / (R - n)}
        case "exponential_growth" if R:  # -f' = (R/n) exp(-n x) + 1 - R/n
            return {call("exp", -n * X): R / n**2, X: R / n - 1}
        case "exponential_growth":  # -f' = cosh(n x)
            return {call("exp", -n * X): 1 / (2 * n), call("exp", n * X): -1 / (2 * n)}
        case "exponential":
            return _two_exponentials(-R, n, -1)
        case "zero":  # -f' = y^2 (R + 3) - y^3 (R + 2) with y = 1 + x, down to x = -1
            y = call("max", zero, 1 + X)
            return {y**3: -(R + 3) / 3, y**4: (R + 2) / 4}
        case "power":  # -f' = u^(-n-1) (1 - b x) with u = 1 - x
            b, u = R + n + 1, 1 - X
            return {u**-n: (b - 1) / n, **_powers(u, 1 - n, -b / (n - 1) if n != 1 else b)}
    return {}
