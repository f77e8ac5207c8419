"""Two estimators of KL(pi || pi_ref) from responses y ~ pi, in nats per response, and log-probabilities of responses.

Both take log pi(. | x, y_<t) at each of a response's L tokens, as tensors [L, V], and have the same mean: `exact_kl`,
a sum over the vocabulary at each token, by the chain rule; `log_ratio`, which sees the sampled tokens alone, because
it is log pi(y)/pi_ref(y) by definition. The first has the smaller variance.
"""

__all__ = ["exact_kl", "log_probability", "log_ratio"]

from collections.abc import Sequence

import torch
from torch import Tensor


def exact_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """Return sum_t KL(pi(. | x, y_<t) || pi_ref(. | x, y_<t)), exact at each token of the response y."""
    total: Tensor = torch.linalg.vecdot(policy.exp(), policy - reference).sum()
    return total


def log_ratio(policy: Tensor, reference: Tensor, tokens: Sequence[int]) -> Tensor:
    """Return log pi(y | x) - log pi_ref(y | x) of the response y = `tokens`."""
    return log_probability(policy - reference, tokens)


def log_probability(logs: Tensor, tokens: Sequence[int]) -> Tensor:
    """Return the sum over the response's tokens of their entries in `logs` [L, V]: log pi(y | x) for log pi."""
    return logs[torch.arange(len(tokens), device=logs.device), torch.tensor(tokens, device=logs.device)].sum()
