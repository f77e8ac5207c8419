"""Scores of a policy prompt by prompt: their summary, their file, and two policies compared on the same prompts."""

__all__ = ["Comparison", "Evaluation", "PromptScore", "bootstrap_interval", "compare_scores", "read_scores",
           "summarize", "win_scores", "write_scores"]  # fmt: skip

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpo_full.files import write_whole
from gpo_full.strict_json import NotJson, parse_json
from gpo_theory.errors import InputError


@dataclass(frozen=True)
class PromptScore:
    """One prompt: what policy and reference answered, their rewards, and the log-ratios of policy over reference.

    `score` is 1 where the policy's reward is larger, 0 where it is smaller, 1/2 in a tie. `kl` and `kl_sequence` are
    `exact_kl` and `log_ratio` of `gpo_full.evaluation.kl` along the policy's answer, in nats; `half_square` is
    rho^2 / 2 of two samples of the reference, in nats^2.
    """

    prompt: str
    target: str
    policy: str
    reference: str
    policy_tokens: int
    reference_tokens: int
    reward: float
    reference_reward: float
    score: float
    kl: float
    kl_sequence: float
    half_square: float


@dataclass(frozen=True)
class Evaluation:
    """Means over `n` prompts of one sample of the policy against one of the reference.

    `kl` and `kl_sequence` estimate KL(pi || pi_ref) in nats per response, by `exact_kl` and by `log_ratio` of
    `gpo_full.evaluation.kl`; `*_se` are standard errors. `win_rate` counts a tie 1/2; `win_low` and `win_high` are its
    95% bootstrap interval over prompts. `regularizer` = E_mu[rho^2 / 2] in nats^2, mu two samples of the reference.
    `length_ratio` is the policy's tokens over the reference's; `copied` the mean share of a response's word pairs that
    stand in its prompt.
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


def summarize(rows: Sequence[PromptScore], seed: int = 0) -> Evaluation:
    """Return the means over prompts, with their errors; `seed` seeds the bootstrap."""
    scores = np.array([row.score for row in rows])
    low, high = bootstrap_interval(scores, seed=seed)
    kl, kl_se = _mean_and_error([row.kl for row in rows])
    kl_sequence, kl_sequence_se = _mean_and_error([row.kl_sequence for row in rows])
    regularizer, regularizer_se = _mean_and_error([row.half_square for row in rows])
    return Evaluation(
        kl=kl, kl_se=kl_se, kl_sequence=kl_sequence, kl_sequence_se=kl_sequence_se,
        win_rate=float(scores.mean()), win_low=low, win_high=high, ties=int((scores == 0.5).sum()),
        length_ratio=sum(row.policy_tokens for row in rows) / sum(row.reference_tokens for row in rows),
        copied=float(np.mean([_copied(row.policy, row.prompt) for row in rows])),
        reward=float(np.mean([row.reward for row in rows])),
        reference_reward=float(np.mean([row.reference_reward for row in rows])),
        regularizer=regularizer, regularizer_se=regularizer_se, n=len(rows), seed=seed,
        examples=tuple({key: getattr(row, key) for key in ("prompt", "target", "policy", "reference")}
                       for row in rows[:5]),
    )  # fmt: skip


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)), error


def _copied(response: str, prompt: str) -> float:
    """Return the share of the response's pairs of adjacent words that stand in the prompt."""
    words, source = response.casefold().split(), prompt.casefold().split()
    pairs, known = list(pairwise(words)), set(pairwise(source))
    return sum(pair in known for pair in pairs) / len(pairs) if pairs else 0.0


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same `n` prompts: the mean `difference` of their scores, with its 95% bootstrap interval.

    `win_rate` is that of the first policy's rewards against the second's, a tie 1/2, with its own interval.
    """

    difference: float
    low: float
    high: float
    win_rate: float
    win_low: float
    win_high: float
    n: int


def compare_scores(first: Sequence[PromptScore], second: Sequence[PromptScore], *, seed: int = 0) -> Comparison:
    """Compare two policies prompt by prompt, so that what makes a prompt easy for both cancels out.

    Raises InputError unless both are scored on the same prompts, in the same order, against the same answers.
    """
    if [(row.prompt, row.target) for row in first] != [(row.prompt, row.target) for row in second]:
        raise InputError(f"the scores are of other prompts: {len(first)} and {len(second)} rows must agree in order")
    if any(a.reference != b.reference for a, b in zip(first, second, strict=True)):
        raise InputError("the scores are against other answers of the reference: use one reference and one seed")
    differences = np.array([a.score - b.score for a, b in zip(first, second, strict=True)])
    rewards = (np.array([row.reward for row in rows]) for rows in (first, second))
    wins = win_scores(*rewards)
    (low, high), (win_low, win_high) = (bootstrap_interval(each, seed=seed) for each in (differences, wins))
    return Comparison(difference=float(differences.mean()), low=low, high=high, win_rate=float(wins.mean()),
                      win_low=win_low, win_high=win_high, n=len(wins))  # fmt: skip


def win_scores(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 where `mine` is larger, 0 where it is smaller, 1/2 where they are equal.

    >>> win_scores(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return (np.sign(mine - theirs) + 1) / 2


def bootstrap_interval(
    scores: NDArray[np.float64], *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of the mean of `scores` under resampling with replacement."""
    rng = np.random.default_rng(seed)
    means = scores[rng.integers(0, len(scores), (resamples, len(scores)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def write_scores(path: Path | str, scores: Sequence[PromptScore]) -> None:
    """Write JSONL, one object per prompt, whole or not at all."""
    write_whole(path, "".join(json.dumps({"schema": 1, **asdict(row)}, allow_nan=False) + "\n" for row in scores))


def read_scores(path: Path | str) -> list[PromptScore]:
    """Read a file of `write_scores`; InputError names the first row that is not one of its rows."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"scores {str(path)!r} cannot be read: {error}") from None
    return [_score(f"{path}: row {number}", line) for number, line in enumerate(lines, 1)]


def _score(where: str, line: str) -> PromptScore:
    try:
        row: Any = parse_json(line.encode())
    except NotJson:
        raise InputError(f"{where} is not JSON") from None
    kinds: dict[str, Any] = {each.name: (int, float) if each.type is float else each.type
                             for each in fields(PromptScore)}  # fmt: skip
    if not isinstance(row, dict) or row.pop("schema", None) != 1 or row.keys() != kinds.keys():
        raise InputError(f"{where} is no score as `write_scores` writes it")
    wrong = [name for name, kind in kinds.items() if not isinstance(row[name], kind) or isinstance(row[name], bool)]
    if wrong:
        raise InputError(f"{where}: {wrong[0]} {row[wrong[0]]!r} is of the wrong type")
    return PromptScore(**row)
