"""Beta matching: the beta at which another loss regularises as strongly as the one whose beta is known."""

__all__ = ["BetaMatch", "convention", "match_beta"]

import math
from dataclasses import dataclass
from typing import Any

from gpo_theory.analysis import analyze
from gpo_theory.catalogue import find_loss
from gpo_theory.certificate import Verdict
from gpo_theory.errors import InputError
from gpo_theory.loss import Loss
from gpo_theory.series import taylor
from gpo_theory.strengths import strength

# f of IPO in each form; the margin's aggregation is the third part of the convention.
_CONVENTIONS = {
    "ipo": "ipo is (x-1)^2, x = beta rho, rho summed over tokens: (rho - 1/(2 tau))^2 with beta = 2 tau, up to scale",
    "squared": "squared is (x-1)^2, x = beta rho, rho summed over tokens: IPO with beta = 2 tau",
    "ipo-tau": "ipo-tau is (x-1/2)^2, x = tau rho, rho summed over tokens",
    "ipo_tau": "ipo_tau is (x-1/2)^2, x = tau rho, rho summed over tokens",
    "trl-ipo": "trl-ipo is (x-1/2)^2, x = beta rho, rho averaged over tokens",
}
AVERAGED = {"trl-ipo"}


@dataclass(frozen=True)
class BetaMatch:
    """The matched beta, or the reason why there is none; `matched` is beta R, equal on both sides."""

    source: str
    target: str
    beta_from: float
    beta_to: float | None
    matched: float | None
    order: str | None
    convention: str
    refusal: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"from": self.source, "to": self.target, "beta_from": self.beta_from, "beta_to": self.beta_to,
                "by": "strength", "matched": self.matched, "order": self.order, "convention": self.convention,
                "refusal": self.refusal}  # fmt: skip


def match_beta(source: str, target: str, beta: float, mean_length: float | None = None) -> BetaMatch:
    """Return beta_to with beta_from R_from = beta_to R_to, R = |f''(0)/f'(0)| (proposition P1').

    `source` and `target` are names, aliases or formulas. A length-averaged margin (trl-ipo) is about rho / N for mean
    response length N = `mean_length`, and is refused without it. Refused too where P1's hypotheses fail: f'(0) >= 0,
    f''(0) <= 0. Raises InputError for beta <= 0.

    >>> match_beta("dpo", "ipo", beta=0.1).beta_to
    0.05
    """
    for name, value in (("beta", beta), ("mean length", mean_length)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} {value!r} is not a positive number")
    losses = find_loss(source), find_loss(target)
    stated = "; ".join(convention(name) or f"{name}: x = beta rho, rho summed over tokens"
                       for name in dict.fromkeys((source, target)))  # fmt: skip
    averaged = (source in AVERAGED) != (target in AVERAGED)
    if mean_length is not None and not averaged:
        raise InputError("a mean length converts between a summed and a length-averaged margin (trl-ipo); "
                         f"{source!r} and {target!r} need none")  # fmt: skip
    reasons = [reason for loss in losses if (reason := _unmatchable(loss)) is not None]
    if averaged and mean_length is None:
        reasons.append("trl-ipo averages the margin over tokens: give --mean-length N, the mean response length")
    if reasons:
        return BetaMatch(source, target, beta, None, None, None, stated, "; ".join(dict.fromkeys(reasons)))
    r_from, r_to = (strength(loss).value or math.nan for loss in losses)
    scale = 1.0 if not averaged else (mean_length or 1.0) ** (1 if target in AVERAGED else -1)
    return BetaMatch(source, target, beta, beta * r_from / r_to * scale, beta * r_from, _order(losses), stated, None)


def convention(name: str) -> str | None:
    """Return which of IPO's forms a name means, or None for a loss that has one form only."""
    return _CONVENTIONS.get(name)


def _unmatchable(loss: Loss) -> str | None:
    first, r = taylor(loss, 1)[1], strength(loss)
    offer = "match the target margin at a given p instead"
    if first is None:
        return f"{loss.name} has a kink at 0, so its strength does not exist; {offer}"
    if first.value >= 0:
        return f"{loss.name} has f'(0) = {first.text} >= 0: it does not prefer the chosen response; {offer}"
    if r.value is None or r.sign is None:
        return f"the strength of {loss.name} is not known; {offer}"
    if r.sign < 0:
        return f"{loss.name} has f''(0) < 0: it does not regularise near 0; {offer}"
    if r.value == 0.0:
        return f"{loss.name} has R = 0: no beta of it regularises near 0; {offer}"
    if analyze(loss).link.slope_at_half is None:
        return f"{loss.name}: it is not shown that 0 alone minimises (f(x) + f(-x))/2; {offer}"
    return None


def _order(losses: tuple[Loss, Loss]) -> str:
    """Say how far the match holds: exactly for two Bradley-Terry exact losses, else to second order in the margin."""
    exact = all(analyze(loss).claims["bradley_terry_exact"].verdict is Verdict.PROVED for loss in losses)
    return "exact" if exact else "second"
