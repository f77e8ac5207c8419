"""The reference of a run: its log-probabilities for every pair, and how far rounding moves the policy from it."""

__all__ = ["attach_reference", "moments_of"]

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gpo_full.attention.on_cuda import HALF
from gpo_full.checkpoints.sharded import sharded_copy
from gpo_full.data.pairs import Pair
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import evaluating, plan
from gpo_full.kernels.autocast import autocast_dtype
from gpo_full.reference.from_data import largest_difference, reference_from_data
from gpo_full.reference.store import ReferenceStore, open_store
from gpo_full.reference.weights import weights_hash
from gpo_full.training.rows import Collator, Rows, batch_of
from gpo_full.training.start.made_again import hooks_of
from gpo_theory import InputError

# Nats per token: further apart than one model's log-probabilities in two precisions (in bfloat16, rho of a whole pair
# was off by at most 0.16 where it was measured).
LARGEST_ROUNDING = 0.1
_log = logging.getLogger(__name__)


def attach_reference(trainer: Any, sets: Sequence[Rows], reference: nn.Module | None, longest: int) -> str:
    """Give every pair of `sets` its reference log-probabilities: those it brings itself, or those of `reference`.

    Without it the reference is the trainer's model as it is now. The log-probabilities are read from the store, or
    computed and stored there; the ranks share that pass. `longest` is the number of tokens of the longest sequence.
    Returns the reference's `weights_hash`. InputError if pairs bring log-probabilities although `reference` is given.
    """
    accelerator, margin, is_policy = trainer.accelerator, trainer.objective.margin, reference is None
    model: Any = trainer.model if is_policy else reference
    layout = trainer.plan if is_policy else plan(model, longest, accelerator.autocast, accelerator.device)
    weights = weights_hash(model)
    computed = " ".join([weights, *hooks_of(model)])  # what a store is of
    if is_policy and getattr(accelerator.state, "fsdp_plugin", None) is not None:
        # The Trainer shards its own only when training starts; whole, it may be too large for a device.
        model = sharded_copy(model, accelerator)
    else:
        model = model.to(accelerator.device)

    # A new adapter adds 0 to every layer, which costs a third more where the model is small.
    is_new = is_policy and trainer.args.lora_rank is not None

    def store(pairs: Sequence[Pair]) -> ReferenceStore:
        with model.disable_adapter() if is_new else nullcontext():
            return open_store(model, pairs, trainer.args.store_folder(), plan=layout, weights=computed,
                              autocast=accelerator.autocast, accelerator=accelerator)  # fmt: skip

    for rows in sets:
        given = reference_from_data(rows.pairs, margin)
        if given is None:
            rows.reference = store(rows.pairs).response_log_probabilities(rows.pairs, margin)
        elif not is_policy:
            raise InputError("the data brings the reference's log-probabilities, and reference is given: choose one")
        else:
            some = [rows.pairs[at] for at in sorted({0, len(rows) // 2, len(rows) - 1})]
            if (apart := largest_difference(store(some), some)) > LARGEST_ROUNDING:
                _log.warning("the reference's log-probabilities that the data brings are not this model's: up to %.2g "
                             "nats per token apart in three pairs; the first loss is then not f(0)", apart)
            rows.reference = given.to(torch.promote_types(model.dtype, torch.float32))
    if is_policy and accelerator.is_main_process:
        _warn_of_rounding(trainer, sets[0])
    return weights


def moments_of(model: nn.Module) -> Tensor:
    """Return the sum and the sum of squares of every parameter, by which a change of one is seen in little time."""
    with torch.no_grad():
        found = [(each.sum(dtype=torch.float64), each.square().sum(dtype=torch.float64))
                 for each in model.parameters()]  # fmt: skip
    return torch.tensor(found, dtype=torch.float64).nan_to_num()


def _warn_of_rounding(trainer: Any, data: Rows) -> None:
    """Log how far rho of the first pairs is from 0 before training, if it is computed in half precision.

    Policy and reference are one model then, but the reference pass packs other pairs together than a step does. FSDP
    is left out, since no device has the whole model before training, and so are pairs that bring their reference.
    """
    model, accelerator, layout = trainer.model, trainer.accelerator, trainer.plan.layout
    rows = [data[i] for i in range(min(len(data), trainer.args.per_device_train_batch_size))]
    with evaluating(model), accelerator.autocast():
        half = autocast_dtype(next(model.parameters())) in HALF
        sharded = getattr(accelerator.state, "fsdp_plugin", None) is not None
        if not half or sharded or rows[0][1].reference_log_probabilities:
            return
        inputs = {name: value.to(accelerator.device) if isinstance(value, Tensor) else value
                  for name, value in Collator(layout)(rows).items()}  # fmt: skip
        found = response_log_probabilities(model, batch_of(inputs, layout), trainer.objective.margin,
                                           fused_head=trainer.plan.fused_head)  # fmt: skip
        log_ratios = found - inputs["reference"]
    rho = log_ratios[:, 0] - log_ratios[:, 1]
    _log.warning("half precision: rho is 0 before training, and is computed as up to %.2g nats (root mean square "
                 "%.2g) for the first %d pairs", rho.abs().max(), rho.square().mean().sqrt(), len(rho))  # fmt: skip
