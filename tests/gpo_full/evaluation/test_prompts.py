"""Reading prompts: equal to an ordinary forward pass, and shared layers change nothing."""

import copy
from typing import Any

import pytest
import torch

from gpo_full.evaluation.cache import cache_argument
from gpo_full.evaluation.prompts import read_prompts, shared_layers
from tests.support.tiny_models import tiny_model

PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]


def changed_above(model: Any, layer: int) -> Any:
    """A copy of `model` whose layers from `layer` on are others."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for upper in other.get_decoder().layers[layer:]:
            for parameter in upper.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return other


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma2"])
@torch.no_grad()
def test_logits_are_those_of_each_prompt_alone(family: str) -> None:
    # Gemma 2 has no SDPA, and the library's eager attention masks in float32 only.
    settings = {"attention": "eager"} if family == "gemma2" else {"dtype": torch.float64}
    model = tiny_model(family, **settings)
    read = read_prompts(model, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone = model(input_ids=torch.tensor([prompt])).logits[0, -1]
        tolerance = 1e-4 if family == "gemma2" else 1e-6
        torch.testing.assert_close(read.logits[row], alone, rtol=tolerance, atol=tolerance)
    assert read.last.flatten().tolist() == [3, 1, 2]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_reading_above_shared_layers_equals_reading_all(family: str) -> None:
    model = tiny_model(family, num_hidden_layers=4, dtype=torch.float64)
    policy = changed_above(model, 3)
    assert shared_layers(policy, model) == 3
    for shared in (1, 3):
        spared = read_prompts(policy, PROMPTS, known=read_prompts(model, PROMPTS, shared))
        whole = read_prompts(policy, PROMPTS)
        torch.testing.assert_close((spared.logits, spared.states), (whole.logits, whole.states), rtol=0, atol=0)
    assert len(policy.get_decoder().layers) == 4


def test_shared_layers_counts_from_below_and_never_all() -> None:
    model = tiny_model("llama", num_hidden_layers=4)
    assert [shared_layers(changed_above(model, k), model) for k in range(5)] == [0, 1, 2, 3, 3]


def test_nothing_is_shared_where_it_cannot_be_used() -> None:
    gpt2, gemma2 = tiny_model("gpt2"), tiny_model("gemma2", attention="eager")
    assert shared_layers(gpt2, copy.deepcopy(gpt2)) == 0
    assert shared_layers(gemma2, copy.deepcopy(gemma2)) == 0
    llama = tiny_model("llama")
    other = copy.deepcopy(llama)
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1
    assert shared_layers(other, llama) == 0
    assert shared_layers(llama, tiny_model("llama", num_hidden_layers=3)) == 0


@torch.no_grad()
def test_a_cache_can_be_continued_without_touching_what_was_read() -> None:
    model = tiny_model("llama", dtype=torch.float64)
    read = read_prompts(model, PROMPTS)
    before = [keys.clone() for keys, _ in read.states]
    rows = torch.tensor([2, 0])
    mask = torch.cat([read.mask[rows], torch.ones(2, 1, dtype=torch.long)], 1)
    out = model(input_ids=torch.tensor([[20], [21]]), attention_mask=mask, position_ids=read.last[rows] + 1,
                **cache_argument(model, read.cache(rows)))  # fmt: skip
    for row, prompt in enumerate(([*PROMPTS[2], 20], [*PROMPTS[0], 21])):
        alone = model(input_ids=torch.tensor([prompt])).logits[0, -1]
        torch.testing.assert_close(out.logits[row, -1], alone, rtol=1e-6, atol=1e-6)
    for (keys, _), kept in zip(read.states, before, strict=True):
        torch.testing.assert_close(keys, kept, rtol=0, atol=0)
