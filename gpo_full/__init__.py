"""Fine-tune language models with any preference loss f(beta rho); importing it imports neither torch nor sympy."""

__all__ = ["GPOConfig", "GPOTrainer"]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpo_full.training.config import GPOConfig
    from gpo_full.training.trainer import GPOTrainer


def __getattr__(name: str) -> Any:
    if name == "GPOConfig":
        from gpo_full.training.config import GPOConfig

        return GPOConfig
    if name == "GPOTrainer":
        from gpo_full.training.trainer import GPOTrainer

        return GPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
