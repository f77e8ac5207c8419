"""From a proposed verdict to a certificate, by a run of the verifier that searches for what it asks.

The verifier asks for a hint to each inequality that it must show. Here a Recorder, in place of a file, searches for the
hint and keeps it. If the run succeeds, the hints are the proof, which `gpo verify` replays.
"""

__all__ = ["accepted"]

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gpo_theory.calculus.half_lines import shifts_of
from gpo_theory.calculus.pieces import UnsplitError, cuts_of
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.claims.hints import hint
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.certificates import replay
from gpo_theory.kernel.expansion import cancelled
from gpo_theory.kernel.inequality import Fact
from gpo_theory.kernel.resolution import UnprovedError
from gpo_theory.kernel.zeros import Place, Zero


@dataclass
class Recorder:
    """Hints, found on demand and recorded for the certificate."""

    choices: dict[str, Any]
    hints: dict[str, Any] = field(default_factory=dict)
    cuts: dict[str, list[str | list[str]]] = field(default_factory=dict)

    def hint(self, fact: Fact) -> Mapping[str, Any] | None:
        """Find the hint for an inequality and record it."""
        found = hint(fact)
        if found is not None:
            self.hints[str(fact)] = found
        return found

    def breakpoints(self, f: Expr) -> tuple[Place, ...]:
        """Return the breakpoints that the exact splitting finds; none where it gives up."""
        cuts = _breakpoints(f)
        if cuts:
            self.cuts[str(f)] = [_written(x) for x in cuts]
        return cuts

    def choice(self, name: str) -> Any:
        """Return a named choice of this proof, such as the theorem used."""
        return self.choices.get(name)

    @property
    def proof(self) -> dict[str, Any]:
        """What goes into the certificate."""
        return {"hints": self.hints, "breakpoints": self.cuts, "choices": self.choices}


def _breakpoints(f: Expr) -> tuple[Place, ...]:
    try:
        return cuts_of(f)
    except UnsplitError:
        return ()


def _written(x: Place) -> str | list[str]:
    return [str(x.g), str(x.low), str(x.high)] if isinstance(x, Zero) else str(x)


def accepted(f: Expr, certificate: Certificate) -> Certificate:
    """Return the certificate with its proof once the verifier has replayed it, else UNKNOWN with the failing step."""
    reason = ""
    for choices in _choices(f, certificate):
        recorder = Recorder(choices)
        try:
            replay(f, certificate, recorder)
        except UnprovedError as error:
            reason = reason or str(error)
            continue
        return replace(certificate, proof=recorder.proof)
    short = reason if len(reason) < 200 else reason[:197] + "..."
    return Certificate(certificate.claim, Verdict.UNKNOWN,
                       f"the verifier did not replay ({certificate.because}): {short}")  # fmt: skip


def _choices(f: Expr, certificate: Certificate) -> list[dict[str, Any]]:
    """Return the choices worth trying for a proof, the likeliest first."""
    base = certificate.choices
    shifts = shifts_of(cancelled(f))
    if shifts:
        base["shift"] = str(shifts[0])
    if certificate.claim == "monotone_decreasing" and certificate.verdict is Verdict.PROVED:
        return [base, {**base, "by": "limit"}]
    return [base]
