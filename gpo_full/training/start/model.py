"""A model made ready for training: loaded in float32, without dropout, trainable where the configuration says."""

__all__ = ["check_sizes", "loaded", "loaded_tokenizer", "prepared"]

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gpo_full.config import GPOConfig
from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import largest_length_and_id
from gpo_full.other_libraries import in_one_line
from gpo_full.training.start.adapters import (
    adapter_config,
    check_base,
    check_no_adapter,
    say_others,
    train_on,
    with_new_adapter,
    with_rows_for,
    with_saved_adapter,
)
from gpo_full.training.start.named_base import check_recorded_base
from gpo_theory.errors import InputError

# Words in the names of what makes a forward pass random: dropout, layers left out, noise at a router.
_RANDOM = ("dropout", "layerdrop", "jitter")
_DIGITS = re.compile(r"\d+")


def loaded(name: str) -> nn.Module:
    """Return the causal language model in a folder, or of a name, in float32; InputError if there is none.

    Of an adapter that is its base model with the adapter, which is trainable. Every weight must be there: one that is
    missing would be random, and one of a layer that the configuration does not have would be lost.
    """
    adapter = adapter_config(name)
    if adapter is None:
        return _whole(name)
    base = check_base(name, adapter)
    say_others(name)
    check_recorded_base(name, adapter)
    model = _whole(base, adapter.revision)
    if (tokenizer := _own_tokenizer(name)) is not None:
        with_rows_for(model, len(tokenizer))
    return with_saved_adapter(model, name)


def _whole(name: str, revision: str | None = None) -> nn.Module:
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False, "revision": revision}
    try:
        with in_one_line(f"model {name!r} cannot be loaded"):
            model, report = AutoModelForCausalLM.from_pretrained(
                name, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except InputError as error:
        if "trust_remote_code" not in str(error.__cause__):
            raise
        raise InputError(f"model {name!r} contains custom code, which is not run here: load it in Python with "
                         "trust_remote_code=True, and give the model to GPOTrainer") from None
    _check_whole(name, model, report)
    return model  # type: ignore[no-any-return]


def _check_whole(name: str, model: nn.Module, report: Mapping[str, Any]) -> None:
    """Raise InputError if weights that were read are not those of the model: of `report`, as transformers gives it."""
    where, kinds = f"model {name!r} does not fit its config.json", {_DIGITS.sub("#", key) for key in model.state_dict()}
    if wrong := sorted(report["mismatched_keys"]):
        key, saved, expected = wrong[0]
        raise InputError(f"{where}: {key} is {list(saved)}, not {list(expected)} ({len(wrong)} differ)")
    if lost := sorted(report["missing_keys"]):
        raise InputError(f"{where}: there are no weights for {lost[0]} ({len(lost)} are missing), they would be random")
    if over := sorted(key for key in report["unexpected_keys"] if _DIGITS.sub("#", key) in kinds):
        raise InputError(f"{where}: it has weights of further layers, {over[0]} ({len(over)} in all)")


def loaded_tokenizer(name: str) -> Any:
    """Return the tokenizer in the folder of a model, or of its name; of an adapter without one, its base model's."""
    adapter = adapter_config(name)
    if adapter is None:
        return _tokenizer(name)
    return _own_tokenizer(name) or _tokenizer(check_base(name, adapter))


def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    with in_one_line(f"the tokenizer of model {name!r} cannot be loaded"):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def _own_tokenizer(adapter: str) -> Any:
    """Return the tokenizer that was saved with an adapter, or None."""
    from transformers.utils import cached_file

    file = cached_file(adapter, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False,
                       _raise_exceptions_for_connection_errors=False)  # fmt: skip
    return None if file is None else _tokenizer(adapter)


def prepared(model: nn.Module, args: GPOConfig) -> nn.Module:
    """Switch off all that is random; leave trainable only what the configuration says, or the adapter of `model`.

    Raises InputError if nothing could be trained, or in weights too coarse.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if any(word in name for word in _RANDOM) and isinstance(value, float):
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
    _check_head(model)
    return model


def check_sizes(model: Any, sets: Sequence[Sequence[Pair]]) -> int:
    """Return the length of the longest sequence; InputError if the model cannot take it, or one of its tokens."""
    lengths, ids = zip(*map(largest_length_and_id, sets), strict=True)
    longest, largest = int(max(lengths)), int(max(ids))
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or longest
    if longest > positions:
        raise InputError(f"sequences have up to {longest} tokens, the model {positions} positions: lower max_length")
    _check_long_positions(model.config.get_text_config(), longest)
    known = model.get_input_embeddings().weight.shape[0]
    if largest >= known:
        raise InputError(f"the data holds token id {largest}, the model knows {known}: is this its tokenizer?")
    return longest


def _check_long_positions(config: Any, longest: int) -> None:
    """Refuse sequences beyond the length at which longrope changes the positions of all tokens of a batch."""
    rope = getattr(config, "rope_parameters", None) or {}
    usual = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    if rope.get("rope_type") == "longrope" and usual and longest > usual:
        raise InputError(f"sequences have up to {longest} tokens, and beyond {usual} this model's positions (longrope) "
                         f"depend on what else is in the batch: max_length={usual} is the longest")  # fmt: skip


def _check_head(model: Any) -> None:
    """Refuse a head that shares its weights with the embeddings although the configuration says that it does not."""
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and words is not None and getattr(head, "weight", None) is getattr(words, "weight", 0)
    if tied and not getattr(model.config.get_text_config(), "tie_word_embeddings", True):
        raise InputError("the head shares its weights with the embeddings, and config.tie_word_embeddings is False: "
                         "what is saved would have no head; set it to True")  # fmt: skip


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
