"""Formula to normal form: on each piece and each side of its centre, decaying exponentials of y = |x - centre| only.

A value is kept as exp(rate(y)) * (sum_k p_k(y) exp(r_k(y)) + atoms), with exact polynomials. A sum has the largest rate
in front, a logarithm adds the rate, a reciprocal negates it, so that exponentials decay. Terms that cancel at y = 0 are
written with expm1, terms that cancel as y grows as deviations from their limits.
"""

__all__ = ["Branch", "direct", "horner", "negated", "product", "to_normal_form", "total"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from itertools import zip_longest
from operator import add, mul

from gpo_theory.calculus.balls import ball, enclose, exact_value, sign_at
from gpo_theory.calculus.pieces import Piece, UnsplitError, split
from gpo_theory.calculus.rational import as_rational
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, call, fold, rebuild, substitute
from gpo_theory.formula.grammar import MAX_EXPONENT

Polynomial = tuple[Fraction, ...]
_FAR = Fraction(1000)  # where the sign of an exponent is taken for its sign at infinity
# Functions whose value, as the exponent of a power, does not grow with y.
_BOUNDED = {"log1p", "expm1", "acot", "erfcx", "log_erfcx"}
_ZERO = Fraction(0)
_ONE: Polynomial = (Fraction(1),)
_X = Expr.x()


@dataclass(frozen=True)
class Branch:
    """f on low <= x <= high: `right` as a formula in y = side * (x - centre), written with the letter x.

    Where `left` is given the branch is the whole line, `right` holds for x >= centre, `left` for x < centre, and both
    take y = |x - centre|. `closed`: the branch holds at `low` too. The formulas are in the primitive functions and in
    expm1, log1p, acot = pi/2 - atan, erfcx = exp(x^2) erfc, log_erfcx; they are evaluated as they are grouped.
    """

    low: Fraction | None
    high: Fraction | None
    closed: bool
    right: Expr
    left: Expr | None = None
    centre: Fraction = _ZERO
    side: int = 1


def to_normal_form(f: Expr) -> tuple[Branch, ...]:
    """Return the branches of a primitive formula, from left to right.

    Raises InputError where a `where` has a breakpoint that is not rational: floating point would miss it.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> (branch,) = to_normal_form(parse_formula("log(1+exp(-x))").primitive())
    >>> print(branch.left, "|", branch.right)
    x + log1p(exp(-x)) | log1p(exp(-x))
    """
    return tuple(branch for piece, closed in _intervals(f) for branch in _branches(piece, closed))


def direct(f: Expr) -> tuple[Branch, ...]:
    """Return a primitive formula as it stands, with logsigmoid and sigmoid where it holds them; none for a `where`.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> print(direct(parse_formula("log(1+exp(-x))").primitive())[0].right)
    -logsigmoid(x)
    """
    if any(node.head == "where" for node in f.walk()):
        return ()
    return (Branch(None, None, True, fold(f, _named)),)


def _named(node: Expr, of: Callable[[Expr], Expr]) -> Expr:
    if node.head == "log" and (u := _one_plus_exp(node.args[0])) is not None:
        return -call("logsigmoid", -u)
    if node.power is not None and (u := _one_plus_exp(node.args[0])) is not None:
        return call("sigmoid", -of(u)) ** -node.power
    if node.head == "log" and node.args[0].power == -1 and (u := _one_plus_exp(node.args[0].args[0])) is not None:
        return call("logsigmoid", -of(u))
    return rebuild(node, map(of, node.children))


def _one_plus_exp(node: Expr) -> Expr | None:
    """Return u of 1 + exp(u)."""
    parts = {part.head: part for part in node.args} if node.head == "+" and Expr.of(1) in node.args else {}
    return parts["exp"].args[0] if len(parts) == 2 and "exp" in parts and len(node.args) == 2 else None


def _intervals(f: Expr) -> list[tuple[Piece, bool]]:
    """Return the pieces between the breakpoints, each with whether it contains its left edge."""
    try:
        pieces = split(f)
    except UnsplitError:
        if any(node.head == "where" for node in f.walk()):
            raise InputError(f"{str(f)!r} has a breakpoint that is not rational: it cannot be run exactly") from None
        pieces = (Piece(None, None, f),)
    out, closed = list[tuple[Piece, bool]](), True
    for i, piece in enumerate(pieces):
        if piece.is_point:
            right = exact_value(pieces[i + 1].f, piece.sample)
            closed = right is None or right == exact_value(piece.f, piece.sample)
        else:
            out.append((piece, closed))
    return out


def _branches(piece: Piece, closed: bool) -> list[Branch]:
    """Split a piece at the centre of its exponentials and roots, where it has any inside."""
    if not any(node.head in ("exp", "erfc", "atan") or _is_root(node) for node in piece.f.walk()):
        return [Branch(piece.low, piece.high, closed, _code(piece.f, _ZERO, 1))]
    centre = _centre(piece.f)
    right = None if piece.high is not None and piece.high <= centre else _code(piece.f, centre, 1)
    left = None if piece.low is not None and piece.low >= centre else _code(piece.f, centre, -1)
    if left is None or right is None:
        code, side = (right, 1) if right is not None else (left, -1)
        assert code is not None
        return [Branch(piece.low, piece.high, closed, code, None, centre, side)]
    if piece.low is None and piece.high is None and not _grows(left) and not _grows(right):
        return [Branch(None, None, closed, right, left, centre)]
    return [Branch(piece.low, centre, closed, left, None, centre, -1),
            Branch(centre, piece.high, True, right, None, centre, 1)]  # fmt: skip


def _grows(code: Expr) -> bool:
    """Whether an exponential grows with y, so that it overflows where the other side of a shared y is evaluated."""
    exponents = [node.args[0] for node in code.walk() if node.head in ("exp", "expm1")]
    # An exponent that is itself a log1p or the like comes from a power of 1 + exp(-y), which is bounded.
    return any(_BOUNDED.isdisjoint(n.head for n in u.walk()) and sign_at(u, _FAR) != -1 for u in exponents)


def _centre(f: Expr) -> Fraction:
    """Return the point where every exponent vanishes or turns, if there is one such point; else 0."""
    arguments = {node.args[0] for node in f.walk() if node.head in ("exp", "erfc") and node.depends_on_x}
    found = {_turn(argument) for argument in arguments}
    (centre,) = found if len(found) == 1 else (_ZERO,)
    return centre or _ZERO


def _turn(argument: Expr) -> Fraction | None:
    """Return the zero of a line or the vertex of a parabola."""
    form = as_rational(argument)
    if form is None or form.slope is not None or form.denominator.degree() > 0 or form.numerator.degree() not in (1, 2):
        return None
    *_, b, a = form.numerator.coeffs()
    return Fraction(str(-b / (a * form.numerator.degree())))


def _code(f: Expr, centre: Fraction, side: int) -> Expr:
    node = substitute(f, {Expr.x(): side * Expr.x() + centre})
    if node.head == "+" and _conjugate(node) is None:
        # The terms of f itself may grow, up to the knee: no common exponential is taken out of them.
        return _bare(reduce(lambda a, b: _sum(a, b, ()), map(_scale, node.args)))
    return _materialise(_scale(node))


# --- exact polynomials and formulas, grouped as they are evaluated ----------------------------------------------------


def _trim(coefficients: list[Fraction]) -> Polynomial:
    while coefficients and not coefficients[-1]:
        coefficients = coefficients[:-1]
    return tuple(coefficients)


def _add(a: Polynomial, b: Polynomial) -> Polynomial:
    return _trim([p + q for p, q in zip_longest(a, b, fillvalue=_ZERO)])


def _times(a: Polynomial, factor: Fraction) -> Polynomial:
    return _trim([factor * c for c in a])


def _monomial(a: Polynomial) -> bool:
    return sum(map(bool, a)) == 1


def horner(coefficients: Polynomial, u: Expr = _X) -> Expr:
    """Return the polynomial with these coefficients of 1, u, u^2, ... as Horner's rule groups it.

    >>> str(horner((Fraction(1), Fraction(0), Fraction(2))))
    '1 + 2*x*x'
    """
    code = Expr.of(0)
    for coefficient in reversed(coefficients):
        code = total(Expr.of(coefficient), product(code, u))
    return code


def total(*terms: Expr) -> Expr:
    kept = tuple(term for term in terms if term.number != 0)
    return Expr("+", kept) if len(kept) > 1 else kept[0] if kept else Expr.of(0)


def product(*factors: Expr) -> Expr:
    """Multiply, with one number in front, which also takes the sign of a sum of negative terms."""
    number, kept = Fraction(1), list[Expr]()
    for factor in factors:
        for part in factor.args if factor.head == "*" else (factor,):
            negative = part.head == "+" and all(map(is_negative, part.args))
            number *= part.number if part.number is not None else -1 if negative else 1
            kept += [] if part.number is not None else [total(*map(negated, part.args))] if negative else [part]
    if not number:
        return Expr.of(0)
    kept = kept if number == 1 and kept else [Expr.of(number), *kept]
    return Expr("*", tuple(kept)) if len(kept) > 1 else kept[0]


def _scaled(q: Fraction, code: Expr) -> Expr:
    return product(Expr.of(q), code)


def is_negative(term: Expr) -> bool:
    """Whether a term of a sum begins with a negative number."""
    number = term.args[0].number if term.head == "*" else term.number
    return number is not None and number < 0


def negated(term: Expr) -> Expr:
    """Return minus a term, with its grouping kept."""
    return _scaled(Fraction(-1), term)


# --- the normal form --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Atom:
    """factor * core, no exponential polynomial; core = limit + deviation, with a number taken out where known."""

    core: Expr
    limit: Expr
    deviation: Expr
    factor: Fraction = Fraction(1)

    @property
    def code(self) -> Expr:
        """The whole."""
        return _scaled(self.factor, self.core)

    def times(self, factor: Expr) -> "_Atom":
        if factor.number is not None:
            return replace(self, factor=self.factor * factor.number)
        core, limit, deviation = (product(part, factor) for part in (self.core, self.limit, self.deviation))
        return _Atom(core, limit, deviation, self.factor)


def _collected(atoms: list[_Atom]) -> tuple[_Atom, ...]:
    """Add the factors of equal atoms."""
    factors: dict[_Atom, Fraction] = {}
    for atom in atoms:
        key = replace(atom, factor=Fraction(1))
        factors[key] = factors.get(key, _ZERO) + atom.factor
    return tuple(replace(key, factor=factor) for key, factor in factors.items() if factor)


@dataclass(frozen=True)
class _Scaled:
    """exp(rate(y)) * (sum of p_k(y) exp(r_k(y)) + atoms): `terms` holds (r_k, p_k); no rate has a constant term."""

    rate: Polynomial
    terms: tuple[tuple[Polynomial, Polynomial], ...] = ()
    atoms: tuple[_Atom, ...] = ()

    @property
    def line(self) -> Polynomial:
        """The polynomial without an exponential."""
        return dict(self.terms).get((), ())

    @property
    def start(self) -> Fraction:
        """The sum of the exponential polynomial at y = 0."""
        return sum((p[0] for _, p in self.terms if p), _ZERO)

    @property
    def monomial(self) -> tuple[Polynomial, Polynomial] | None:
        """(rate, c y^n) where that is all."""
        if self.atoms or len(self.terms) != 1 or not _monomial(self.terms[0][1]):
            return None
        (rate, p), = self.terms  # fmt: skip
        return _add(self.rate, rate), p

    @property
    def constant(self) -> Expr | None:
        """The factor that does not depend on y, where that is all."""
        if self.rate or len(self.terms) + len(self.atoms) != 1:
            return None
        if self.atoms:
            return None if self.atoms[0].code.depends_on_x else self.atoms[0].code
        rate, p = self.terms[0]
        return Expr.of(p[0]) if not rate and len(p) == 1 else None


def _exact(polynomial: Polynomial) -> _Scaled:
    return _Scaled((), (((), polynomial),) if polynomial else ())


def _atom(code: Expr, limit: Expr | None = None, deviation: Expr | None = None, rate: Polynomial = ()) -> _Scaled:
    return _Scaled(rate, (), (_Atom(code, limit or Expr.of(0), code if deviation is None else deviation),))


def _term(rate: Polynomial, p: Polynomial) -> Expr:
    return product(horner(p), _exponential(rate))


def _exponential(rate: Polynomial) -> Expr:
    return call("exp", horner(rate)) if rate else Expr.of(1)


def _from_start(s: _Scaled) -> Expr:
    """Return the exponential polynomial minus its value at y = 0: small where y is."""
    out = []
    for rate, p in s.terms:
        first, others = (p[0] if p else _ZERO), _trim([_ZERO, *p[1:]])
        out.append(_term(rate, others))
        if rate:
            out.append(_scaled(first, call("expm1", horner(rate))))
    return total(*out)


def _bare(s: _Scaled) -> Expr:
    """Return the code of the sum without its factor exp(rate)."""
    if _cancels_far(s):
        return _deviation(s)
    if not s.atoms and len(s.terms) > 1 and s.start == 0 and any(p[0] for _, p in s.terms):
        return _from_start(s)
    return total(*(_term(rate, p) for rate, p in s.terms), *(atom.code for atom in s.atoms))


def _cancels_far(s: _Scaled, rest: int = 0) -> bool:
    """Whether limits that are not all 0 add up to `rest`, to 200 bits, so that rounding would hide the deviation."""
    limits = [atom.factor * atom.limit for atom in s.atoms if atom.limit.number != 0]
    if len(s.line) > 1 or len(limits) + len(s.line) < 2:
        return False
    limit = enclose(reduce(add, limits, Expr.of(s.line[0] if s.line else 0)), _ZERO, 256)
    return bool(abs(limit - rest) < ball(Fraction(1, 2**200)))


def _deviation(s: _Scaled) -> Expr:
    """Return the code of the sum without its limit."""
    terms = [_term(rate, p) for rate, p in s.terms if rate]
    return total(*terms, *(_scaled(atom.factor, atom.deviation) for atom in s.atoms))


def _materialise(s: _Scaled) -> Expr:
    """Return the code of the value itself."""
    bare = _bare(s)
    # exp(-u^2) erfcx(u) is erfc(u), which is the more accurate and the cheaper of the two.
    *factors, last = bare.args if bare.head == "*" else (bare,)
    if last.head == "erfcx" and _gauss(last.args[0]) == s.rate and not any(t.depends_on_x for t in factors):
        return product(*factors, call("erfc", *last.args))
    return product(bare, _exponential(s.rate))


def _scale(node: Expr) -> _Scaled:
    """Bring a smooth formula in y to the normal form on y >= 0."""
    head, args = node.head, node.args
    if not node.depends_on_x:
        exact = exact_value(node, _ZERO)
        return _atom(node, node, Expr.of(0)) if exact is None else _exact(_trim([exact]))
    if head == "x":
        return _exact((_ZERO, Fraction(1)))
    if head == "+" and (conjugate := _conjugate(node)) is not None:
        return conjugate
    if head == "**" and _is_fraction(args[0]) and args[1].number is not None:
        # (u**p)**q = u**(p q), because a fractional p is allowed for u > 0 only.
        return _scale(args[0].args[0] ** (args[0].args[1].number * args[1].number))
    if head == "log" and (logarithms := _logarithms(args[0])) is not None:
        return logarithms
    parts = [_scale(child) for child in (node.children if head != "**" else args[:1])]
    match head:
        case "+":
            return reduce(_sum, parts)
        case "*":
            return reduce(_product, parts)
        case "**":
            return _power(parts[0], args[1])
        case "exp":
            return _exp(parts[0])
        case "log":
            return _log(parts[0])
        case "atan":
            return _atan(parts[0])
        case "erfc":
            return _erfc(args[0], parts[0])
    return _atom(call(head, *map(_materialise, parts)))


def _order(rate: Polynomial) -> tuple[Fraction, ...]:
    """Return a key that sorts rates by their growth: the highest coefficient first, of the grammar's largest degree."""
    return tuple(reversed(rate + (_ZERO,) * (MAX_EXPONENT + 1 - len(rate))))


def _sum(a: _Scaled, b: _Scaled, rate: Polynomial | None = None) -> _Scaled:
    """Add, pulling the faster-growing exponential out, or the one that is given."""
    rate = max(a.rate, b.rate, key=_order) if rate is None else rate
    terms: dict[Polynomial, Polynomial] = {}
    atoms: list[_Atom] = []
    for part in (a, b):
        shift = _add(part.rate, _times(rate, Fraction(-1)))
        for r, p in part.terms:
            terms[_add(r, shift)] = _add(terms.get(_add(r, shift), ()), p)
        atoms += _atom(_materialise(_Scaled(shift, (), part.atoms))).atoms if shift and part.atoms else part.atoms
    ordered = sorted(((r, p) for r, p in terms.items() if p), key=lambda term: _order(term[0]), reverse=True)
    return _Scaled(rate, tuple(ordered), _collected(atoms))


def _product(a: _Scaled, b: _Scaled) -> _Scaled:
    rate = _add(a.rate, b.rate)
    for one, other in ((a, b), (b, a)):
        if one.monomial is not None and len(one.monomial[1]) == 1:
            shift, (factor,) = one.monomial
            atoms = tuple(atom.times(Expr.of(factor)) for atom in other.atoms)
            terms = tuple((r, _times(p, factor)) for r, p in other.terms)
            return _Scaled(_add(shift, other.rate), terms, atoms)
        constant = one.constant
        if constant is not None and not other.terms:
            return _Scaled(rate, (), tuple(atom.times(constant) for atom in other.atoms))
    if a.monomial is not None and b.monomial is not None:
        (r, p), (s, q) = a.monomial, b.monomial
        return _Scaled(_add(r, s), (((), (_ZERO,) * (len(p) + len(q) - 2) + (p[-1] * q[-1],)),))
    # Products of sums stay products: expanding (1 - x)**2 would cancel near x = 1.
    return _atom(product(_bare(a), _bare(b)), rate=rate)


def _power(base: _Scaled, exponent: Expr) -> _Scaled:
    n = exponent.number
    if n is None:
        return _atom(Expr("**", (_materialise(base), exponent)))
    rate = _times(base.rate, n)
    if n.denominator == 1 and base.monomial is not None:
        r, p = base.monomial
        if n > 0 or len(p) == 1:
            return _Scaled(_times(r, n), (((), (_ZERO,) * ((len(p) - 1) * int(n)) + (p[-1] ** int(n),)),))
    code = Expr("**", (_bare(base), exponent))
    if len(base.line) != 1 or base.line[0] <= 0:
        return _atom(code, rate=rate)
    # (c + r)^n = c^n + c^n expm1(n log1p(r / c)), and 1/(c + r) = 1/c - r / (c (c + r)).
    c, rest = base.line[0], _beside_constant(base)
    limit = Expr.of(c) ** exponent if c != 1 else Expr.of(1)
    if n == -1:
        return _atom(code, limit, product(Expr.of(-1 / c), rest, code), rate)
    return _atom(code, limit, product(limit, call("expm1", _scaled(n, call("log1p", _scaled(1 / c, rest))))), rate)


def _beside_constant(s: _Scaled) -> Expr:
    moving = [(r, p if r else _trim([_ZERO, *p[1:]])) for r, p in s.terms]
    return _bare(replace(s, terms=tuple((r, p) for r, p in moving if p)))


def _is_fraction(node: Expr) -> bool:
    return node.head == "**" and node.args[1].number is not None and node.args[1].number.denominator != 1


def _is_root(node: Expr) -> bool:
    return node.head == "**" and node.args[1].number == Fraction(1, 2) and node.args[0].depends_on_x


def _conjugate(node: Expr) -> _Scaled | None:
    """sqrt(g) - h = (g - h^2) / (sqrt(g) + h) where g - h^2 is a number and the two cancel as y grows."""
    root = next((t for t in node.args if any(map(_is_root, t.args if t.head == "*" else (t,)))), None)
    if root is None:
        return None
    rest = reduce(add, (term for term in node.args if term is not root))
    square = reduce(mul, (t.args[0] if _is_root(t) else t**2 for t in (root.args if root.head == "*" else (root,))))
    form = as_rational(square - rest**2)
    if form is None or form.numerator.degree() > 0 or form.denominator.degree() > 0 or form.constant.number != 1:
        return None
    if sign_at(root, _FAR) == sign_at(rest, _FAR):
        return None
    number = Fraction(str(form.numerator[0] / form.denominator[0]))
    far = _product(_exact(_trim([number])), _power(_sum(_scale(root), _scale(-rest)), Expr.of(-1)))
    if any(inner.head in ("exp", "erfc") for inner in node.walk()):
        return far
    # Where less than half of the root is taken away nothing cancels, and the plain difference rounds less.
    sign = sign_at(root, _FAR) or 1
    little = Expr("<", (_materialise(_scale(-2 * sign * rest)), _materialise(_scale(sign * root))))
    near = _materialise(_sum(_scale(root), _scale(rest)))
    return _atom(Expr("where", (little, near, _materialise(far))))


def _exp(inner: _Scaled) -> _Scaled:
    if inner.rate or any(rate for rate, _ in inner.terms):
        return _atom(call("exp", _materialise(inner)))
    rate = _trim([_ZERO, *inner.line[1:]])
    rest = total(Expr.of(inner.line[0] if inner.line else 0), *(atom.code for atom in inner.atoms))
    return _Scaled(rate, (((), _ONE),)) if rest.number == 0 else _atom(call("exp", rest), rate=rate)


def _log(inner: _Scaled) -> _Scaled:
    """log(exp(rate) (c + r)) = rate + log c + log1p(r / c); without such a c, rate + log of the rest."""
    line = _exact(inner.rate)
    if not inner.terms and len(inner.atoms) == 1 and inner.atoms[0].core.head == "erfcx":
        (atom,) = inner.atoms
        offset = _scale(call("log", Expr.of(atom.factor)))
        return _sum(_sum(line, offset), _atom(call("log_erfcx", *atom.core.args)))
    if _cancels_far(inner, 1):
        return _sum(line, _atom(call("log1p", _deviation(inner))))
    c = inner.line[0] if inner.line and not _cancels_far(inner) else _ZERO
    if c <= 0 or (len(inner.line) > 1 and c != 1):
        return _sum(line, _atom(call("log", _bare(inner))))
    if not inner.atoms and inner.start == 1 and c != 1 and Fraction(1, 4) <= c <= 4:
        # The whole is 1 at y = 0: the logarithm is as small there as y is.
        return _sum(line, _atom(call("log1p", _from_start(inner))))
    offset = _scale(call("log", Expr.of(c)))
    rest = _beside_constant(inner)
    if rest.number == 0:
        return _sum(line, offset)
    return _sum(_sum(line, offset), _atom(call("log1p", _scaled(1 / c, rest))))


def _logarithms(node: Expr) -> _Scaled | None:
    """log(c u^n) = log c + n log u for c > 0 and n that leaves u no other sign; None where there is no such c or n."""
    if node.head == "**" and node.args[1].number is not None:
        n = node.args[1].number
        odd = n.numerator % 2 or n.denominator > 1
        return _product(_exact((n,)), _scale(call("log", node.args[0]))) if odd else None
    if node.head != "*":
        return None
    constants = [factor for factor in node.args if not factor.depends_on_x]
    moving = [factor for factor in node.args if factor.depends_on_x]
    c = reduce(mul, constants, Expr.of(1))
    if len(moving) != 1 or moving[0].head != "**" or sign_at(c, _ZERO) != 1:
        return None
    return _sum(_scale(call("log", c)), _scale(call("log", moving[0])))


def _atan(inner: _Scaled) -> _Scaled:
    """atan(u) = pi/2 - acot(u): the exact limit where u grows, and no exponential that does."""
    if inner.rate and inner.rate[-1] > 0 and len(inner.line) == 1 and inner.line[0] > 0:
        below = product(_exponential(_times(inner.rate, Fraction(-1))), Expr("**", (_bare(inner), Expr.of(-1))))
        return _atom(call("acot", below), Expr("pi") / 2, _scaled(Fraction(-1), call("atan", below)))
    u = _materialise(inner)
    if inner.rate or len(inner.line) < 2:
        return _atom(call("atan", u))
    sign = 1 if inner.line[-1] > 0 else -1
    rest = call("acot", _scaled(Fraction(sign), u))
    return _atom(call("atan", u), sign * Expr("pi") / 2, _scaled(Fraction(-sign), rest))


def _gauss(argument: Expr) -> Polynomial | None:
    """Return -u^2 for u = k y."""
    slope = argument.diff()
    square = None if slope.depends_on_x else exact_value(slope**2, _ZERO)
    return None if square is None or exact_value(argument, _ZERO) != 0 else (_ZERO, _ZERO, -square)


def _erfc(argument: Expr, inner: _Scaled) -> _Scaled:
    """erfc(k y) = exp(-k^2 y^2) erfcx(k y) for k > 0, and 2 minus that for k < 0."""
    rate = _gauss(argument)
    if rate is None:
        return _atom(call("erfc", _materialise(inner)))
    if sign_at(argument, _FAR) == 1:
        code = call("erfcx", argument)
        return _atom(code, rate=rate)
    return _sum(_exact((Fraction(2),)), _product(_exact((Fraction(-1),)), _erfc(-argument, inner)))
