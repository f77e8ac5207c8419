"""What the shape of a formula alone proves: range, monotonicity and curvature composed from declared facts.

Only `True` means anything: False is "not shown", never "no".
"""

__all__ = ["Facts", "facts"]

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, reduce
from math import inf

from gpo_theory.balls import enclose, exact_value
from gpo_theory.formula import Expr
from gpo_theory.rational import as_rational

Bound = Fraction | float  # a float only for -inf and inf


@dataclass(frozen=True)
class Facts:
    """Shown facts of a formula as a function of x on R, wherever it is defined.

    low <= f <= high; `positive` and `negative` are strict; `log_convex` and `log_concave` hold for positive formulas.
    """

    low: Bound = -inf
    high: Bound = inf
    increasing: bool = False
    decreasing: bool = False
    convex: bool = False
    concave: bool = False
    log_convex: bool = False
    log_concave: bool = False
    strict: bool = False  # the bound that touches 0 is not attained

    @property
    def nonnegative(self) -> bool:
        """Whether f >= 0 is shown."""
        return self.low >= 0

    @property
    def positive(self) -> bool:
        """Whether f > 0 is shown."""
        return self.low > 0 or (self.low == 0 and self.strict)

    @property
    def negative(self) -> bool:
        """Whether f < 0 is shown."""
        return self.high < 0 or (self.high == 0 and self.strict)

    @property
    def constant(self) -> bool:
        """Whether f does not depend on x."""
        return self.increasing and self.decreasing

    @property
    def affine(self) -> bool:
        """Whether f is shown to be affine."""
        return self.convex and self.concave


@lru_cache(maxsize=2048)
def facts(node: Expr) -> Facts:
    """Return what the structure of a primitive formula shows.

    >>> from gpo_theory.grammar import parse_formula
    >>> facts(parse_formula("log(1+exp(-x))").primitive()).convex
    True
    """
    if not node.depends_on_x:
        return _constant(node)
    if node.head == "x":
        return Facts(increasing=True, convex=True, concave=True)
    if node.head == "**":
        return _power(node)
    parts = [facts(child) for child in node.children if child.head not in ("<", "<=", ">", ">=", "and", "or")]
    match node.head:
        case "+":
            return reduce(_sum, parts)
        case "*":
            return reduce(_product, parts)
        case "exp":
            return _exp(parts[0])
        case "log":
            return _log(parts[0])
        case "atan":
            return _monotone(Facts(Fraction(-2), Fraction(2)), parts[0], True)
        case "erfc":
            # erfc of a line is log-concave: the Gaussian tail is the integral of a log-concave density (Prekopa 1973).
            bounds = Facts(Fraction(0), Fraction(2), strict=True, log_concave=parts[0].affine)
            return _monotone(bounds, parts[0], False)
        case "max" | "min":
            return _extreme(parts, node.head == "max")
        case "where":
            return Facts(min(p.low for p in parts), max(p.high for p in parts), strict=all(p.strict for p in parts))
    return Facts(Fraction(-1), Fraction(1))  # sin, cos


def _constant(node: Expr) -> Facts:
    exact = exact_value(node, Fraction(0))
    if exact is None:
        ball = enclose(node, Fraction(0))
        if not ball.is_finite():
            return Facts()
        low, high = (_fraction(end) for end in (ball.lower(), ball.upper()))
    else:
        low = high = exact
    positive = low > 0
    return Facts(low, high, True, True, True, True, positive, positive, bool(low > 0 or high < 0))


def _fraction(end: object) -> Fraction:
    mantissa, exponent = end.mid().man_exp()  # type: ignore[attr-defined]
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _sum(a: Facts, b: Facts) -> Facts:
    low, high = a.low + b.low, a.high + b.high
    positive = (a.positive and b.nonnegative) or (b.positive and a.nonnegative)
    negative = (a.negative and b.high <= 0) or (b.negative and a.high <= 0)
    log_convex = positive and a.log_convex and b.log_convex
    return Facts(low, high, a.increasing and b.increasing, a.decreasing and b.decreasing, a.convex and b.convex,
                 a.concave and b.concave, log_convex, False, positive or negative)  # fmt: skip


def _negated(a: Facts) -> Facts:
    return Facts(-a.high, -a.low, a.decreasing, a.increasing, a.concave, a.convex, False, False, a.strict)


def _product(a: Facts, b: Facts) -> Facts:
    if (a.constant and a.high < 0) or (b.constant and b.high < 0):
        return _product(_negated(a), _negated(b))
    ends = [_times(p, q) for p in (a.low, a.high) for q in (b.low, b.high)]
    low, high = min(ends), max(ends)
    out = Facts(low, high, strict=(a.positive or a.negative) and (b.positive or b.negative))
    if a.nonnegative and b.nonnegative:
        up, down = a.increasing and b.increasing, a.decreasing and b.decreasing
        constant = a.constant or b.constant
        out = replace(out, increasing=up, decreasing=down,
                      convex=a.convex and b.convex and (up or down or constant),
                      concave=a.concave and b.concave and constant)  # fmt: skip
    for one, other in ((a, b), (b, a)):
        if one.constant and one.nonnegative:
            out = replace(out, increasing=other.increasing, decreasing=other.decreasing, convex=other.convex,
                          concave=other.concave)  # fmt: skip
    if a.positive and b.positive:
        out = replace(out, log_convex=a.log_convex and b.log_convex, log_concave=a.log_concave and b.log_concave)
    return out


def _times(p: Bound, q: Bound) -> Bound:
    return Fraction(0) if p == 0 or q == 0 else p * q


def _monotone(bounds: Facts, inner: Facts, rising: bool) -> Facts:
    up, down = (inner.increasing, inner.decreasing) if rising else (inner.decreasing, inner.increasing)
    return replace(bounds, increasing=up, decreasing=down)


def _exp(inner: Facts) -> Facts:
    low = Fraction(1) if inner.low >= 0 else Fraction(0)
    high: Bound = Fraction(1) if inner.high <= 0 else inf
    return Facts(low, high, inner.increasing, inner.decreasing, inner.convex, False, inner.convex, inner.concave, True)


def _log(inner: Facts) -> Facts:
    low: Bound = Fraction(0) if inner.low >= 1 else -inf
    high: Bound = Fraction(0) if inner.high <= 1 else inf
    # log(1 + g) is never 0 where g is never 0.
    strict = (low == 0 and (inner.low > 1 or inner.strict)) or (high == 0 and (inner.high < 1 or inner.strict))
    return Facts(low, high, inner.increasing, inner.decreasing, inner.log_convex,
                 inner.concave or inner.log_concave, False, False, strict)  # fmt: skip


def _extreme(parts: list[Facts], top: bool) -> Facts:
    pick = max if top else min
    positive = any(p.positive for p in parts) if top else all(p.positive for p in parts)
    negative = all(p.negative for p in parts) if top else any(p.negative for p in parts)
    return Facts(pick(p.low for p in parts), pick(p.high for p in parts), all(p.increasing for p in parts),
                 all(p.decreasing for p in parts), top and all(p.convex for p in parts),
                 not top and all(p.concave for p in parts), strict=positive or negative)  # fmt: skip


def _power(node: Expr) -> Facts:
    base, exponent = facts(node.args[0]), node.args[1].number
    if exponent is None:
        return Facts(Fraction(0), inf, strict=True) if base.positive else Facts(Fraction(0), inf)
    if exponent.denominator == 1:
        return _integer_power(base, int(exponent))
    out = _real_power(base, exponent)
    return replace(out, convex=True) if exponent == Fraction(1, 2) and _is_norm(node.args[0]) else out


def _integer_power(base: Facts, n: int) -> Facts:
    if n < 0:
        return _reciprocal_power(base, n)
    if n % 2 == 0:
        if not base.nonnegative and not base.high <= 0:
            high: Bound = max(-base.low, base.high)
            return Facts(Fraction(0), high**n, convex=base.affine)
        return _real_power(base if base.nonnegative else _negated(base), Fraction(n))
    if base.nonnegative:
        return _real_power(base, Fraction(n))
    return Facts(_grow(base.low, n), _grow(base.high, n), base.increasing, base.decreasing)


def _grow(bound: Bound, n: int) -> Bound:
    return bound if bound in (inf, -inf) else bound**n


def _reciprocal_power(base: Facts, n: int) -> Facts:
    if base.positive:
        return _real_power(base, Fraction(n))
    if base.negative:
        out = _real_power(_negated(base), Fraction(n))
        return out if n % 2 == 0 else _negated(out)
    return Facts(Fraction(0)) if n % 2 == 0 else Facts()


def _real_power(base: Facts, q: Fraction) -> Facts:
    """base >= 0 to a real power (base > 0 where q < 0)."""
    rising = q > 0
    near, far = _end(base.low, q), _end(base.high, q)
    low, high = (near[0], far[1]) if rising else (far[0], near[1])
    inner = base if base.nonnegative else Facts()
    convex = inner.convex if q >= 1 else (inner.concave or inner.log_concave) if q < 0 else False
    return Facts(low, high, inner.increasing if rising else inner.decreasing,
                 inner.decreasing if rising else inner.increasing, convex, inner.concave and 0 < q <= 1,
                 base.positive and (base.log_convex if rising else base.log_concave),
                 base.positive and (base.log_concave if rising else base.log_convex), base.positive)  # fmt: skip


def _end(bound: Bound, q: Fraction) -> tuple[Bound, Bound]:
    """Enclose t**q at the end t = bound >= 0 of a range; crude where the power is not rational."""
    if bound == inf or bound <= 0:
        value: Bound = inf if (bound == inf) == (q > 0) else Fraction(0)
        return value, value
    if bound == 1 or (q.denominator == 1 and isinstance(bound, Fraction)):
        return bound ** int(q) if bound != 1 else Fraction(1), bound ** int(q) if bound != 1 else Fraction(1)
    return Fraction(0), inf


def _is_norm(base: Expr) -> bool:
    """Whether sqrt(base) is a Euclidean norm of lines: base = a x^2 + b x + c with a > 0 and 4 a c >= b^2."""
    form = as_rational(base)
    if form is None or form.slope is not None or form.constant.number != 1 or form.denominator.degree() > 0:
        return False
    p = form.numerator
    return bool(p.degree() == 2 and p[2] > 0 and 4 * p[2] * p[0] >= p[1] ** 2)
