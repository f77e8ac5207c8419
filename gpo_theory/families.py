"""Families of losses to search: named ones at another beta, and pieces of -f' joined at 0 with a given strength."""

__all__ = ["candidates"]

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import floor

from gpo_theory.catalogue import LOSSES
from gpo_theory.formula import Expr, call
from gpo_theory.grammar import MAX_EXPONENT
from gpo_theory.loss import Loss
from gpo_theory.transforms import scaled
from gpo_theory.wishes import TailWish, Wish

X = Expr.x()
Piece = tuple[Expr, Expr]  # f on its side of 0, and its value at 0

# Named losses that are quick to analyse: R, the minimiser and c at their own beta, None where there is none.
_NAMED: dict[str, tuple[Fraction, Fraction | None, Fraction | None]] = {
    "logistic": (Fraction(1, 2), None, Fraction(1)),
    "exponential": (Fraction(1), None, Fraction(1, 2)),
    "squared": (Fraction(1), Fraction(1), None),
    "truncated_squared": (Fraction(1), Fraction(1), None),
    "hinge": (Fraction(0), Fraction(1), None),
    "unhinged": (Fraction(0), None, None),
    "savage": (Fraction(1, 2), None, Fraction(1)),
    "sigmoid": (Fraction(0), None, None),
}


def candidates(wish: Wish) -> Iterator[Loss]:
    """Yield losses that are built to grant a wish; whether they do is for their analysis to prove.

    >>> from fractions import Fraction
    >>> next(candidates(Wish(strength=Fraction(1)))).formula
    'log(1 + exp(-2*x))'
    """
    yield from _named(wish)
    yield from _exact(wish) if wish.exactness is not None else _joined(wish)


def _named(wish: Wish) -> Iterator[Loss]:
    """Named losses at the multiple of beta that gives the wished strength, target or c; a wrong guess is cheap."""
    for name, (R, target, c) in _NAMED.items():
        factors = [wish.strength / R if wish.strength and R else None,
                   target / wish.target if target and isinstance(wish.target, Fraction) else None,
                   c / wish.exactness if c and wish.exactness else None,
                   wish.right.number if wish.right and wish.right.kind == "exponential" and wish.strength is None
                   else None]  # fmt: skip
        wanted = [factor for factor in factors[:3] if factor is not None] or [factors[3] or Fraction(1)]
        agreed = len(set(wanted)) == 1
        missing = (wish.strength is not None and (R == 0) != (wish.strength == 0)) or (
            (target is None) == isinstance(wish.target, Fraction) and wish.target is not None) or (
            wish.exactness is not None and c is None)  # fmt: skip
        if agreed and not missing:
            yield LOSSES[name] if wanted[0] == 1 else scaled(LOSSES[name], wanted[0])


def _exact(wish: Wish) -> Iterator[Loss]:
    """Bradley-Terry exact: -f' = exp(-r x) on the right and exp((r - 1/c) x) on the left, joined at 0."""
    assert wish.exactness is not None
    k = 1 / wish.exactness
    right, left = (tail and tail.exponent for tail in (wish.right, wish.left))
    rates = [-right] if isinstance(right, Fraction) else []
    rates += [k - left] if isinstance(left, Fraction) else [k / 4, 3 * k / 2]
    for r in rates:
        if r >= 0:
            yield _made(_slide(k - r, left=True), _slide(r, left=False))


def _slide(rate: Fraction, left: bool) -> Piece:
    """-f' = exp(rate |x|) on the left, exp(-rate x) on the right; 1 at rate 0."""
    if rate == 0:
        return -X, Expr.of(0)
    body = call("exp", -rate * X) / rate
    return body, Expr.of(1 / rate)


def _joined(wish: Wish) -> Iterator[Loss]:
    """-f' = 1 at 0 with slope -R on either side, and the wished tails."""
    target = wish.target if isinstance(wish.target, Fraction) else None
    right = wish.right or TailWish("zero" if target else "exponential")
    R = wish.strength
    if R is None:
        R = 1 / target if target else Fraction(1, 2) * (right.number if right.kind == "exponential" and right.number
                                                        else Fraction(1))  # fmt: skip
    ahead = _to_target(R, target, right) if target else _ahead(R, right)
    behind = _behind(R, wish.left or TailWish("constant"))
    if ahead is not None and behind is not None:
        yield _made(behind, ahead)


def _made(left: Piece, right: Piece) -> Loss:
    """Join the pieces at 0, where the right one's value holds."""
    body = call("where", call("<", X, Expr.of(0)), left[0] + (right[1] - left[1]), right[0])
    return Loss(str(body), body, {}, "made to a wish")


def _to_target(R: Fraction, m: Fraction, tail: TailWish) -> Piece | None:
    """Return f on the right with its least value 0 at m: a polynomial, then what the tail asks."""
    rest = {"zero": Expr.of(0), "linear": call("max", Expr.of(0), X - m) ** 2 / (2 * m),
            "constant": call("max", Expr.of(0), X - m)}.get(tail.kind)  # fmt: skip
    a = floor(R * m)
    if rest is None or a + 2 > MAX_EXPONENT:
        return None
    if a >= 1:  # -f' = w t^a + (1-w) t^(a+1) with t = 1 - x/m, whose slope at 0 is -(a + 1 - w)/m
        w, t = a + 1 - R * m, call("max", Expr.of(0), 1 - X / m)
        body = m * w / (a + 1) * t ** (a + 1) + m * (1 - w) / (a + 2) * t ** (a + 2)
        return body + rest, Expr.of(m * w / (a + 1) + m * (1 - w) / (a + 2))
    # -f' = 1 - R x - (1 - R m) (x/m)^2, which falls to 0 at m
    top = m - R * m**2 / 2 - (1 - R * m) * m / 3
    body = top - X + R / 2 * X**2 + (1 - R * m) / (3 * m**2) * X**3
    return call("where", call("<", X, Expr.of(m)), body, rest), Expr.of(top)


def _ahead(R: Fraction, tail: TailWish) -> Piece | None:
    """Return f on the right of 0 without a minimiser; at R = 0 the push stays 1 up to x = 1."""
    n = tail.number or Fraction(1)
    shift, curvature = (Fraction(1), None) if R == 0 else (Fraction(0), R)
    y = X - shift
    if tail.kind == "exponential" and curvature is not None and curvature != n:
        A = n / curvature - 1  # -f' = (1 + A)/(exp(n x) + A)
        scale = (1 + A) / (A * n)
        return scale * call("log", 1 + A * call("exp", -n * X)), scale * call("log", Expr.of(1 + A))
    if tail.kind == "exponential":
        body, start = call("exp", -n * y) / n, Expr.of(1 / n)
    elif tail.kind == "power":
        u = 1 + (curvature or Fraction(1)) / n * y
        a = (curvature or Fraction(1)) / n
        body, start = (-call("log", u) / a, Expr.of(0)) if n == 1 else (u ** (1 - n) / (a * (n - 1)),
                                                                        Expr.of(1 / (a * (n - 1))))  # fmt: skip
    elif tail.kind == "constant":
        if curvature is None:
            return -X, Expr.of(0)
        body, start = call("exp", -2 * R * X) / (4 * R) - X / 2, Expr.of(1 / (4 * R))
    else:
        return None
    if not shift:
        return body, start
    return call("where", call("<", X, Expr.of(shift)), start + shift - X, body), start + shift


def _behind(R: Fraction, tail: TailWish) -> Piece | None:
    """Return f on the left of 0, with value 0 there."""
    n, zero = tail.number or Fraction(1), Expr.of(0)
    parabola = R / 2 * X**2 - X
    match tail.kind:
        case "constant":
            far = -2 * X - 1 / (2 * R) if R else None
            return (-X if far is None else call("where", call("<", X, Expr.of(-1 / R)), far, parabola)), zero
        case "linear":
            flat = call("where", call("<", X, Expr.of(-1)), X**2 / 2 + Fraction(1, 2), -X)
            return (parabola if R else flat), zero
        case "polynomial" if n.denominator == 1 and 2 <= n < MAX_EXPONENT:
            return parabola + (-X) ** (n + 1) / (n + 1), zero
        case "exponential_growth" if R:
            a = min(Fraction(1), R / n)  # -f' = a exp(-n x) + 1 - a - (R - a n) x
            body = a / n * call("exp", -n * X) - (1 - a) * X + (R - a * n) / 2 * X**2
            return body, Expr.of(a / n)
        case "exponential_growth":
            return call("exp", -n * X) / n - n / 2 * X**2, Expr.of(1 / n)
        case "exponential":  # -f' = exp(n x) (1 - (R + n) x)
            top = 1 + (R + n) / n
            return -call("exp", n * X) / n * (top - (R + n) * X), Expr.of(-top / n)
        case "zero":  # -f' = (1 + x)^2 (1 - (R + 2) x) down to x = -1, with y = 1 + x: y^2 (R + 3) - y^3 (R + 2)
            y = call("max", zero, 1 + X)
            return -(R + 3) / 3 * y**3 + (R + 2) / 4 * y**4, Expr.of(-(R + 3) / 3 + (R + 2) / 4)
        case "power" if n > 1:  # -f' = (1 - x)^(-n-1) (1 - b x), b = R + n + 1
            b, u = R + n + 1, 1 - X
            return (b - 1) / n * u ** (-n) - b / (n - 1) * u ** (1 - n), Expr.of((b - 1) / n - b / (n - 1))
    return None
