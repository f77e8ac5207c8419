"""f, f' and f'' of a formula by mpmath: forward differentiation over Python's own syntax tree, no code of the project."""

__all__ = ["Jet", "jet"]

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath as mp

Real = Any  # an mpf: mpmath carries no types


@dataclass(frozen=True)
class Jet:
    """A value with its first two derivatives in x."""

    f: Real
    d: Real = 0
    dd: Real = 0

    def of(self, f: Real, first: Real, second: Real) -> "Jet":
        """The chain rule for an outer function with these values and derivatives."""
        return Jet(f, first * self.d, second * self.d**2 + first * self.dd)

    def __add__(self, other: "Jet") -> "Jet":
        return Jet(self.f + other.f, self.d + other.d, self.dd + other.dd)

    def __mul__(self, other: "Jet") -> "Jet":
        return Jet(self.f * other.f, self.d * other.f + self.f * other.d, self.dd * other.f + 2 * self.d * other.d + self.f * other.dd)

    def power(self, q: Real) -> "Jet":
        first = q * self.f ** (q - 1) if q != 1 else mp.mpf(1)
        second = q * (q - 1) * self.f ** (q - 2) if q not in (1, 2) else q * (q - 1)
        return self.of(self.f**q, first, second)


def _outer(f: Callable[[Real], Real], slopes: Callable[[Real], tuple[Real, Real]]) -> Callable[[Jet], Jet]:
    return lambda u: u.of(f(u.f), *slopes(u.f))


def _atan_slopes(u: Real) -> tuple[Real, Real]:
    return 1 / (1 + u * u), -2 * u / (1 + u * u) ** 2


def _erfc_slopes(u: Real) -> tuple[Real, Real]:
    bell = 2 / mp.sqrt(mp.pi) * mp.exp(-u * u)
    return -bell, 2 * u * bell


_CONSTANT = {1: Jet(mp.mpf(1)), -1: Jet(mp.mpf(-1)), 2: Jet(mp.mpf(2))}
_exp = _outer(mp.exp, lambda u: (mp.exp(u), mp.exp(u)))
_log = _outer(mp.log, lambda u: (1 / u, -1 / u**2))
_erfc = _outer(mp.erfc, _erfc_slopes)
_half = Jet(mp.mpf(1) / 2)


def _sigmoid(u: Jet) -> Jet:
    return (_CONSTANT[1] + _exp(_CONSTANT[-1] * u)).power(-1)


_FUNCTIONS: dict[str, Callable[..., Jet]] = {
    "exp": _exp, "log": _log, "log1p": lambda u: _log(_CONSTANT[1] + u), "expm1": lambda u: _exp(u) + _CONSTANT[-1],
    "sqrt": lambda u: u.power(mp.mpf(1) / 2), "sigmoid": _sigmoid, "softplus": lambda u: _log(_CONSTANT[1] + _exp(u)),
    "tanh": _outer(mp.tanh, lambda u: (mp.sech(u) ** 2, -2 * mp.tanh(u) * mp.sech(u) ** 2)),
    "sinh": _outer(mp.sinh, lambda u: (mp.cosh(u), mp.sinh(u))), "cosh": _outer(mp.cosh, lambda u: (mp.sinh(u), mp.cosh(u))),
    "atan": _outer(mp.atan, _atan_slopes), "asinh": _outer(mp.asinh, lambda u: ((1 + u * u) ** -0.5, -u * (1 + u * u) ** -1.5)),
    "erfc": _erfc, "erf": lambda u: _CONSTANT[1] + _CONSTANT[-1] * _erfc(u),
    "log_ndtr": lambda u: _log(_half * _erfc(u * Jet(-1 / mp.sqrt(2)))), "sin": _outer(mp.sin, lambda u: (mp.cos(u), -mp.sin(u))),
    "cos": _outer(mp.cos, lambda u: (-mp.sin(u), -mp.cos(u))), "abs": lambda u: u if u.f >= 0 else _CONSTANT[-1] * u,
    "max": lambda *parts: max(parts, key=lambda u: u.f), "min": lambda *parts: min(parts, key=lambda u: u.f),
}
_COMPARE = {ast.Lt: lambda a, b: a < b, ast.LtE: lambda a, b: a <= b, ast.Gt: lambda a, b: a > b, ast.GtE: lambda a, b: a >= b}


def jet(formula: str, x: Real, parameters: Mapping[str, Fraction] | None = None) -> Jet:
    """Return f, f', f'' at x in the current precision; where two pieces meet, those of the one that is chosen at x."""
    names = {key: Jet(mp.mpf(value.numerator) / value.denominator) for key, value in (parameters or {}).items()}
    names |= {"x": Jet(mp.mpf(x), mp.mpf(1)), "pi": Jet(+mp.pi), "e": Jet(mp.e + 0)}
    return _value(ast.parse(formula.strip(), mode="eval").body, names, formula.strip())


def _value(node: ast.expr, names: Mapping[str, Jet], text: str) -> Jet:
    match node:
        case ast.Constant():
            digits = Fraction(ast.get_source_segment(text, node))
            return Jet(mp.mpf(digits.numerator) / digits.denominator)
        case ast.Name():
            return names[node.id]
        case ast.UnaryOp():
            return _CONSTANT[-1] * _value(node.operand, names, text)
        case ast.BinOp():
            left, right = _value(node.left, names, text), _value(node.right, names, text)
            if isinstance(node.op, ast.Pow):
                return left.power(int(right.f) if right.f == int(right.f) else right.f)
            sign = _CONSTANT[-1] if isinstance(node.op, ast.Sub) else _CONSTANT[1]
            if isinstance(node.op, ast.Add | ast.Sub):
                return left + sign * right
            return left * (right if isinstance(node.op, ast.Mult) else right.power(-1))
        case ast.Call() if isinstance(node.func, ast.Name) and node.func.id == "where":
            return _value(node.args[1 if _holds(node.args[0], names, text) else 2], names, text)
        case ast.Call() if isinstance(node.func, ast.Name):
            return _FUNCTIONS[node.func.id](*(_value(argument, names, text) for argument in node.args))
    raise AssertionError(f"not in the grammar: {ast.dump(node)}")


def _holds(node: ast.expr, names: Mapping[str, Jet], text: str) -> bool:
    if isinstance(node, ast.BoolOp):
        return (all if isinstance(node.op, ast.And) else any)(_holds(part, names, text) for part in node.values)
    assert isinstance(node, ast.Compare)
    left, right = (_value(part, names, text).f for part in (node.left, node.comparators[0]))
    return _COMPARE[type(node.ops[0])](left, right)
