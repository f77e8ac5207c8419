"""Formulas with kinks at logarithms and roots, maxima and clipped forms of the catalogue, and what is true of them.

The truth is numeric and comes from NumPy and mpmath: a proved claim must hold at samples that are dense around every
kink, and a refutation must show at its witness. A claim left unknown is counted, and is never wrong.
"""

__all__ = ["Kinked", "faults", "kinked"]

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any

import mpmath as mp
import numpy as np
from scipy import special

from gpo_theory.catalogue import LOSSES
from tests.support.oracle import evaluate, number, precision_for

NAMES = tuple(LOSSES)
PLACES = ("log({q})", "-log({q})", "sqrt({n})", "-sqrt({n})/2", "log({q})/{n}", "pi/{n}", "1/sqrt({n})", "log(1+sqrt({n}))")
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in ("exp", "log", "log1p", "expm1", "sqrt", "tanh", "sinh", "cosh", "sin", "cos")},
    "abs": np.abs, "max": lambda *a: np.maximum.reduce(np.broadcast_arrays(*a)), "atan": np.arctan, "asinh": np.arcsinh,
    "min": lambda *a: np.minimum.reduce(np.broadcast_arrays(*a)), "sigmoid": special.expit, "erf": special.erf,
    "softplus": lambda u: np.logaddexp(0, u), "erfc": special.erfc, "log_ndtr": special.log_ndtr,
}  # fmt: skip


@dataclass(frozen=True)
class Kinked:
    """One formula; `places`: its irrational breakpoints as texts, as far as they are known by construction."""

    seed: int
    family: str
    formula: str
    places: tuple[str, ...] = ()


def kinked(seed: int) -> Kinked:
    """Return the formula of a seed: the same on every machine."""
    random = Random(seed)
    family = ("maximum", "clipped", "place", "touching")[seed % 4]
    formula, *places = _FAMILIES[family](random)
    return Kinked(seed, family, formula, tuple(places))


def _loss(random: Random) -> str:
    loss = LOSSES[random.choice(NAMES)]
    text = loss.formula
    for name, value in loss.parameters.items():
        text = re.sub(rf"\b{name}\b", f"({value})", text)
    return text


def _rational(random: Random) -> Fraction:
    return Fraction(random.randint(1, 40), random.choice((1, 2, 3, 5, 7, 10)))


def _maximum(random: Random) -> tuple[str, ...]:
    return (f"max({_loss(random)}, {_loss(random)})",)


def _clipped(random: Random) -> tuple[str, ...]:
    head = random.choice(("min", "max"))
    bound = random.choice((Fraction(2), Fraction(1), Fraction(1, 2), Fraction(1, 10), _rational(random)))
    return (f"{head}({_loss(random)}, {bound})",)


def _place(random: Random) -> tuple[str, ...]:
    at = random.choice(PLACES).format(q=random.choice((2, 3, 5, 9, "9/4", "1/7", "19/10")), n=random.choice((2, 3, 5, 7)))
    w = _rational(random)
    forms = (
        f"max(0, {at}-x)", f"abs(x-{at})", f"where(x < {at}, (x-{at})**2, 0)", f"max(0, {at}-x)**2", f"where(x <= {at}, {w}, 0)",
        f"{w}*max(0, {at}-x)**3", f"max(0, {at}-x) + log(1+exp(-x))", f"max({at}-x, ({at}-x)/4)", f"min(2, max(0, {at}-x))",
        f"where(x < {at}, {at}-x, 0)", f"where(x < {at}, exp({at}-x), 1)", f"where(x < {at}, 1-x+{at}, exp({at}-x))",
        f"exp(-min(x, {at}))", f"where(x > {at}, 0, ({at}-x)/{w})", f"log(1+exp(max(-x, -{at})))", f"abs(x-{at}) + abs(x+{at})",
        f"where(abs(x) < abs({at}), x**2, ({at})**2)", f"max(0, ({at})**2-x**2)", f"max(x**2-({at})**2, 0)",
        f"where(x < {at}, {w}-x, {w}-2*x+{at})", f"max(0, {at}-x, {w}*({at}-x))", f"max(exp(-x), {w})", f"where(x < {at}, -x, x)",
    )  # fmt: skip
    return random.choice(forms), at


def _touching(random: Random) -> tuple[str, ...]:
    f, k = _loss(random), random.choice((1, 2, 4, 6))
    gap = f"1/{10**k}"
    forms = (
        f"max({f}, {f}-{gap}*(1+x**2))", f"max({f}, {f}-{gap}-sigmoid(x))", f"min({f}, {f}+{gap}*exp(x)+{gap})",
        "max(exp(-x), 1-x)", "max(log(1+exp(-x)), log(2)-x/2)", f"max((x-1)**2, 1-2*x-{gap})", f"max(exp(-x), 1-{gap}-x)",
        f"max(log(1+exp(-x)), log(2)-x/2-{gap})", "max(log(1+exp(-x)), -x)", "max((x**2-2)**2, 0)", f"max(exp(-x)-1+x, {gap})",
        f"max(exp(-x), 1-x+{gap})", f"max(log(1+exp(-x)), log(2)-x/2+{gap})", f"max({f}, {f}+{gap}*(x**2-2))",
    )  # fmt: skip
    return (random.choice(forms),)


_FAMILIES: dict[str, Callable[[Random], tuple[str, ...]]] = {
    "maximum": _maximum, "clipped": _clipped, "place": _place, "touching": _touching,
}  # fmt: skip


# --- what is true ----------------------------------------------------------------------------------------------------


def values(formula: str, x: np.ndarray) -> np.ndarray:
    """Return the values in doubles, not finite where these fail."""
    with np.errstate(all="ignore"):
        found = eval(formula, {"x": x, "pi": np.pi, "e": np.e, "where": np.where, **FUNCTIONS})  # noqa: S307
        return np.broadcast_to(np.asarray(found, dtype=float), x.shape)


def _grid(case: Kinked) -> np.ndarray:
    base = np.unique(np.concatenate([np.linspace(-12, 12, 4801), np.linspace(-60, 60, 481)]))
    f = values(case.formula, base)
    with np.errstate(all="ignore"):
        bend = np.abs(f[2:] - 2 * f[1:-1] + f[:-2])
    rough = base[1:-1][np.argsort(-np.nan_to_num(bend))[:6]]
    exact = [float(evaluate(at, mp.nan)) for at in case.places]
    around = np.concatenate([s * np.geomspace(1e-5, 1e-1, 25) for s in (-1, 1)])
    return np.unique(np.concatenate([base, *(c + around for c in (*rough, *exact, *(-e for e in exact)))]))


def faults(case: Kinked, claims: Mapping[str, Any]) -> Iterator[str]:
    """Yield every claim (certificates by name) that the numbers contradict."""
    x = _grid(case)
    f = values(case.formula, x)
    good = np.isfinite(f) & (np.abs(f) < 1e8)
    x, f = x[good], f[good]
    noise = 1e-12 * (1 + np.abs(f))
    slope, room = np.diff(f) / np.diff(x), 2 * (noise[1:] + noise[:-1]) / np.diff(x)
    for name, claim in claims.items():
        verdict, value = claim.verdict.value, claim.value
        exact = None if value is None or value["exact"] is None else float(number(value["exact"]))
        if exact is not None and abs(exact - value["float"]) > 1e-12 * (1 + abs(exact)):
            yield f"{name}: {value}"
        if verdict == "proved" and not _holds(name, case.formula, x, f, slope, room, value):
            yield f"{name} proved {value}"
        if verdict == "refuted" and not _shown(name, case.formula, claim.witness):
            yield f"{name} refuted {claim.witness}"


def _holds(name: str, formula: str, x: np.ndarray, f: np.ndarray, slope: np.ndarray, room: np.ndarray, value: Any) -> bool:
    bound = None if value is None else value["float"]
    middle = (x[2:] - x[:-2]) / 2
    bend, loose = np.diff(slope) / middle, (room[1:] + room[:-1]) / middle
    match name:
        case "convex":
            return bool((bend >= -loose).all())
        case "strictly_convex":  # a flat or straight stretch of four samples in a row has no bend at all
            wide = np.abs(x[1:-1]) < 3
            return bool((bend >= -loose).all()) and not _straight(formula, x[1:-1][wide])
        case "strongly_convex":
            return bound > 0 and bool((bend >= bound * (1 - 1e-6) - loose).all())
        case "lipschitz":
            return bool((np.abs(slope) <= bound * (1 + 1e-6) + room).all())
        case "smooth":
            return bool((np.abs(bend) <= bound * (1 + 1e-3) + loose).all())
        case "bounded_below":
            return bound is None or (bool((f >= bound - 1e-7 * abs(bound) - 1e-11).all()) and _reached(formula, bound, x))
        case "monotone_decreasing":
            return bool((slope <= room).all())
        case "differentiable_at_zero":
            h = 1e-6
            left, here, right = values(formula, np.array([-h, 0.0, h]))
            return all(abs(s - bound) < 1e-3 * (1 + abs(bound)) for s in ((here - left) / h, (right - here) / h))
        case "bradley_terry_exact":
            h, at = 1e-5, np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
            down, up = (values(formula, s * at + h) - values(formula, s * at - h) for s in (1, -1))
            return bool((np.abs(np.log(up / down) - at / bound) < 1e-3).all())
        case "bayes_consistent":
            return all(_consistent(formula, theta) for theta in (0.05, 0.3, 0.7, 1.0))
    return True


def _straight(formula: str, x: np.ndarray) -> bool:
    """Whether f is affine between some neighbours at a distance, in 40 digits."""
    with mp.workdps(40):
        for a, b in list(pairwise(x[:: max(len(x) // 40, 1)])):
            ends = [evaluate(formula, mp.mpf(float(a)) + k * (mp.mpf(float(b)) - float(a)) / 4) for k in range(5)]
            if all(abs(u - 2 * v + w) < mp.mpf(10) ** -32 for u, v, w in zip(ends, ends[1:], ends[2:], strict=False)):
                return True
    return False


def _reached(formula: str, bound: float, x: np.ndarray) -> bool:
    """Whether values come near the infimum, on the grid or far out."""
    far = np.concatenate([s * np.geomspace(10, 1e12, 60) for s in (-1, 1)])
    x = np.unique(np.concatenate([x, far]))
    f = np.nan_to_num(values(formula, x), nan=np.inf)
    i = int(np.argmin(f))
    beside = values(formula, np.linspace(x[max(i - 1, 0)], x[min(i + 1, len(x) - 1)], 8001))
    least = min(f[i], np.nanmin(beside))
    return bool(least <= bound + 1e-5 * (1 + abs(bound)))


def _consistent(formula: str, theta: float) -> bool:
    """Whether the least risk on the right side is at most that on the wrong side."""
    x = np.unique(np.concatenate([np.linspace(0, 12, 4001), np.geomspace(1e-4, 300, 600)]))
    p = (1 + theta) / 2
    right = p * values(formula, x) + (1 - p) * values(formula, -x)
    wrong = p * values(formula, -x) + (1 - p) * values(formula, x)
    least = np.nanmin(right[1:])
    return bool(least <= np.nanmin(wrong) + 1e-9 * (1 + abs(least)))


def _shown(name: str, formula: str, witness: Mapping[str, str]) -> bool:
    """Whether a refutation shows at its witness, in 60 digits."""
    with mp.workdps(60):
        def f(at: Any) -> Any:
            return evaluate(formula, at)

        kind, step = witness["kind"], mp.mpf(10) ** -18
        if kind == "chord":
            a, b, t = (_real(witness[key]) for key in "abt")
            gap = f(t * a + (1 - t) * b) - t * f(a) - (1 - t) * f(b)
            return gap > 0 or (name != "convex" and gap > -mp.mpf(10) ** -50)
        if kind == "break":  # across the bracket f or f' changes by more than it does beside it
            low, high = _real(witness["low"]), _real(witness["high"])
            width = high - low
            jump = abs(f(high) - f(low)) > 1000 * (abs(f(high + width) - f(high)) + abs(f(low) - f(low - width)))
            left, right = (f(low) - f(low - step)) / step, (f(high + step) - f(high)) / step
            inner = abs((f(low) - 2 * f(low - width) + f(low - 2 * width)) / width)
            return jump or abs(right - left) > 100 * inner
        if kind == "kink":
            x = _real(witness["x"])
            left, right = (f(x) - f(x - step)) / step, (f(x + step) - f(x)) / step
            near = abs(left - number(witness["left"])) + abs(right - number(witness["right"]))
            return near < 1e-9 * (1 + abs(left) + abs(right)) and abs(left - right) > 1e-9 * abs(left)
        if kind == "point" and name == "monotone_decreasing":
            with mp.workdps(precision_for(Fraction(witness["x"]))):
                x = _real(witness["x"])
                return f(x + step) > f(x - step)
    return kind != "theta" or not _surely_consistent(formula, float(_real(witness["theta"])))


def _surely_consistent(formula: str, theta: float) -> bool:
    """Whether the wrong side is worse by far more than rounding at every sample, and does not fall without end."""
    x = np.unique(np.concatenate([np.linspace(0, 12, 4001), np.geomspace(1e-4, 1e6, 900)]))
    p, (ahead, behind) = (1 + theta) / 2, (values(formula, x), values(formula, -x))
    with np.errstate(all="ignore"):
        right, wrong = p * ahead + (1 - p) * behind, p * behind + (1 - p) * ahead
    before = wrong[np.searchsorted(x, 1e5)]
    if np.isfinite(wrong[-1]) and wrong[-1] < before - 1e-3 * (1 + abs(before)):  # then both infima are -inf
        return False
    return bool(np.nanmin(wrong) > np.nanmin(right[1:]) + 1e-3 * (1 + abs(np.nanmin(right[1:]))))


def _real(text: str) -> Any:
    value = Fraction(text)
    return mp.mpf(value.numerator) / value.denominator
