"""f, f' and f'' of a formula by mpmath: forward differentiation over Python's own syntax tree, no code of the project."""

__all__ = ["Jet", "jet"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath as mp

from tests.support.oracle import evaluated_by, real

Real = Any  # an mpf: mpmath carries no types


@dataclass(frozen=True)
class Jet:
    """A value with its first two derivatives in x; of two, the one with the larger value is the larger."""

    f: Real
    d: Real = 0
    dd: Real = 0

    def of(self, f: Real, first: Real, second: Real) -> "Jet":
        """The chain rule for an outer function with these values and derivatives."""
        return Jet(f, first * self.d, second * self.d**2 + first * self.dd)

    def __add__(self, other: "Jet") -> "Jet":
        return Jet(self.f + other.f, self.d + other.d, self.dd + other.dd)

    def __neg__(self) -> "Jet":
        return Jet(-self.f, -self.d, -self.dd)

    def __pos__(self) -> "Jet":
        return self

    def __sub__(self, other: "Jet") -> "Jet":
        return self + -other

    def __mul__(self, other: "Jet") -> "Jet":
        return Jet(self.f * other.f, self.d * other.f + self.f * other.d, self.dd * other.f + 2 * self.d * other.d + self.f * other.dd)

    def __truediv__(self, other: "Jet") -> "Jet":
        return self * other ** Jet(-1)

    def __pow__(self, exponent: "Jet") -> "Jet":
        q = int(exponent.f) if exponent.f == int(exponent.f) else exponent.f
        if self.f == self.d == self.dd == 0 < q:  # a constant; its slopes are not those of a root at 0
            return Jet(mp.mpf(0))
        first = q * self.f ** (q - 1) if q != 1 else mp.mpf(1)
        second = q * (q - 1) * self.f ** (q - 2) if q not in (1, 2) else q * (q - 1)
        return self.of(self.f**q, first, second)

    def __lt__(self, other: "Jet") -> bool:
        return bool(self.f < other.f)

    def __le__(self, other: "Jet") -> bool:
        return bool(self.f <= other.f)

    def __abs__(self) -> "Jet":
        return self if self.f >= 0 else -self


def _outer(f: Callable[[Real], Real], slopes: Callable[[Real], tuple[Real, Real]]) -> Callable[[Jet], Jet]:
    return lambda u: u.of(f(u.f), *slopes(u.f))


def _erfc_slopes(u: Real) -> tuple[Real, Real]:
    bell = 2 / mp.sqrt(mp.pi) * mp.exp(-u * u)
    return -bell, 2 * u * bell


_ONE = Jet(mp.mpf(1))
_HALF = Jet(mp.mpf(1) / 2)
_exp = _outer(mp.exp, lambda u: (mp.exp(u), mp.exp(u)))
_log = _outer(mp.log, lambda u: (1 / u, -1 / u**2))
_erfc = _outer(mp.erfc, _erfc_slopes)
_FUNCTIONS: dict[str, Callable[..., Jet]] = {
    "exp": _exp, "log": _log, "log1p": lambda u: _log(_ONE + u), "expm1": lambda u: _exp(u) - _ONE, "sqrt": lambda u: u**_HALF,
    "sigmoid": lambda u: _ONE / (_ONE + _exp(-u)), "softplus": lambda u: _log(_ONE + _exp(u)),
    "tanh": _outer(mp.tanh, lambda u: (mp.sech(u) ** 2, -2 * mp.tanh(u) * mp.sech(u) ** 2)),
    "sinh": _outer(mp.sinh, lambda u: (mp.cosh(u), mp.sinh(u))), "cosh": _outer(mp.cosh, lambda u: (mp.sinh(u), mp.cosh(u))),
    "atan": _outer(mp.atan, lambda u: (1 / (1 + u * u), -2 * u / (1 + u * u) ** 2)),
    "asinh": _outer(mp.asinh, lambda u: ((1 + u * u) ** -0.5, -u * (1 + u * u) ** -1.5)),
    "erfc": _erfc, "erf": lambda u: _ONE - _erfc(u), "log_ndtr": lambda u: _log(_HALF * _erfc(u * Jet(-1 / mp.sqrt(2)))),
    "sin": _outer(mp.sin, lambda u: (mp.cos(u), -mp.sin(u))), "cos": _outer(mp.cos, lambda u: (-mp.sin(u), -mp.cos(u))),
    "abs": abs, "max": max, "min": min,
}


def jet(formula: str, x: Real, parameters: Mapping[str, Fraction] | None = None) -> Jet:
    """Return f, f', f'' at x in the current precision; where two pieces meet, those of the one that is chosen at x."""
    names = {"x": Jet(mp.mpf(x), mp.mpf(1)), **(parameters or {})}
    return evaluated_by(formula, names, _FUNCTIONS, lambda value: value if isinstance(value, Jet) else Jet(real(value)))
