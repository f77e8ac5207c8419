"""Analyses that the whole test session shares: each loss is analysed once."""

__all__ = ["analysis", "certificate", "payload"]

from functools import cache
from typing import Any

from gpo_theory import LOSSES, analyze, parse


@cache
def analysis(name: str) -> Any:
    """The analysis of a catalogue entry."""
    return analyze(LOSSES[name])


@cache
def payload(name: str) -> dict[str, Any]:
    """Its stable JSON."""
    return analysis(name).as_dict()


@cache
def certificate(text: str, claim: str = "convex") -> Any:
    """One claim about a formula."""
    return analyze(parse(text)).claims[claim]
