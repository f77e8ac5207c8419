"""What a run of several processes runs, checked against its configuration: the kind of model and of parameters."""

__all__ = ["check_asked", "check_distribution", "half_precision_in_layers_alone"]

import os
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gpo_full.config import GPOConfig
from gpo_theory.errors import InputError


def check_asked(accelerator: Any, args: GPOConfig) -> None:
    """Raise InputError if this machine or the launcher would silently run something else than is configured.

    On a CPU, `fsdp=True` and an FSDP configuration of accelerate run DistributedDataParallel, or one process alone.
    """
    precision = "bf16" if args.bf16 else "no"
    if accelerator.mixed_precision != precision:
        raise InputError(f"the launcher's mixed_precision is {accelerator.mixed_precision!r}, the run's {precision!r}; "
                         "leave it to the run: bf16=True")  # fmt: skip
    if _sharding_asked(accelerator) and os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() == "true":
        raise InputError("fsdp_cpu_ram_efficient_loading is refused: the reference is the model as every rank loads it")
    running = accelerator.distributed_type.value
    if _sharding_asked(accelerator) and running != "FSDP":
        raise InputError(f"sharding (FSDP) was asked for, but {accelerator.num_processes} "
                         f"process(es) on {accelerator.device.type} would run {running}; it needs accelerators and "
                         "a launcher: `accelerate launch` or torchrun")  # fmt: skip


def half_precision_in_layers_alone(accelerator: Any) -> None:
    """Let FSDP2 gather weights in half precision, but add gradients up in float32 and leave the model's output alone.

    Else accelerate has the log-probabilities rounded to bfloat16 where they leave the model: -7.66 to -7.65625.
    """
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if isinstance(policy, MixedPrecisionPolicy):
        plugin.mixed_precision_policy = replace(policy, reduce_dtype=torch.float32, output_dtype=None)


def check_distribution(model: nn.Module, accelerator: Any) -> dict[str, Any]:
    """Return the kind of the wrapped `model` and of its parameters; InputError if it is not what was asked for."""
    parameters = [isinstance(parameter, DTensor) for parameter in model.parameters()]
    how = "sharded" if all(parameters) else "partly sharded" if any(parameters) else "replicated"
    found = {"processes": accelerator.num_processes, "model": _kind(model), "parameters": how}
    several = "DistributedDataParallel" if accelerator.num_processes > 1 else "one process"
    wanted = ("FSDP2", "sharded") if _sharding_asked(accelerator) else (several, "replicated")
    if (found["model"], found["parameters"]) != wanted:
        raise InputError(f"asked for was {wanted[0]} with {wanted[1]} parameters, but what would run is "
                         f"{found['model']} with {found['parameters']} ones")  # fmt: skip
    return found


def _kind(model: nn.Module) -> str:
    if isinstance(model, FSDPModule):
        return "FSDP2"
    if isinstance(model, DistributedDataParallel | nn.DataParallel):
        return type(model).__name__
    return "one process"


def _sharding_asked(accelerator: Any) -> bool:
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return asked or getattr(accelerator.state, "fsdp_plugin", None) is not None
