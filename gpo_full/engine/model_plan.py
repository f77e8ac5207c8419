"""How a given model can be run, from its configuration and from a probe: layout of rows, and fused head or its own."""

__all__ = ["Plan", "plan", "evaluating", "sharing_obstacle"]

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gpo_full.attention.on_cuda import kernel_agrees, one_call
from gpo_full.data.pairs import Pair
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.packing import pack
from gpo_full.kernels.autocast import autocast_dtype
from gpo_theory.errors import InputError

# Attention implementations of transformers that take an explicit mask.
MASKABLE = ("eager", "sdpa")
# Families with state-space or other recurrent layers, as they appear in `model_type`.
RECURRENT = ("mamba", "rwkv", "jamba", "zamba", "bamba", "recurrent_gemma", "xlstm", "falcon_h1", "lfm2")
# Endings of the configuration names that bound how far attention looks back; the probe is too short to notice.
WINDOWS = ("window", "window_size", "window_len", "block_size")
# (relative, absolute in nats) per response: well above rounding (3e-5 was measured in float32 with 12 layers), well
# below the error of a layer that sees the wrong tokens. The float64 values allow for layers that compute in
# float32 whatever the dtype of the model; LOOSE is for bfloat16 and float16.
TOLERANCE = {torch.float64: (1e-6, 1e-5), torch.float32: (5e-5, 1e-4)}
LOOSE = (0.02, 0.1)


@dataclass(frozen=True)
class Plan:
    """How a model is run: the layout of its rows (see `pack`), and whether with the fused head or its own logits.

    `reasons` are texts that say why prefixes are not shared, or the fused head or a fast kernel is not used.
    """

    layout: str = "rows"
    fused_head: bool = True
    reasons: tuple[str, ...] = ()


def plan(
    model: nn.Module, longest: int, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    device: torch.device | None = None,
) -> Plan:  # fmt: skip
    """Return how `model` can be run on sequences of up to `longest` tokens, trained under `autocast` on `device`.

    Sliding windows and recurrent layers, which a mask cannot split, show in the configuration. Anything else that would
    make packed rows differ from two separate sequences (position ids that are ignored, a scale or a soft cap on the
    logits) shows in a probe of three short pairs, in the precision of the weights, on the device where the model is
    now; the attention kernel of `device` (by default that one) is probed there. Raises InputError if even separate rows
    with the model's own head do not give the values of its plain forward pass.
    """
    reasons = []
    obstacle = sharing_obstacle(_config(model), longest)
    pairs = [Pair((3, 5, 4), (6, 7, 8), (9,), 2), Pair((4, 5, 6, 7), (3, 9), (5, 5), 4), Pair((7,), (4,), (3,), 1)]
    expected = _separately(model, pairs)
    if not expected.isfinite().all():
        raise InputError(f"{type(model).__name__}: log-probabilities are not finite: are the model's weights?")
    fused_head = _agrees(model, pairs, "apart", True, expected)
    if not fused_head:
        reasons.append("the model changes its logits after the head, which is therefore not computed in chunks")
        if not _agrees(model, pairs, "apart", False, expected):
            raise InputError(f"{type(model).__name__}: response log-probabilities cannot be computed: is it a causal "
                             "language model?")  # fmt: skip
    layout, differs = _preferred_layout(model, autocast, device or _device(model))
    if layout == "line" and _device(model).type != "cpu":
        with autocast():  # where attention is one call of another kernel
            differs = not _agrees(model, pairs, "line", fused_head, _separately(model, pairs))
    if differs:
        layout = "rows"
        reasons.append("attention is computed under a dense mask, from which a probe of the fast kernel differs")
    if obstacle is None and not _agrees(model, pairs, layout, fused_head, expected):
        obstacle = "a probe of packed rows differs from separate sequences"
    if obstacle is not None:
        layout = "apart"
        reasons.append(f"prefixes are not shared: {obstacle}")
    return Plan(layout, fused_head, tuple(reasons))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode and switch gradients off; on exit, restore the mode of each module."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def sharing_obstacle(text: Any, longest: int) -> str | None:
    """Return why a text model's configuration forbids shared prefixes, or None."""
    if text._attn_implementation not in MASKABLE:
        return f"attention {text._attn_implementation!r} takes no explicit mask; {' and '.join(MASKABLE)} do"
    kinds = getattr(text, "layer_types", None)
    if set(kinds or ()) - {"full_attention", "sliding_attention"} or any(x in text.model_type for x in RECURRENT):
        return f"layers of {text.model_type} are not all full or sliding attention"
    # Without layer types, a window applies to all layers.
    window = _window(text) if kinds is None or "sliding_attention" in kinds else None
    if window is not None and window < longest:
        return f"its attention looks back {window} tokens, sequences have up to {longest}"
    return None


def _window(text: Any) -> int | None:
    """Return the smallest number of tokens that attention looks back by this configuration, None if unlimited."""
    if not getattr(text, "use_sliding_window", True):
        return None
    sizes = [value for name, value in text.to_dict().items() if name.endswith(WINDOWS) and type(value) is int]
    return min((size for size in sizes if size > 0), default=None)


def _preferred_layout(
    model: nn.Module, autocast: Callable[[], AbstractContextManager[Any]], device: torch.device
) -> tuple[str, bool]:
    """Return "line" where attention by blocks is fast (a CPU, or one call of a CUDA kernel), else "rows".

    Second, whether that kernel fails its probe.
    """
    text = _config(model)
    if text._attn_implementation != "sdpa":
        return "rows", False
    if device.type == "cpu":
        return "line", False
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    with autocast():
        dtype = _dtype(model)
        if not one_call(device, dtype, width):
            return "rows", False
    return "line", not kernel_agrees(device, dtype, width, heads, getattr(text, "num_key_value_heads", None) or heads)


def _separately(model: nn.Module, pairs: list[Pair]) -> Tensor:
    """Return log pi(y | x) by its definition, [P, 2]: the plain model on each sequence alone."""
    totals = []
    with evaluating(model):
        for pair in pairs:
            for response in pair.responses:
                ids = torch.tensor([pair.prefix[: pair.prompt_length] + response], device=_device(model))
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
                values = logits.log_softmax(-1, torch.promote_types(logits.dtype, torch.float32))
                totals.append(values.gather(1, ids[0, 1:, None])[pair.prompt_length - 1 :].sum())
    return torch.stack(totals).view(-1, 2)


def _agrees(model: nn.Module, pairs: list[Pair], layout: str, fused_head: bool, expected: Tensor) -> bool:
    with evaluating(model):
        batch = pack(pairs, layout).to(_device(model))
        try:
            found = response_log_probabilities(model, batch, fused_head=fused_head)
        except torch.OutOfMemoryError:  # says nothing of the values
            raise
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
    relative, absolute = TOLERANCE.get(_dtype(model), LOOSE)
    return bool(torch.isclose(found, expected, rtol=relative, atol=absolute).all())


def _config(model: Any) -> Any:
    return model.config.get_text_config()


def _dtype(model: nn.Module) -> torch.dtype:
    return autocast_dtype(next(parameter for parameter in model.parameters() if parameter.is_floating_point()))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
