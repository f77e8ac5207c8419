"""Rotary position embeddings in few passes over memory; as most models write them, each is a dozen passes."""

__all__ = ["fused_rotary"]

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _disable_current_modes

from gpo_full.kernels.layers import checkpointed, layer_stack

# The name in transformers of the function that rotates queries and keys.
NAME = "apply_rotary_pos_emb"
# The largest allowed difference from the rotation that is replaced, relative to the largest entry.
SAME = 1e-5

Turn = Callable[..., tuple[Tensor, Tensor]]
# Python modules whose function is replaced at the moment: the number of open contexts, and the original function.
_open: dict[Any, tuple[int, Any]] = {}
_lock = Lock()


@contextmanager
def fused_rotary(model: Any) -> Iterator[None]:
    """Let the layers of `model` rotate queries and keys, x to x cos + (-x2, x1) sin, in few passes, in full precision.

    x1 and x2 are the halves of a head. The function that the layers call is tested first, since its name does not say
    which numbers it pairs. Does nothing if activations are checkpointed: backward would recompute the layers after this
    context is left.
    """
    with ExitStack() as stack:
        if not any(map(checkpointed, model.modules())):
            for name in {type(module).__module__ for layer in layer_stack(model)[:1] for module in layer.modules()}:
                stack.enter_context(_replaced(sys.modules.get(name)))
        yield


@contextmanager
def _replaced(home: Any) -> Iterator[None]:
    """Replace the rotation of the Python module `home`, which all models of its kind call.

    Of several contexts that are open at a time (in threads), the last to be left restores the original.
    """
    with _lock:
        count, own = _open.get(home, (0, getattr(home, NAME, None)))
        replaces = callable(own) and _agrees(own)
        if replaces:
            _open[home] = count + 1, own
            setattr(home, NAME, _fused(own))
    try:
        yield
    finally:
        if replaces:
            with _lock:
                count, own = _open.pop(home)
                if count > 1:
                    _open[home] = count - 1, own
                else:
                    setattr(home, NAME, own)


@cache
@torch.no_grad()
def _agrees(turn: Turn) -> bool:
    with _disable_current_modes():  # such as fake tensors
        query, key, cos, sin = torch.linspace(-2, 3, 4 * 12, device="cpu").view(4, 1, 3, 4)
        try:
            found = turn(query[None], key[None], cos, sin)
        except Exception:  # foreign code, on inputs it was not written for
            return False
        expected = [_turned(each[None], cos[None], sin[None]) for each in (query, key)]
        pairs = zip(expected, found, strict=False)
        return len(found) == 2 and all(bool((a - b).abs().max() <= SAME * a.abs().max()) for a, b in pairs)


def _fused(original: Turn) -> Turn:
    @wraps(original)
    def turn(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        if args or options or not _fits(query, key, cos, sin):
            return original(query, key, cos, sin, *args, **options)
        cos, sin = cos[:, None], sin[:, None]
        return _Turn.apply(query, cos, sin), _Turn.apply(key, cos, sin)  # type: ignore[no-untyped-call]

    return turn


def _fits(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> bool:
    full = all(each.dtype == torch.float32 for each in (query, key, cos, sin))
    whole = {each.shape[-1] for each in (query, key, cos, sin)} == {query.shape[-1]} and query.shape[-1] % 2 == 0
    return full and whole and not cos.requires_grad and not sin.requires_grad


class _Turn(torch.autograd.Function):
    """y1 = x1 c1 - x2 s1, y2 = x2 c2 + x1 s2. With g the incoming gradient: g1 c1 + g2 s2, g2 c2 - g1 s1."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(states, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        first, second = sin.chunk(2, -1)
        return _turned(incoming, cos, torch.cat((-second, -first), -1)), None, None


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned = states * cos
    (x1, x2), (s1, s2), (y1, y2) = (each.chunk(2, -1) for each in (states, sin, turned))
    y1.addcmul_(x2, s1, value=-1)
    y2.addcmul_(x1, s2)
    return turned
