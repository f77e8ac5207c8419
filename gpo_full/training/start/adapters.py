"""Adapters of a policy (peft): a new one of a given rank, or the one that the model brings, which is trained on."""

__all__ = ["HUB_NAME", "adapter_config", "check_base", "check_no_adapter", "say_others", "train_on", "with_adapter",
           "with_new_adapter", "with_rows_for", "with_saved_adapter"]  # fmt: skip

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpo_full.other_libraries import in_one_line
from gpo_theory.errors import InputError

_log = logging.getLogger(__name__)
# A model on the hub.
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
# What to do instead of a second adapter on top of one.
_MERGE = ("peft.AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload().save_pretrained(MERGED), "
          "and copy the tokenizer's files")  # fmt: skip
_STACKED = ("the base model of adapter {name!r} is {base!r}, which holds an adapter itself: merge that one into its "
            f"base model first, by {_MERGE}")  # fmt: skip
_RECIPE = f"to train the adapter that is there, leave {{name}} out; to merge it first: {_MERGE}"


def adapter_config(name: str) -> Any:
    """Return the peft configuration in a folder, or of a name on the hub; None if that is no adapter."""
    from transformers.utils import find_adapter_config_file

    with in_one_line(f"adapter {name!r} cannot be read"):
        if find_adapter_config_file(name) is None:
            _check_several(Path(name))
            return None
        from peft import PeftConfig

        return PeftConfig.from_pretrained(name)


def _check_several(folder: Path) -> None:
    """Raise InputError for a folder in which peft saved adapters of several names."""
    inside = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
    if inside and not (folder / "config.json").exists():
        raise InputError(f"{str(folder)!r} holds the adapters {', '.join(inside)}: give the folder of one, as in "
                         f"{str(folder / inside[0])!r}")  # fmt: skip


def say_others(name: str) -> None:
    """Warn of adapters in the folder of one, which are not loaded with it; those of checkpoints apart."""
    inside = sorted(path.parent.name for path in Path(name).glob("*/adapter_config.json"))
    if others := [each for each in inside if not each.startswith("checkpoint-")]:
        _log.warning("%r also holds adapters in folders of their own, not loaded: %s", name, ", ".join(others))


def check_base(name: str, adapter: Any) -> str:
    """Return the base model of the adapter in a folder, or of a name; InputError if it has none of its own."""
    base: str | None = adapter.base_model_name_or_path
    if not base:
        raise InputError(f"adapter {name!r} names no base model: base_model_name_or_path is empty in its configuration")
    if adapter.task_type not in (None, "CAUSAL_LM"):
        raise InputError(f"adapter {name!r} is for the task {adapter.task_type}, not for CAUSAL_LM")
    if not Path(base).is_dir() and not HUB_NAME.fullmatch(base):
        raise InputError(f"the base model of adapter {name!r}, {base!r}, is not there")
    if (Path(base) / "adapter_config.json").is_file():
        raise InputError(_STACKED.format(name=name, base=base))
    return base


def with_rows_for(model: Any, tokens: int) -> None:
    """Give the embeddings a row for each of so many tokens, as peft does for an adapter saved with its tokenizer."""
    if tokens > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(tokens)


def with_saved_adapter(base: Any, name: str) -> nn.Module:
    """Return `base` with the adapter in a folder, or of a name, trainable; InputError if its weights do not fit it."""
    from peft import PeftModelForCausalLM, load_peft_weights, set_peft_model_state_dict

    if hasattr(base, "peft_config"):  # an adapter on the hub, which transformers has put on its own base model
        raise InputError(_STACKED.format(name=name, base=base.config.name_or_path))
    if Path(name).is_dir() and not [*Path(name).glob("adapter_model.*")]:
        raise InputError(f"adapter {name!r} has no weights: adapter_model.safetensors is missing")
    with in_one_line(f"adapter {name!r} cannot be loaded"), without_peft_warning():
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        model: nn.Module = PeftModelForCausalLM.from_pretrained(base, name, is_trainable=True)
        # Again, for the report, which peft keeps to itself.
        saved = load_peft_weights(name, device="cpu")
        report = set_peft_model_state_dict(model, saved)
    trained = {key for key, each in model.named_parameters() if each.requires_grad}
    # Resized embeddings of modules_to_save are saved twice, once with that word in their name.
    over = {key for key in report.unexpected_keys if key.replace(".modules_to_save", "") not in {*saved} - {key}}
    for what, keys in (("lacks", trained & {*report.missing_keys}), ("has", over)):
        if found := sorted(keys):
            raise InputError(f"adapter {name!r} does not fit its base model and its configuration: it {what} weights "
                             f"for {found[0]} ({len(found)} in all)")  # fmt: skip
    return model


def with_new_adapter(model: nn.Module, rank: int, seed: int) -> nn.Module:
    """Return `model` with a new LoRA adapter on all linear layers, which alone is trainable."""
    from peft import LoraConfig

    check_no_adapter(model, f"lora_rank={rank}")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    # The Trainer seeds later, and an adapter's first weights are random.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return with_adapter(model, config)


def with_adapter(model: nn.Module, config: Any) -> nn.Module:
    """Return `model` with a new adapter of a peft configuration, which alone is trainable."""
    from peft import get_peft_model

    config.inference_mode = False
    with without_peft_warning():
        adapted: nn.Module = get_peft_model(model, config)
    return adapted


def check_no_adapter(model: nn.Module, option: str) -> None:
    """Raise InputError if `model` has an adapter, on which `option` has no meaning."""
    if hasattr(model, "peft_config"):
        name = option.partition("=")[0]
        raise InputError(f"{option} is for a model without an adapter, and this one has its own: "
                         f"{_RECIPE.format(name=name)}")  # fmt: skip


def train_on(model: Any) -> None:
    """Make the adapter that `model` brings trainable, unless some of its weights are already.

    Raises InputError if it cannot be trained, or if weights were trained that are not saved with an adapter.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(model, PeftModel):
        raise InputError("the model has an adapter that transformers loaded, which a training cannot resume: load it "
                         "by peft.AutoPeftModelForCausalLM.from_pretrained(ADAPTER, is_trainable=True), or give the "
                         "adapter's folder")  # fmt: skip
    if model.active_peft_config.is_prompt_learning:
        raise InputError(f"a {model.active_peft_config.peft_type.value} adapter puts tokens before the prompt, which "
                         "packed pairs have no place for; adapters of the layers (LoRA and its like) are trained")
    if len(model.active_adapters) > 1:
        raise InputError(f"adapters {', '.join(model.active_adapters)} are active: set one by model.set_adapter(NAME)")
    base, names = model.get_base_model().config.name_or_path, model.active_peft_config.base_model_name_or_path
    if base and names and Path(base).resolve() != Path(names).resolve():
        _log.warning("the adapter is of the base model %r, and is trained on %r: what is saved names the first, and is "
                     "loaded on it", names, base)  # fmt: skip
    if model.active_adapter != "default" and "default" in model.peft_config:
        _log.warning("the adapter %r is trained, and saved in the folder of that name; the output folder itself loads "
                     "with another one, 'default', unless delete_adapter('default') comes first", model.active_adapter)
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if any(layer.disable_adapters or layer.merged for layer in layers):
        raise InputError("the model's adapter is disabled or merged, so that training would not change what the model "
                         "computes: enable_adapter_layers() and unmerge_adapter() put it back")  # fmt: skip
    if not any(parameter.requires_grad for parameter in model.parameters()):
        model.set_adapter(model.active_adapter)
    saved = get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)
    kept = {value.data_ptr() for value in saved.values()}
    lost = [name for name, each in model.named_parameters() if each.requires_grad and each.data_ptr() not in kept]
    if lost:
        raise InputError(f"{lost[0]} would be trained, but is not saved with the adapter: freeze it, or name its "
                         "module in the adapter's modules_to_save")  # fmt: skip


@contextmanager
def without_peft_warning() -> Iterator[None]:
    """Ignore a warning about code of peft 0.21, which asks a model for its gradient checkpointing by an old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
