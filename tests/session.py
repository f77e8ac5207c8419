"""Analyses that the whole test session shares: each loss and each formula is analysed once."""

__all__ = ["analysis", "certificate", "convexity", "payload"]

from functools import cache
from typing import Any

from gpo_theory import LOSSES, Certificate, analyze, parse
from gpo_theory.budget import OutOfTimeError, limited
from gpo_theory.certificate import unknown
from gpo_theory.check import accepts
from gpo_theory.convexity import convex


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
    """Convexity alone, without the rest of the analysis: unknown past the time, and what the check rejects is a failure."""
    f = parse(text).f.primitive()
    try:
        with limited(seconds):
            found = convex(f)
            assert found.verdict.value == "unknown" or accepts(f, found), f"the check rejects {found} of {text!r}"
    except OutOfTimeError:
        return unknown("convex", f"not decided within {seconds} CPU-seconds")
    return found
