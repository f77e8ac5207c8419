"""A formula multiplied out into one sum of monomials, in which equal terms have cancelled.

g becomes a sum of c * x^k * exp(polynomial in x) * (powers of atoms), with exact c; an atom is any other formula, such
as a logarithm, a root, or a denominator. Denominators that are positive on R by their shape are then cleared, and a
positive factor common to all monomials is divided out: the result has the sign of g, not its value.
"""

__all__ = ["cancelled", "expanded"]

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import zip_longest

from gpo_theory.budget import spend
from gpo_theory.formula.expression import Expr, rebuild
from gpo_theory.kernel.inequality import factors, positive
from gpo_theory.kernel.intervals import rational_root

MOST, ROUNDS = 400, 4  # monomials in a sum, and passes of clearing denominators: limits on time
Polynomial = tuple[Fraction, ...]  # coefficients of x^0, x^1, ... inside exp, without zeros at the end
Powers = tuple[tuple[Expr, Fraction], ...]
X = Expr.x()


@dataclass(frozen=True)
class Monomial:
    """exp(sum exponent[k] x^k) times the product of atoms to their powers; x is an atom."""

    exponent: Polynomial = ()
    powers: Powers = ()

    def __mul__(self, other: "Monomial") -> "Monomial":
        powers = dict(self.powers)
        for atom, n in other.powers:
            powers[atom] = powers.get(atom, Fraction(0)) + n
        return Monomial(_plus(self.exponent, other.exponent), _sorted(powers))

    def power_of(self, atom: Expr) -> Fraction:
        """The power of one atom."""
        return dict(self.powers).get(atom, Fraction(0))

    def without(self, atom: Expr) -> "Monomial":
        """The same monomial without one atom."""
        return Monomial(self.exponent, tuple(p for p in self.powers if p[0] != atom))


Sum = dict[Monomial, Fraction]
ONE = Monomial()


class _TooLargeError(Exception):
    """A sum has more than MOST monomials."""


def _plus(p: Polynomial, q: Polynomial) -> Polynomial:
    total = [a + b for a, b in zip_longest(p, q, fillvalue=Fraction(0))]
    while total and not total[-1]:
        total.pop()
    return tuple(total)


def _sorted(powers: dict[Expr, Fraction]) -> Powers:
    return tuple(sorted(((a, n) for a, n in powers.items() if n), key=lambda item: str(item[0])))


@lru_cache(maxsize=512)
def expanded(g: Expr) -> Expr | None:
    """Return a formula with the sign of g everywhere, multiplied out; None where it would be too long.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> f = parse_formula("log(exp(x) + exp(2*x+1))").primitive()
    >>> str(expanded(f.diff().diff()))
    '1'
    >>> str(expanded(parse_formula("sigmoid(x) + sigmoid(-x) - 1").primitive()))
    '0'
    """
    try:
        total = _multiplied_out(_sum_of(g))
        compared = _compared_logarithms(total)
        return _as_formula(_reduced(total if compared is None else _multiplied_out(compared)))
    except _TooLargeError:
        return None


def _multiplied_out(total: Sum) -> Sum:
    for _ in range(ROUNDS):
        total, again = _cleared(total)
        if not again:
            break
    return total


def _compared_logarithms(total: Sum) -> Sum | None:
    """Return c (a - b) for c log(a) - c log(b), which has its sign, and c (a - 1) for c log(a)."""
    logs = [(m.powers[0][0], c) for m, c in total.items() if not m.exponent and [n for _, n in m.powers] == [1]]
    if len(logs) < len(total) or any(log.head != "log" for log, _ in logs):
        return None
    if len(logs) == 1:
        logs.append((Expr("log", (Expr.of(1),)), -logs[0][1]))
    if len(logs) != 2 or logs[0][1] != -logs[1][1]:
        return None
    return reduce(_add, (_multiply({ONE: c}, _sum_of(log.args[0])) for log, c in logs))


def _sum_of(node: Expr) -> Sum:
    spend()
    if node.number is not None:
        return {ONE: node.number} if node.number else {}
    match node.head:
        case "+":
            return reduce(_add, map(_sum_of, node.args))
        case "*":
            return reduce(_multiply, map(_sum_of, node.args))
        case "exp":
            inside = _polynomial(node.args[0])
            return {Monomial(exponent=inside): Fraction(1)} if inside is not None else _atom(node, Fraction(1))
        case "**":
            return _power(node)
    return _atom(node, Fraction(1))


def _atom(base: Expr, n: Fraction) -> Sum:
    return {Monomial(powers=((base, n),)): Fraction(1)}


def _power(node: Expr) -> Sum:
    n, base = node.args[1].number, _sum_of(node.args[0])
    if n is None or not base:
        return _atom(node, Fraction(1))
    if n.denominator == 1 and n > 0:
        return reduce(_multiply, [base] * int(n))
    straight = _conjugate(base) if n < 0 and n.denominator == 1 else None
    if straight is not None:
        return reduce(_multiply, [straight] * int(-n))
    front, c, rest = _primitive_part(base)
    if n.denominator == 1:
        inner = _atom(_as_formula(rest), n) if len(rest) > 1 else {ONE: Fraction(1)}
        return _multiply({_raised(front, n): c ** int(n)}, inner)
    if not all(_positive(atom) for atom, _ in front.powers):  # a root is pulled apart only into positive factors
        return _atom(_as_formula(base), n)
    rest = {m: value * (1 if c > 0 else -1) for m, value in rest.items()}
    inner = {ONE: Fraction(1)} if rest == {ONE: 1} else _atom(_as_formula(rest), n)
    whole = rational_root(abs(c), n.denominator)
    number = _atom(Expr.of(abs(c)), n) if whole is None else {ONE: whole**n.numerator}
    return _multiply(_multiply(number, {_raised(front, n): Fraction(1)}), inner)


def _conjugate(base: Sum) -> Sum | None:
    """Return 1/base for base = u + c sqrt(q), as (c sqrt(q) - u)/(c^2 q - u^2) where that denominator is a number."""
    roots = [m for m in base if not m.exponent and any(n == Fraction(1, 2) for _, n in m.powers)]
    if len(roots) != 1:
        return None
    root = {roots[0]: base[roots[0]]}
    rest = {m: -c for m, c in base.items() if m != roots[0]}
    square = {_raised(roots[0], Fraction(2)): base[roots[0]] ** 2}
    minus = _multiply({ONE: Fraction(-1)}, _multiply(rest, rest))
    whole = reduce(_add, (_opened(m, c) for m, c in square.items()), minus)
    if set(whole) != {ONE}:
        return None
    return {m: c / whole[ONE] for m, c in _add(root, rest).items()}


def _opened(m: Monomial, c: Fraction) -> Sum:
    """Multiply out the atoms of a monomial that stand to whole powers."""
    parts = [reduce(_multiply, [_sum_of(atom)] * int(n)) for atom, n in m.powers if n.denominator == 1 and n > 0]
    kept = {a: n for a, n in m.powers if not (n.denominator == 1 and n > 0)}
    return reduce(_multiply, parts, {Monomial(m.exponent, _sorted(kept)): c})


def _raised(m: Monomial, n: Fraction) -> Monomial:
    return Monomial(tuple(c * n for c in m.exponent), tuple((atom, k * n) for atom, k in m.powers))


def _primitive_part(total: Sum) -> tuple[Monomial, Fraction, Sum]:
    """Return m, c and S with total = c m S, where S is the same for sums that differ by a factor c m."""
    first = min(total, key=lambda m: (m.exponent[::-1] and tuple(m.exponent[::-1]), str(m.powers)))
    low = min((m.exponent for m in total), key=lambda p: (tuple(reversed(_padded(p))), p))
    shared = {atom: min(m.power_of(atom) for m in total) for atom, _ in first.powers}
    front = Monomial(low, _sorted(shared))
    back = _raised(front, Fraction(-1))
    rest = {m * back: c for m, c in total.items()}
    c = next(c for m, c in sorted(rest.items(), key=lambda item: (len(item[0].exponent), str(item[0]))))
    return front, c, {m: value / c for m, value in rest.items()}


def _padded(p: Polynomial) -> Polynomial:
    return (*p, *([Fraction(0)] * (8 - len(p)))) if len(p) < 8 else p


def _polynomial(node: Expr) -> Polynomial | None:
    """Return the coefficients of a polynomial in x with rational coefficients, None for anything else."""
    out: dict[int, Fraction] = {}
    for m, c in _sum_of(node).items():
        if m.exponent or any(atom != X or n.denominator != 1 or n < 0 for atom, n in m.powers):
            return None
        out[int(m.power_of(X))] = c
    size = max(out, default=-1) + 1
    return tuple(out.get(k, Fraction(0)) for k in range(size)) if size <= 8 else None


def _add(a: Sum, b: Sum) -> Sum:
    out = dict(a)
    for m, c in b.items():
        out[m] = out.get(m, Fraction(0)) + c
        if not out[m]:
            del out[m]
    return out


def _multiply(a: Sum, b: Sum) -> Sum:
    if len(a) * len(b) > 4 * MOST:
        raise _TooLargeError
    out: Sum = {}
    for m, c in a.items():
        for n, d in b.items():
            product, factor = _folded(m * n)
            out[product] = out.get(product, Fraction(0)) + c * d * factor
    out = {m: c for m, c in out.items() if c}
    if len(out) > MOST:
        raise _TooLargeError
    return out


def _folded(m: Monomial) -> tuple[Monomial, Fraction]:
    """Move whole powers of numbers out of a monomial: sqrt(2) * sqrt(2) is 2, and 2^(-1/2) is sqrt(2)/2."""
    factor = Fraction(1)
    for atom, n in m.powers:
        if atom.number is not None and (whole := n.numerator // n.denominator):
            factor *= atom.number**whole
            m = Monomial(m.exponent, _sorted({**dict(m.powers), atom: n - whole}))
    return m, factor


def _cleared(total: Sum) -> tuple[Sum, bool]:
    """Multiply by positive denominators, then multiply out atoms that are sums to a whole power."""
    atoms = dict.fromkeys(atom for m in total for atom, _ in m.powers)
    again = False
    for atom in atoms:
        least = min(m.power_of(atom) for m in total)
        if least and atom.number is None and _positive(atom):
            shift = {Monomial(powers=((atom, -least),)): Fraction(1)}
            total, again = _multiply(total, shift), True
    for atom in atoms:
        if atom.head == "+" and any(m.power_of(atom) >= 1 for m in total):
            base, out = _sum_of(atom), Sum()
            for m, c in total.items():
                n = m.power_of(atom)
                whole = max(n.numerator // n.denominator, 0)
                left = Monomial(m.exponent, _sorted({**dict(m.powers), atom: n - whole}))
                out = _add(out, reduce(_multiply, [base] * whole, {left: c}))
            total, again = out, True
    return total, again


def _reduced(total: Sum) -> Sum:
    """Divide by the positive factors that all monomials have in common."""
    if not total:
        return total
    front, c, rest = _primitive_part(total)
    kept = Monomial(powers=tuple((atom, n) for atom, n in front.powers if not _positive(atom)))
    return {m * kept: value * (1 if c > 0 else -1) for m, value in rest.items()}


def _as_formula(total: Sum) -> Expr:
    terms = sorted(total.items(), key=lambda item: (len(item[0].exponent), str(item[0].exponent), str(item[0].powers)))
    return reduce(lambda a, b: a + b, (_product(m, c) for m, c in terms), Expr.of(0))


def _product(m: Monomial, c: Fraction) -> Expr:
    inside = reduce(lambda a, b: a + b, (k * X**i for i, k in enumerate(m.exponent) if k), Expr.of(0))
    out = Expr.of(c) * (Expr("exp", (inside,)) if m.exponent else 1)
    return reduce(lambda a, b: a * b, (atom**n for atom, n in m.powers), out)


@lru_cache(maxsize=4096)
def _positive(g: Expr) -> bool:
    """Whether g > 0 on all of R follows from its shape and range, or from its discriminant."""
    if g.head == "**" and g.args[1].number is not None:
        return _positive(g.args[0])
    p = _polynomial(g) if g.head == "+" else None
    quadratic = p is not None and len(p) == 3 and p[2] > 0 and 4 * p[2] * p[0] > p[1] ** 2
    return quadratic or positive(g, None, None)


@lru_cache(maxsize=512)
def cancelled(f: Expr) -> Expr:
    """Return a formula, which is defined on all of R, with h/h and g - g cancelled, and 2 - erfc(u) as erfc(-u).

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> str(cancelled(parse_formula("x*(2+sin(x))/(2+sin(x)) + log(1+x**2) - log(1+x**2)").primitive()))
    'x'
    """
    children = tuple(cancelled(child) for child in f.children)
    f = rebuild(f, children)
    if f.head == "+":
        kept = [term for term in f.args if not (term.head == "*" and term.args[0].number == 0)]
        return reduce(lambda a, b: a + b, kept, Expr.of(0)) if len(kept) < len(f.args) else _reflected(f)
    if f.head not in ("*", "**"):
        return f
    powers = factors(f)
    if any(base.number == 0 and n > 0 for base, n in powers.items()):
        return Expr.of(0)
    return reduce(lambda a, b: a * b, (base**n for base, n in powers.items() if n), Expr.of(1))


def _reflected(total: Expr) -> Expr:
    """Return a sum with 2 c - c erfc(u) as c erfc(-u): so small a value is then no difference of large ones."""
    terms = [part for term in total.args for part in _opened_erfc(term)]
    number = reduce(lambda a, b: a + b, (term for term in terms if term.number is not None), Expr.of(0))
    for term in terms:
        c, erfc = term.args if term.head == "*" and len(term.args) == 2 else (Expr.of(1), term)
        if erfc.head == "erfc" and c.number is not None and number == -2 * c:
            others = [other for other in terms if other != term and other.number is None]
            return reduce(lambda a, b: a + b, others, -c * Expr("erfc", (-erfc.args[0],)))
    return total


def _opened_erfc(term: Expr) -> list[Expr]:
    """Return a term, or those of c (a + b) where erfc is one of them."""
    c, total = term.args if term.head == "*" and len(term.args) == 2 else (Expr.of(1), term)
    whole = total.head != "+" or not any(node.head == "erfc" for node in total.walk())
    return [term] if whole else [c * part for part in total.args]
