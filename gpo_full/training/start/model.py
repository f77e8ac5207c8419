"""A model made ready for training: loaded in float32, without dropout, trainable where the configuration says."""

__all__ = ["check_sizes", "loaded", "loaded_tokenizer", "prepared"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gpo_full.config import GPOConfig
from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import largest_length_and_id
from gpo_full.other_libraries import in_one_line
from gpo_full.training.start.adapters import (
    adapter_config,
    check_no_adapter,
    train_on,
    with_new_adapter,
    without_peft_warning,
)
from gpo_theory.errors import InputError


def loaded(name: str) -> nn.Module:
    """Return the causal language model in a folder, or of a name, in float32; InputError if there is none.

    Of an adapter that is its base model with the adapter, which is trainable.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
    adapter = adapter_config(name)
    try:
        with in_one_line(f"model {name!r} cannot be loaded"), without_peft_warning():
            if adapter is None:
                model: nn.Module = AutoModelForCausalLM.from_pretrained(name, **options)
            else:
                from peft import AutoPeftModelForCausalLM

                model = AutoPeftModelForCausalLM.from_pretrained(name, is_trainable=True, **options)
    except InputError as error:
        if "trust_remote_code" not in str(error.__cause__):
            raise
        raise InputError(f"model {name!r} contains custom code, which is not run here: load it in Python with "
                         "trust_remote_code=True, and give the model to GPOTrainer") from None
    return model


def loaded_tokenizer(name: str) -> Any:
    """Return the tokenizer in the folder of a model, or of its name; of an adapter without one, its base model's."""
    from transformers import AutoTokenizer

    try:
        with in_one_line(f"no tokenizer in model {name!r}"):
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except InputError:
        if (adapter := adapter_config(name)) is not None:
            return loaded_tokenizer(adapter.base_model_name_or_path)
        raise


def prepared(model: nn.Module, args: GPOConfig) -> nn.Module:
    """Switch dropout off, and leave trainable only what the configuration says, or the adapter that `model` brings.

    Raises InputError if nothing could be trained, or in weights too coarse.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if args.lora_rank is not None:
        model = with_new_adapter(model, args.lora_rank, args.seed)
    elif args.train_last_layers is not None:
        check_no_adapter(model, f"train_last_layers={args.train_last_layers}")
        _freeze_lower(model, args.train_last_layers)
    elif hasattr(model, "peft_config"):
        train_on(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("no parameter of the model is trainable, requires_grad is False for all of them: "
                         "requires_grad_(True) trains them, lora_rank an adapter")
    _check_precision(model)
    return model


def check_sizes(model: Any, sets: Sequence[Sequence[Pair]]) -> int:
    """Return the length of the longest sequence; InputError if the model cannot take it, or one of its tokens."""
    lengths, ids = zip(*map(largest_length_and_id, sets), strict=True)
    longest, largest = int(max(lengths)), int(max(ids))
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or longest
    if longest > positions:
        raise InputError(f"sequences have up to {longest} tokens, the model {positions} positions: lower max_length")
    known = model.get_input_embeddings().weight.shape[0]
    if largest >= known:
        raise InputError(f"the data holds token id {largest}, the model knows {known}: is this its tokenizer?")
    return longest


def _check_precision(model: nn.Module) -> None:
    """Refuse trained weights of half precision: a step smaller than 1/256 of a weight would leave it as it was."""
    coarse = {str(each.dtype).removeprefix("torch.") for each in model.parameters()
              if each.requires_grad and each.dtype in (torch.bfloat16, torch.float16)}  # fmt: skip
    if coarse:
        raise InputError(f"the weights to be trained are {' and '.join(sorted(coarse))}, in which small steps are "
                         "lost: load the model with dtype=torch.float32 (bf16=True then computes in bfloat16)")


def _freeze_lower(model: Any, count: int) -> None:
    """Train the last `count` layers and the norm behind them; embeddings, head and lower layers are frozen.

    Nothing below the first trained layer takes part in the backward pass.
    """
    total = model.config.get_text_config().num_hidden_layers
    stack = next((name for name, module in model.named_modules()
                  if isinstance(module, nn.ModuleList) and len(module) == total), None)  # fmt: skip
    if stack is None or not count <= total:
        raise InputError(f"train_last_layers={count}, but the model has {total} layers")
    model.requires_grad_(False)
    for layer in model.get_submodule(stack)[-count:]:
        layer.requires_grad_(True)
    for module in model.get_submodule(stack.rpartition(".")[0]).children():
        if "norm" in type(module).__name__.lower():
            module.requires_grad_(True)
