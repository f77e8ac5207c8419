"""Formula to torch by one normal form: on each side of 0 and on each piece, decaying exponentials of y = |x| only.

A value is kept as exp(rate(y)) * (line(y) + rest), with `rate` and `line` exact polynomials. Sums pull the largest rate
out, logarithms take it down, reciprocals turn it round: no exponential that grows is ever computed below the knee, and
log1p appears wherever the exact part is 1. There is no list of patterns.
"""

__all__ = ["TorchLoss", "to_torch"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import zip_longest
from operator import add, mul
from typing import TYPE_CHECKING

from gpo_theory.balls import enclose, exact_value, sign_at
from gpo_theory.errors import InputError
from gpo_theory.formula import Expr
from gpo_theory.loss import Loss
from gpo_theory.pieces import Piece, UnsplitError, split
from gpo_theory.rational import as_rational

if TYPE_CHECKING:
    from torch import Tensor

Polynomial = tuple[Fraction, ...]
Rest = Callable[["_Point"], "Tensor | float"]
# A loss that reaches this size is continued by its tangent, so that nothing overflows in a dtype with float32's range.
KNEE = 2.0**64
_FAR = Fraction(1000)


@dataclass(frozen=True)
class TorchLoss:
    """f as an elementwise differentiable function of a tensor x = beta * rho, of any shape and floating dtype.

    bfloat16 and float16 are computed in float32 and rounded. At a kink the gradient is that of the piece on the right.
    `knees` = (left, right): beyond a knee, where |f| or |f'| first reaches 2^64, the tangent there continues f (C1);
    None where no knee lies within |x| <= 2^63.

    >>> import torch
    >>> from gpo_theory.catalogue import LOSSES
    >>> to_torch(LOSSES["hinge"])(torch.tensor([-1.0, 0.5, 3.0]))
    tensor([2.0000, 0.5000, 0.0000])
    """

    loss: Loss
    knees: tuple[float | None, float | None]
    _program: Callable[["Tensor"], "Tensor"]

    def __call__(self, x: "Tensor") -> "Tensor":
        """Return f(x), elementwise, in the dtype of x."""
        import torch

        if not x.is_floating_point():
            raise InputError(f"x has dtype {x.dtype}; a floating dtype is needed")
        if x.dtype in (torch.bfloat16, torch.float16):
            return self._program(x.float()).to(x.dtype)
        return self._program(x)


@lru_cache(maxsize=256)
def _lower(f: Expr) -> tuple[tuple[float | None, float | None], Callable[["Tensor"], "Tensor"]]:
    try:
        pieces = split(f)
    except UnsplitError:
        if any(node.head == "where" for node in f.walk()):
            raise InputError(f"{str(f)!r} has a breakpoint that is not rational: torch cannot run it exactly") from None
        pieces = (Piece(None, None, f),)
    program = _piecewise(_halves(pieces))
    left, right = _knee(program, -1), _knee(program, 1)
    return (_place(left), _place(right)), _with_knees(program, left, right)


def to_torch(loss: Loss) -> TorchLoss:
    """Return the stable torch function of a loss, compiled once per formula.

    >>> import torch
    >>> from gpo_theory.loss import parse
    >>> f = to_torch(parse("log(1+exp(-x))"))
    >>> f(torch.tensor([-1e6, 0.0, 1e6]))
    tensor([1.0000e+06, 6.9315e-01, 0.0000e+00])
    """
    knees, program = _lower(loss.f.primitive())
    return TorchLoss(loss, knees, program)


# --- pieces and knees -------------------------------------------------------------------------------------------------


def _halves(pieces: tuple[Piece, ...]) -> list[tuple[Piece, bool]]:
    """Split the pieces that hold exponentials at 0; pair each with whether it begins at its left edge or just after."""
    out: list[tuple[Piece, bool]] = []
    closed = True
    for i, piece in enumerate(pieces):
        if piece.is_point:
            right = pieces[i + 1].f
            closed = exact_value(right, piece.sample) is None or exact_value(right, piece.sample) == exact_value(
                piece.f, piece.sample
            )
            continue
        inside = (piece.low is None or piece.low < 0) and (piece.high is None or piece.high > 0)
        if inside and any(_sided(node) for node in piece.f.walk()):
            out += [(replace(piece, high=Fraction(0)), closed), (replace(piece, low=Fraction(0)), True)]
        else:
            out.append((piece, closed))
    return out


def _sided(node: Expr) -> bool:
    """Whether a function is computed differently on the two sides of 0: exponentials and square roots."""
    return node.head in ("exp", "erfc") or _is_root(node)


def _piecewise(pieces: list[tuple[Piece, bool]]) -> Callable[["Tensor"], "Tensor"]:
    programs = [(piece, closed, _smooth(piece)) for piece, closed in pieces]

    def program(x: "Tensor") -> "Tensor":
        import torch

        value: Tensor | None = None
        for piece, closed, smooth in programs:
            # Every branch is evaluated on input clamped to its piece, so that torch.where never meets a bad branch.
            bounded = len(programs) > 1
            here = smooth(x.clamp(_float(piece.low), _float(piece.high)) if bounded else x)
            if value is None or piece.low is None:
                value = here
            else:
                edge = float(piece.low)
                value = torch.where(x >= edge if closed else x > edge, here, value)
        assert value is not None
        return value

    return program


def _float(edge: Fraction | None) -> float | None:
    return None if edge is None else float(edge)


def _smooth(piece: Piece) -> Callable[["Tensor"], "Tensor"]:
    side = -1 if piece.high is not None and piece.high <= 0 else 1
    scaled = _scale(piece.f, side)

    def program(x: "Tensor") -> "Tensor":
        value = scaled.materialise(_Point(x if side > 0 else -x))
        # A constant piece is a number: it still takes the shape of x, and a gradient of zero.
        return value + 0 * x if isinstance(value, float) else value

    return program


@dataclass(frozen=True)
class _Knee:
    x: float
    slope: float


def _knee(program: Callable[["Tensor"], "Tensor"], side: int) -> _Knee | None:
    """Return where |f| or |f'| first reaches 2^64 on one side, to a double, or None within |x| < 2^63."""
    import torch

    def value_and_slope(y: float) -> tuple[float, float]:
        x = torch.tensor(side * y, dtype=torch.float64, requires_grad=True)
        value = program(x)
        return float(value.detach()), float(torch.autograd.grad(value, x)[0])

    def beyond(y: float) -> bool:
        return not all(abs(v) < KNEE for v in value_and_slope(y))

    low, high = 0.0, 1.0
    while not beyond(high):
        low, high = high, 2 * high
        if high >= 2.0**63:
            return None
    while high - low > 2.0**-40 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return _Knee(side * low, value_and_slope(low)[1])


def _place(knee: _Knee | None) -> float | None:
    return None if knee is None else knee.x


def _with_knees(
    program: Callable[["Tensor"], "Tensor"], left: _Knee | None, right: _Knee | None
) -> Callable[["Tensor"], "Tensor"]:
    if left is None and right is None:
        return program

    def continued(x: "Tensor") -> "Tensor":
        value = program(x.clamp(_place(left), _place(right)))
        # Each clamp has a gradient of exactly zero inside: 2^64 - 2^64 would leave rounding errors there.
        if left:
            value = value + left.slope * (x - left.x).clamp(max=0)
        if right:
            value = value + right.slope * (x - right.x).clamp(min=0)
        return value

    return continued


# --- the normal form --------------------------------------------------------------------------------------------------


class _Point:
    """One evaluation: y >= 0 on a side of 0 (or any x where no exponential occurs), each exponential computed once."""

    def __init__(self, y: "Tensor") -> None:
        self.y = y
        self._exponentials: dict[Polynomial, Tensor] = {}

    def exp(self, rate: Polynomial) -> "Tensor":
        if rate not in self._exponentials:
            exponent = self.polynomial(rate)
            assert not isinstance(exponent, float)
            self._exponentials[rate] = exponent.exp()
        return self._exponentials[rate]

    def polynomial(self, coefficients: Polynomial) -> "Tensor | float":
        """Return the value at y by Horner's rule; a plain float where it is constant."""
        if len(coefficients) <= 1:
            return float(coefficients[0]) if coefficients else 0.0
        leading, *others = reversed(coefficients)
        value: Tensor | float = float(leading)
        for coefficient in others:
            value = self.y if isinstance(value, float) and value == 1.0 else self.y * value
            value = value + float(coefficient) if coefficient else value
        return value


@dataclass(frozen=True)
class _Scaled:
    """exp(rate(y)) * (line(y) + rest); `rate` has no constant term; rest is None where it is zero."""

    rate: Polynomial
    line: Polynomial
    rest: Rest | None = None

    def bare(self, point: _Point) -> "Tensor | float":
        """Return line(y) + rest."""
        if self.rest is None:
            return point.polynomial(self.line)
        return self.rest(point) + point.polynomial(self.line) if self.line else self.rest(point)

    def materialise(self, point: _Point) -> "Tensor | float":
        """Return the value itself."""
        return point.exp(self.rate) * self.bare(point) if self.rate else self.bare(point)


def _trim(coefficients: list[Fraction]) -> Polynomial:
    while coefficients and not coefficients[-1]:
        coefficients = coefficients[:-1]
    return tuple(coefficients)


def _add(a: Polynomial, b: Polynomial) -> Polynomial:
    return _trim([p + q for p, q in zip_longest(a, b, fillvalue=Fraction(0))])


def _times(a: Polynomial, factor: Fraction) -> Polynomial:
    return _trim([factor * c for c in a])


def _constant(node: Expr) -> float:
    return float(enclose(node, Fraction(0), 256))


def _scale(node: Expr, side: int) -> _Scaled:
    """Bring a smooth formula to the normal form on the side x = side * y."""
    head, args = node.head, node.args
    if head == "number":
        return _Scaled((), _trim([args[0]]))
    if not node.depends_on_x:
        exact = exact_value(node, Fraction(0))
        value = _constant(node)
        return _Scaled((), _trim([exact])) if exact is not None else _Scaled((), (), lambda _: value)
    if head == "x":
        return _Scaled((), (Fraction(0), Fraction(side)))
    if head == "erfc":
        return _erfc(args[0], side)
    if head == "+" and (conjugate := _conjugate(node, side)) is not None:
        return conjugate
    parts = [_scale(child, side) for child in node.children if head != "**"]
    match head:
        case "+":
            return reduce(_sum, parts)
        case "*":
            return reduce(_product, parts)
        case "**":
            return _power(_scale(args[0], side), args[1])
        case "exp":
            return _exp(parts[0])
        case "log":
            return _log(parts[0])
        case "atan":
            return _atan(parts[0])
    return _plain(head, parts)


def _sum(a: _Scaled, b: _Scaled) -> _Scaled:
    """Add, pulling the faster-growing exponential out."""
    if tuple(reversed(_padded(a.rate, b.rate))) < tuple(reversed(_padded(b.rate, a.rate))):
        a, b = b, a
    if a.rate == b.rate:
        return _Scaled(a.rate, _add(a.line, b.line), _plus(a.rest, b.rest))
    lower = _Scaled(_add(b.rate, _times(a.rate, Fraction(-1))), b.line, b.rest)
    return _Scaled(a.rate, a.line, _plus(a.rest, lower.materialise))


def _conjugate(node: Expr, side: int) -> _Scaled | None:
    """sqrt(g) - h = (g - h^2) / (sqrt(g) + h) where g - h^2 is a number and the two cancel far out on this side."""
    root = next((t for t in node.args if any(map(_is_root, t.args if t.head == "*" else (t,)))), None)
    if root is None or not root.depends_on_x:
        return None
    rest = reduce(add, (term for term in node.args if term is not root))
    square = reduce(mul, (t.args[0] if _is_root(t) else t**2 for t in (root.args if root.head == "*" else (root,))))
    form = as_rational(square - rest**2)
    if form is None or form.numerator.degree() > 0 or form.denominator.degree() > 0 or form.constant.number != 1:
        return None
    if sign_at(root, _FAR * side) == sign_at(rest, _FAR * side):
        return None
    number = Fraction(str(form.numerator[0] / form.denominator[0]))
    return _product(_Scaled((), _trim([number])), _power(_scale(root - rest, side), Expr.of(-1)))


def _is_root(node: Expr) -> bool:
    return node.head == "**" and node.args[1].number == Fraction(1, 2)


def _padded(a: Polynomial, b: Polynomial) -> Polynomial:
    return a + (Fraction(0),) * max(0, len(b) - len(a))


def _plus(a: Rest | None, b: Rest | None) -> Rest | None:
    if a is None or b is None:
        return a or b
    return lambda point: a(point) + b(point)


def _product(a: _Scaled, b: _Scaled) -> _Scaled:
    rate = _add(a.rate, b.rate)
    for one, other in ((a, b), (b, a)):
        if one.rest is None and len(one.line) <= 1:
            factor = one.line[0] if one.line else Fraction(0)
            return _Scaled(rate, _times(other.line, factor), _multiple(other.rest, factor))
    # Products of polynomials stay products: expanding (1 - x)**2 would cancel near x = 1.
    return _Scaled(rate, (), lambda point: a.bare(point) * b.bare(point))


def _multiple(rest: Rest | None, factor: Fraction) -> Rest | None:
    if rest is None or not factor:
        return None
    number = float(factor)
    return lambda point: rest(point) * number


def _power(base: _Scaled, exponent: Expr) -> _Scaled:
    n = exponent.number
    if n is None or n.denominator != 1:
        q = _constant(exponent)
        rate = _times(base.rate, n) if n is not None else ()
        body = base.bare if n is not None else base.materialise
        return _Scaled(rate, (), lambda point: body(point) ** q)
    rate = _times(base.rate, n)
    if n == -1 and len(base.line) == 1:
        return _reciprocal(base, rate)
    if base.rest is None and len(base.line) == 1:
        return _Scaled(rate, (base.line[0] ** int(n),))
    if n < -1:
        return _power(_power(base, Expr.of(-1)), Expr.of(-n))
    return _Scaled(rate, (), lambda point: base.bare(point) ** int(n))


def _reciprocal(base: _Scaled, rate: Polynomial) -> _Scaled:
    """1/(c + r) = 1/c - r/(c (c + r)): the exact part stays exact, so that 1 - 1/(1 + T) keeps its digits."""
    c, rest = base.line[0], base.rest
    if rest is None:
        return _Scaled(rate, (1 / c,))
    number = float(c)

    def below(point: _Point) -> "Tensor | float":
        r = rest(point)
        return -r / (number * (number + r))

    return _Scaled(rate, (1 / c,), below)


def _exp(inner: _Scaled) -> _Scaled:
    if inner.rate:
        return _Scaled((), (), lambda point: _tensor_call("exp", inner.materialise(point)))
    rate = _trim([Fraction(0), *inner.line[1:]])
    constant, rest = (inner.line[0] if inner.line else Fraction(0)), inner.rest
    if rest is None:
        if not constant:
            return _Scaled(rate, (Fraction(1),))
        number = _constant(Expr("exp", (Expr.of(constant),)))
        return _Scaled(rate, (), lambda _: number)
    return _Scaled(rate, (), lambda point: _tensor_call("exp", rest(point) + float(constant)))


def _log(inner: _Scaled) -> _Scaled:
    """log(exp(rate) (c + r)) = rate + log c + log1p(r / c); without an exact part, rate + log r."""
    rest = inner.rest
    if len(inner.line) == 1 and inner.line[0] > 0:
        c = inner.line[0]
        offset, number = _constant(Expr("log", (Expr.of(c),))), float(c)
        if rest is None:
            return _Scaled((), inner.rate, lambda _: offset) if offset else _Scaled((), inner.rate)

        def above(point: _Point) -> "Tensor | float":
            value = _tensor_call("log1p", rest(point) / number)
            return value + offset if offset else value

        return _Scaled((), inner.rate, above)
    return _Scaled((), inner.rate, lambda point: _tensor_call("log", inner.bare(point)))


def _atan(inner: _Scaled) -> _Scaled:
    """atan(exp(rate) b) = atan2(b, exp(-rate)): no exponential that grows."""
    if not inner.rate or inner.rate[-1] < 0:
        return _plain("atan", [inner])
    falling = _times(inner.rate, Fraction(-1))

    def apply(point: _Point) -> "Tensor | float":
        import torch

        below = point.exp(falling)
        return torch.atan2(inner.bare(point) + 0 * below, below)

    return _Scaled((), (), apply)


def _erfc(argument: Expr, side: int) -> _Scaled:
    """erfc(k y) = exp(-k^2 y^2) erfcx(k y) for k > 0, and 2 minus that for k < 0."""
    slope = argument.diff()
    if slope.depends_on_x or exact_value(argument, Fraction(0)) != 0:
        return _plain("erfc", [_scale(argument, side)])
    k = _constant(slope) * side
    square = exact_value(slope**2, Fraction(0)) or Fraction(_constant(slope) ** 2)
    gaussian = _Scaled((Fraction(0), Fraction(0), -square), (), lambda point: _tensor_call("erfcx", point.y * abs(k)))
    if k > 0:
        return gaussian
    return _sum(_Scaled((), (Fraction(2),)), _product(_Scaled((), (Fraction(-1),)), gaussian))


def _plain(head: str, parts: list[_Scaled]) -> _Scaled:
    """A function that needs no care: evaluate the arguments, apply torch's own."""

    def apply(point: _Point) -> "Tensor | float":
        values = [part.materialise(point) + 0 * point.y for part in parts]
        if head in ("max", "min"):
            import torch

            return reduce(torch.maximum if head == "max" else torch.minimum, values)
        return _tensor_call(head, values[0])

    return _Scaled((), (), apply)


def _tensor_call(name: str, value: "Tensor | float") -> "Tensor | float":
    import torch

    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "exp": torch.exp, "log": torch.log, "log1p": torch.log1p, "atan": torch.atan, "sin": torch.sin,
        "cos": torch.cos, "erfc": torch.special.erfc, "erfcx": torch.special.erfcx,
    }  # fmt: skip
    if isinstance(value, float):
        return float(functions[name](torch.tensor(value, dtype=torch.float64)))
    return functions[name](value)
