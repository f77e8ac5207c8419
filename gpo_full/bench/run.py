"""The benchmark of the language-model engine: time and peak memory of one training step, against TRL and an ideal.

`python -m gpo_full.bench.run` prints the table and writes `build/bench.json` and `build/bench.png`.
"""

__all__ = ["Shape", "Size", "ideal_flops"]

import argparse
import json
import multiprocessing
import random
import statistics
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import nn

from gpo_full.attention.prompt_blocks import blocks_by_prompt
from gpo_full.bench.contenders import CONTENDERS, Step, missing
from gpo_full.bench.device import MIB, Place
from gpo_full.data.pairs import Pair
from gpo_full.files import write_whole
from gpo_full.output import progress
from gpo_full.training.start.dry_run import attention_flops
from gpo_full.versions import versions_of

# The spread of lengths: the standard deviation of their logarithm.
SPREAD = 0.5
# The largest difference allowed between the contenders' losses, in nats, without and with bfloat16.
SAME = {False: 1e-3, True: 3e-2}


_VERSIONS = {"trl": "not installed", **versions_of(("torch", "transformers", "trl"))}


@dataclass(frozen=True)
class Shape:
    """The median lengths of prompts and responses, in tokens."""

    prompt: int
    response: int

    def pairs(self, count: int, vocabulary: int) -> list[Pair]:
        """Return `count` random pairs whose lengths are the quantiles of a log-normal distribution."""
        draw = random.Random(20240213)
        spread = [2.718281828 ** (SPREAD * NormalDist().inv_cdf((i + 0.5) / count)) for i in range(count)]

        def tokens(median: int, scale: float) -> tuple[int, ...]:
            return tuple(draw.randrange(4, vocabulary) for _ in range(max(2, round(median * scale))))

        scales = [draw.sample(spread, count) for _ in range(3)]
        made = []
        for a, b, c in zip(*scales, strict=True):
            prompt = tokens(self.prompt, a)
            chosen, rejected = (2, *tokens(self.response, b)[1:]), (3, *tokens(self.response, c)[1:])
            made.append(Pair(prompt, chosen, rejected, len(prompt)))
        return made


@dataclass(frozen=True)
class Size:
    """The numbers of a Llama architecture that its cost depends on, and the pairs of a step."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    pairs: int

    def model(self) -> nn.Module:
        """Return the model with random weights, always the same."""
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            hidden_size=self.width, intermediate_size=self.intermediate, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.kv_heads, vocab_size=self.vocabulary,
            max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=3, eos_token_id=3)  # fmt: skip
        torch.manual_seed(0)
        model: nn.Module = LlamaForCausalLM(config)
        return model

    @property
    def weights(self) -> int:
        """All parameters: those of the layers, and the embedding, which is also the head."""
        return self.backbone + self.vocabulary * self.width

    @property
    def backbone(self) -> int:
        """The parameters of the layers, each used once per token."""
        attention = 2 * self.width**2 * (1 + self.kv_heads / self.heads)
        return int(self.layers * (attention + 3 * self.width * self.intermediate))


SHAPES = {"summarisation": Shape(300, 35), "dialogue": Shape(150, 150), "long": Shape(1000, 60)}
# Two pairs at 135 M: eight long ones in padded rows would keep some 60 GiB of activations.
SIZES = {"10m": Size(6, 384, 6, 6, 1024, 8192, 8), "135m": Size(30, 576, 9, 3, 1536, 49152, 2)}


def ideal_flops(size: Size, pairs: Sequence[Pair]) -> float:
    """Return what forward and backward must compute: each unique token once, the head at response tokens only.

    6 per token and backbone parameter, 6 V d per prediction, and 12 d per layer and visible pair of tokens.

    >>> ideal_flops(Size(1, 1, 1, 1, 1, 10, 1), [Pair((5,), (6,), (7,), 1)])  # 6*3*7 + 6*2*10 + 12*(1 + 2 + 2)
    306.0
    """
    blocks = [block.sizes for block in blocks_by_prompt(pairs)]
    tokens = sum(block.size for block in blocks)
    predictions = tokens - sum(block.prompt for block in blocks)
    return float(6 * tokens * size.backbone + 6 * predictions * size.vocabulary * size.width
                 + attention_flops(blocks, size.layers, size.width))  # fmt: skip


@dataclass(frozen=True)
class Turns:
    """The losses and seconds of one contender's steps, the operating system's part, and the GEMM rates beside them."""

    losses: list[float]
    seconds: list[float]
    kernel: list[float]
    rates: list[float]

    def take(self, step: Step, place: Place) -> None:
        """Take one step and record it."""
        start, kernel = place.seconds(), place.kernel_seconds()
        self.losses.append(step())
        self.seconds.append(place.seconds() - start)
        self.kernel.append(place.kernel_seconds() - kernel)


@dataclass(frozen=True)
class Alone:
    """A contender in a process of its own: the peak memory of two steps in MiB, and their measurements."""

    peak: float
    turns: Turns


def _in_turn(shape: str, size: str, repeats: int, names: Iterable[str], place: Place) -> dict[str, Turns]:
    """Measure `repeats` steps of each contender, taking turns in this process."""
    architecture = SIZES[size]
    pairs = SHAPES[shape].pairs(architecture.pairs, architecture.vocabulary)
    turns = {name: Turns([], [], [], []) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        steps = {name: CONTENDERS[name](architecture.model(), pairs, Path(folder), place) for name in turns}
        for _ in progress(range(repeats), f"{shape}, {size}", repeats):
            for name, step in steps.items():
                turns[name].rates.append(_gemm_rate(architecture, place))
                turns[name].take(step, place)
    return turns


def _needed(size: Size, alone: dict[str, Alone]) -> float:
    """MiB to take turns in one process: the largest peak, and float32 weights and two moments of every other."""
    return max(each.peak for each in alone.values()) + (len(alone) - 1) * 3 * 4 * size.weights / MIB


def _cell(shape: str, size: str, repeats: int, alone: dict[str, Alone], place: Place, free: float) -> dict[str, Any]:
    """Compare steps taken in turn if `free` MiB hold all contenders, else the two steps that each took alone."""
    architecture = SIZES[size]
    pairs = SHAPES[shape].pairs(architecture.pairs, architecture.vocabulary)
    together = _needed(architecture, alone) <= free
    turns = {name: each.turns for name, each in alone.items()}
    if together:
        turns = _in_turn(shape, size, repeats, alone, place)
    losses = {name: each.losses for name, each in turns.items()}
    apart = max(max(each) - min(each) for each in zip(*losses.values(), strict=True))
    if not apart <= SAME[place.bf16]:
        raise ArithmeticError(f"{shape}, {size}: the contenders' losses are {apart:.2g} nats apart: {losses}")
    rate = statistics.median([rate for each in turns.values() for rate in each.rates])
    return {
        "shape": shape, "size": size, "pairs": len(pairs), "unique_tokens": sum(pair.size for pair in pairs),
        "padded_tokens": 2 * len(pairs) * max(len(pair.prefix) + len(r) for pair in pairs for r in pair.responses),
        "gemm_gflops": rate / 1e9, "ideal_seconds": ideal_flops(architecture, pairs) / rate, "losses_apart": apart,
        "taking_turns": together,
        "contenders": {name: {"seconds": statistics.median(each.seconds), "runs": each.seconds,
                              "kernel_seconds": statistics.median(each.kernel),
                              "peak_mib": alone[name].peak} for name, each in turns.items()},
    }  # fmt: skip


def _gemm_rate(size: Size, place: Place, limit: float = 0.15) -> float:
    """FLOP per second of the multiplication that a backbone of this size mostly consists of."""
    a, b = (torch.randn(n, size.width, device=place.device) for n in (place.rows, size.intermediate))
    if place.bf16:
        a, b = a.bfloat16(), b.bfloat16()
    torch.mm(a, b.T)
    count = 2
    while True:
        start = place.seconds()
        for _ in range(count):
            torch.mm(a, b.T)
        taken = place.seconds() - start
        if taken >= limit:
            return 2.0 * count * a.numel() * len(b) / taken
        count *= 2


def _alone(name: str, shape: str, size: str, place: Place) -> Alone:
    """Take two steps of a contender in a process of its own, which has only imported it before."""
    # Autograd refuses the fork of a process that has run backward, so all peaks come before all timings.
    with ProcessPoolExecutor(1, multiprocessing.get_context(place.start_method)) as process:
        try:
            return process.submit(_measure, name, shape, size, place).result()
        except BrokenProcessPool:
            raise MemoryError(f"{name}, {shape}, {size}: the process was killed, perhaps for want of memory") from None


def _measure(name: str, shape: str, size: str, place: Place) -> Alone:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    _warm(name)
    before = place.peak()
    architecture = SIZES[size]
    pairs = SHAPES[shape].pairs(architecture.pairs, architecture.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        step = CONTENDERS[name](architecture.model(), pairs, Path(folder), place)
        turns = Turns([], [], [], [])
        turns.take(step, place)
        turns.take(step, place)
    used = place.peak() - before
    turns.rates.append(_gemm_rate(architecture, place))
    return Alone(used, turns)


def _table(cell: dict[str, Any], unit: str) -> str:
    made, ideal = cell["contenders"], cell["ideal_seconds"]
    ours = made["ours"]
    lines = [f"{cell['shape']}, {cell['size']}: {cell['pairs']} pairs, {cell['unique_tokens']} unique tokens, "
             f"{cell['padded_tokens']} padded; {cell['gemm_gflops']:.0f} GFLOP/s",
             *([] if cell["taking_turns"] else ["  each alone, two steps: memory does not hold them all"]),
             f"  {'':16}{unit:>8}{'x ours':>8}{'% ideal':>9}{'kernel':>8}{'MiB':>8}{'x ours':>8}"]  # fmt: skip
    for name, each in made.items():
        seconds, peak = each["seconds"], each["peak_mib"]
        lines.append(f"  {name:16}{seconds:8.2f}{seconds / ours['seconds']:8.2f}{100 * ideal / seconds:9.0f}"
                     f"{each['kernel_seconds']:8.2f}{peak:8.0f}{peak / ours['peak_mib']:8.2f}")  # fmt: skip
    return "\n".join([*lines, f"  {'ideal':16}{ideal:8.2f}{ideal / ours['seconds']:8.2f}{100:9}"])


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gpo_full.bench.run",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    for name, known in (("shape", SHAPES), ("size", SIZES), ("contender", CONTENDERS)):
        parser.add_argument(f"--{name}", nargs="+", choices=known, default=[*known], help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="steps of each contender, taking turns (two, each "
                        "alone, where memory does not hold them all); their median counts")  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16, over float32 weights")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder of bench.json and bench.png")
    given = parser.parse_args(words)
    if given.repeats < 1:
        parser.error("--repeats must be at least 1")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    given.contender = ["ours", *(name for name in given.contender if name != "ours")]
    return given


def _main(words: Sequence[str] | None = None) -> None:
    given = _arguments(words)
    place = Place(given.device, given.bf16)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    absent = {name: why for name in given.contender if (why := missing(name))}
    names = [name for name in given.contender if name not in absent]
    cells = [(shape, size) for size in given.size for shape in given.shape]
    for name in names:  # import once, before the forks
        _warm(name)
    alone = {cell: {name: _alone(name, *cell, place) for name in names} for cell in progress(cells, "peak memory")}
    measured, free = [], place.memory() - place.peak()
    for cell in cells:
        measured.append(_cell(*cell, given.repeats, alone[cell], place, free))
        print(_table(measured[-1], place.unit), flush=True)
        _write(given.output, {"schema": 2, "device": place.device, "bf16": place.bf16, "unit": place.unit,
                              "versions": _VERSIONS, "missing": absent, "cells": measured})  # fmt: skip
    for name, why in absent.items():
        print(f"missing: {name}: {why}")


def _warm(name: str) -> None:
    """Import what a contender needs."""
    import gpo_full.training.trainer  # noqa: F401

    if name.startswith("trl"):
        import datasets  # noqa: F401
        import trl.trainer.dpo_trainer  # noqa: F401


def _write(folder: Path, report: dict[str, Any]) -> None:
    from gpo_full.bench.plots import bench_bars

    write_whole(folder / "bench.json", json.dumps(report, indent=1, allow_nan=False))
    bench_bars(report).savefig(folder / "bench.png", dpi=120)


if __name__ == "__main__":
    _main()
