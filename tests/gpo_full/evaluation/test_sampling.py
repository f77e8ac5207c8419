"""Sampling against exact probabilities, and against a naive loop without a cache."""

import math
from collections import Counter
from fractions import Fraction
from itertools import accumulate, chain
from typing import Any

import pytest
import torch

from gpo_full.evaluation.cache import with_room
from gpo_full.evaluation.prompts import read_prompts
from gpo_full.evaluation.sampling import _inverse_cdf, batches_of, continue_prompts, sample, stop_tokens
from tests.support.tiny_models import tiny_model, tiny_tokenizer

PROMPTS = ["the cat", "return the sum of the values", "a dog ran after the mat and the cat"]
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama", dtype=torch.float64)


@torch.no_grad()
def test_each_token_is_the_inverse_cdf_of_its_own_uniform_number(model: Any) -> None:
    """The oracle reads the whole text anew for every token, without cache, padding or batch."""
    ids = [TOKENIZER(prompt)["input_ids"] for prompt in PROMPTS]
    uniforms = torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    drawn = continue_prompts(model, TOKENIZER, read_prompts(model, ids), uniforms)
    for row, prompt in enumerate(ids):
        for draw in range(2):
            text, expected = list(prompt), []
            for step in range(6):
                p = model(input_ids=torch.tensor([text])).logits[0, -1].softmax(-1).tolist()
                token = next(i for i, total in enumerate(accumulate(p)) if total > float(uniforms[row, draw, step]))
                text.append(token)
                expected.append(token)
                if token == TOKENIZER.eos_token_id:
                    break
            assert drawn[row][draw].tokens == tuple(expected)


@pytest.mark.parametrize("vocabulary", [7, 256, 257, 1000])
def test_the_inverse_cdf_is_the_first_index_whose_sum_exceeds_the_number(vocabulary: int) -> None:
    """The oracle adds up one probability after the other, in exact fractions of what float32 holds."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(20, vocabulary, generator=generator) * 4
    logits[:, ::3] = -math.inf  # tokens that are never drawn
    uniform = torch.rand(20, generator=generator, dtype=torch.float64)
    uniform[:2] = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    found = _inverse_cdf(logits, uniform).tolist()
    for row, masses in enumerate(logits.softmax(-1).tolist()):
        exact = [Fraction(mass) for mass in masses]
        threshold = Fraction(float(uniform[row])) * sum(exact)
        expected = next(i for i, total in enumerate(accumulate(exact)) if total > threshold)
        assert found[row] == expected


def test_a_cache_with_room_is_the_cache_without(model: Any) -> None:
    read = read_prompts(model, [TOKENIZER(prompt)["input_ids"] for prompt in PROMPTS])
    rows, kept = torch.tensor([0, 1, 1, 2]), torch.tensor([1, 3])
    plain, roomy = read.cache(rows), with_room(read.cache(rows), 3)
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        if step == 1:
            plain.batch_select_indices(kept)
            roomy.batch_select_indices(kept)
        for layer in range(len(plain.layers)):
            shape = (*plain.layers[layer].keys.shape[:2], 1, plain.layers[layer].keys.shape[3])
            keys, values = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
            for expected, found in zip(plain.update(keys, values, layer), roomy.update(keys, values, layer), strict=True):
                assert torch.equal(expected, found)
        assert plain.get_seq_length() == roomy.get_seq_length()


def test_samples_depend_on_neither_batch_size_nor_neighbours(model: Any) -> None:
    whole = sample(model, TOKENIZER, PROMPTS, per_prompt=3, max_new_tokens=6, seed=1, batch_size=64)
    single = sample(model, TOKENIZER, PROMPTS, per_prompt=3, max_new_tokens=6, seed=1, batch_size=1)
    assert whole == single
    assert whole != sample(model, TOKENIZER, PROMPTS, per_prompt=3, max_new_tokens=6, seed=2)


@torch.no_grad()
def test_first_tokens_have_the_models_probabilities(model: Any) -> None:
    """Chi-square of 4,000 draws over the ten likeliest tokens and the rest: 10 degrees of freedom, p = 1e-6 at 51.6."""
    n = 4000
    drawn = sample(model, TOKENIZER, PROMPTS[:1], per_prompt=n, max_new_tokens=1, seed=5, batch_size=n)
    p = model(input_ids=torch.tensor([TOKENIZER(PROMPTS[0])["input_ids"]])).logits[0, -1].softmax(-1)
    top = p.topk(10).indices.tolist()
    counts = Counter(one.tokens[0] if one.tokens[0] in top else -1 for one in drawn[0])
    expected = {token: n * float(p[token]) for token in top} | {-1: n * (1 - float(p[top].sum()))}
    statistic = sum((counts[token] - e) ** 2 / e for token, e in expected.items())
    assert statistic < 51.6


def test_a_response_ends_at_its_end_token_and_its_text_has_none(model: Any) -> None:
    drawn = sample(model, TOKENIZER, PROMPTS, per_prompt=200, max_new_tokens=8, seed=0)
    ends = stop_tokens(model, TOKENIZER)
    assert any(one.ended for one in chain.from_iterable(drawn))
    for one in chain.from_iterable(drawn):
        assert one.ended == (one.tokens[-1] in ends)
        assert not set(one.tokens[:-1]) & ends
        assert "</s>" not in one.text
        assert one.ended or len(one.tokens) == 8


def test_batches_hold_every_index_once_in_order_of_length() -> None:
    tokens = [[0] * n for n in (3, 1, 4, 1, 5)]
    assert batches_of(tokens, 2) == [[1, 3], [0, 2], [4]]
