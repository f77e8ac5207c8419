"""Evaluation against exact enumeration: a vocabulary of five tokens and responses of at most three."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gpo_full.evaluation.compare import evaluate, reference_answers
from gpo_full.evaluation.prompts import shared_layers
from gpo_full.evaluation.scores import Evaluation
from tests.gpo_full.evaluation.test_prompts import changed_above
from tests.support.tiny_models import tiny_model

LONGEST, END, PROMPT = 3, 2, "134"


class Digits:
    """A tokenizer whose texts are digits, one token each; 2 ends a response."""

    eos_token_id = END

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [int(character) for character in text]}

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(map(str, tokens))


def digit_sum(samples: Sequence[str], targets: Sequence[str]) -> list[float]:
    return [float(sum(map(int, sample))) for sample in samples]


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """A reference and a policy that differs from it in its last layer only."""
    reference = tiny_model("llama", vocab_size=5, dtype=torch.float64, eos_token_id=END, num_hidden_layers=3)
    return changed_above(reference, 2), reference


@torch.no_grad()
def responses(model: Any, given: Any, text: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], float, float]]:
    """Yield every response with its log-probability under `model` and under `given`, reading each text anew."""
    if text and (text[-1] == END or len(text) == LONGEST):
        yield text, 0.0, 0.0
        return
    ids = torch.tensor([[*map(int, PROMPT), *text]])
    p, q = (m(input_ids=ids).logits[0, -1].log_softmax(-1).tolist() for m in (model, given))
    for token in range(5):
        for whole, log_p, log_q in responses(model, given, (*text, token)):
            yield whole, p[token] + log_p, q[token] + log_q


def run(models: tuple[Any, Any], n: int, seed: int = 0, shared: int | None = None) -> Evaluation:
    policy, reference = models
    shared = shared_layers(policy, reference) if shared is None else shared
    against = reference_answers(reference, Digits(), [PROMPT] * n, ["0"] * n, seed=seed, max_new_tokens=LONGEST,
                        batch_size=500, shared=shared)  # fmt: skip
    return evaluate(policy, reference, Digits(), against, digit_sum, seed=seed, max_new_tokens=LONGEST)


@pytest.fixture(scope="module")
def measured(models: tuple[Any, Any]) -> Evaluation:
    return run(models, 3000)


@pytest.mark.slow
def test_both_kl_estimates_agree_with_enumeration(models: tuple[Any, Any], measured: Evaluation) -> None:
    truth = math.fsum(math.exp(p) * (p - q) for _, p, q in responses(*models))
    assert truth > 0.05
    assert abs(measured.kl - truth) < 4 * measured.kl_se
    assert abs(measured.kl_sequence - truth) < 4 * measured.kl_sequence_se
    assert measured.kl_se < measured.kl_sequence_se < truth


@pytest.mark.slow
def test_the_kl_errors_are_the_ones_seen_over_repetitions(models: tuple[Any, Any]) -> None:
    found = [run(models, 60, seed=seed) for seed in range(30)]
    for name in ("kl", "kl_sequence"):
        spread = float(np.std([getattr(one, name) for one in found], ddof=1))
        claimed = float(np.mean([getattr(one, f"{name}_se") for one in found]))
        assert 0.6 < spread / claimed < 1.6  # the spread of 30 numbers has a relative error of 13%


@pytest.mark.slow
def test_the_regularizer_agrees_with_enumeration(models: tuple[Any, Any], measured: Evaluation) -> None:
    """E_mu[rho^2 / 2] over two independent draws of the reference is the variance of s = log pi/pi_ref under it."""
    rows = [(math.exp(q), p - q) for _, p, q in responses(*models)]
    mean = math.fsum(weight * s for weight, s in rows)
    truth = math.fsum(weight * (s - mean) ** 2 for weight, s in rows)
    assert abs(measured.regularizer - truth) < 4 * measured.regularizer_se


@pytest.mark.slow
def test_the_win_rate_agrees_with_enumeration(models: tuple[Any, Any], measured: Evaluation) -> None:
    def distribution(which: int) -> dict[int, float]:
        found: dict[int, float] = {}
        for text, *logs in responses(*models):
            reward = sum(text) - (END if text[-1] == END else 0)
            found[reward] = found.get(reward, 0.0) + math.exp(logs[which])
        return found

    mine, theirs = distribution(0), distribution(1)
    truth = sum(a * b * (1.0 if x > y else 0.5 if x == y else 0.0) for x, a in mine.items() for y, b in theirs.items())
    assert abs(measured.win_rate - truth) < 4 * 0.5 / math.sqrt(measured.n)
    assert measured.win_low < measured.win_rate < measured.win_high
    tied = sum(mine[x] * theirs.get(x, 0.0) for x in mine)
    assert abs(measured.ties / measured.n - tied) < 4 * 0.5 / math.sqrt(measured.n)


def test_sharing_layers_and_batching_change_nothing(models: tuple[Any, Any]) -> None:
    sharing, apart = run(models, 40), run(models, 40, shared=0)
    for name, value in vars(sharing).items():
        assert value == pytest.approx(getattr(apart, name), rel=1e-6) if isinstance(value, float) else True
    assert sharing.examples == apart.examples


def test_a_policy_equal_to_its_reference_has_no_kl_and_wins_half(models: tuple[Any, Any]) -> None:
    _, reference = models
    found = run((copy.deepcopy(reference), reference), 400)
    assert (found.kl, found.kl_sequence, found.regularizer) == pytest.approx((0, 0, 0), abs=1e-9)
    assert abs(found.win_rate - 0.5) < 4 * 0.5 / 20
    assert abs(found.length_ratio - 1) < 0.2


def test_the_seed_decides(models: tuple[Any, Any]) -> None:
    assert run(models, 20, seed=1) == run(models, 20, seed=1)
    assert replace(run(models, 20, seed=1), seed=2) != run(models, 20, seed=2)
