"""Beta matching: the beta of one loss that is equivalent, in a stated sense, to a known beta of another."""

__all__ = ["BetaMatch", "convention", "match_beta", "unmatchable"]

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import flint
import numpy as np
from flint import arb
from numpy.typing import NDArray

from gpo_theory.analysis import analyze
from gpo_theory.calculus.balls import UndecidedError, bisected, enclose
from gpo_theory.calculus.constants import as_double, exact, sign
from gpo_theory.calculus.pieces import Piece, UnsplitError, beside, clipped, joints, split
from gpo_theory.calculus.rational import sign_chart
from gpo_theory.calculus.series import taylor
from gpo_theory.calculus.strengths import strength
from gpo_theory.catalogue import AVERAGED, Named, find_loss
from gpo_theory.certificate import Verdict
from gpo_theory.choosing.pair_weights import crossings, mean_weight
from gpo_theory.errors import InputError, nearest
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_constant, parse_formula
from gpo_theory.loss import Loss
from gpo_theory.risk.links import NARROW, link_at

Number = str | float | Fraction
# The forms of IPO, and the name that means another loss in TRL: f, x, and how rho is aggregated over tokens.
_CONVENTIONS = Named({
    "ipo": "ipo is (x-1)^2, x = beta rho, rho summed over tokens: (rho - 1/(2 tau))^2 with beta = 2 tau, up to scale",
    "squared": "squared is (x-1)^2, x = beta rho, rho summed over tokens: IPO with beta = 2 tau",
    "ipo-tau": "ipo-tau is (x-1/2)^2, x = tau rho, rho summed over tokens",
    "ipo_tau": "ipo_tau is (x-1/2)^2, x = tau rho, rho summed over tokens",
    "trl-ipo": "trl-ipo is (x-1/2)^2, x = beta rho, rho averaged over tokens",
    "sigmoid": "sigmoid is 1/(1+exp(x)), x = beta rho, rho summed over tokens; what TRL calls sigmoid is dpo here",
})
BITS = 1024  # of the balls, so that a weight below 2^-1000 still has digits
SMALL = 2.0**-40  # relative difference of two weights that are taken for equal, about 1e-12
JUMP = 0.02  # by which a mean weight may jump at its beta, as that of the hinge does at each margin: chosen
# The search starts near 0, and not at a power of two: at round numbers a slope may vanish exactly.
NEAR = Fraction(1013, 1024) / 2**40


@dataclass(frozen=True)
class BetaMatch:
    """The matched beta, or the reason why there is none.

    `matched` is the quantity that is equal on both sides: beta R (by strength), the optimal margin rho* in nats (by
    target), or the weight f'(x)/f'(0) (by tail; by weight its mean). `order` says where the match holds: "exact" (at
    every p), "second" (to second order in the margin), "one_p", "one_margin" or "these_margins".
    """

    source: str
    target: str
    beta_from: float
    beta_to: float | None
    by: str
    matched: float | None
    order: str | None
    convention: str
    refusal: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"from": self.source, "to": self.target, "beta_from": self.beta_from, "beta_to": self.beta_to,
                "by": self.by, "matched": self.matched, "order": self.order, "convention": self.convention,
                "refusal": self.refusal}  # fmt: skip


class _RefusedError(Exception):
    """A match that would mean nothing; the message says why."""


def match_beta(
    source: str,
    target: str,
    beta: float,
    mean_length: float | None = None,
    *,
    by: str = "strength",
    p: Number | None = None,
    at: Number | None = None,
    margins: Sequence[float] | None = None,
) -> BetaMatch:
    """Return the beta of `target` that is equivalent to `beta` of `source`; both are names, aliases or formulas.

    by="strength": beta_from R_from = beta_to R_to with R = |f''(0)/f'(0)| (proposition P1').
    by="target": equal margin rho* = x*(p)/beta at the optimum of a pair preferred with probability 1/2 < `p` <= 1.
    by="tail": equal weight f'(beta rho)/f'(0) at the margin rho where beta_from rho = `at`, which is not 0.
    by="weight": equal mean of f'(beta rho_i)/f'(0) over `margins` rho_i in nats, those of one pair or of all pairs of a
    run; computed in floating point, with the solutions counted on a grid of betas (`crossings`).
    A length-averaged margin (trl-ipo) is about rho / N for mean response length N = `mean_length` in tokens. Refused
    (`refusal` says why) where the quantity does not exist, and for an averaged margin without N. Raises InputError for
    beta <= 0 and for `p`, `at` and `margins` out of range, missing or not needed.

    >>> match_beta("dpo", "ipo", beta=0.1).beta_to
    0.05
    >>> round(match_beta("dpo", "slic", beta=0.1, by="target", p="0.9").beta_to, 6)  # 0.1 / log(9)
    0.045512
    >>> round(match_beta("dpo", "ipo", beta=0.1, by="weight", margins=[5, 20]).beta_to, 6)
    0.040261
    """
    for name, value in (("beta", beta), ("mean_length", mean_length)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"`{name}={value}` is not a positive number")
    given = _given(by, p, at, None if margins is None else beta * np.asarray(margins, np.float64))
    losses = find_loss(source), find_loss(target)
    stated = "; ".join(convention(name) or f"{name}: x = beta rho, rho summed over tokens"
                       for name in dict.fromkeys((source, target)))  # fmt: skip
    scale, reasons = _of_length(source, target, mean_length)
    try:
        ratio, matched, order = _MATCHES[by](*losses, given)
    except _RefusedError as error:
        reasons.insert(0, str(error))
    if reasons:
        return BetaMatch(source, target, beta, None, by, None, None, stated, "; ".join(reasons))
    matched = matched * beta if by == "strength" else matched / beta if by == "target" else matched
    beta_to = beta * ratio * scale
    if not (0 < beta_to < math.inf and math.isfinite(matched)):
        raise InputError(f"beta {beta!r} takes the match beyond the range of floating point")
    return BetaMatch(source, target, beta, beta_to, by, matched, order, stated, None)


def _of_length(source: str, target: str, mean_length: float | None) -> tuple[float, list[str]]:
    """Return the factor of beta between a summed and a length-averaged margin, and what it needs that is missing."""
    if (source in AVERAGED) == (target in AVERAGED):
        if mean_length is not None:
            raise InputError(f"`mean_length={mean_length}` converts between a summed and a length-averaged margin "
                             f"(trl-ipo); {source!r} and {target!r} need none")  # fmt: skip
        return 1.0, []
    if mean_length is None:
        return 1.0, ["trl-ipo averages the margin over tokens: give `mean_length=N`, the mean response length"]
    return mean_length ** (1 if target in AVERAGED else -1), []


def convention(name: str, margin: str | None = None) -> str | None:
    """Return the definition behind a name that has several in the field (IPO, sigmoid), or None for any other name.

    `margin`, "sum" or "mean", is how a run aggregated its log-ratios over tokens, where that is known.

    >>> convention("ipo-tau", "mean")
    'ipo-tau is (x-1/2)^2, x = tau rho, rho averaged over tokens'
    """
    text = _CONVENTIONS.get(name)
    return text.replace("rho summed", "rho averaged") if text and margin == "mean" else text


def _given(by: str, p: Number | None, at: Number | None, scaled: NDArray[np.float64] | None) -> Any:
    """Return the probability or the scaled margins at which to match, checked against what `by` needs."""
    if by not in _MATCHES:
        raise InputError(f"cannot match by {by!r}; allowed: {', '.join(_MATCHES)}{nearest(by, _MATCHES)}")
    for mode, name, value, meaning in (
        ("target", "p", p, "the probability of the preferred response: 0.9, say"),
        ("tail", "at", at, "the scaled margin beta_from rho: 5, say"),
        ("weight", "margins", scaled, "those of pairs in nats: 10, say"),
    ):
        if (value is not None) != (by == mode):
            raise InputError(f"matching by {mode} needs {name}, {meaning}" if by == mode else
                             f"{name} = {value} is used by {mode!r}, not by {by!r}")  # fmt: skip
    if scaled is not None:
        if scaled.ndim != 1 or not np.isfinite(scaled).all() or not scaled.any():
            raise InputError("margins are finite numbers, not all 0")
        return scaled
    if by == "strength":
        return None
    text = str(p if by == "target" else at)
    number = parse_formula(text).primitive().number
    if by == "target" and (number is None or not Fraction(1, 2) < number <= 1):
        raise InputError(f"p = {text} is not a number with 1/2 < p <= 1, the probability of the preferred response")
    if by == "tail" and not number:
        raise InputError(f"at = {text} is not a number other than 0, the scaled margin beta_from rho")
    return number


def _by_strength(source: Loss, target: Loss, _: Fraction | None) -> tuple[float, float, str]:
    reasons = [reason for loss in (source, target) if (reason := unmatchable(loss)) is not None]
    if reasons:
        raise _RefusedError("; ".join(dict.fromkeys(reasons)) + _offer(source, target))
    r_from, r_to = (exact(parse_constant(strength(loss).exact or "nan")) for loss in (source, target))
    return as_double(r_from / r_to), as_double(r_from), "exact" if _exact(source) and _exact(target) else "second"


def _offer(source: Loss, target: Loss) -> str:
    """Return the advice to match by target, where that can be done."""
    try:
        _by_target(source, target, Fraction(9, 10))
    except _RefusedError:
        return ""
    return "; match the margin that is best at a given p instead, as `by='target'` and `p='0.9'` do"


def unmatchable(loss: Loss, seconds: float = 40.0) -> str | None:
    """Return which hypothesis of proposition P1 fails, or is not shown in `seconds` of CPU time; None if all hold.

    >>> from gpo_theory.catalogue import LOSSES
    >>> unmatchable(LOSSES["hinge"])
    'hinge has R = 0: no beta of it regularises near 0'
    """
    slope = _no_slope(loss)
    if slope is not None:
        return slope
    r = strength(loss)
    if r.value is None or r.sign is None:
        return f"the strength of {loss.name} is not known"
    if r.sign < 0:
        return f"{loss.name} has f''(0) < 0: it does not regularise near 0"
    if r.sign == 0:
        return f"{loss.name} has R = 0: no beta of it regularises near 0"
    if analyze(loss, seconds).link.slope_at_half is None:
        return f"{loss.name}: it is not shown that 0 alone minimises (f(x) + f(-x))/2"
    return None


def _no_slope(loss: Loss) -> str | None:
    first = taylor(loss, 1)[1]
    if first is None:
        return f"{loss.name} has a kink at 0, so f'(0) does not exist"
    if sign(first.exact) != -1:
        return f"{loss.name} has f'(0) = {first.text} >= 0: it does not prefer the chosen response"
    return None


def _exact(loss: Loss) -> bool:
    return analyze(loss).claims["bradley_terry_exact"].verdict is Verdict.PROVED


def _by_target(source: Loss, target: Loss, p: Fraction | None) -> tuple[float, float, str]:
    assert p is not None
    x_from, x_to = _target_margin(source, p), _target_margin(target, p)
    return x_to / x_from, x_from, "exact" if _exact(source) and _exact(target) else "one_p"


def _target_margin(loss: Loss, p: Fraction) -> float:
    """Return x*(p), the one minimiser of C_p, where it is above 0 and finite."""
    proof = analyze(loss).claims["bradley_terry_exact"]
    if proof.verdict is Verdict.PROVED and proof.value is not None and p < 1:
        return math.log1p((2 * p - 1) / (1 - p)) * float(proof.value["float"])
    found = link_at(loss, p)
    if found is None:
        raise _RefusedError(f"the target of {loss.name} at p = {p} is not certified")
    low, high = found
    if low == math.inf:
        raise _RefusedError(f"{loss.name} has no finite target at p = {p}: its expected loss has no minimum")
    if high == math.inf or high - low > NARROW * (abs(low) + abs(high)):
        raise _RefusedError(f"{loss.name} has no single target at p = {p}: its margins lie in [{low:.6g}, {high:.6g}]")
    if low <= 0:
        raise _RefusedError(f"{loss.name} has the target {high:.3g} at p = {p}: it is not above 0")
    return (low + high) / 2


def _by_tail(source: Loss, target: Loss, at: Fraction | None) -> tuple[float, float, str]:
    assert at is not None
    _refuse_without_slope(source, target)
    weight, there = _weight(source, at), _slope(source)
    if not there(at, -1).overlaps(there(at, 1)):
        raise _RefusedError(f"{source.name} has a kink at x = {at}, so its weight there does not exist")
    if not weight > 0:
        raise _RefusedError(f"the weight of {source.name} at x = {at} is not above 0")
    side = 1 if at > 0 else -1
    if not _slope_rises(target, side):
        raise _RefusedError(f"{target.name} is not shown to be convex on that side of 0: several margins may have the "
                            "same weight")  # fmt: skip
    # With |x| the weight rises for x < 0 and falls for x > 0.
    bracket = _crossing(lambda y: (weight - _weight(target, side * y)) * side)
    # A slope that jumps over the weight never equals it.
    if bracket is None or not abs(_weight(target, side * bracket[0]) - weight) < SMALL * weight:
        raise _RefusedError(f"no single margin of {target.name} has the weight {float(weight):.6g} "
                            f"that {source.name} has at x = {at}")  # fmt: skip
    return float(bracket[1] / abs(at)), float(weight), "one_margin"


def _by_weight(source: Loss, target: Loss, scaled: NDArray[np.float64]) -> tuple[float, float, str]:
    """Match the mean weight over scaled margins of the source."""
    _refuse_without_slope(source, target)
    wanted, weight = mean_weight(source, scaled)(1.0), mean_weight(target, scaled)
    if not wanted > 0:
        raise _RefusedError(f"the mean weight of {source.name} over these margins, {wanted:.6g}, is not above 0")
    found = crossings(weight, wanted, 1.0)
    if not found:
        raise _RefusedError(f"no beta gives {target.name} the mean weight {wanted:.6g} that {source.name} has")
    if len(found) > 1:
        ratios = " and ".join(f"{low:.6g}" for low, _ in found)
        raise _RefusedError(f"{target.name} has the mean weight {wanted:.6g} at several betas, {ratios} times that of "
                            f"{source.name}")  # fmt: skip
    ((low, high),) = found
    if not abs(weight(low) - weight(high)) <= JUMP:
        raise _RefusedError(f"the mean weight of {target.name} jumps from {weight(low):.6g} to {weight(high):.6g} at "
                            f"{low:.6g} times the beta of {source.name}, over {wanted:.6g}")  # fmt: skip
    return low, wanted, "these_margins"


def _refuse_without_slope(*losses: Loss) -> None:
    reason = next(filter(None, map(_no_slope, losses)), None)
    if reason is not None:
        raise _RefusedError(reason)


def _weight(loss: Loss, x: Fraction) -> arb:
    """Return f'(x)/f'(0), from the right where f' jumps."""
    slope = _slope(loss)
    with flint.ctx.workprec(BITS):
        return slope(x, 1) / slope(Fraction(0), 1)


_MATCHES: dict[str, Callable[[Loss, Loss, Any], tuple[float, float, str]]] = {
    "strength": _by_strength, "target": _by_target, "tail": _by_tail, "weight": _by_weight,
}  # fmt: skip


def _slope_rises(loss: Loss, side: int) -> bool:
    """Whether f' is shown never to fall for all x on one side of 0 (side -1 or 1)."""
    if analyze(loss).claims["convex"].verdict is Verdict.PROVED:
        return True
    f = loss.f.primitive()
    ahead = f if side > 0 else substitute(f, {Expr.x(): -Expr.x()})
    ray = [piece for piece in clipped(split(ahead), Fraction(0), None) if not piece.is_point]
    charts = [sign_chart(piece.f.diff().diff(), piece.low, piece.high) for piece in ray]
    if any(chart is None or not chart.defined or -1 in chart.signs for chart in charts):
        return False
    return all(joint.continuous is True and joint.bend in (0, 1) for joint in joints(split(ahead)) if joint.x > 0)


def _pieces(loss: Loss) -> tuple[Piece, ...]:
    try:
        return split(loss.f.primitive())
    except UnsplitError as error:
        raise _RefusedError(f"the pieces of {loss.name} are not known exactly: {error}") from None


@lru_cache(maxsize=16)
def _slope(loss: Loss) -> Callable[[Fraction, int], arb]:
    """Return f' as a function of x and of the side from which it is taken."""
    slopes = [replace(piece, f=piece.f.diff()) for piece in _pieces(loss)]

    def slope(x: Fraction, side: int) -> arb:
        return enclose(beside(slopes, x, side).f, x, BITS)

    return slope


def _crossing(rising: Callable[[Fraction], arb]) -> tuple[Fraction, Fraction] | None:
    """Return a bracket around the one y > 0 where a function that never falls passes from below 0 to above it.

    None where it does not, or where it stays at 0 on an interval.
    """

    def sign(y: Fraction) -> int | None:
        with flint.ctx.workprec(BITS):
            value = rising(y)
        return 1 if value > 0 else -1 if value < 0 else None

    signs = [(y, sign(y)) for y in (NEAR * 2**k for k in range(81))]
    low = max((y for y, s in signs if s == -1), default=None)
    high = min((y for y, s in signs if s == 1), default=None)
    if low is None or high is None:
        return None
    try:
        return bisected(sign, -1, low, high, lambda y: y / 2**60)
    except UndecidedError:
        return None
