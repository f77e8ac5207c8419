"""A certificate about f carried over to f(u y), the same function with x measured in units of u."""

__all__ = ["in_units"]

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from gpo_theory.certificate import Certificate
from gpo_theory.formula.grammar import parse_constant
from gpo_theory.kernel.inequality import rational

# The power of u by which the number of a claim is multiplied; a slope of f is multiplied by u.
POWERS = {"lipschitz": 1, "smooth": 2, "strongly_convex": 2, "differentiable_at_zero": 1, "bradley_terry_exact": -1}
PLACES, SLOPES = ("x", "a", "b", "low", "high"), ("left", "right")


def in_units(certificate: Certificate, u: Fraction) -> Certificate:
    """Return the certificate about f(u y) that a certificate about f means.

    Raises OverflowError where its number times a power of u is no double: the two would not be the same statement.

    >>> from gpo_theory.certificate import proved
    >>> in_units(proved("smooth", "f'' = 2", {"exact": "2", "float": 2.0}), Fraction(1, 2)).value
    {'exact': '1/2', 'float': 0.5}
    """
    witness, value = certificate.witness, certificate.value
    if witness is not None:
        witness = {name: _moved(name, text, u) for name, text in witness.items()}
    if value is not None:
        value = _multiplied(value, u ** POWERS.get(certificate.claim, 0))
    return replace(certificate, witness=witness, value=value)


def _moved(name: str, text: str, u: Fraction) -> str:
    if name in PLACES:
        return str(rational(text) / u)
    return str(parse_constant(text) * u) if name in SLOPES else text


def _multiplied(value: Mapping[str, Any], factor: Fraction) -> dict[str, Any]:
    exact, number = value["exact"], Fraction(value["float"]) * factor
    if Fraction(float(number)) != number:
        raise OverflowError(f"{value['float']} times {factor} is no double")
    return {
        "exact": exact if exact is None or factor == 1 else str(parse_constant(exact) * factor),
        "float": float(number),
    }
