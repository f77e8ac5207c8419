"""The psi-transform: how far the expected loss is above its least value, at least, if the margin has the wrong sign.

It is a function of theta, for a pair that is preferred with probability p = (1 + theta) / 2. With theta = 2p - 1,
C_p(x) = p f(x) + (1-p) f(-x), H(p) = inf C_p and H^-(p) = inf of C_p over x (2p-1) <= 0, it is the convex hull on
[0, 1] of H^-((1+theta)/2) - H((1+theta)/2) (Bartlett, Jordan, McAuliffe 2006).
"""

__all__ = ["Psi", "psi_at", "psi_transform"]

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import inf, lcm, nextafter
from typing import Any

import sympy
from flint import ctx

from gpo_theory.calculus.algebra import as_algebra, as_formula, signed
from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.constants import exact
from gpo_theory.calculus.infimum import infimum_of
from gpo_theory.calculus.pieces import UnsplitError, beside, joints, pieces_of, split
from gpo_theory.calculus.rational import as_rational
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.claims.monotonicity import falls_at_zero
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, call, piecewise, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.loss import Loss
from gpo_theory.risk.regimes import P, Regime, regimes_of

X, THETA, ZERO, HALF = Expr.x(), Expr("parameter", ("theta",)), Fraction(0), Fraction(1, 2)
PRECISION = 192  # bits, so that much more than psi may cancel
NARROW = 2e-9  # relative width of an enclosure of psi(1/2) that is printed as a number, with nine digits
LONGEST = 160  # characters of a formula that is printed: two lines of a terminal
_PLUS, _MINUS = (1 + THETA) / 2, (1 - THETA) / 2
LARGEST, HIGHEST = 150, 16  # nodes of a formula that sympy simplifies, and its powers: a bound on its work


@dataclass(frozen=True)
class Psi:
    """psi(theta) for 0 < theta < 1 as text in `theta`, and its value at theta = 1/2.

    None where it is not derived; the value is "inf" where C_p has no lower bound, as for f = 1 - x.
    """

    formula: str | None = None
    at_half: float | str | None = None

    def as_dict(self) -> dict[str, str | float | None]:
        """Return the JSON form."""
        return {"formula": self.formula, "at_half": self.at_half}


def psi_transform(loss: Loss, claims: Mapping[str, Certificate]) -> Psi:
    """Return the psi-transform of a loss from its certificates.

    In closed form where H^- = f(0) is shown and the minimiser of C_p, or the infimum itself, has a formula.

    >>> from gpo_theory.analysis import analyze
    >>> from gpo_theory.loss import parse
    >>> loss = parse("exp(-x)")
    >>> psi_transform(loss, analyze(loss).claims)
    Psi(formula='1 - (1 - theta**2)**(1/2)', at_half=0.1339745962155613...)
    """
    f = loss.f.primitive()
    formula = _formula(f, claims)
    ball = psi_at(loss, HALF)
    if ball is not None and ball[0] == inf:
        return Psi(None, "inf")
    if ball is None or not ball[1] - ball[0] <= NARROW * ball[1] < inf:
        return Psi(None, None)
    if formula is not None and len(str(formula)) <= LONGEST:
        value = enclose(substitute(formula, {THETA: Expr.of(HALF)}).primitive(), Fraction(0), 256)
        if value.is_finite() and ball[0] <= float(value.mid()) <= ball[1]:
            return Psi(str(formula), float(value.mid()))
    return Psi(None, (ball[0] + ball[1]) / 2)


def psi_at(loss: Loss, theta: Fraction) -> tuple[float, float] | None:
    """Return (low, high) that enclose psi(theta), both inf where it is infinite; None if not certified.

    H^- is concave in theta, so it lies above its chord from theta = 0, inf (f(x) + f(-x))/2, to theta = 1, the infimum
    of f over x <= 0. That chord less H is convex, so it lies below psi, and psi lies below H^- - H. Raises InputError
    for theta outside [0, 1].

    >>> from gpo_theory.loss import parse
    >>> low, high = psi_at(parse("max(0, 1-x)"), Fraction(1, 3))
    >>> low <= 1/3 <= high, high - low < 1e-12
    (True, True)
    """
    if not 0 <= theta <= 1:
        raise InputError(f"theta = {theta} is not a confidence between 0 and 1")
    f = loss.f.primitive()
    mirrored = substitute(f, {X: -X})
    p, start = (1 + theta) / 2, enclose(f, ZERO, PRECISION)
    risk = p * f + (1 - p) * mirrored
    least = infimum_of(risk)
    fair, wrong = infimum_of((f + mirrored) / 2), infimum_of(f, None, ZERO)
    if least is None or fair is None or wrong is None or not start.is_finite():
        return None
    if least.high == -inf:
        return None if -inf in (fair.low, wrong.low) else (inf, inf)
    if least.right <= 0:  # the wrong side is no worse
        return 0.0, 0.0
    with ctx.workprec(PRECISION):
        above = start.upper()
        chord = enclose(Expr.of(1 - theta), ZERO, PRECISION) * fair.low
        chord += enclose(Expr.of(theta), ZERO, PRECISION) * wrong.low if theta else 0
        narrow = above - chord <= NARROW * abs(chord - least.high)
        if not narrow and (other := infimum_of(risk, None, ZERO)) is not None:
            above = above.min(other.high)
        low, high = (chord - least.high).lower(), (above - least.low).upper()
    return max(0.0, nextafter(float(low), -inf)), nextafter(float(high), inf) if high > 0 else 0.0


def _formula(f: Expr, claims: Mapping[str, Certificate]) -> Expr | None:
    """Return f(0) - H((1+theta)/2) where it has a closed form and H^- = f(0)."""
    falls = claims["monotone_decreasing"].verdict is Verdict.PROVED
    start = _at_zero(f)
    if start is None:
        return None
    if falls and _symmetric(f):
        floor = claims["bounded_below"].value
        known = floor["exact"] if floor is not None else None
        return None if known is None else THETA * as_formula(exact(start) - exact(parse_constant(known)), {})
    # H^- = f(0): then (f(x) + f(-x))/2 >= f(0) on R, and f >= f(0) on the left.
    convex = claims["convex"].verdict is Verdict.PROVED and (falls or falls_at_zero(claims))
    if not convex and claims["bradley_terry_exact"].verdict is not Verdict.PROVED:
        return None
    found = regimes_of(f, claims)
    if not found:
        return None
    ends = [Expr.of(2 * regime.high - 1) for regime in found[:-1]]
    return piecewise(THETA, ends, [_gap(start, regime) for regime in found])


def _at_zero(f: Expr) -> Expr | None:
    try:
        return substitute(beside(pieces_of(f), Fraction(0), -1).f, {X: Expr.of(0)})
    except UnsplitError:
        return None


def _symmetric(f: Expr) -> bool:
    """Whether f(x) + f(-x) is constant, as the exact form of its slope shows."""
    try:
        pieces = split(f + substitute(f, {X: -X}))
    except UnsplitError:
        return False
    slopes = [piece.f.diff() for piece in pieces if not piece.is_point]
    flat = all(s.number == 0 or ((form := as_rational(s)) is not None and form.is_zero) for s in slopes)
    return flat and all(joint.continuous for joint in joints(pieces))


def _gap(start: Expr, regime: Regime) -> Expr:
    """Return f(0) - p f(x*) - (1-p) f(-x*) in theta, simplified by sympy where that makes it shorter."""
    risk = start - P * substitute(regime.ahead, {X: regime.x}) - (1 - P) * substitute(regime.behind, {X: -regime.x})
    plain = substitute(risk, {P: (1 + THETA) / 2})
    powers = [node.power for node in risk.walk() if node.power is not None]
    if sum(1 for _ in risk.walk()) > LARGEST or any(abs(n) > HIGHEST or n.denominator > HIGHEST for n in powers):
        return plain
    try:
        short = _Algebra.of(regime).simplified(start, regime)
    except (ValueError, NotImplementedError, sympy.PolynomialError):
        return plain
    return min(short, plain, key=lambda node: len(str(node)))


class _Algebra:
    """Exact algebra in u = p^(1/d) and v = (1-p)^(1/d), which are positive, with u^d + v^d = 1."""

    def __init__(self, d: int) -> None:
        self.d = d
        self.u, self.v = sympy.symbols("u v", positive=True)
        self.one = self.u**d + self.v**d - 1

    @classmethod
    def of(cls, regime: Regime) -> "_Algebra":
        """Return the algebra with the least d in which every power of p and of 1-p is whole."""
        plain = cls(1)
        x = plain.read(regime.x, sympy.Integer(0))
        values = [plain.read(regime.ahead, x), plain.read(regime.behind, -x)]
        powers = [power.exp.q for value in values for power in value.atoms(sympy.Pow)
                  if power.exp.is_Rational and power.base.free_symbols]  # fmt: skip
        d = reduce(lcm, map(int, powers), 1)
        if d > HIGHEST:
            raise NotImplementedError(f"roots of degree {d}")
        return cls(d)

    def read(self, node: Expr, x: Any) -> Any:
        """Return a formula in x and p as an algebraic expression."""
        known = {X: x, P: self.u**self.d, 1 - P: self.v**self.d}
        return as_algebra(node, known, self.normal)

    def normal(self, value: Any) -> Any:
        """Return a quotient in lowest terms, each factor reduced by u^d + v^d = 1 where that makes it shorter."""
        if value.is_number or not value.is_rational_function(self.u, self.v):
            return value
        top, bottom = (self.short(side) for side in sympy.fraction(sympy.cancel(sympy.together(value))))
        return top / bottom

    def short(self, polynomial: Any) -> Any:
        constant, factors = sympy.factor_list(self.reduced(polynomial))
        return reduce(lambda out, factor: out * self.reduced(factor[0]) ** factor[1], factors, constant)

    def reduced(self, polynomial: Any) -> Any:
        forms = [polynomial, *(sympy.factor(sympy.rem(polynomial, self.one, symbol)) for symbol in (self.v, self.u))]
        return min(forms, key=lambda form: (len(sympy.Add.make_args(form)), form.count_ops(), form != polynomial))

    def simplified(self, start: Expr, regime: Regime) -> Expr:
        """Return f(0) - H in theta."""
        u, v, d = self.u, self.v, self.d
        x = self.read(regime.x, sympy.Integer(0))
        total = exact(start) - u**d * self.read(regime.ahead, x) - v**d * self.read(regime.behind, -x)
        rest = sympy.expand(total)
        out = Expr.of(0)
        for log in sorted(rest.atoms(sympy.log) - exact(start).atoms(sympy.log), key=str):
            factor = rest.coeff(log)
            rest = sympy.expand(rest - factor * log)
            inner = as_formula(log.args[0], {u: _PLUS ** Fraction(1, d), v: _MINUS ** Fraction(1, d)})
            out = out + self.shown(self.normal(factor)) * call("log", inner)
        return out + self.shown(self.normal(rest))

    def shown(self, value: Any) -> Expr:
        """Return an algebraic value in theta, in the shortest of its forms."""
        theta = sympy.Symbol("theta")
        names = {theta: THETA, self.u: _PLUS ** Fraction(1, self.d), self.v: _MINUS ** Fraction(1, self.d)}
        forms = [as_formula(value, names)]
        if not value.is_rational_function(self.u, self.v):
            value = value.subs({self.u**self.d: (1 + theta) / 2, self.v**self.d: (1 - theta) / 2})
            forms.append(as_formula(value.replace(lambda e: e.is_Pow and not e.exp.is_Integer,
                         lambda e: sympy.factor(sympy.cancel(e.base)) ** e.exp), names))  # fmt: skip
        elif self.d == 1:
            quotient = signed(value.subs({self.u: (1 + theta) / 2, self.v: (1 - theta) / 2}))
            forms += [as_formula(form, names) for form in (quotient, sympy.factor(quotient))]
        else:
            # w = u v is (1 - theta^2)^(1/d) = r over 4^(1/d); the powers of u that remain are whole powers of p.
            root, r = sympy.Integer(4) ** sympy.Rational(-1, self.d), sympy.Symbol("r", positive=True)
            whole = signed(value.subs(self.v, r * root / self.u))
            whole = whole.subs(self.u, ((1 + theta) / 2) ** sympy.Rational(1, self.d))
            forms += [as_formula(form(whole), {**names, r: (1 - THETA**2) ** Fraction(1, self.d)})
                      for form in (signed, sympy.factor)]  # fmt: skip
        return min(forms, key=lambda form: len(str(form)))
