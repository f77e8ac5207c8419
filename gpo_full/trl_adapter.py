"""Any f of ours inside TRL's DPOTrainer: its own code with another function of the scaled margin."""

__all__ = ["dpo_trainer"]

import importlib
import math
from collections.abc import Mapping
from types import FunctionType, SimpleNamespace
from typing import Any

from gpo_theory.catalogue import find_loss
from gpo_theory.certificate import Verdict
from gpo_theory.claims.totality import total
from gpo_theory.errors import DomainError, InputError
from gpo_theory.loss import Loss
from gpo_theory.lowering.lower import to_torch

TRL = "1.16"
# The loss types that are -logsigmoid(x), of the summed and of the length-averaged margin.
REPLACED = (["sigmoid"], ["sigmoid_norm"])


def dpo_trainer(loss: str | Loss, parameters: Mapping[str, str] | None = None) -> Any:
    """Return a subclass of TRL 1.16's DPOTrainer that minimises the mean of f(beta rho) instead of the logistic loss.

    `loss` is a name, alias or formula, as in `gpo train`, and beta is `DPOConfig.beta`. rho, in nats, is summed over
    tokens with `loss_type="sigmoid"` (TRL's default) and length-averaged with `"sigmoid_norm"`. References, metrics,
    adapters and checkpoints are TRL's. Raises InputError where trl 1.16 is not installed, and the trainer raises it
    for a beta that is not above 0 and for options that would change f or be ignored: another loss type, label
    smoothing, another divergence.

        Trainer = dpo_trainer("max(0, 1-x)**2")
        Trainer(model, args=trl.DPOConfig(beta=0.1), train_dataset=rows, processing_class=tokenizer).train()
    """
    objective = find_loss(loss, parameters or {}) if isinstance(loss, str) else loss
    defined = total(objective.f.primitive())
    if defined.verdict is Verdict.REFUTED:
        raise DomainError(f"{objective.formula!r} is not defined on all of R: {defined.because}")
    base, f = _base(), to_torch(objective)

    class AdaptedTrainer(base):  # type: ignore[misc, valid-type]
        _compute_loss = _with_logsigmoid(base._compute_loss, lambda x: -f(x))

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            _check(self)

    return AdaptedTrainer


def _base() -> Any:
    try:
        trl = importlib.import_module("trl")
    except ModuleNotFoundError as error:
        if error.name != "trl":
            raise
        raise InputError(f"trl is not installed: pip install 'trl=={TRL}.*'") from None
    if not trl.__version__.startswith(f"{TRL}."):
        raise InputError(f"trl {trl.__version__} is installed; this adapter knows {TRL} only")
    return trl.DPOTrainer


def _with_logsigmoid(method: Any, function: Any) -> FunctionType:
    """Return a function of the same code that finds `function` under the name F.logsigmoid; TRL's own is untouched."""
    others = {"F": SimpleNamespace(logsigmoid=function)}
    return FunctionType(method.__code__, method.__globals__ | others, method.__name__, method.__defaults__,
                        method.__closure__)  # fmt: skip


def _check(trainer: Any) -> None:
    if trainer.loss_types not in REPLACED or trainer.loss_weights != [1.0]:
        raise InputError(f"loss_type={trainer.loss_types!r} with weights {trainer.loss_weights!r}; f takes the place "
                         "of 'sigmoid' (summed margin) or 'sigmoid_norm' (length-averaged), alone")  # fmt: skip
    if trainer.label_smoothing:
        raise InputError(f"label_smoothing={trainer.label_smoothing!r} would be ignored: soft_label(loss, rate) of "
                         "gpo_theory.transforms gives the loss under label noise")  # fmt: skip
    if trainer.f_divergence_type != "reverse_kl":
        raise InputError(f"f_divergence_type={trainer.f_divergence_type!r}: rho is a log-ratio only with 'reverse_kl'")
    if not 0 < trainer.beta < math.inf:
        raise InputError(f"beta={trainer.beta!r} must be a finite number above 0")
