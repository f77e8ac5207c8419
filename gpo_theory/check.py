"""The independent check of every verdict: high-precision arithmetic of its own, sharing no code with the provers.

It accepts a refutation by recomputing its witness, and a proof by failing to find what the proof excludes.
"""

__all__ = ["accepts"]

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import pairwise
from operator import add, ge, gt, le, lt, mul
from typing import Any

import mpmath

from gpo_theory.budget import spend
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.formula import Expr

DIGITS = 60
_SCALES = ("1e-8", "1e-5", "1e-3", "0.03", "0.5", "3", "20")
_FAR = ("1e2", "1e3", "1e4")
_CENTRES = ("-30", "-7.3", "-2.1", "-1", "-0.4", "0", "0.3", "1", "1.7", "2.9", "8.8", "30")
_MARGINS = ("0.001", "0.05", "0.3", "0.7", "1", "1.5", "3", "8", "30", "3000")
_COMPARED = {"<": lt, "<=": le, ">": gt, ">=": ge}
_FUNCTIONS = {"exp": mpmath.exp, "log": mpmath.log, "atan": mpmath.atan, "erfc": mpmath.erfc, "sin": mpmath.sin,
              "cos": mpmath.cos}  # fmt: skip


def accepts(f: Expr, certificate: Certificate) -> bool:
    """Whether the independent check accepts a proved or refuted certificate about a primitive formula."""
    refuted = certificate.verdict is Verdict.REFUTED
    check = _witnessed if refuted else _PROOFS[certificate.claim]
    try:
        with mpmath.workdps(DIGITS):
            return check(f, certificate)
    except (ArithmeticError, ValueError, TypeError):  # f is undefined or complex where the check looks
        return refuted and certificate.claim == "total"


def _number(text: Any) -> Any:
    fraction = Fraction(str(text))
    return mpmath.mpf(fraction.numerator) / fraction.denominator


def _evaluate(node: Expr, x: Any) -> Any:
    spend()
    match node.head:
        case "number":
            return _number(node.args[0])
        case "x":
            return x
        case "pi" | "e":
            return +mpmath.pi if node.head == "pi" else +mpmath.e
        case "where":
            return _evaluate(node.args[1] if _evaluate(node.args[0], x) else node.args[2], x)
    values = [_evaluate(child, x) for child in node.children]
    match node.head:
        case "+" | "*":
            return reduce(add if node.head == "+" else mul, values)
        case "**":
            n = node.args[1].number
            return values[0] ** (int(n) if n is not None and n.denominator == 1 else values[1])
        case "max" | "min":
            return max(values) if node.head == "max" else min(values)
        case "and" | "or":
            return all(values) if node.head == "and" else any(values)
    return _COMPARED[node.head](*values) if node.head in _COMPARED else _FUNCTIONS[node.head](values[0])


@lru_cache(maxsize=8)
def _values(f: Expr) -> dict[Any, Any]:
    """Return f on the grid of points that the searches share."""
    points = {c + k * mpmath.mpf(h) for c in _centres(f) for h in _SCALES for k in (-1, 0, 1)}
    return {x: _evaluate(f, x) for x in points}


@lru_cache(maxsize=8)
def _centres(f: Expr) -> tuple[Any, ...]:
    """Return where to look: everywhere a little, and at the numbers of the formula, where its pieces may meet."""
    numbers = {n.args[0] for n in f.walk() if n.head == "number" and n.args[0].denominator < 10**6}
    special = [_number(sign * n) for n in sorted(numbers, key=lambda n: (n.denominator, n))[-8:] for sign in (-1, 1)]
    return tuple(dict.fromkeys([*map(mpmath.mpf, _CENTRES), *special]))


def _slack(*values: Any) -> Any:
    return mpmath.mpf(10) ** (8 - DIGITS) * (1 + sum(abs(v) for v in values))


def _no_violated_chord(f: Expr, _: Certificate) -> bool:
    values = _values(f)
    for c in _centres(f):
        for h in map(mpmath.mpf, _SCALES):
            left, middle, right = values[c - h], values[c], values[c + h]
            if 2 * middle > left + right + _slack(left, middle, right):
                return False
    return True


def _never_rises(f: Expr, _: Certificate) -> bool:
    ordered = sorted(_values(f).items())
    return all(b <= a + _slack(a, b) for (_, a), (_, b) in pairwise(ordered))


def _changes_slowly(f: Expr, certificate: Certificate) -> bool:
    assert certificate.value is not None
    bound = mpmath.mpf(certificate.value["float"]) * (1 + mpmath.mpf("1e-9"))
    ordered = sorted(_values(f).items())
    return all(abs(b - a) <= bound * (y - x) + _slack(a, b) for (x, a), (y, b) in pairwise(ordered))


def _curvatures(f: Expr) -> list[Any]:
    """Return (f(c - h) + f(c + h) - 2 f(c)) / h^2, a mean of f'' around c."""
    values = _values(f)
    scales = [mpmath.mpf(h) for h in _SCALES]
    return [(values[c - h] + values[c + h] - 2 * values[c]) / h**2 for c in _centres(f) for h in scales]


def _bends_slowly(f: Expr, certificate: Certificate) -> bool:
    assert certificate.value is not None
    bound = mpmath.mpf(certificate.value["float"]) * (1 + mpmath.mpf("1e-9"))
    return all(abs(curvature) <= bound + mpmath.mpf("1e-20") for curvature in _curvatures(f))


def _bends_enough(f: Expr, certificate: Certificate) -> bool:
    assert certificate.value is not None
    modulus = mpmath.mpf(certificate.value["float"]) * (1 - mpmath.mpf("1e-9"))
    return all(curvature >= modulus - mpmath.mpf("1e-20") for curvature in _curvatures(f))


def _above_infimum(f: Expr, certificate: Certificate) -> bool:
    for side in (-1, 1):
        near, middle, far = (_evaluate(f, side * mpmath.mpf(x)) for x in _FAR)
        if middle < near - 1 and far < middle - 1:
            return False
    if certificate.value is None:
        return True
    value = certificate.value["float"]
    return bool(min(_values(f).values()) >= value - 1e-9 * (1 + abs(value)))


def _defined(f: Expr, _: Certificate) -> bool:
    return all(mpmath.isfinite(v) and mpmath.im(v) == 0 for v in _values(f).values())


def _risks(f: Expr, theta: Any) -> tuple[Any, Any]:
    """Return the least C_p found on the right side and on the wrong side (0 included)."""
    p = (1 + theta) / 2
    values = _values(f)
    points = [mpmath.mpf(c) * s for c in _MARGINS for s in (-1, 1)]
    value = {x: values[x] if x in values else _evaluate(f, x) for x in points}
    risk = {x: p * value[x] + (1 - p) * value[-x] for x in points}
    origin = _evaluate(f, mpmath.mpf(0))
    return min(v for x, v in risk.items() if x > 0), min([origin, *(v for x, v in risk.items() if x < 0)])


def _prefers_right_side(f: Expr, _: Certificate) -> bool:
    for theta in ("0.9", "0.5", "0.1"):
        right, wrong = _risks(f, mpmath.mpf(theta))
        # Both may tend to the same infimum far out: a real preference leaves a gap.
        if not wrong - right > mpmath.mpf("1e-6") * (1 + abs(wrong)):
            return False
    return True


def _obeys_identity(f: Expr, certificate: Certificate) -> bool:
    assert certificate.value is not None
    c = _number(certificate.value["exact"])
    for x in map(mpmath.mpf, ("0.3", "1.1", "2.7", "6")):
        behind, ahead = _slope(f, -x), _slope(f, x)
        if not ahead < 0 or abs(behind / ahead / mpmath.exp(x / c) - 1) > mpmath.mpf("1e-12"):
            return False
    return True


def _slope(f: Expr, x: Any) -> Any:
    h = mpmath.mpf(10) ** (-DIGITS // 3)
    return (_evaluate(f, x + h) - _evaluate(f, x - h)) / (2 * h)


def _bend(f: Expr, x: Any) -> Any:
    h = mpmath.mpf(10) ** (-DIGITS // 4)
    return (_slope(f, x + h) - _slope(f, x - h)) / (2 * h)


def _smooth_at_zero(f: Expr, certificate: Certificate) -> bool:
    left, right = _one_sided(f, mpmath.mpf(0))
    assert certificate.value is not None
    value = certificate.value["float"]
    return bool(max(abs(left - value), abs(right - value)) < 1e-9 * (1 + abs(value)))


def _one_sided(f: Expr, x: Any) -> tuple[Any, Any]:
    h = mpmath.mpf(10) ** (-DIGITS // 2)
    at = _evaluate(f, x)
    return (at - _evaluate(f, x - h)) / h, (_evaluate(f, x + h) - at) / h


_PROOFS: dict[str, Callable[[Expr, Certificate], bool]] = {
    "total": _defined,
    "convex": _no_violated_chord,
    "strictly_convex": _no_violated_chord,
    "strongly_convex": _bends_enough,
    "lipschitz": _changes_slowly,
    "smooth": _bends_slowly,
    "monotone_decreasing": _never_rises,
    "bounded_below": _above_infimum,
    "differentiable_at_zero": _smooth_at_zero,
    "bayes_consistent": _prefers_right_side,
    "bradley_terry_exact": _obeys_identity,
}


def _witnessed(f: Expr, certificate: Certificate) -> bool:
    witness = certificate.witness
    if witness is None:
        return False
    match witness["kind"]:
        case "chord":
            return _chord_holds(f, certificate.claim, *(_number(witness[k]) for k in ("a", "b", "t")))
        case "kink":
            return _kink_holds(f, certificate)
        case "theta":
            right, wrong = _risks(f, _number(witness["theta"]))
            return bool(right >= wrong - mpmath.mpf("1e-12") * (1 + abs(_evaluate(f, mpmath.mpf(0)))))
        case "point":
            return _point_holds(f, certificate, _number(witness["x"]))
    return False


def _kink_holds(f: Expr, certificate: Certificate) -> bool:
    """Whether f is continuous at the point with the two slopes that the witness names (falling, against convexity)."""
    witness = certificate.witness or {}
    left, right = _one_sided(f, _number(witness["x"]))
    named = all(abs(slope - mpmath.mpf(float(Fraction(witness[side])))) <= 1e-6 * (1 + abs(slope))
                for side, slope in (("left", left), ("right", right)) if _is_rational(witness[side]))  # fmt: skip
    if abs(left) > 1e9 or abs(right) > 1e9 or not named:
        return False
    return bool(left - right > 1e-9 if certificate.claim == "convex" else abs(left - right) > 1e-9)


def _is_rational(text: str) -> bool:
    return all(c in "+-0123456789./e" for c in text)


def _chord_holds(f: Expr, claim: str, a: Any, b: Any, t: Any) -> bool:
    ends = t * _evaluate(f, a) + (1 - t) * _evaluate(f, b)
    gap = _evaluate(f, t * a + (1 - t) * b) - ends
    # Strict convexity already fails where f touches its chord.
    return bool(gap > 0 if claim == "convex" else gap > -_slack(ends))


def _point_holds(f: Expr, certificate: Certificate, x: Any) -> bool:
    if certificate.claim == "total":
        value = _evaluate(f, x)
        return not mpmath.isfinite(value) or mpmath.im(value) != 0
    if certificate.claim == "bounded_below":
        return bool(_evaluate(f, x) < -1000)
    slope = _slope(f, x)
    # Across a jump the difference quotient exceeds any slope.
    if certificate.claim in ("differentiable_at_zero", "bradley_terry_exact") and abs(slope) > 1e9:
        return True
    if certificate.claim == "strongly_convex":
        return bool(_bend(f, x) < mpmath.mpf("1.001e-3"))
    if certificate.claim in ("lipschitz", "smooth"):
        # Large at the point is not enough: it must still be growing, unless f jumps there.
        measure = _slope if certificate.claim == "lipschitz" else _bend
        size = abs(measure(f, x))
        growing = size > 9999 and abs(measure(f, 2 * x)) > size * mpmath.mpf("1.01")
        return bool(growing or size > mpmath.mpf(10) ** 15)
    if certificate.claim == "bradley_terry_exact" and slope < -mpmath.mpf("1e-15"):
        rates = [mpmath.log(_slope(f, -y) / _slope(f, y)) / y for y in (mpmath.mpf(1), x)]
        # No c > 0 gives a rate that is not positive; otherwise two points must give two different c.
        return bool(rates[1] < 1e-15 or abs(rates[0] - rates[1]) > mpmath.mpf("1e-15") * (1 + abs(rates[0])))
    return bool(slope > 0 if certificate.claim == "monotone_decreasing" else slope >= -mpmath.mpf("1e-15"))
