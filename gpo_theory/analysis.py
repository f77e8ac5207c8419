"""Everything about one loss: derived, proved and independently checked, in one value."""

__all__ = ["analyze", "implied_probability"]

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from gpo_theory.budget import in_time, limited
from gpo_theory.calculus.constants import exact, text
from gpo_theory.calculus.samples import unit
from gpo_theory.calculus.series import taylor
from gpo_theory.calculus.strengths import Strength, strength
from gpo_theory.calculus.tails import UNKNOWN, Tail, tails_of
from gpo_theory.catalogue import find_loss
from gpo_theory.certificate import CLAIMS, Certificate, Verdict, unknown
from gpo_theory.claims.bayes_consistency import bayes_consistent
from gpo_theory.claims.bradley_terry import bradley_terry_exact
from gpo_theory.claims.convexity import convex, strictly_convex
from gpo_theory.claims.lower_bounds import bounded_below
from gpo_theory.claims.monotonicity import differentiable_at_zero, monotone_decreasing
from gpo_theory.claims.proving import accepted
from gpo_theory.claims.smoothness import lipschitz, smooth, strongly_convex
from gpo_theory.claims.totality import total
from gpo_theory.errors import DomainError, InputError
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.expansion import cancelled
from gpo_theory.kernel.units import in_units
from gpo_theory.loss import Loss
from gpo_theory.report.result import Analysis
from gpo_theory.risk.links import Link, link
from gpo_theory.risk.probability import probability_at
from gpo_theory.risk.psi import Psi, psi_transform

_LATE = "the limit on time or memory was reached"
_NO_TAILS: dict[str, dict[str, Tail]] = {side: dict.fromkeys(("loss", "slope"), UNKNOWN) for side in ("left", "right")}


def analyze(loss: Loss | str, seconds: float = 40.0) -> Analysis:
    """Derive and prove everything about a loss, or about what a text means to `find_loss`.

    A claim that is not decided within `seconds` of CPU time, or in the memory there is, is unknown, and its reason says
    so. Raises DomainError with a point where f is undefined, and InputError for a text that means no loss.

    >>> analyze("savage").claims["bayes_consistent"].verdict.value
    'proved'
    """
    return _analysis(loss if isinstance(loss, Loss) else find_loss(loss), seconds)


def implied_probability(loss: Loss | str, x: float | Fraction) -> tuple[float, float]:
    """Return the least and the largest p for which x is the best scaled margin of a pair preferred with probability p.

    p = f'(-x)/(f'(x) + f'(-x)), never clipped; an interval at a kink of f. Raises InputError with the reason where no
    p makes x the best, and for a loss that is not proved to have one: see `analyze(loss).implied`.

    >>> implied_probability("squared", 0.5), implied_probability("hinge", 1)
    ((0.75, 0.75), (0.5, 1.0))
    """
    if not math.isfinite(x):
        raise InputError(f"`x={x}` is not a finite margin")
    known = analyze(loss)
    return probability_at(known.loss, Fraction(x), known.claims)


@lru_cache(maxsize=128)
def _analysis(loss: Loss, seconds: float) -> Analysis:
    with limited(seconds):
        f = loss.f.primitive()
        claims = _claims(f)
        refused = claims["total"]
        if refused.verdict is Verdict.REFUTED:
            raise DomainError(f"{loss.formula!r} is not defined on all of R: {refused.because}")
        return Analysis(
            loss,
            in_time(lambda: taylor(loss), (None,) * 5),
            in_time(lambda: strength(loss), Strength()),
            claims,
            in_time(lambda: tails_of(cancelled(f)), _NO_TAILS),
            in_time(lambda: link(loss, claims), Link()),
            in_time(lambda: psi_transform(loss, claims), Psi()),
        )


def _claims(f: Expr) -> Mapping[str, Certificate]:
    """Decide every claim about f, all but `total` with x in the unit of f; keep only what the verifier accepts."""
    found = in_time(lambda: _replayed(f, "total", total(f)), unknown("total", _LATE))
    if found.verdict is not Verdict.PROVED:
        reason = "f is not shown to be defined on all of R"
        return {name: unknown(name, reason) for name in CLAIMS} | {"total": found}
    step = unit(cancelled(f))
    if step == 1:
        return {"total": found, **_other_claims(f)}
    others = _other_claims(substitute(f, {Expr.x(): step * Expr.x()}))
    return {"total": found, **{name: _in_x(one, step) for name, one in others.items()}}


def _in_x(certificate: Certificate, step: Fraction) -> Certificate:
    """Return the certificate about f that one about f(step y) means."""
    if certificate.verdict is Verdict.UNKNOWN:
        return certificate
    try:
        found = in_units(certificate, 1 / step)
    except OverflowError:
        return unknown(certificate.claim, "its number is beyond the range of floating point")
    value, choices = found.value, {**found.choices, "unit": str(step)}
    if value is not None and value["exact"] is not None:
        value = {**value, "exact": text(exact(parse_constant(value["exact"])))}
    because = f"{found.because} (x in units of {step})"
    return replace(found, because=because, value=value, proof={**(found.proof or {}), "choices": choices})


def _other_claims(whole: Expr) -> dict[str, Certificate]:
    """Attempt every claim about a total formula but that, those that others build on first."""
    known: dict[str, Certificate] = {}
    f = cancelled(whole)  # where f is total, h/h = 1 and g - g = 0 may be simplified
    steps: dict[str, Callable[[], Iterable[Certificate]]] = {
        "convex": lambda: [convex(f)],
        "strictly_convex": lambda: [strictly_convex(f, known["convex"])],
        "strongly_convex": lambda: [strongly_convex(f, known["convex"])],
        "lipschitz": lambda: [lipschitz(f)],
        "smooth": lambda: [smooth(f)],
        "bounded_below": lambda: bounded_below(f),
        "monotone_decreasing": lambda: monotone_decreasing(f, known["convex"]),
        "differentiable_at_zero": lambda: [differentiable_at_zero(f)],
        "bradley_terry_exact": lambda: [bradley_terry_exact(f, known["convex"], known["monotone_decreasing"])],
        "bayes_consistent": lambda: bayes_consistent(f, known),
    }
    for claim, attempt in steps.items():
        known[claim] = in_time(lambda attempt=attempt, claim=claim: _replayed(whole, claim, attempt()),  # type: ignore[misc]
                               unknown(claim, _LATE))  # fmt: skip
    return {name: known[name] for name in CLAIMS if name != "total"}


def _replayed(f: Expr, claim: str, proposals: Iterable[Certificate]) -> Certificate:
    """Return the first proposal that the verifier accepts, else the first UNKNOWN with its reason."""
    doubt = unknown(claim, "not decided")
    for number, proposal in enumerate(proposals):
        found = proposal if proposal.verdict is Verdict.UNKNOWN else accepted(f, proposal)
        if found.verdict is not Verdict.UNKNOWN:
            return found
        doubt = found if number == 0 else doubt
    return doubt
