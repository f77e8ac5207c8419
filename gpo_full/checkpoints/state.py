"""State that a bitwise resumption needs, as JSON and tensors: nested state dicts, and the random generators."""

__all__ = ["encode", "decode", "random_state", "set_random_state"]

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from gpo_theory.errors import InputError


def encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return `value` (dicts, lists, tuples, numbers, texts, tensors) as JSON, and add its tensors to `tensors`.

    Raises InputError for any other type.

    >>> tensors = {}
    >>> encode({0: (1.5, None)}, tensors)
    {'dict': [[0, {'tuple': [1.5, None]}]]}
    >>> decode(encode({0: (1.5, None)}, tensors), tensors)
    {0: (1.5, None)}
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach() if isinstance(value, DTensor) else value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[encode(key, tensors), encode(each, tensors)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [encode(each, tensors) for each in value]}
    if isinstance(value, list):
        return [encode(each, tensors) for each in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise InputError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r}")


def decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value of which `encode` made `value` and `tensors`."""
    if isinstance(value, list):
        return [decode(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "tuple":
        return tuple(decode(each, tensors) for each in inner)
    if kind == "dict":
        return {decode(key, tensors): decode(each, tensors) for key, each in inner}
    raise ValueError(f"unknown kind of value {kind!r}")


def random_state() -> dict[str, Tensor]:
    """Return the states of the generators of Python, NumPy, torch and the current CUDA device, as vectors."""
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=True)
    state = {
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "numpy": torch.tensor([*numpy[1].tolist(), numpy[2], numpy[3]], dtype=torch.int64),
        # The normal that each generator has in reserve; NaN if none.
        "spare": torch.tensor([float("nan") if gauss is None else gauss, numpy[4]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(state: dict[str, Tensor]) -> None:
    """Set the generators to a state that `random_state` returned."""
    version, *words = state["python"].tolist()
    gauss, spare = state["spare"].tolist()
    random.setstate((version, tuple(words), None if gauss != gauss else gauss))
    *keys, position, has_spare = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_spare, spare))
    # torch reads the state from the beginning of the storage, which for a row of a matrix is not its own.
    torch.set_rng_state(state["torch"].clone())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].clone())
