"""What a policy became: golden win rate against its reference, KL, and the offline regulariser."""

__all__ = ["Evaluation", "Opponent", "evaluate", "opponents", "score_prompts", "summarize"]

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from gpo_full.evaluation.golden_reward import Reward
from gpo_full.evaluation.prompts import ReadPrompts, ReadResponses, read_prompts, read_responses
from gpo_full.evaluation.sampling import Sample, batches_of, continue_prompts
from gpo_full.evaluation.scores import PromptScore, bootstrap_interval, win_scores
from gpo_full.output import progress
from gpo_theory.errors import InputError

# The policy's uniform numbers; the reference's are seeded by the seed itself.
_POLICY_STREAM = 1_000_003


@dataclass(frozen=True)
class Opponent:
    """A batch of tasks as the reference has read and answered them, two draws for each.

    `log_probabilities` [B, 2] are the reference's own, in nats, of its draws; `answers` what it kept of reading them.
    """

    index: list[int]
    prompts: list[str]
    targets: list[str]
    tokens: list[list[int]]
    read: ReadPrompts
    samples: list[tuple[Sample, ...]]
    log_probabilities: torch.Tensor
    answers: ReadResponses


@dataclass(frozen=True)
class Evaluation:
    """One sample per prompt from the policy against one from the reference, over `n` prompts.

    `kl` = KL(pi || pi_ref) in nats per response, from exact sums over the vocabulary along the policy's samples;
    `kl_sequence` from the log-ratio of the samples alone; each with its standard error. `win_rate` counts a tie 1/2,
    with a bootstrap interval over prompts. `regularizer` = E_mu[rho^2 / 2], mu two draws of the reference, in nats^2.
    `length_ratio` is in tokens; `copied` the mean share of a response's word pairs that stand in its prompt.
    """

    kl: float
    kl_se: float
    kl_sequence: float
    kl_sequence_se: float
    win_rate: float
    win_low: float
    win_high: float
    ties: int
    length_ratio: float
    copied: float
    reward: float
    reference_reward: float
    regularizer: float
    regularizer_se: float
    n: int
    seed: int
    examples: tuple[dict[str, str], ...]


def opponents(
    reference: Any, tokenizer: Any, prompts: Sequence[str], targets: Sequence[str], *,
    seed: int = 0, max_new_tokens: int = 32, batch_size: int = 32, keep: int = 0,
    drawn: dict[int, tuple[Sample, ...]] | None = None,
) -> Iterator[Opponent]:  # fmt: skip
    """Yield the tasks in batches, read and answered by the reference; a list of them serves many policies.

    `keep` is `shared_layers(policy, reference)`, or less. `drawn` keeps the answers by task: what it holds of an
    earlier pass with the same arguments is not drawn again.
    """
    tokens: list[list[int]] = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    uniforms = _uniforms(len(prompts), 2, max_new_tokens, seed)
    for batch in batches_of(tokens, batch_size):
        ids = [tokens[i] for i in batch]
        read = read_prompts(reference, ids, keep=keep)
        known = {} if drawn is None else drawn
        if not known.keys() >= set(batch):
            known.update(zip(batch, continue_prompts(reference, tokenizer, read, uniforms[batch]), strict=True))
        samples = [known[i] for i in batch]
        answers = read_responses(reference, read, _responses(samples), keep=keep)
        yield Opponent(batch, [prompts[i] for i in batch], [targets[i] for i in batch], ids, read, samples,
                       _sums(answers, samples), replace(answers, logs=[]))  # fmt: skip


def evaluate(
    policy: Any, reference: Any, tokenizer: Any, against: Iterable[Opponent], reward: Reward, *,
    seed: int = 0, max_new_tokens: int = 32, label: str = "evaluating", total: int | None = None,
) -> Evaluation:  # fmt: skip
    """Return the evaluation of `policy` against the answers of `reference`; the policy draws once per prompt."""
    return summarize(score_prompts(policy, reference, tokenizer, against, reward, seed=seed, label=label, total=total,
                                   max_new_tokens=max_new_tokens), seed)  # fmt: skip


def score_prompts(
    policy: Any, reference: Any, tokenizer: Any, against: Iterable[Opponent], reward: Reward, *,
    seed: int = 0, max_new_tokens: int = 32, label: str = "evaluating", total: int | None = None,
) -> list[PromptScore]:  # fmt: skip
    """Return what `evaluate` measures for each prompt, in the order of the prompts."""
    measured: dict[int, dict[str, Any]] = {}
    for batch in progress(against, label, total):
        read = read_prompts(policy, batch.tokens, below=batch.read)
        luck = torch.stack([_row_uniforms(max_new_tokens, seed, i) for i in batch.index])
        mine = continue_prompts(policy, tokenizer, read, luck)
        ours = read_responses(policy, read, _responses(mine), keep=batch.read.first)
        theirs = read_responses(reference, batch.read, _responses(mine), below=ours)
        exact, sequence = _divergences(ours, theirs, mine)
        drawn = read_responses(policy, read, _responses(batch.samples), below=batch.answers)
        drift = _sums(drawn, batch.samples) - batch.log_probabilities
        for row, i in enumerate(batch.index):
            ((answer,), against_it) = mine[row], batch.samples[row][0]
            measured[i] = {"prompt": batch.prompts[row], "target": batch.targets[row], "policy": answer.text,
                           "reference": against_it.text, "policy_tokens": len(answer.tokens),
                           "reference_tokens": len(against_it.tokens), "kl": float(exact[row]),
                           "kl_sequence": float(sequence[row]),
                           "half_square": float((drift[row, 0] - drift[row, 1]) ** 2 / 2)}  # fmt: skip
    return _judged([measured[i] for i in sorted(measured)], reward)


def _judged(rows: list[dict[str, Any]], reward: Reward) -> list[PromptScore]:
    targets = [row["target"] for row in rows]
    mine, theirs = (np.array(reward([row[of] for row in rows], targets), dtype=float) for of in ("policy", "reference"))
    if not np.isfinite([mine, theirs]).all():
        raise InputError("the reward of a response is not a finite number")
    return [PromptScore(**row, reward=float(a), reference_reward=float(b), score=float(score))
            for row, a, b, score in zip(rows, mine, theirs, win_scores(mine, theirs), strict=True)]  # fmt: skip


def summarize(rows: Sequence[PromptScore], seed: int = 0) -> Evaluation:
    """Return the means over prompts, with their errors; `seed` draws the bootstrap's resamples."""
    scores = np.array([row.score for row in rows])
    low, high = bootstrap_interval(scores, seed=seed)
    kl, kl_se = _mean_and_error([row.kl for row in rows])
    sequence_kl, sequence_se = _mean_and_error([row.kl_sequence for row in rows])
    regularizer, regularizer_se = _mean_and_error([row.half_square for row in rows])
    examples = tuple({"prompt": row.prompt, "target": row.target, "policy": row.policy, "reference": row.reference}
                     for row in rows[:5])  # fmt: skip
    return Evaluation(
        kl, kl_se, sequence_kl, sequence_se, float(scores.mean()), low, high, int((scores == 0.5).sum()),
        sum(row.policy_tokens for row in rows) / sum(row.reference_tokens for row in rows),
        float(np.mean([_copied(row.policy, row.prompt) for row in rows])), float(np.mean([row.reward for row in rows])),
        float(np.mean([row.reference_reward for row in rows])), regularizer, regularizer_se, len(rows), seed, examples,
    )  # fmt: skip


def _uniforms(prompts: int, draws: int, length: int, seed: int) -> torch.Tensor:
    return torch.rand(prompts, draws, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _row_uniforms(length: int, seed: int, row: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed((seed + 1) * _POLICY_STREAM + row)
    return torch.rand(1, length, generator=generator, dtype=torch.float64)


def _responses(samples: list[tuple[Sample, ...]]) -> list[tuple[int, tuple[int, ...]]]:
    return [(row, one.tokens) for row, several in enumerate(samples) for one in several]


def _sums(read: ReadResponses, samples: list[tuple[Sample, ...]]) -> torch.Tensor:
    """Return log pi(y | prompt) in nats of each prompt's samples, [B, n]."""
    pairs = zip(read.logs, _responses(samples), strict=True)
    return torch.stack([_taken(log, tokens).sum() for log, (_, tokens) in pairs]).view(len(samples), -1)


def _divergences(
    policy: ReadResponses, reference: ReadResponses, samples: list[tuple[Sample, ...]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, per prompt, sum_t KL(pi(. | y_<t) || pi_ref(. | y_<t)) and log pi(y)/pi_ref(y) along its sample."""
    exact, sequence = [], []
    for p, q, (_, tokens) in zip(policy.logs, reference.logs, _responses(samples), strict=True):
        log_ratio = p - q
        exact.append(torch.linalg.vecdot(p.exp(), log_ratio).sum())
        sequence.append(_taken(log_ratio, tokens).sum())
    return torch.stack(exact), torch.stack(sequence)


def _taken(logs: torch.Tensor, tokens: tuple[int, ...]) -> torch.Tensor:
    return logs[torch.arange(len(tokens), device=logs.device), torch.tensor(tokens, device=logs.device)]


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)), error


def _copied(response: str, prompt: str) -> float:
    words, source = response.casefold().split(), prompt.casefold().split()
    pairs, known = list(pairwise(words)), set(pairwise(source))
    return sum(pair in known for pair in pairs) / len(pairs) if pairs else 0.0
