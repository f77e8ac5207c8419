"""Gated MLPs: bit by bit what the model's own compute, of less memory, and only where that is what they compute."""

import gc
from contextlib import nullcontext
from typing import Any

import mpmath
import pytest
import torch
from torch import nn

from gpo_full.engine.log_probabilities import token_log_probabilities
from gpo_full.engine.packing import pack
from gpo_full.kernels import gated_mlp as module
from gpo_full.kernels.gated_mlp import _Gated, fused_gates
from tests.support.pairs import some_pairs
from tests.support.tiny_models import tiny_model


class Gated(nn.Module):
    """down(factor * silu(gate(x)) * up(x))."""

    def __init__(self, width: int, factor: float = 1.0, activation: Any = nn.functional.silu) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.down_proj, self.factor, self.activation = nn.Linear(2 * width, width), factor, activation

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.factor * self.activation(self.gate_proj(states)) * self.up_proj(states))


def replaced(model: nn.Module) -> list[str]:
    with fused_gates(model):
        return [name for name, each in model.named_modules() if "forward" in each.__dict__]


def test_the_formula_is_that_of_arbitrary_precision() -> None:
    gate, up, pull = [0.5, -30.0, 2.0, 0.0], [1.0, 3.0, -0.25, 7.0], [2.0, -1.0, 0.5, 1.0]
    a, b = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (gate, up))
    found = _Gated.apply(a, b)
    found.backward(torch.tensor(pull, dtype=torch.float64))
    with mpmath.workdps(40):
        silu = [mpmath.mpf(x) / (1 + mpmath.exp(-mpmath.mpf(x))) for x in gate]
        slopes = [mpmath.diff(lambda t: t / (1 + mpmath.exp(-t)), x) for x in gate]
    assert found.tolist() == pytest.approx([float(s * u) for s, u in zip(silu, up, strict=True)], rel=1e-14)
    assert b.grad.tolist() == pytest.approx([float(s * g) for s, g in zip(silu, pull, strict=True)], rel=1e-14)
    expected = [float(s * u * g) for s, u, g in zip(slopes, up, pull, strict=True)]
    assert a.grad.tolist() == pytest.approx(expected, rel=1e-13)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(_Gated.apply, tensors)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_a_model_computes_the_same_bit_by_bit(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny_model(family), pack(some_pairs(), "line")
    assert replaced(model) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    found, kept = [], []
    for _ in range(2):
        model.zero_grad()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            values = token_log_probabilities(model, batch)
        values.sum().backward()
        found.append([values.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)])
        kept.append(sum(sizes))
        monkeypatch.setattr(module, "_is_gated", lambda _: False)
    assert all(torch.equal(*each) for each in zip(*found, strict=True))
    assert kept[0] < kept[1]  # the activation is not kept; equal would mean that nothing was replaced


# peft 0.21 still asks for the old name of activation checkpointing.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_stay_in_place() -> None:
    """The three products are called as modules: what wraps or watches them still acts."""
    from peft import LoraConfig, get_peft_model

    model = tiny_model("llama")
    adapted: Any = get_peft_model(model, LoraConfig(r=2, target_modules=["gate_proj", "down_proj"], init_lora_weights=False))
    batch, calls = pack(some_pairs(), "line"), []
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: calls.append(1))
    assert len(replaced(adapted)) == 2
    values = token_log_probabilities(adapted, batch)
    assert calls == [1]
    values.sum().backward()
    gradients = [each.grad for name, each in adapted.named_parameters() if "lora" in name]
    assert len(gradients) == 8
    assert all(each is not None and each.abs().sum() > 0 for each in gradients)


class Clamped(Gated):
    """What DeepSeek's and others compute: the products are bounded."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(states).clamp(max=10), self.up_proj(states).clamp(-10, 10)
        return self.down_proj(nn.functional.silu(gate) * up)


class Dropping(Gated):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(super().forward(states), 0.5, self.training)


class DroppingBelow(Gated):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.dropout(super().forward(states))


class Uncopied(Gated):
    def __copy__(self) -> "Uncopied":
        raise TypeError("not to be copied")


@pytest.mark.parametrize(
    "other",
    [Clamped(4), Dropping(4).eval(), Dropping(4), DroppingBelow(4).eval(), DroppingBelow(4), Uncopied(4),
     Gated(4, factor=2.0), Gated(4, activation=nn.functional.gelu), Gated(4, activation=lambda x: x[0, 0, 0, 0]),
     nn.Sequential(nn.Linear(4, 4))],
)  # fmt: skip
def test_what_computes_something_else_is_left_alone(other: nn.Module) -> None:
    assert replaced(Gated(4)) == [""]
    assert replaced(other) == []


def test_each_is_tried_for_itself() -> None:
    assert replaced(nn.Sequential(Gated(4), Gated(4, factor=2.0), Gated(4))) == ["0", "2"]
    assert replaced(tiny_model("gemma2", attention="eager")) == []  # gates of GELU


@pytest.mark.parametrize("way", ["half", "autocast", "double", "mixed"])
def test_other_precisions_are_the_same_bit_by_bit(way: str) -> None:
    """Mixed: a float64 gate beside a float32 product."""
    dtype = {"half": torch.bfloat16, "double": torch.float64}.get(way, torch.float32)
    own = Gated(4).to(dtype)
    if way == "mixed":
        own.gate_proj = nn.Sequential(own.gate_proj.double())
        own.gate_proj.register_forward_pre_hook(lambda _, given: (given[0].double(),))
        own.down_proj.double()
    states, found = torch.randn(3, 4).to(dtype), []
    for each in (nullcontext, fused_gates):
        own.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"), each(own):
            assert ("forward" in own.__dict__) == (each is fused_gates)
            values = own(states)
        values.sum().backward()
        found.append([values.detach(), *(one.grad.clone() for one in own.parameters())])
    assert all(torch.equal(*each) for each in zip(*found, strict=True))


def test_modules_that_are_gone_are_forgotten() -> None:
    gc.collect()
    before, other = len(module._tried), Gated(4)
    replaced(other)
    assert len(module._tried) == before + 1
    del other
    gc.collect()
    assert len(module._tried) == before


def test_compiled_sharded_and_checkpointed_parts_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sharded(Gated):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(module, "FSDPModule", Sharded)
        assert replaced(Sharded(4)) == []
    compiled = Gated(4)
    compiled.compile(backend="eager")
    assert replaced(compiled) == []
    model = tiny_model("llama")
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert replaced(model) == []


def test_the_trial_leaves_the_module_and_the_generator_as_they_were() -> None:
    tried, other = Gated(4), Dropping(4)
    drawn = torch.get_rng_state()
    assert replaced(other) == []
    assert other.training
    before = {name: each.clone() for name, each in tried.state_dict().items()}
    children = dict(tried.named_modules())
    assert replaced(tried) == [""]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert dict(tried.named_modules()) == children
    assert all(torch.equal(each, before[name]) for name, each in tried.state_dict().items())
    assert "forward" not in tried.__dict__
