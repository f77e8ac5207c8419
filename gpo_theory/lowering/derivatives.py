"""The derivative of a normal form as a normal form: by the rules of calculus, and with its rational part reduced."""

__all__ = ["derivative", "simplified"]

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import reduce

from flint import fmpq_poly

from gpo_theory.calculus.rational import Rational, as_rational, fraction
from gpo_theory.formula.expression import Expr, call
from gpo_theory.lowering.normal_form import Branch, horner, negated, product, total

_MOST = 32  # terms: a limit on time
X, _ONE = Expr.x(), Expr.of(1)
Field = dict[tuple[tuple[Expr, Fraction], ...], Expr]

# Of the functions of a normal form that the grammar lacks or that are differentiated otherwise here.
_SLOPES: dict[str, Callable[[Expr], Expr]] = {
    "exp": lambda u: call("exp", u),
    "expm1": lambda u: call("exp", u),
    "log": lambda u: _power(u, -1),
    "log1p": lambda u: _power(total(_ONE, u), -1),
    "logsigmoid": lambda u: call("sigmoid", negated(u)),
    "sigmoid": lambda u: product(call("sigmoid", u), call("sigmoid", negated(u))),
    "atan": lambda u: _power(total(_ONE, product(u, u)), -1),
    "acot": lambda u: negated(_power(total(_ONE, product(u, u)), -1)),
    "erfc": lambda u: product(Expr.of(-2), _power(Expr("pi"), Fraction(-1, 2)), call("exp", negated(product(u, u)))),
    "erfcx": lambda u: negated(product(call("erfcx", u), call("mills", u))),
    "log_erfcx": lambda u: negated(call("mills", u)),
    "mills": lambda u: total(product(total(product(Expr.of(2), u), call("mills", u)), call("mills", u)), Expr.of(-2)),
    "sin": lambda u: call("cos", u),
    "cos": lambda u: negated(call("sin", u)),
    "step": lambda u: Expr.of(0),
}


def derivative(branch: Branch) -> Branch:
    """Return the derivative in x of a branch; at a kink it is that of the branch on the right.

    >>> print(derivative(Branch(None, None, True, call("expm1", product(X, X)))).right)
    exp(x*x)*(x + x)
    """
    right, left = _slope(branch.right), None if branch.left is None else negated(_slope(branch.left))
    return replace(branch, right=right if branch.side > 0 else negated(right), left=left, closed=True)


def _slope(code: Expr) -> Expr:
    head, args = code.head, code.args
    if not code.depends_on_x:
        return Expr.of(0)
    match head:
        case "x":
            return _ONE
        case "+":
            return total(*map(_slope, args))
        case "*":
            return _of_product(args)
        case "**":
            return product(args[1], _power(args[0], args[1] - 1), _slope(_above_zero(args[0]) or args[0]))
        case "where":
            return _chosen(args[0], _slope(args[1]), _slope(args[2]))
        case "max" | "min":
            return reduce(lambda a, b: _of_larger(head, a, b), ((each, _slope(each)) for each in args))[1]
    return product(_SLOPES[head](args[0]), _slope(args[0]))


def _above_zero(base: Expr) -> Expr | None:
    """Return u of max(0, u), whose power holds the step at 0 itself."""
    pair = base.head == "max" and len(base.args) == 2 and Expr.of(0) in base.args
    return next((u for u in base.args if u.number != 0), None) if pair else None


def _of_product(factors: tuple[Expr, ...]) -> Expr:
    """Return P (R' + R sum p'/p), with P the exponentials, sigmoids and denominators p, R the product of the others."""
    front = [f for f in factors if f.depends_on_x and (f.head in ("exp", "sigmoid") or _is_denominator(f))]
    rest = [f for f in factors if f not in front]
    terms = [product(*rest[:i], _slope(f), *rest[i + 1 :]) for i, f in enumerate(rest) if f.depends_on_x]
    return product(*front, total(*terms, *(product(*rest, _ratio(f)) for f in front)))


def _is_denominator(f: Expr) -> bool:
    return f.power is not None and f.power < 0


def _ratio(p: Expr) -> Expr:
    """Return p'/p."""
    u, inner = p.args[0], _slope(p.args[0])
    if p.head == "**":
        return product(p.args[1], _power(u, -1), inner)
    return inner if p.head == "exp" else product(call("sigmoid", negated(u)), inner)


def _of_larger(head: str, a: tuple[Expr, Expr], b: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
    """Return the max or min of two formulas and its derivative; a comparison with a number is a step."""
    larger = Expr(head, (a[0], b[0]))
    for (number, _), (u, slope) in ((a, b), (b, a)):
        if not number.depends_on_x:
            above = total(u, negated(number))
            return larger, product(call("step", above if head == "max" else negated(above)), slope)
    pair = (a[0], b[0]) if head == "max" else (b[0], a[0])
    return larger, _chosen(Expr("<", pair), b[1], a[1])


def _chosen(condition: Expr, yes: Expr, no: Expr) -> Expr:
    return yes if yes == no else Expr("where", (condition, yes, no))


def _power(base: Expr, n: Fraction | int | Expr) -> Expr:
    number = Expr.of(n)
    return _ONE if number.number == 0 else base if number.number == 1 else Expr("**", (base, number))


# --- a sum of monomials of logarithms, roots and the like, with reduced rational functions as coefficients -----------


def simplified(branch: Branch) -> Branch:
    """Return the branch as a sum whose coefficients, rational in y or in one exponential, are reduced and factored.

    Equal parts that were far larger than their sum have then cancelled exactly. The branch itself where there is no
    such form.

    >>> u = call("exp", -X)
    >>> print(simplified(Branch(None, None, True, total(product(u, _power(total(_ONE, u), -1)), negated(u)))).right)
    -exp(-2*x)/(1 + exp(-x))
    """
    try:
        return replace(branch, right=_reduced(branch.right), left=branch.left and _reduced(branch.left))
    except _NoFormError:
        return branch


class _NoFormError(Exception):
    """A formula has no such form, or one that is too long."""


def _reduced(code: Expr) -> Expr:
    exponential, found = any(_rate(node) for node in code.walk()), dict[Rational, list[Expr]]()
    for key, coefficient in _field(code, exponential).items():
        form = as_rational(coefficient)
        if form is None or form.shift:
            raise _NoFormError
        if not form.is_zero:  # terms with one coefficient, up to a number, have it as a common factor
            number = form.numerator.leading_coefficient()
            same = found.setdefault(replace(form, numerator=form.numerator / number), [])
            same.append(product(Expr.of(fraction(number)), *(_power(atom, n) for atom, n in key)))
    return total(*(product(*_factored(form), total(*terms)) for form, terms in found.items()))


def _field(node: Expr, exponential: bool) -> Field:
    head, args = node.head, node.args
    if node.number is not None or (head == "x" and not exponential):
        return {(): node}
    if head == "+":
        return reduce(_add, (_field(part, exponential) for part in args))
    if head == "*":
        return reduce(_multiply, (_field(part, exponential) for part in args))
    if _rate(node):
        u = call("exp", args[0])
        return {(): u if head == "exp" else u - 1}
    if node.power is not None:
        return _raised(_field(args[0], exponential), node, node.power)
    return {((node, Fraction(1)),): _ONE}


def _rate(node: Expr) -> bool:
    """Whether a formula is exp(k y) or expm1(k y)."""
    if node.head not in ("exp", "expm1"):
        return False
    line = as_rational(node.args[0])
    return line is not None and line.slope is None and line.denominator.degree() == 0 and line.numerator.degree() == 1


def _raised(base: Field, node: Expr, n: Fraction) -> Field:
    (key, coefficient), *others = base.items()
    whole = n.numerator // n.denominator
    if n.denominator == 1 and not others:
        return {tuple((atom, k * n) for atom, k in key): coefficient**whole}
    form = None if others or key else as_rational(coefficient)
    if form is None or form.shift:
        return {((node.args[0], n),): _ONE}
    if form.numerator.degree() == 0:  # the root of 1/q by that of q, so that both are one
        inverse, c = replace(form, numerator=form.denominator, denominator=fmpq_poly([1])), fraction(form.numerator[0])
        return _root(inverse, -n) if c == 1 else {((node.args[0], n),): _ONE}
    return _root(form, n)


def _root(form: Rational, n: Fraction) -> Field:
    """Return the power n, which is no integer, of a rational function, with exponentials and whole powers taken out."""
    code, growth = _factored(form)
    whole = n.numerator // n.denominator
    return {((code, n - whole),): code**whole * (_ONE if growth == _ONE else call("exp", n * growth.args[0]))}


def _add(a: Field, b: Field) -> Field:
    out = {**a, **{key: a[key] + value if key in a else value for key, value in b.items()}}
    if len(out) > _MOST:
        raise _NoFormError
    return out


def _multiply(a: Field, b: Field) -> Field:
    out: Field = {}
    for (p, c) in a.items():
        for (q, d) in b.items():
            powers, factor = dict(p), c * d
            for atom, n in q:
                n += powers.pop(atom, Fraction(0))
                whole = n.numerator // n.denominator
                if n.denominator == 1 or not whole or as_rational(atom) is None:
                    powers[atom] = n
                else:  # the whole part of a root's power belongs to the coefficient
                    powers[atom], factor = n - whole, factor * atom**whole
            key = tuple(sorted(((atom, n) for atom, n in powers.items() if n), key=str))
            out = _add(out, {key: factor})
    return out


def _factored(form: Rational) -> tuple[Expr, Expr]:
    """Return the product of the factors, about the mean of their roots or in exp(-k y), and exp(rate y)."""
    rate, parts = Fraction(0), [form.constant]
    for polynomial, sign in ((form.numerator, 1), (form.denominator, -1)):
        number, factors = polynomial.factor()
        parts.append(Expr.of(fraction(number) ** sign))
        for factor, n in factors:
            if form.slope is not None and (form.slope > 0 or not factor[0]):
                rate += sign * n * factor.degree() * form.slope
            if form.slope is None or factor[0]:
                parts.append(_power(_centred(factor, form.slope), sign * n))
    return product(*parts), call("exp", product(Expr.of(rate), X)) if rate else _ONE


def _centred(p: fmpq_poly, slope: Fraction | None) -> Expr:
    n = p.degree()
    if slope is None:
        centre = -p[n - 1] / (n * p[n])
        return horner(_coefficients(p(fmpq_poly([centre, 1]))), total(X, Expr.of(fraction(-centre))))
    coefficients = _coefficients(p)[:: -1 if slope > 0 else 1]
    exponent = product(Expr.of(-abs(slope)), X)
    if n == 1 and not sum(coefficients):
        return product(Expr.of(coefficients[1]), call("expm1", exponent))
    return horner(coefficients, call("exp", exponent))


def _coefficients(p: fmpq_poly) -> tuple[Fraction, ...]:
    return tuple(map(fraction, p.coeffs()))
