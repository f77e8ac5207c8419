"""Formulas whose domain is known by construction, and the domain of a text, read from Python's tree of it alone.

A hole is a rational point where the formula is undefined, hidden by what a simplification would merge, cancel or fold.
Every shape is made with a base that is negative or 0 at the point, and once more with a base that is positive everywhere.
"""

__all__ = ["Hole", "UndefinedError", "hole", "value"]

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

import mpmath as mp

Q = Fraction


class UndefinedError(Exception):
    """An operation that is evaluated has no real value."""


@dataclass(frozen=True)
class Hole:
    """A formula with its parameters; `point` is where it is undefined, None for a formula defined on all of R."""

    formula: str
    parameters: dict[str, Fraction]
    point: Fraction | None


# Undefined where the base {b} is negative; with a positive base defined everywhere. `g` and `h` are parameters, g + h = 1.
BELOW = (
    "({b})**(1/3)*({b})**(2/3)", "({b})**(1/2)*({b})**(1/2)", "sqrt({b})*({b})**(1/2)", "sqrt({b})*sqrt({b})", "sqrt({b})**2",
    "(({b})**(1/2))**2", "(({b})**(1/3))**3", "({b})**(3/4)*x*({b})**(1/4)", "({b})**(1/4)*({b})**(1/4)*({b})**(1/2)",
    "({b})**(5/2)*({b})**(-1/2)", "({b})**(1/2)/({b})**(1/2)", "({b})**(-1/2)*({b})**(-1/2)", "(({b})**(-1/2))**(-2)",
    "1/(1/sqrt({b}))**2", "({b})**g*({b})**h", "({b})**g*({b})**(-g)", "({b})**g/({b})**g", "(({b})**g)**2*({b})**(2*h)",
    "({b})**(g+h)*({b})**g", "({b})*({b})**g*({b})**h", "log({b})**0", "sqrt({b})**0", "log({b})**(g-g)", "0*log({b})", "0*sqrt({b})",
    "log({b})-log({b})", "2*sqrt({b})-sqrt({b})-sqrt({b})", "({b})**(1/3)*({b})**(2/3)-({b})", "(({b})**3)**(1/2)",
    "sqrt(({b})**5)", "(({b})**(1/3))**6", "exp(log({b}))", "exp(g*log({b}))*exp(-g*log({b}))", "log({b})*0*x", "max(x, x-1+0*sqrt({b}))",
    "where(x<x+1, x, log({b})) + 0*log({b})", "where(log({b})<0, x, x)", "where(({b})**2>=0, max(x, x-1+0*sqrt({b})), x)",
    "abs(sqrt({b}))**2", "(x*sqrt({b}))**2", "(sqrt({b})+1)*(sqrt({b})-1)", "sqrt({b})**2 - (sqrt({b})**2)",
)  # fmt: skip
# Undefined where the base is 0.
ZERO = (
    "({b})/({b})", "({b})**2/({b})", "x*({b})/({b})", "({b})**-1*({b})", "({b})**-1*({b})**2", "1/(1/({b}))", "(({b})**-1)**-2",
    "(1/({b}))**0", "0/({b})", "1/({b})-1/({b})", "(x/({b}))*(({b})/2)", "(({b})**2)**(-1/2)*abs({b})", "({b})**g/({b})**g",
    "(({b})**-1)**0+x", "log(abs({b}))**0", "0*log(abs({b}))", "log(({b})**2)-log(({b})**2)", "({b})**(-g)*({b})**g", "(2*({b}))**-1*({b})",
    "where(({b})**2<=0, 1/({b}), x)", "max(x, x-1+0/({b}))",
)  # fmt: skip
# Defined for every base.
EVERYWHERE = (
    "sqrt(({b})**2)", "(({b})**4)**(1/2)", "(({b})**2)**(1/3)", "({b})**0", "({b})*({b})", "where(({b})>0, log({b}), 1)",
    "where(({b})**2<-1, log({b}), x)", "max(0,{b})**(1/2)*max(0,{b})**(1/2)", "abs({b})**(1/3)*abs({b})**(2/3)", "where(({b})<=0, 1, 1/({b}))",
    "0*({b})", "({b})-({b})",
)  # fmt: skip
DRESS = ("{s}+exp(-x)", "{s}", "3*({s})-x/7", "log(1+({s})**2)", "max({s}, 1-x)", "exp(-x)*({s})", "-({s})", "log(1+exp(-x))+({s})/5",
         "x-({s})**2")  # fmt: skip


def hole(seed: int) -> Hole:
    """Return the formula of a seed: of three, two have a hole and one has none."""
    random = Random(seed)
    n = random.choice((1, 2, 3, 5, 22))
    c = Q(random.choice((-1, 1)) * n, random.choice((1, 2, 7)))
    t = f"({c})"
    # What is negative at x0 and what is 0 there; c itself is the zero of the second.
    negative, x0 = random.choice(((f"x-{t}", c - 2), (f"{t}-x", c + Q(1, 3)), (f"(x-{t})*(x-{t}-1)", c + Q(1, 2)), ("-1-x**2", c),
                                  (f"(x-{t})**3", c - Q(1, 7)), (f"x**2-{t}**2", c / 2)))  # fmt: skip
    zero = random.choice((f"x-{t}", f"(x-{t})*(x**2+1)", f"(x-{t})**3", f"x**2-{t}**2", f"2*{t}-2*x"))
    positive = random.choice(("1+x**2", "exp(x)", f"(x-{t})**2+1/3", "x**2-x+1", "2+exp(-x)"))
    kind = seed % 6
    shapes, base, point = ((BELOW, negative, x0), (ZERO, zero, c), (BELOW, negative, x0), (ZERO, zero, c),
                           (BELOW + ZERO, positive, None), (EVERYWHERE, random.choice((negative, zero)), None))[kind]  # fmt: skip
    formula = random.choice(DRESS).format(s=random.choice(shapes).format(b=base))
    formula += "-g*x/9" if "g" in _names(formula) else ""  # a parameter that cancels would not occur
    g = random.choice((Q(1, 2), Q(1, 3), Q(2, 3), Q(3, 4)))
    return Hole(formula, {name: v for name, v in (("g", g), ("h", 1 - g)) if name in set(_names(formula))}, point)


def _names(text: str) -> list[str]:
    return [node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)]


def value(text: str, x: Fraction, parameters: Mapping[str, Fraction]) -> Any:
    """Return the value of a text at x, each operation as typed; raises UndefinedError where one has no real value.

    A power with an exponent that is no integer needs a base >= 0, or > 0 if it is negative; u**0 is 1 where u is defined.
    """
    names = {"x": x, "pi": mp.pi, "e": mp.e, **parameters}
    return _value(ast.parse(text.strip(), mode="eval").body, names)


def _value(tree: ast.expr, names: Mapping[str, Any]) -> Any:
    match tree:
        case ast.Constant(value=number):
            return Q(str(number))
        case ast.Name(id=name):
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, names)
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _value(left, names), _value(right, names))
        case ast.Call(func=ast.Name(id="where"), args=[condition, yes, no]):
            return _value(yes if _holds(condition, names) else no, names)
        case ast.Call(func=ast.Name(id=name), args=args):
            return _function(name, [_value(each, names) for each in args])
    raise AssertionError(ast.dump(tree))


def _holds(condition: ast.expr, names: Mapping[str, Any]) -> bool:
    assert isinstance(condition, ast.Compare)
    a, b = _value(condition.left, names), _value(condition.comparators[0], names)
    a, b = _alike(a, b)
    return bool({ast.Lt: a < b, ast.LtE: a <= b, ast.Gt: a > b, ast.GtE: a >= b}[type(condition.ops[0])])


def _real(a: Any) -> Any:
    return mp.mpf(a.numerator) / a.denominator if isinstance(a, Q) else a


def _alike(*values: Any) -> tuple[Any, ...]:
    """Return the values as they are if all are rational, else all as mpmath's numbers."""
    return values if all(isinstance(each, Q) for each in values) else tuple(map(_real, values))


def _binary(op: ast.operator, a: Any, b: Any) -> Any:
    if isinstance(op, ast.Pow):
        return _power(a, b)
    if isinstance(op, ast.Div):
        return _binary(ast.Mult(), a, _power(b, Q(-1)))
    a, b = _alike(a, b)
    return a + b if isinstance(op, ast.Add) else a - b if isinstance(op, ast.Sub) else a * b


def _power(a: Any, n: Any) -> Any:
    if n == 0:
        return Q(1)
    if isinstance(n, Q) and n.denominator == 1:
        if a == 0 and n < 0:
            raise UndefinedError
        return a ** int(n)
    if a < 0 or (a == 0 and n < 0):
        raise UndefinedError
    return _real(a) ** _real(n)


def _function(name: str, args: list[Any]) -> Any:
    if name in ("max", "min"):
        return max(_alike(*args)) if name == "max" else min(_alike(*args))
    (a,) = args
    if name == "abs":
        return abs(a)
    if (name == "log" and a <= 0) or (name == "sqrt" and a < 0):
        raise UndefinedError
    if a == {"log": 1, "exp": 0, "sqrt": None}[name] or (name == "sqrt" and a in (0, 1)):
        return {"log": Q(0), "exp": Q(1), "sqrt": a}[name]
    return getattr(mp, name)(_real(a))
