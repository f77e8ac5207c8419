"""Any f of ours inside TRL's DPOTrainer: f of the log-probabilities it computes, in place of its logistic loss."""

__all__ = ["dpo_trainer"]

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from gpo_theory.catalogue import find_loss
from gpo_theory.errors import InputError
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
    for a beta that is not above 0 and for options that would change rho or f, or be ignored: another loss type, label
    smoothing, another divergence, `ld_alpha`, `use_weighting`.

    TRL has no method for the loss of a margin alone: `_compute_loss` runs the models, and computes loss and metrics. So
    it is left to run, forward hooks read the models' outputs, and the loss is computed anew from those.

        Trainer = dpo_trainer("max(0, 1-x)**2")
        Trainer(model, args=trl.DPOConfig(beta=0.1), train_dataset=rows, processing_class=tokenizer).train()
    """
    from gpo_full.config import check_total

    objective = find_loss(loss, parameters or {}) if isinstance(loss, str) else loss
    check_total(objective)
    base, f = _base(), to_torch(objective)

    class AdaptedTrainer(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            _check(self)

        def _compute_loss(self, model: Any, inputs: Mapping[str, Any], return_outputs: bool) -> Any:
            with _outputs_of(self.model, self.ref_model) as outputs:
                theirs = super()._compute_loss(model, inputs, return_outputs)
            loss = f(self.beta * _rho(self, inputs, outputs)).mean()
            if self.aux_loss_enabled:  # of a mixture of experts
                loss = loss + self.router_aux_loss_coef * outputs[0].aux_loss
            return (loss, theirs[1]) if return_outputs else loss

    return AdaptedTrainer


@contextmanager
def _outputs_of(*models: Any) -> Iterator[list[Any]]:
    """Collect the outputs of calls of `models`, None apart: in TRL's loss, the policy's and then the reference's."""
    outputs: list[Any] = []
    with ExitStack() as hooks:
        for model in models:
            if model is not None:
                hooks.enter_context(model.register_forward_hook(lambda module, inputs, output: outputs.append(output)))
        yield outputs


def _rho(trainer: Any, inputs: Mapping[str, Any], outputs: list[Any]) -> Any:
    """Return rho of the pairs in a batch of TRL's, whose first half is chosen and second half rejected responses."""
    mask = inputs["completion_mask"]
    # Prompt learning puts virtual tokens before the real ones; positions outside the response are 0.
    policy, *live = (output.log_probs[:, 1 - mask.shape[1] :].sum(1).chunk(2) for output in outputs[:2])
    stored = trainer.precompute_ref_logps
    reference = (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]) if stored else live[0]
    chosen, rejected = (ours - theirs for ours, theirs in zip(policy, reference, strict=True))
    if trainer.loss_types == ["sigmoid_norm"]:
        tokens = [each.sum(1).clamp(min=1.0) for each in mask.chunk(2)]
        return chosen / tokens[0] - rejected / tokens[1]
    return chosen - rejected


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


def _check(trainer: Any) -> None:
    if trainer.loss_types not in REPLACED or trainer.loss_weights != [1.0]:
        raise InputError(f"loss_type={trainer.loss_types!r} with weights {trainer.loss_weights!r}; f takes the place "
                         "of 'sigmoid' (summed margin) or 'sigmoid_norm' (length-averaged), alone")  # fmt: skip
    if trainer.label_smoothing:
        raise InputError(f"label_smoothing={trainer.label_smoothing!r} would be ignored: soft_label(loss, rate) of "
                         "gpo_theory.transforms gives the loss under label noise")  # fmt: skip
    if trainer.f_divergence_type != "reverse_kl":
        raise InputError(f"f_divergence_type={trainer.f_divergence_type!r}: rho is a log-ratio only with 'reverse_kl'")
    if trainer.ld_alpha is not None or trainer.use_weighting:
        raise InputError(f"ld_alpha={trainer.ld_alpha!r}, use_weighting={trainer.use_weighting!r}: both change rho or "
                         "the weight of a pair, and the mean of f(beta rho) has neither")  # fmt: skip
    if not 0 < trainer.beta < math.inf:
        raise InputError(f"beta={trainer.beta!r} must be a finite number above 0")
