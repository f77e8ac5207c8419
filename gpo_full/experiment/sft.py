"""Supervised fine-tuning on (prompt, target) texts: the policy that preference optimisation starts from."""

__all__ = ["TokenTask", "fine_tune", "response_loss", "tokenize_tasks"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gpo_full.output import progress


@dataclass(frozen=True)
class TokenTask:
    """Token ids of a prompt and of the target that answers it, end-of-sequence included."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]


def tokenize_tasks(tokenizer: Any, prompts: Iterable[str], targets: Iterable[str]) -> list[TokenTask]:
    """Tokenise prompt + ' ' + target whole, and split where the prompt's own tokens end."""
    tasks = []
    for prompt, target in zip(prompts, targets, strict=True):
        alone, whole = tokenizer(prompt)["input_ids"], tokenizer(f"{prompt} {target}")["input_ids"]
        tasks.append(TokenTask(tuple(alone), (*whole[len(alone) :], tokenizer.eos_token_id)))
    return tasks


def response_loss(model: Any, tasks: Sequence[TokenTask]) -> tuple[torch.Tensor, int]:
    """Return the summed -log pi(target | prompt) in nats and the number of target tokens.

    Only the positions that predict a target token meet the language-model head.
    """
    rows = [(*task.prompt, *task.target[:-1]) for task in tasks]
    width = max(map(len, rows))
    # Padded on the right: under causal attention no token of a task sees the padding, so no mask is needed.
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
    states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    at = [(i, len(task.prompt) - 1 + j) for i, task in enumerate(tasks) for j in range(len(task.target))]
    row, column = torch.tensor(at, device=model.device).unbind(1)
    targets = torch.tensor([token for task in tasks for token in task.target], device=model.device)
    logits = model.get_output_embeddings()(states[row, column]).float()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), len(targets)


def fine_tune(
    model: Any,
    tasks: Sequence[TokenTask],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    last_layers: int,
    seed: int,
    label: str = "supervised fine-tuning",
) -> list[float]:
    """Train the `last_layers` of `model` in place with AdamW; return each step's loss in nats per target token.

    The learning rate warms up over a tenth of the steps and falls linearly to zero. The mean is over tokens.
    """
    model.requires_grad_(False)
    trained = [p for layer in model.get_decoder().layers[-last_layers:] for p in layer.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    model.train()
    losses = []
    for batch in progress(_batches(tasks, steps, batch_size, seed), label, steps):
        loss, count = response_loss(model, batch)
        (loss / count).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()) / count)
    model.eval().requires_grad_(True)
    return losses


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _batches(tasks: Sequence[TokenTask], steps: int, size: int, seed: int) -> list[list[TokenTask]]:
    """Return `steps` batches in random order; within eight batches' worth, tasks of like length share a batch."""
    generator = torch.Generator().manual_seed(seed)
    batches: list[list[TokenTask]] = []
    while len(batches) < steps:
        order = torch.randperm(len(tasks), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, 8 * size):
            pool = sorted((tasks[i] for i in order[start : start + 8 * size]), key=lambda t: len(t.prompt))
            batches += [pool[i : i + size] for i in range(0, len(pool) - size + 1, size)]
    chosen = batches[:steps]
    return [chosen[i] for i in torch.randperm(steps, generator=generator).tolist()]
