"""Everything about a preference loss f(beta * rho), derived and proved from its one formula."""

__all__ = [
    "LOSSES", "Analysis", "Certificate", "DomainError", "InputError", "Loss", "ParseError", "Verdict",
    "analyze", "find_loss", "implied_probability", "match_beta", "parse", "strength", "taylor", "to_numpy", "to_torch",
    "weights",
]  # fmt: skip

import importlib
import os
from typing import TYPE_CHECKING, Any

# Where python-flint is installed sympy would use its numbers, which print in another form.
os.environ.setdefault("SYMPY_GROUND_TYPES", "python")

if TYPE_CHECKING:
    from gpo_theory.analysis import analyze, implied_probability
    from gpo_theory.calculus.series import taylor
    from gpo_theory.calculus.strengths import strength
    from gpo_theory.catalogue import LOSSES, find_loss
    from gpo_theory.certificate import Certificate, Verdict
    from gpo_theory.choosing.matching import match_beta
    from gpo_theory.errors import DomainError, InputError, ParseError
    from gpo_theory.loss import Loss, parse
    from gpo_theory.lowering.lower import to_numpy, to_torch
    from gpo_theory.report.result import Analysis
    from gpo_theory.risk.transfer import weights

_HOME = {"LOSSES": "catalogue", "find_loss": "catalogue", "Analysis": "report.result", "analyze": "analysis",
         "Certificate": "certificate", "Verdict": "certificate", "DomainError": "errors", "InputError": "errors",
         "ParseError": "errors", "Loss": "loss", "parse": "loss", "to_numpy": "lowering.lower",
         "to_torch": "lowering.lower", "match_beta": "choosing.matching", "strength": "calculus.strengths",
         "taylor": "calculus.series", "implied_probability": "analysis", "weights": "risk.transfer"}  # fmt: skip


def __getattr__(name: str) -> Any:
    # Imported at first use, so that `gpo --help` loads no computer algebra.
    if name not in _HOME:
        raise AttributeError(f"module 'gpo_theory' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gpo_theory.{_HOME[name]}"), name)
    globals()[name] = value
    return value
