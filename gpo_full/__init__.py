"""Fine-tune language models with any preference loss f(beta rho); importing it imports neither torch nor sympy."""

__all__ = ["GPOConfig", "GPOTrainer"]

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpo_full.config import GPOConfig
    from gpo_full.training.trainer import GPOTrainer


def __getattr__(name: str) -> Any:
    homes = {"GPOConfig": "gpo_full.config", "GPOTrainer": "gpo_full.training.trainer"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)
