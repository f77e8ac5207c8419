"""A cached frozen layer changes no number, and is refused where it would."""

import copy
from typing import Any

import pytest
import torch

from gpo_full.experiment.frozen_layers import cached_frozen_layers
from tests.support.tiny_models import tiny_model

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def frozen(first: int) -> Any:
    model = tiny_model("llama", num_hidden_layers=4)
    model.requires_grad_(False)
    for layer in model.get_decoder().layers[first:]:
        layer.requires_grad_(True)
    return model


def gradients(model: Any, ids: torch.Tensor = IDS, **settings: Any) -> list[torch.Tensor]:
    model.zero_grad()
    model(input_ids=ids, **settings).logits.square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_gradients_are_bitwise_those_of_the_plain_model_and_the_frozen_layers_run_once() -> None:
    model, outputs = frozen(3), {}
    calls: list[int] = []
    model.get_decoder().layers[0].register_forward_hook(lambda *_: calls.append(1))
    plain = gradients(model)
    calls.clear()
    with cached_frozen_layers(model, 3, outputs):
        twice = [gradients(model) for _ in range(2)]
    torch.testing.assert_close(twice, [plain, plain], rtol=0, atol=0)
    assert (len(calls), len(outputs)) == (1, 1)
    assert len(model.get_decoder().layers) == 4


def test_another_run_of_the_same_frozen_layers_shares_the_cache() -> None:
    model, outputs = frozen(3), {}
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.get_decoder().layers[3].parameters():
            parameter.add_(0.1)
    with cached_frozen_layers(model, 3, outputs):
        gradients(model)
    plain = gradients(other)
    with cached_frozen_layers(other, 3, outputs):
        found = gradients(other)
    assert len(outputs) == 1
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


def test_other_tokens_and_other_positions_are_other_entries() -> None:
    model, outputs = frozen(2), {}
    with cached_frozen_layers(model, 2, outputs):
        gradients(model)
        gradients(model, ids=IDS + 1)
        gradients(model, position_ids=torch.tensor([[0, 1, 2, 0, 1]]))
    assert len(outputs) == 3


def test_layers_that_are_trained_are_refused() -> None:
    with pytest.raises(ValueError, match="layers below 3 are trained"), cached_frozen_layers(frozen(2), 3, {}):
        pass
