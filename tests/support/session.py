"""Analyses that the whole test session shares: each loss and each formula is analysed once."""

__all__ = ["accepts", "analysis", "certificate", "convexity", "payload"]

from functools import cache
from typing import Any

from gpo_theory import LOSSES, Certificate, analyze, parse
from gpo_theory.budget import OutOfTimeError, limited
from gpo_theory.certificate import unknown
from gpo_theory.claims.convexity import convex
from gpo_theory.claims.proving import accepted
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.expansion import cancelled


@cache
def analysis(name: str) -> Any:
    """The analysis of a catalogue entry."""
    return analyze(LOSSES[name])


@cache
def payload(name: str) -> dict[str, Any]:
    """Its stable JSON."""
    return analysis(name).as_dict()


@cache
def certificate(text: str, claim: str) -> Certificate:
    """One claim about a formula, as the analysis prints it."""
    return analyze(parse(text)).claims[claim]


@cache
def convexity(text: str, seconds: float = 5.0) -> Certificate:
    """Convexity alone, without the rest of the analysis: unknown past the time, or where the verifier does not replay it."""
    f = cancelled(parse(text).f.primitive())
    try:
        with limited(seconds):
            found = convex(f)
            return found if found.verdict.value == "unknown" else accepted(f, found)
    except OutOfTimeError:
        return unknown("convex", f"not decided within {seconds} CPU-seconds")


def accepts(f: Expr, found: Certificate) -> bool:
    """Whether the verifier replays a certificate."""
    return accepted(f, found).verdict is found.verdict
