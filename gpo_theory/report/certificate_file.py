"""The certificate file: every verdict of an analysis with its proof and a seal, which `gpo verify` replays."""

__all__ = ["certificate_document"]

from importlib.metadata import version
from typing import Any

from gpo_theory.certificate import Verdict
from gpo_theory.kernel.certificates import SCHEMA, seal
from gpo_theory.report.result import Analysis


def certificate_document(analysis: Analysis) -> dict[str, Any]:
    """Return the certificate file of an analysis: every verdict with its proof, sealed, for `verify`.

    >>> from gpo_theory import LOSSES, analyze
    >>> from gpo_theory.kernel.certificates import verify
    >>> verify(certificate_document(analyze(LOSSES["hinge"])))["convex"]
    'proved'
    """
    loss = analysis.loss
    claims = {name: {**one.as_dict(), "proof": None if one.verdict is Verdict.UNKNOWN else dict(one.proof or {})}
              for name, one in analysis.claims.items()}  # fmt: skip
    return seal({
        "schema": SCHEMA,
        "loss": {"name": loss.name, "formula": loss.formula, "reference": loss.reference,
                 "parameters": {name: str(value) for name, value in loss.parameters.items()}},
        "versions": {name: version(name) for name in ("gpo-toolkit", "python-flint", "sympy", "mpmath")},
        "claims": claims,
    })  # fmt: skip
