"""Held-out accuracy beside that of preferring the longer response, which may be all that a policy learns."""

__all__ = ["against_length", "length_metrics", "length_sums", "wilson_interval"]

from collections.abc import Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor


def length_sums(log_ratios: Tensor, lengths: Tensor) -> Tensor:
    """Return five sums over P pairs, [5] in float64: the pairs, those with rho > 0 and those whose chosen response is
    longer (a tie counts 1/2), those whose chosen response is not longer, and those of the latter with rho > 0.

    `log_ratios` [P, 2] is log(pi/pi_ref) of both responses in nats, chosen first; `lengths` [P, 2] their tokens.

    >>> length_sums(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]), torch.tensor([[9, 5], [4, 6], [4, 4]])).tolist()
    [3.0, 2.0, 1.5, 2.0, 1.0]
    """
    right = (torch.sign(log_ratios[:, 0] - log_ratios[:, 1]) + 1) / 2
    more = (torch.sign(lengths[:, 0] - lengths[:, 1]) + 1) / 2
    not_longer = (more < 1).double()
    counted = torch.ones_like(not_longer), right.double(), more.double(), not_longer, not_longer * right.double()
    return torch.stack(counted).sum(1)


def length_metrics(sums: Sequence[float]) -> dict[str, float]:
    """Return what `length_sums` adds up to: `longer_wins` is the accuracy of preferring the longer response.

    `accuracy_not_longer` is the share of rho > 0 among the `pairs_not_longer`; without any such pair it is left out.
    `_low` and `_high` are the ends of a share's 95% Wilson interval.

    >>> found = length_metrics([3.0, 2.0, 1.5, 2.0, 1.0])
    >>> found["longer_wins"], found["accuracy_not_longer"], round(found["accuracy_low"], 3)
    (0.5, 0.5, 0.208)
    """
    pairs, right, longer, not_longer, right_not_longer = sums
    found = {"pairs": pairs, "longer_wins": longer / pairs, "pairs_not_longer": not_longer}
    found["accuracy_low"], found["accuracy_high"] = wilson_interval(right / pairs, pairs)
    if not_longer:
        found["accuracy_not_longer"] = share = right_not_longer / not_longer
        low, high = wilson_interval(share, not_longer)
        found |= {"accuracy_not_longer_low": low, "accuracy_not_longer_high": high}
    return found


def against_length(held_out: Mapping[str, float]) -> str:
    """Return a sentence: the accuracy that a trainer's `evaluate` found, and that of preferring the longer response."""
    def shown(of: str, count: str) -> str:
        value, low, high = (held_out[f"eval_accuracy{of}{end}"] for end in ("", "_low", "_high"))
        return f"{value:.3f} [{low:.3f}, {high:.3f}] of {held_out[count]:.0f}"

    apart = shown("_not_longer", "eval_pairs_not_longer") if held_out["eval_pairs_not_longer"] else "no such pair"
    return (f"held-out accuracy {shown('', 'eval_pairs')} pairs (95% interval); preferring the longer response: "
            f"{held_out['eval_longer_wins']:.3f}; where the chosen is not longer: {apart}")  # fmt: skip


def wilson_interval(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's interval of a share observed in `n` independent draws (95% at z = 1.96).

    >>> [round(end, 4) for end in wilson_interval(0.75, 100)]
    [0.657, 0.8245]
    """
    centre, spread = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))
