"""Packed log-probabilities against every sequence alone, over families, attention kernels, layouts and precisions."""


import random

import pytest
import torch
from torch import nn

from gpo_full.data.pairs import Pair
from gpo_full.engine.lm_head import _LinearLogProbabilities
from gpo_full.engine.log_probabilities import response_log_probabilities, token_log_probabilities
from gpo_full.engine.packing import pack
from gpo_theory import InputError
from tests.support.pairs import distance, gradients, ranked_pairs, some_pairs
from tests.support.tiny_models import FAMILIES, VOCABULARY, tiny_model
from tests.support.two_sequences import response_sums

CASES = [(family, attention, layout) for family in FAMILIES for attention in ("eager", "sdpa")
         for layout in ("line", "rows", "apart")
         if not (family == "gemma2" and (attention == "sdpa" or layout != "apart"))
         and not (attention == "eager" and layout == "line")]  # fmt: skip


@pytest.mark.parametrize("related", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("family", "attention", "layout"), CASES)
def test_float64_equals_separate_sequences(family: str, attention: str, layout: str, related: bool) -> None:
    """Of pairs that have nothing in common, and of pairs that share prompts and responses."""
    model, pairs = tiny_model(family, attention=attention, dtype=torch.float64), ranked_pairs() if related else some_pairs()
    random.Random(1).shuffle(pairs)
    batch = pack(pairs, layout)
    if related:  # of 12 pairs, 2 prompts and 8 responses are laid down, where responses are not apart from their prompts
        assert len(batch.sizes) == (8 if layout == "apart" else 2)
    expected = response_sums(model, pairs)
    found = response_log_probabilities(model, batch, fused_head=family != "gemma2")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    # What it really is, so that a loss shows; eager attention computes its softmax in float32 whatever the model.
    torch.testing.assert_close(found, expected, rtol=1e-6 if attention == "eager" else 1e-10, atol=0)
    assert distance(gradients(model, found), gradients(model, expected)) <= 1e-6


@pytest.mark.parametrize("layout", ["line", "rows", "apart"])
def test_length_averaged_margin(layout: str) -> None:
    model, pairs = tiny_model(dtype=torch.float64), some_pairs()
    found = response_log_probabilities(model, pack(pairs, layout), "mean")
    torch.testing.assert_close(found, response_sums(model, pairs, "mean"), rtol=1e-10, atol=0)


@pytest.mark.parametrize("layout", ["line", "rows", "apart"])
def test_float32_equals_separate_sequences_at_twelve_layers(layout: str) -> None:
    model, pairs = tiny_model(num_hidden_layers=12, spread=0.05), some_pairs(6, scale=6)
    expected = response_sums(model, pairs)
    found = response_log_probabilities(model, pack(pairs, layout))
    assert float(expected.detach().min()) < -150  # sums of the size that the tolerance was stated for
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert distance(gradients(model, found), gradients(model, expected)) <= 1e-5


@pytest.mark.parametrize("layout", ["line", "rows", "apart"])
def test_padding_and_end_share_an_id_and_a_pair_never_feels_its_neighbours(layout: str) -> None:
    model, pairs = tiny_model(dtype=torch.float64), some_pairs(6)
    together = response_log_probabilities(model, pack(pairs, layout))
    alone = torch.cat([response_log_probabilities(model, pack([pair], layout)) for pair in pairs])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunks_change_nothing(chunk: int) -> None:
    model, batch = tiny_model(dtype=torch.float64), pack(some_pairs())
    expected, found = token_log_probabilities(model, batch), token_log_probabilities(model, batch, chunk=chunk)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert distance(gradients(model, found), gradients(model, expected)) <= 1e-6


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kept", [0, 20, 100])  # of 35 logits: none, one chunk of three, all
def test_head_function_by_finite_differences(frozen: bool, with_bias: bool, kept: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 3, dtype=torch.float64, requires_grad=not frozen)
    bias = torch.randn(7, dtype=torch.float64, requires_grad=not frozen) if with_bias else None
    target = torch.tensor([0, 6, 3, 3, 1])
    head = lambda *inputs: _LinearLogProbabilities.apply(*inputs, target, 2, kept)  # noqa: E731
    assert torch.autograd.gradcheck(head, (hidden, weight, bias))


@pytest.mark.parametrize("limit", [0, 10 * VOCABULARY])
def test_no_more_logits_than_the_limit_are_kept_for_backward(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than 40 response tokens, chunks of 4: of ten rows of logits, two chunks; the weight itself apart.
    monkeypatch.setattr("gpo_full.engine.lm_head.KEPT", limit)
    model, batch = tiny_model(tie_word_embeddings=False), pack(some_pairs(12))
    assert len(batch.target) > 40
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        token_log_probabilities(model, batch, chunk=4).sum()
    with_vocabulary = [shape for shape in kept if VOCABULARY in shape and shape != model.lm_head.weight.shape]
    assert with_vocabulary == [torch.Size([4, VOCABULARY])] * (limit // (4 * VOCABULARY))


def test_a_head_that_is_no_plain_linear_layer_goes_through_its_own_forward() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model, pairs = tiny_model(dtype=torch.float64, tie_word_embeddings=False), some_pairs()
    model.lm_head.__class__ = Doubled
    expected = response_sums(model, pairs)
    found = response_log_probabilities(model, pack(pairs), chunk=3)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    assert distance(gradients(model, found), gradients(model, expected)) <= 1e-6


def test_the_model_is_left_as_it_was_even_after_an_error() -> None:
    model, batch = tiny_model(), pack(some_pairs())
    token_log_probabilities(model, batch)
    assert "forward" not in vars(model.lm_head)
    broken = pack([Pair((VOCABULARY + 5,), (1,), (3,), 1)])
    with pytest.raises(IndexError):
        token_log_probabilities(model, broken)
    assert "forward" not in vars(model.lm_head)
    assert model(input_ids=batch.input_ids).logits.shape[-1] == VOCABULARY


@pytest.mark.parametrize("layout", ["line", "rows", "apart"])
def test_gradient_checkpointing_changes_nothing(layout: str) -> None:
    model, batch = tiny_model(dtype=torch.float64), pack(some_pairs(), layout)
    model.train()
    expected = gradients(model, token_log_probabilities(model, batch))
    model.activation_checkpointing_enable({"use_reentrant": False})
    found = gradients(model, token_log_probabilities(model, batch))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_bfloat16_autocast_gives_float32_sums_near_the_exact_ones() -> None:
    model, pairs = tiny_model(spread=0.05), some_pairs()
    exact = response_log_probabilities(model, pack(pairs, "line"))
    with torch.autocast("cpu", torch.bfloat16):
        rough = response_log_probabilities(model, pack(pairs, "line"))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=5e-3, atol=0)
    assert not torch.equal(rough, exact)
    assert distance(gradients(model, rough), gradients(model, exact)) < 0.05


def test_unknown_margin() -> None:
    with pytest.raises(InputError, match=r"margin='means'; allowed: sum, mean; did you mean 'mean'"):
        response_log_probabilities(tiny_model(), pack(some_pairs()), "means")
