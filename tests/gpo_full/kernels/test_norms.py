"""Norms in few passes: the same values and gradients as the model's own, and only where that is what it computes."""

import mpmath
import pytest
import torch
from torch import nn

from gpo_full.engine.packing import pack
from gpo_full.kernels import norms as module
from gpo_full.kernels.norms import _RootMeanSquare, fused_norms
from tests.support.pairs import distance, some_pairs, values_and_gradient
from tests.support.tiny_models import tiny_model


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (weight + offset)."""

    def __init__(self, width: int, offset: float, power: float = 0.5) -> None:
        super().__init__()
        self.weight, self.eps, self.offset, self.power = nn.Parameter(torch.ones(width)), 1e-5, offset, power

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states / (states.pow(2).mean(-1, keepdim=True) + self.eps) ** self.power * (self.weight + self.offset)


def replaced(model: nn.Module) -> list[str]:
    with fused_norms(model):
        return [name for name, each in model.named_modules() if "forward" in each.__dict__]


def test_the_formula_is_that_of_arbitrary_precision() -> None:
    states, weight = [0.3, -4.0, 1e-3, 2.5], [1.0, -0.5, 3.0, 0.25]
    with mpmath.workdps(40):
        scale = 1 / mpmath.sqrt(mpmath.fsum(mpmath.mpf(x) ** 2 for x in states) / 4 + mpmath.mpf(1e-6))
        expected = [float(mpmath.mpf(x) * scale * mpmath.mpf(w)) for x, w in zip(states, weight, strict=True)]
    found = _RootMeanSquare.apply(torch.tensor(states).double(), torch.tensor(weight).double(), 1e-6)
    # 1e-3 and 0.3 are not float32 numbers: the doubles are made of the rounded ones.
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    states = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: _RootMeanSquare.apply(x, w, 1e-3), (states, weight))


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_a_model_computes_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny_model(family), pack(some_pairs(), "line")
    assert len(replaced(model)) == sum(type(each).__name__.endswith("RMSNorm") for each in model.modules()) > 1
    found = []
    for _ in range(2):
        found.append(values_and_gradient(model, batch))
        monkeypatch.setattr(module, "_is_root_mean_square", lambda _: False)
    (values, gradient), (own_values, own_gradient) = found
    assert distance(values, own_values) < 1e-5
    assert 0 < distance(gradient, own_gradient) < 1e-5  # 0 would mean that nothing was replaced


def test_a_norm_that_computes_something_else_is_left_alone() -> None:
    class Other(RMSNorm):
        pass

    Other.__name__ = "OtherRMSNorm"
    assert replaced(nn.Sequential(RMSNorm(8, 0.0), RMSNorm(8, 0.0))) == ["0", "1"]
    assert replaced(nn.Sequential(Other(8, 1.0))) == []
    assert not any(replaced(tiny_model("gemma2", attention="eager")))


def test_half_precision_keeps_the_models_own_rounding() -> None:
    norm, states = RMSNorm(8, 0.0).bfloat16(), torch.randn(3, 8).bfloat16()
    own = norm(states)
    with fused_norms(norm):
        assert torch.equal(norm(states), own)


def test_checkpointed_layers_are_left_alone() -> None:
    model = tiny_model("llama")
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert replaced(model) == []
