"""The type in which autocast computes, for kernels that it does not cast for."""

__all__ = ["autocast_dtype"]

import torch
from torch import Tensor


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """Return the type of a matrix product with `tensor` under the active autocast, if any.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_dtype(torch.zeros(1)), autocast_dtype(torch.zeros(1, dtype=torch.float64))
    (torch.bfloat16, torch.float64)
    """
    kind = tensor.device.type
    if not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return tensor.dtype
    return torch.get_autocast_dtype(kind)
