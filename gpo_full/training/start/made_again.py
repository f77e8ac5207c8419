"""Whether what is saved of a model is what was trained: a model made of its configuration alone is compared with it."""

__all__ = ["check_made_again", "hooks_of", "made_of"]

import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from gpo_theory.errors import InputError

_log = logging.getLogger(__name__)
# Of these only the probability is a setting, and it is switched off.
_UNUSED = (nn.Dropout, nn.Identity)


def check_made_again(model: Any) -> None:
    """Raise InputError if a model made of the configuration of `model`, and of its adapters', would differ from it.

    It has no weights, and is compared in the names and shapes of weights, in numbers such as an adapter's scaling, in
    activations, and in tables that are not saved. A model that cannot be made so, and one that is quantised, is not
    compared. Hooks are named in a warning.
    """
    made = None if getattr(model, "is_quantized", False) else made_of(model)
    if made is None:
        return
    found = [*_differences(dict(model.named_modules()), model.state_dict(), made)]
    if found:
        raise InputError(f"what is saved would not be what is trained: {found[0]} ({len(found)} such in all); set it "
                         "in the configuration before the model is made, or undo it")  # fmt: skip
    if hooked := hooks_of(model):
        _log.warning("%s has a hook or a forward of its own (%d such in all), which is not saved", hooked[0].split()[0],
                     len(hooked))  # fmt: skip


def hooks_of(model: Any) -> list[str]:
    """Return the modules of `model` with a hook or a forward of their own, each with the names of those functions.

    What accelerate and peft put there changes nothing that is computed, and is left out; so are hooks on `model`.
    """
    found = []
    for name, module in model.named_modules():
        own = [vars(module)["forward"]] if "forward" in vars(module) and not hasattr(module, "_hf_hook") else []
        if name and not hasattr(module, "_hf_hook"):
            own += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        names = [getattr(each, "__qualname__", type(each).__name__) for each in own]
        if kept := [each for each in names if "make_inputs_require_grads" not in each]:
            found.append(" ".join([name or type(module).__name__, *kept]))
    return found


def made_of(model: Any) -> Any:
    """Return a model of the same configuration and adapters, without weights; None if it cannot be made."""
    from accelerate import init_empty_weights
    from peft import PeftModel, get_peft_model

    base = model.get_base_model() if isinstance(model, PeftModel) else model
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(), init_empty_weights(include_buffers=False):
            warnings.simplefilter("ignore")
            made: Any = type(base)._from_config(copy.deepcopy(base.config), dtype=base.dtype)
            for name, config in model.peft_config.items() if base is not model else ():
                config = copy.copy(config)
                config.init_lora_weights = True  # other ways look at the weights
                if isinstance(made, PeftModel):
                    made.add_adapter(name, config)
                else:
                    made = get_peft_model(made, config, name)
    except Exception:  # whatever code of a model raises that is not made for this
        return None
    return made


def _differences(modules: dict[str, Any], weights: dict[str, Any], made: nn.Module) -> Iterator[str]:
    expected = made.state_dict()
    for name in sorted({*weights} ^ {*expected}):
        yield f"{name} is {'missing' if name in expected else 'not of the configuration'}"
    for name in sorted({*weights} & {*expected}):
        if weights[name].shape != expected[name].shape:
            yield f"{name} is {[*weights[name].shape]}, not {[*expected[name].shape]} as in the configuration"
    for name, other in made.named_modules():
        mine = modules.get(name, other)
        leaf = not [*other.children(), *other.parameters()] and not isinstance(mine, _UNUSED)
        if leaf and not isinstance(other, _UNUSED) and type(mine) is not type(other):
            yield f"{name} is {type(mine).__name__}, not {type(other).__name__} as in the configuration"
        for key, value in _numbers(other).items():
            if (have := _numbers(mine).get(key, value)) != value:
                yield f"{name}.{key} is {have}, not {value} as in the configuration"
        for key, table in other.named_buffers(recurse=False):
            have = getattr(mine, key, table)
            if f"{name}.{key}" not in expected and not (table.is_meta or _alike(have, table)):
                yield f"{name}.{key} is not that of the configuration, as after .half() instead of dtype= at loading"


def _numbers(module: Any) -> dict[str, Any]:
    """Return what a module computes with beside weights: its numbers, by adapter where there are several."""
    return {name: value for name, value in vars(module).items() if "dropout" not in name and name != "p"
            and (isinstance(value, float) or (isinstance(value, dict) and value
                 and all(isinstance(each, float) for each in value.values())))}  # fmt: skip


def _alike(have: Any, table: torch.Tensor) -> bool:
    """Return whether two tables are equal but for the rounding of float32 on another device."""
    if not isinstance(have, torch.Tensor) or have.shape != table.shape:
        return False
    have, table = have.detach().cpu().double(), table.cpu().double()
    return bool((have - table).abs().le(1e-5 * table.abs() + 1e-8).all())
