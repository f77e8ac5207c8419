"""What an evaluation measured prompt by prompt: kept in a file, and two policies compared on the same prompts."""

__all__ = ["PromptScore", "Comparison", "compare_scores", "read_scores", "write_scores", "win_scores",
           "bootstrap_interval"]  # fmt: skip

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpo_full.files import atomic_file
from gpo_theory.errors import InputError


@dataclass(frozen=True)
class PromptScore:
    """One prompt: what policy and reference answered, their rewards, and the divergences along the policy's answer.

    `score` is 1 where the policy's reward is larger, 0 where it is smaller, 1/2 in a tie. `kl` (an exact sum over the
    vocabulary at each token) and `kl_sequence` (the log-ratio of the answer) are in nats; `half_square` is rho^2 / 2 of
    two draws of the reference, in nats^2.
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
class Comparison:
    """Two policies on the same `n` prompts: the mean difference of their scores, with its bootstrap interval.

    `win_rate` counts the reward of the first against that of the second, a tie 1/2, with its own interval.
    """

    difference: float
    low: float
    high: float
    win_rate: float
    win_low: float
    win_high: float
    n: int


def compare_scores(first: Sequence[PromptScore], second: Sequence[PromptScore], *, seed: int = 0) -> Comparison:
    """Compare two policies prompt by prompt; InputError unless both answered the same prompts, in the same order.

    The difference of win rates against the reference is paired: what makes a prompt easy for both cancels out.
    """
    if [(row.prompt, row.target) for row in first] != [(row.prompt, row.target) for row in second]:
        raise InputError(f"the scores are of other prompts: {len(first)} and {len(second)} rows must agree in order")
    if any(a.reference != b.reference for a, b in zip(first, second, strict=True)):
        raise InputError("the scores are against other answers of the reference: use one reference and one seed")
    differences = np.array([a.score - b.score for a, b in zip(first, second, strict=True)])
    rewards = (np.array([row.reward for row in rows]) for rows in (first, second))
    wins = win_scores(*rewards)
    return Comparison(float(differences.mean()), *bootstrap_interval(differences, seed=seed), float(wins.mean()),
                      *bootstrap_interval(wins, seed=seed), len(wins))  # fmt: skip


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
    with atomic_file(path) as temporary:
        lines = [json.dumps({"schema": 1, **asdict(row)}, allow_nan=False) + "\n" for row in scores]
        temporary.write_text("".join(lines), encoding="utf-8")


def read_scores(path: Path | str) -> list[PromptScore]:
    """Read what `write_scores` wrote; InputError with the row for anything else."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"scores {str(path)!r} cannot be read: {error}") from None
    return [_score(f"{path}: row {number}", line) for number, line in enumerate(lines, 1)]


def _score(where: str, line: str) -> PromptScore:
    try:
        row: Any = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not JSON") from None
    kinds: dict[str, Any] = {each.name: (int, float) if each.type is float else each.type
                             for each in fields(PromptScore)}  # fmt: skip
    if not isinstance(row, dict) or row.pop("schema", None) != 1 or row.keys() != kinds.keys():
        raise InputError(f"{where} is no score as `write_scores` writes it")
    wrong = [name for name, kind in kinds.items() if not isinstance(row[name], kind) or isinstance(row[name], bool)]
    if wrong:
        raise InputError(f"{where}: {wrong[0]} {row[wrong[0]]!r} is of the wrong type")
    return PromptScore(**row)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
