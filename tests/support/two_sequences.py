"""The definition of response log-probabilities: every sequence alone through the plain model. Slow and obvious."""

from typing import Any

import torch
from torch import Tensor

from gpo_full.data.pairs import Pair


def response_tokens(model: Any, pair: Pair) -> list[Tensor]:
    """log p of each token of the chosen and of the rejected response."""
    prompt, found = pair.prefix[: pair.prompt_length], []
    for response in pair.responses:
        ids = torch.tensor([prompt + response])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
        picked = logits.log_softmax(-1)[torch.arange(ids.shape[1] - 1), ids[0, 1:]]
        found.append(picked[len(prompt) - 1 :])
    return found


def response_sums(model: Any, pairs: list[Pair], margin: str = "sum") -> Tensor:
    """[P, 2], chosen first."""
    reduce = torch.Tensor.sum if margin == "sum" else torch.Tensor.mean
    return torch.stack([torch.stack([reduce(tokens) for tokens in response_tokens(model, pair)]) for pair in pairs])
