"""The part of a model that a compiler gains something of: the MLPs, which know nothing of pairs, rows and masks."""

__all__ = ["compile_mlps", "has_compiler"]

import os
import shutil
from typing import Any

import torch

from gpo_full.kernels.layers import layer_stack
from gpo_theory.errors import InputError

# What models call it.
NAMES = ("mlp", "feed_forward")
_COMPILERS = ("g++", "clang++")


def compile_mlps(model: Any) -> None:
    """Let torch compile the MLP of each layer but the last, which is computed in part only; lengths may vary.

    InputError where there is no such part, or no compiler for the CPU.
    """
    layers = layer_stack(model)
    found = [getattr(layer, name) for layer in layers[:-1] for name in NAMES if hasattr(layer, name)]
    if not found:
        raise InputError(f"compile_mlp: {type(model).__name__} has no {' or '.join(NAMES)} below its last layer")
    _check_compiler()
    for part in found:
        part.compile(dynamic=True)


def has_compiler() -> bool:
    """Return whether the C++ compiler that torch needs on the CPU is there."""
    return bool(os.environ.get("CXX") or next(filter(shutil.which, _COMPILERS), None))


def _check_compiler() -> None:
    if not has_compiler() and not torch.cuda.is_available():
        raise InputError(f"compile_mlp needs a C++ compiler: none of {', '.join(_COMPILERS)} is on the path")
