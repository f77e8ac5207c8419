"""The memory and arithmetic that a training needs of each device, from the configuration and the pairs alone."""

__all__ = ["DryRun", "forecast_needs", "attention_flops"]

import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpo_full.attention.mask import kept_by_attention
from gpo_full.attention.prompt_blocks import BlockSizes
from gpo_full.config import GPOConfig
from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import sizes_of
from gpo_full.engine.lm_head import CHUNK
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import sharing_obstacle
from gpo_full.engine.packing import Batch, pack
from gpo_full.other_libraries import in_one_line
from gpo_full.training.start.adapters import adapter_config, with_adapter
from gpo_full.training.start.model import check_sizes, prepared
from gpo_full.training.start.trial import planned_steps, try_start
from gpo_theory.errors import InputError

MIB = 2**20
# The optimizers that keep two numbers in float32 for each trained parameter, fused or not.
ADAMW = ("adamw_torch", "adamw_torch_fused")


@dataclass(frozen=True)
class DryRun:
    """Per device: MiB by what needs them, FLOP and tokens of the largest micro-batch, optimizer steps of the run.

    `run_flops` is what the run computes at most: as if every micro-batch of every step were the largest.
    """

    parameters: int
    trained: int
    steps: int
    pairs: int  # of the largest micro-batch
    tokens: int
    memory_mib: dict[str, float]
    flops: float
    run_flops: float

    @property
    def total_mib(self) -> float:
        """The peak: everything at the same time, as when the backward pass starts."""
        return sum(self.memory_mib.values())


def forecast_needs(model: str, args: GPOConfig, pairs: Sequence[Pair], tokenizer: Any = None) -> DryRun:
    """Return what training `model` (a folder or hub name) with `args` on `pairs` needs; no weight is loaded.

    What the training needs later is tried as it does itself (`try_start`), which saves the `tokenizer`.
    The model of the configuration takes one forward and backward pass over the largest pairs on tensors that have
    shapes and no data; what autograd saves is counted (with activation checkpointing, without the one layer at a time
    that is computed once more). The moments are AdamW's two; another optimizer is an InputError. Under FSDP2 what lies
    in pieces is divided by WORLD_SIZE.
    The reference is scored one batch at a time before anything is trained, and needs less.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    optimizer = getattr(args.optim, "value", args.optim)
    if optimizer not in ADAMW:
        raise InputError(f"the memory of optim={optimizer!r} is not known here, only that of "
                         f"{' and '.join(ADAMW)}")  # fmt: skip
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    policy = _without_data(model, args, mode)
    try_start(policy, tokenizer, args, pairs=len(pairs))
    longest = check_sizes(policy, [pairs])
    largest = _largest(pairs, args.per_device_train_batch_size)
    apart = sharing_obstacle(policy.config.get_text_config(), longest) is not None
    batch = pack(largest, "apart" if apart else "line")
    saved, computed = _one_pass(policy, batch, args, mode)
    every = [parameter.numel() for parameter in policy.parameters()]
    trained = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    sharded = args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    pieces = int(os.environ.get("WORLD_SIZE", "1")) if sharded else 1
    text: Any = policy.config.get_text_config()
    memory = {"weights": 4 * sum(every) / pieces, "gradients": 4 * trained / pieces, "moments": 8 * trained / pieces,
              "activations": float(saved + (0 if apart else _kept_scores(args, batch.sizes, text))),
              "logits": 8.0 * min(CHUNK, len(batch.target)) * text.vocab_size}  # fmt: skip
    seen = attention_flops(batch.sizes, text.num_hidden_layers, text.hidden_size)
    steps, flops = planned_steps(args, len(pairs)), computed + seen
    return DryRun(sum(every), trained, steps, len(largest), int((batch.block > 0).sum()),
                  {name: size / MIB for name, size in memory.items()}, flops,
                  steps * args.gradient_accumulation_steps * flops)  # fmt: skip


def attention_flops(blocks: Sequence[BlockSizes], layers: int, width: int) -> float:
    """Return the FLOP of attention, forward and backward: 12 per layer, unit of width and visible pair of tokens.

    >>> attention_flops([BlockSizes(prompt=1, prefix=1, tails=(1, 1))], layers=1, width=1)  # 1 + 2 + 2 visible pairs
    60.0
    """
    seen = 0
    for block in blocks:
        seen += block.prefix * (block.prefix + 1) // 2
        seen += sum(tail * block.prefix + tail * (tail + 1) // 2 for tail in block.tails)
    return 12.0 * seen * width * layers


def _without_data(model: str, args: GPOConfig, mode: Any) -> Any:
    """The model as it is trained, its parameters and buffers shapes that claim to be on the CPU."""
    with torch.device("meta"):
        policy: Any = prepared(_without_weights(model), args)
    if args.activation_checkpointing:
        policy.activation_checkpointing_enable({"use_reentrant": False})
    with mode:
        policy.to_empty(device="cpu")
    policy.tie_weights()
    return policy.train()


def _one_pass(policy: Any, batch: Batch, args: GPOConfig, mode: Any) -> tuple[int, int]:
    """Bytes that autograd saves and FLOP of a forward and a backward pass, attention's left out."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with mode:
        # As "apart", so that tensors without data need no PairMask. The model then builds a dense mask, which a run
        # does not: `_Saved` leaves it out.
        saved = _Saved(mask=batch.block.shape[-1])
        there: dict[str, Any] = {name: mode.from_tensor(each) for name, each in batch.tensors().items()}
        fake = replace(batch, **there, layout="apart")
        autocast = torch.autocast(args.device.type, torch.bfloat16) if args.bf16 else nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(saved, lambda each: each), counter, autocast:
            response_log_probabilities(policy, fake).sum().backward()  # type: ignore[no-untyped-call]
    return saved.bytes, counter.get_total_flops()


def _kept_scores(args: GPOConfig, blocks: Sequence[BlockSizes], text: Any) -> int:
    """Bytes of the probabilities that attention keeps, which the pass on no data does not see."""
    kept = args.device.type == "cpu" and not args.bf16 and not args.activation_checkpointing
    return 4 * text.num_attention_heads * text.num_hidden_layers * kept_by_attention(blocks) if kept else 0


def _largest(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Return the pairs of the largest batch: those of one prompt, which share it, after the largest of each prompt."""
    found: dict[tuple[int, ...], list[Pair]] = {}
    for row in np.argsort(-sizes_of(pairs), kind="stable").tolist():
        found.setdefault(pairs[row].prompt, []).append(pairs[row])
        if len(found) == count:
            break
    firsts = [several[0] for several in found.values()]
    return [*firsts, *(pair for several in found.values() for pair in several[1:])][:count]


class _Saved:
    """Counts the storages that autograd keeps, each once, parameters and masks of `mask` queries and keys left out."""

    def __init__(self, mask: int) -> None:
        self._mask = (mask, mask)
        self._sizes: dict[int, int] = {}
        self._kept: list[Tensor] = []  # an address is given away again once its tensor is gone

    def __call__(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tuple(tensor.shape[-2:]) != self._mask:
            storage = tensor.untyped_storage()
            self._sizes[storage._cdata] = storage.nbytes()
            self._kept.append(tensor)
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())


def _without_weights(model: str) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    adapter = adapter_config(model)
    base = model if adapter is None else adapter.base_model_name_or_path
    with in_one_line(f"model {base!r} cannot be loaded"):
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        found: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        with suppress(OSError):  # it has none
            found.generation_config = GenerationConfig.from_pretrained(base)
    return found if adapter is None else with_adapter(found, adapter)
