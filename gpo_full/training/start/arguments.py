"""The arguments of a GPOTrainer, checked before anything is read or computed; those of the Trainer that it refuses."""

__all__ = ["REFUSED_ARGUMENTS", "check_arguments", "check_callbacks", "check_model", "check_optimizers", "model_of"]

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import EarlyStoppingCallback, set_seed

from gpo_full.config import GPOConfig
from gpo_full.training.reporting.length_bias import length_metrics
from gpo_full.training.reporting.metrics import OF_TRAINING, Meter
from gpo_theory.errors import InputError, nearest

# Arguments of transformers' Trainer, then of TRL's, that are refused, and what there is instead.
REFUSED_ARGUMENTS = {
    "data_collator": "the engine packs pairs itself",
    "compute_loss_func": "the loss is a function f of the margin: GPOConfig(loss=...), a name or a formula",
    "compute_metrics": "evaluation makes no logits; its metrics are those of the margin, and callbacks see them",
    "preprocess_logits_for_metrics": "evaluation makes no logits",
    "ref_model": "the reference is called reference; without it, it is the model as it is handed in",
    "peft_config": "hand in the model with its adapter, or set GPOConfig(lora_rank=...)",
    "tokenizer": "the tokenizer is called processing_class",
}


def check_arguments(args: Any, train: Any, held_out: Any, named: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise InputError for arguments of a GPOTrainer that it cannot use; `named` are those that it does not have.

    `train` and `held_out` are its data sets, `allowed` the names of the arguments that it has.
    """
    if not isinstance(args, GPOConfig):
        raise InputError(f"args must be a GPOConfig, not {type(args).__name__}")
    for name, value in named.items():
        if name not in REFUSED_ARGUMENTS:
            raise InputError(f"GPOTrainer has no argument {name!r}{nearest(name, allowed)}")
        if value is not None:
            raise InputError(f"{name} is refused: {REFUSED_ARGUMENTS[name]}")
    if train is None and held_out is None:
        raise InputError("neither train_dataset nor eval_dataset is given")
    sets = {f"eval_{name}": each for name, each in held_out.items()} if isinstance(held_out, Mapping) else {"eval": 0}
    during, at_start = args.eval_strategy.value, args.eval_on_start
    if during == "no" and not at_start:
        return
    if held_out is None or not sets:
        asked = f"eval_on_start={at_start}" if at_start else f"eval_strategy={during!r}"
        raise InputError(f"the training cannot start: {asked} needs held-out pairs, eval_dataset")
    _check_best(args.metric_for_best_model, sets)


def check_optimizers(model: nn.Module, optimizers: tuple[Any, Any], made: tuple[Any, Any] | None) -> None:
    """Raise InputError for an optimizer or a schedule that would not train `model`.

    `optimizers` is a pair of both, either of them None; `made` an optimizer's class with its arguments.
    """
    optimizer, schedule = optimizers
    if made is not None and (optimizer, schedule) != (None, None):
        raise InputError("optimizers and optimizer_cls_and_kwargs exclude each other")
    if schedule is not None and (optimizer is None or getattr(schedule, "optimizer", optimizer) is not optimizer):
        raise InputError("optimizers: the schedule belongs to another optimizer, whose learning rate it would change")
    if any(callable(getattr(each, "eval", None)) for each in (optimizer, made and made[0])):
        raise InputError("an optimizer that evaluates other weights than it trains (schedule-free) is refused")
    if optimizer is not None:
        held = {id(each) for group in optimizer.param_groups for each in group["params"]}
        if not any(id(each) in held for each in model.parameters() if each.requires_grad):
            raise InputError("optimizers: the optimizer holds no parameter that is trained; one for adapters that are "
                             "still to be made is optimizer_cls_and_kwargs")  # fmt: skip


def model_of(model: Any, model_init: Callable[..., Any] | None, seed: int) -> Any:
    """Return `model`, or else what `model_init` makes; InputError unless one of them is given.

    `model_init` is called as by the Trainer: with seeded random generators, and None for its trial if it takes one.
    """
    if (model is None) == (model_init is None):
        raise InputError("give either model or model_init")
    if model_init is not None:
        set_seed(seed)
        model = model_init(None) if len(inspect.signature(model_init).parameters) == 1 else model_init()
    check_model("model", model)
    return str(model) if isinstance(model, Path) else model


def check_model(what: str, model: Any) -> None:
    """Raise InputError if `model`, the argument `what`, is not None, a name, or a causal language model."""
    if isinstance(model, nn.Module) and hasattr(model, "config"):
        return
    if isinstance(model, nn.Module) and hasattr(model, "module"):
        raise InputError(f"{what} is wrapped in {type(model).__name__}: hand in its `module`; several devices are a "
                         "launcher's, `accelerate launch`")  # fmt: skip
    if model is not None and not isinstance(model, str | Path):
        raise InputError(f"{what} must be a causal language model of transformers, its folder or its name, not "
                         f"{type(model).__name__}")  # fmt: skip


def check_callbacks(callbacks: Iterable[Any], args: GPOConfig) -> None:
    """Raise InputError for early stopping, a class or made, that would have no metric to follow."""
    if not any(each is EarlyStoppingCallback or isinstance(each, EarlyStoppingCallback) for each in callbacks):
        return
    if args.metric_for_best_model is None or args.eval_strategy.value == "no":
        raise InputError("EarlyStoppingCallback follows a metric of held-out pairs: it needs eval_strategy='steps' and "
                         "metric_for_best_model, as in 'eval_loss' (with greater_is_better)")  # fmt: skip


def _check_best(name: str | None, sets: Collection[str]) -> None:
    """Raise InputError for a metric that an evaluation of `sets` (prefixes of its metrics) does not return."""
    metrics = {*Meter().drain(), *length_metrics([1.0] * 5)} - {*OF_TRAINING}
    allowed = [f"{prefix}_{metric}" for prefix in sets for metric in metrics]
    whole = f"eval_{(name or '').removeprefix('eval_')}"
    if name is not None and whole not in allowed:
        raise InputError(f"metric_for_best_model={name!r} is no metric of the evaluation{nearest(whole, allowed)}")
