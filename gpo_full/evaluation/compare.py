"""A policy against its reference on the same prompts: both answer, and each answer is judged and measured."""

__all__ = ["ReferenceAnswers", "evaluate", "policy_uniforms", "reference_answers", "score_prompts"]

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gpo_full.evaluation.golden_reward import Reward
from gpo_full.evaluation.kl import exact_kl, log_probability, log_ratio
from gpo_full.evaluation.prompts import ReadPrompts, ReadResponses, read_prompts, read_responses
from gpo_full.evaluation.sampling import Sample, batches_of, continue_prompts, uniform_numbers
from gpo_full.evaluation.scores import Evaluation, PromptScore, summarize, win_scores
from gpo_full.output import progress
from gpo_theory.errors import InputError

# Keeps the policy's random numbers, seeded per prompt by a multiple of it, apart from the reference's: any large prime.
_POLICY_STREAM = 1_000_003


@dataclass(frozen=True)
class ReferenceAnswers:
    """A batch of B prompts as the reference has read and answered them, two samples for each.

    `index` are the places of the prompts in the whole list; `log_probabilities` [B, 2] those of the samples under the
    reference, in nats; `read` its cached states after the prompts, `answers` its hidden states on its own samples,
    which a policy that shares the layers below need not compute again.
    """

    index: list[int]
    prompts: list[str]
    targets: list[str]
    tokens: list[list[int]]
    read: ReadPrompts
    samples: list[tuple[Sample, ...]]
    log_probabilities: torch.Tensor
    answers: ReadResponses


def reference_answers(
    reference: Any, tokenizer: Any, prompts: Sequence[str], targets: Sequence[str], *,
    seed: int = 0, max_new_tokens: int = 32, batch_size: int = 32, shared: int = 0,
    drawn: dict[int, tuple[Sample, ...]] | None = None,
) -> Iterator[ReferenceAnswers]:  # fmt: skip
    """Yield the prompts in batches, read and answered by the reference; a list of them serves many policies.

    `shared` is the number of lowest layers that every policy to be scored has in common with the reference
    (`shared_layers`), 0 if unknown. `drawn` stores the samples by prompt: those that it holds
    from an earlier call with the same arguments are not drawn again.
    """
    tokens: list[list[int]] = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    uniforms = uniform_numbers(len(prompts), 2, max_new_tokens, seed)
    known = {} if drawn is None else drawn
    for batch in batches_of(tokens, batch_size):
        ids = [tokens[i] for i in batch]
        read = read_prompts(reference, ids, shared)
        if not known.keys() >= set(batch):
            known.update(zip(batch, continue_prompts(reference, tokenizer, read, uniforms[batch]), strict=True))
        samples = [known[i] for i in batch]
        answers = read_responses(reference, read, _responses(samples), shared)
        yield ReferenceAnswers(
            index=batch, prompts=[prompts[i] for i in batch], targets=[targets[i] for i in batch], tokens=ids,
            read=read, samples=samples, log_probabilities=_log_probabilities(answers, samples),
            answers=replace(answers, logs=[]),
        )  # fmt: skip


def evaluate(
    policy: Any, reference: Any, tokenizer: Any, against: Iterable[ReferenceAnswers], reward: Reward, *,
    seed: int = 0, **options: Any,
) -> Evaluation:  # fmt: skip
    """Return the summary of `score_prompts`, which takes the same arguments."""
    return summarize(score_prompts(policy, reference, tokenizer, against, reward, seed=seed, **options), seed)


def score_prompts(
    policy: Any, reference: Any, tokenizer: Any, against: Iterable[ReferenceAnswers], reward: Reward, *,
    seed: int = 0, max_new_tokens: int = 32, label: str = "evaluating", total: int | None = None,
) -> list[PromptScore]:  # fmt: skip
    """Draw one response of `policy` to each prompt and measure it; return the scores in the order of the prompts."""
    measured: dict[int, dict[str, Any]] = {}
    for batch in progress(against, label, total):
        read = read_prompts(policy, batch.tokens, known=batch.read)
        drawn = continue_prompts(policy, tokenizer, read, policy_uniforms(batch.index, max_new_tokens, seed))
        ours = read_responses(policy, read, _responses(drawn), batch.read.shared)
        theirs = read_responses(reference, batch.read, _responses(drawn), known=ours)
        on_reference = read_responses(policy, read, _responses(batch.samples), known=batch.answers)
        first, second = (_log_probabilities(on_reference, batch.samples) - batch.log_probabilities).unbind(1)
        for row, i in enumerate(batch.index):
            (answer,), (baseline, _), p, q = drawn[row], batch.samples[row], ours.logs[row], theirs.logs[row]
            measured[i] = {
                "prompt": batch.prompts[row], "target": batch.targets[row],
                "policy": answer.text, "reference": baseline.text,
                "policy_tokens": len(answer.tokens), "reference_tokens": len(baseline.tokens),
                "kl": float(exact_kl(p, q)), "kl_sequence": float(log_ratio(p, q, answer.tokens)),
                "half_square": float((first[row] - second[row]) ** 2 / 2),
            }  # fmt: skip
    return _judged([measured[i] for i in sorted(measured)], reward)


def policy_uniforms(index: Iterable[int], length: int, seed: int) -> torch.Tensor:
    """Return the uniform numbers with which `score_prompts` draws the policy's answers, [prompts, 1, length]."""
    return torch.cat([uniform_numbers(1, 1, length, (seed + 1) * _POLICY_STREAM + i) for i in index])


def _judged(rows: list[dict[str, Any]], reward: Reward) -> list[PromptScore]:
    """Return the rows with the rewards of both answers; InputError for a reward that is not finite."""
    targets = [row["target"] for row in rows]
    mine, theirs = (np.array(reward([row[of] for row in rows], targets), dtype=float) for of in ("policy", "reference"))
    if not np.isfinite([mine, theirs]).all():
        raise InputError("the reward of a response is not a finite number")
    return [PromptScore(**row, reward=float(a), reference_reward=float(b), score=float(score))
            for row, a, b, score in zip(rows, mine, theirs, win_scores(mine, theirs), strict=True)]  # fmt: skip


def _responses(samples: list[tuple[Sample, ...]]) -> list[tuple[int, tuple[int, ...]]]:
    return [(row, one.tokens) for row, several in enumerate(samples) for one in several]


def _log_probabilities(read: ReadResponses, samples: list[tuple[Sample, ...]]) -> torch.Tensor:
    """Return log pi(y | prompt) in nats of each prompt's samples, [B, n]."""
    pairs = zip(read.logs, _responses(samples), strict=True)
    return torch.stack([log_probability(logs, tokens) for logs, (_, tokens) in pairs]).view(len(samples), -1)
