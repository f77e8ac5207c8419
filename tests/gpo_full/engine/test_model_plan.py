"""Plans: full attention shares prefixes; whatever cannot falls back, and says why."""

from typing import Any

import pytest
import torch

from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import plan
from gpo_full.engine.packing import pack
from tests.support.pairs import some_pairs
from tests.support.tiny_models import FAMILIES, VOCABULARY, tiny_model
from tests.support.two_sequences import response_sums


@pytest.mark.parametrize(("family", "attention", "layout"), [
    ("llama", "sdpa", "line"), ("llama", "eager", "rows"), ("gpt2", "sdpa", "line"), ("opt", "sdpa", "line"),
    ("qwen3", "sdpa", "line"), ("mistral", "sdpa", "line"),
])  # fmt: skip
def test_plan_of_full_attention(family: str, attention: str, layout: str) -> None:
    found = plan(tiny_model(family, attention=attention), 64)
    assert (found.layout, found.fused_head, found.reasons) == (layout, True, ())


def test_plan_of_a_sliding_window_depends_on_the_length() -> None:
    model = tiny_model("mistral", sliding_window=16)
    assert plan(model, 16).layout == "line"
    found = plan(model, 17)
    assert found.layout == "apart"
    assert "looks back 16 tokens, sequences have up to 17" in found.reasons[0]
    pairs = some_pairs(5, scale=4)  # longer than the window
    expected = response_sums(model, pairs)
    torch.testing.assert_close(response_log_probabilities(model, pack(pairs, "apart")), expected, rtol=1e-5, atol=0)
    assert not torch.allclose(response_log_probabilities(model, pack(pairs, "rows")), expected, atol=1e-3)  # noqa: TID251


def test_plan_of_soft_caps_and_windows() -> None:
    found = plan(tiny_model("gemma2", attention="eager", final_logit_softcapping=2.0), 64)
    assert (found.layout, found.fused_head) == ("apart", False)
    assert "changes its logits after the head" in found.reasons[0]


@pytest.mark.parametrize(("family", "config", "reason"), [
    ("bloom", {"n_layer": 2, "n_head": 4}, "a probe of packed rows differs"),  # positions that are not read
    ("mamba", {"num_hidden_layers": 2, "state_size": 4}, "layers of mamba are not all full or sliding attention"),
])  # fmt: skip
def test_plan_of_other_families(family: str, config: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, family, {"vocab_size": VOCABULARY, "hidden_size": 32, **config})
    found = plan(tiny_model(family, attention="eager"), 64)
    assert found.layout == "apart"
    assert reason in found.reasons[0]


def test_plan_leaves_the_training_mode_and_the_random_state_alone() -> None:
    model = tiny_model()
    model.train()
    model.model.layers[0].eval()
    before = torch.random.get_rng_state()
    plan(model, 64)
    assert model.training
    assert not model.model.layers[0].training
    assert torch.equal(torch.random.get_rng_state(), before)
