"""The precision that autocast computes in, for kernels that it does not know."""

__all__ = ["autocast_dtype"]

import torch
from torch import Tensor


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """Return the type that a matrix product under the autocast in force, if any, would have of `tensor`.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_dtype(torch.zeros(1)), autocast_dtype(torch.zeros(1, dtype=torch.float64))
    (torch.bfloat16, torch.float64)
    """
    kind = tensor.device.type
    if not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return tensor.dtype
    return torch.get_autocast_dtype(kind)
