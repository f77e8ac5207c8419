"""A claim about f with its verdict: proved, refuted with a witness, or unknown."""

__all__ = ["CLAIMS", "Certificate", "Verdict"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

CLAIMS = (
    "total", "convex", "strictly_convex", "strongly_convex", "lipschitz", "smooth", "bounded_below",
    "monotone_decreasing", "differentiable_at_zero", "bayes_consistent", "bradley_terry_exact",
)  # fmt: skip


class Verdict(Enum):
    """The three answers; UNKNOWN means that neither a proof nor a witness was found."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Certificate:
    """The verdict on one claim, why, a witness where refuted, the claim's number where it has one, and its proof.

    `proof` is what the verifier needs to replay the verdict: hints for inequalities, breakpoints, choices.

    >>> bool(Certificate("convex", Verdict.UNKNOWN, "not attempted"))
    Traceback (most recent call last):
    TypeError: a certificate is no truth value: compare .verdict with Verdict.PROVED or Verdict.REFUTED
    """

    claim: str
    verdict: Verdict
    because: str
    witness: Mapping[str, Any] | None = None
    value: Mapping[str, Any] | None = None
    proof: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def choices(self) -> dict[str, Any]:
        """What was chosen for the proof, such as the theorem used."""
        return dict((self.proof or {}).get("choices", {}))

    def __bool__(self) -> bool:
        raise TypeError("a certificate is no truth value: compare .verdict with Verdict.PROVED or Verdict.REFUTED")

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the proof."""
        return {"verdict": self.verdict.value, "because": self.because,
                "witness": None if self.witness is None else dict(self.witness),
                "value": None if self.value is None else dict(self.value)}  # fmt: skip


def proved(claim: str, because: str, value: Mapping[str, Any] | None = None, **choices: Any) -> Certificate:
    """Return a PROVED certificate; the verifier reads `choices`, such as the theorem used."""
    return Certificate(claim, Verdict.PROVED, because, None, value, {"choices": choices})


def refuted(claim: str, because: str, choices: Mapping[str, Any] | None = None, **witness: Any) -> Certificate:
    """Return a REFUTED certificate; `witness` is its fields, rationals as text."""
    return Certificate(claim, Verdict.REFUTED, because, witness, None, {"choices": dict(choices or {})})


def unknown(claim: str, because: str) -> Certificate:
    """Return an UNKNOWN certificate that says what was missing."""
    return Certificate(claim, Verdict.UNKNOWN, because)
