"""Supervised fine-tuning on (prompt, target) texts: the policy that preference optimisation starts from."""

__all__ = ["TokenTask", "fine_tune", "fine_tuned", "load_policy", "response_loss", "tokenize_tasks"]

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gpo_full.evaluation.sampling import sample
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.inputs.workload import Workload
from gpo_full.files import atomic_file, write_whole
from gpo_full.output import progress

# The last tasks of the pilot split; at scale cpu, fine-tuning lowers their loss from 3.5 to 2.6 nats per token.
_VALIDATION = 48
_BETWEEN_SAVES = 30.0  # seconds: what an interruption may cost
_STATE, _BEFORE = "interrupted.safetensors", "before.json"


@dataclass(frozen=True)
class TokenTask:
    """Token ids of a prompt and of the target that answers it, end-of-sequence included."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]


def fine_tuned(folder: Path, workload: Workload, scale: Scale) -> dict[str, Any]:
    """Fine-tune the workload's policy, save it in `folder`, and return its losses and its validation before and after.

    It sees the first tasks of the training split; those from which pairs are sampled stay unseen. What an interruption
    left in `folder` is used, and ends with the same weights.
    """
    train = workload.tasks["train"]
    count = min(scale.sft_steps * scale.sft_batch, len(train) - scale.pair_prompts)
    tasks = tokenize_tasks(workload.tokenizer, train[: max(0, count)])
    if not (folder / _BEFORE).is_file():
        write_whole(folder / _BEFORE, json.dumps(_validate(workload, scale)))
    loss_before, reward_before = json.loads((folder / _BEFORE).read_text(encoding="utf-8"))
    losses = fine_tune(workload.model, tasks, steps=scale.sft_steps, batch_size=scale.sft_batch, seed=scale.seed,
                       learning_rate=scale.sft_learning_rate, last_layers=scale.sft_layers,
                       state=folder / _STATE)  # fmt: skip
    loss_after, reward_after = _validate(workload, scale)
    workload.model.save_pretrained(folder)
    workload.tokenizer.save_pretrained(folder)
    for name in (_STATE, _BEFORE):
        (folder / name).unlink(missing_ok=True)
    return {"steps": scale.sft_steps, "learning_rate": scale.sft_learning_rate, "examples": len(tasks),
            "losses": losses, "loss_before": loss_before, "loss_after": loss_after, "reward_before": reward_before,
            "reward_after": reward_after}  # fmt: skip


def load_policy(folder: Path) -> Any:
    """Return the policy that `fine_tuned` saved in `folder`, in float32."""
    from gpo_full.training.start.model import loaded

    return loaded(str(folder)).to("cuda" if torch.cuda.is_available() else "cpu").eval()


@torch.no_grad()
def _validate(workload: Workload, scale: Scale) -> tuple[float, float]:
    """Return the loss in nats per target token and the mean golden reward of samples, on the pilot split."""
    chosen = workload.tasks["pilot"][-_VALIDATION:]
    tasks = tokenize_tasks(workload.tokenizer, chosen)
    sums = [response_loss(workload.model.eval(), tasks[i : i + 16]) for i in range(0, len(tasks), 16)]
    drawn = sample(workload.model, workload.tokenizer, [task["prompt"] for task in chosen], seed=scale.seed,
                   label="sampling for validation", max_new_tokens=scale.longest_response)  # fmt: skip
    rewards = workload.rewards([one.text for one, in drawn], chosen)
    return sum(float(loss) for loss, _ in sums) / sum(n for _, n in sums), sum(rewards) / len(rewards)


def tokenize_tasks(tokenizer: Any, tasks: Iterable[Mapping[str, str]]) -> list[TokenTask]:
    """Tokenise each task's prompt + ' ' + target as one text, and split where the prompt's own tokens end."""
    found = []
    for task in tasks:
        prompt = tokenizer(task["prompt"])["input_ids"]
        whole = tokenizer(f"{task['prompt']} {task['target']}")["input_ids"]
        found.append(TokenTask(tuple(prompt), (*whole[len(prompt) :], tokenizer.eos_token_id)))
    return found


def response_loss(model: Any, tasks: Sequence[TokenTask]) -> tuple[torch.Tensor, int]:
    """Return the sum of -log pi(target | prompt) over the tasks, in nats, and the number of target tokens.

    The language-model head is applied only at positions that predict a target token.
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
    model: Any, tasks: Sequence[TokenTask], *, steps: int, batch_size: int, learning_rate: float, last_layers: int,
    seed: int, label: str = "supervised fine-tuning", state: Path | None = None,
) -> list[float]:  # fmt: skip
    """Train the `last_layers` of `model` in place with AdamW; return each step's loss in nats per target token.

    The learning rate warms up over a tenth of the steps and falls linearly to zero. The mean is over tokens. With a
    file `state`, the training is saved there every half minute, and goes on from there if it exists.
    """
    model.requires_grad_(False)
    trained = [p for layer in model.get_decoder().layers[-last_layers:] for p in layer.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    losses = _restored(state, trained, optimizer) if state is not None and state.is_file() else []
    model.train()
    saved = time.monotonic()
    for batch in progress(_batches(tasks, steps, batch_size, seed)[len(losses) :], label, steps - len(losses)):
        optimizer.param_groups[0]["lr"] = learning_rate * _rate(len(losses), steps)
        loss, count = response_loss(model, batch)
        (loss / count).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()) / count)
        if state is not None and time.monotonic() - saved >= _BETWEEN_SAVES:
            _save(state, trained, optimizer, losses)
            saved = time.monotonic()
    model.eval().requires_grad_(True)
    return losses


def _save(path: Path, trained: Sequence[torch.nn.Parameter], optimizer: torch.optim.AdamW, losses: list[float]) -> None:
    """Write parameters, AdamW's moments and the losses so far, whole or not at all."""
    values = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for place, parameter in enumerate(trained):
        values |= {f"{place}.{name}": value for name, value in optimizer.state[parameter].items()}
        values[f"{place}.parameter"] = parameter.detach()
    with atomic_file(path) as temporary:
        save_file(values, temporary)


def _restored(path: Path, trained: Sequence[torch.nn.Parameter], optimizer: torch.optim.AdamW) -> list[float]:
    """Put what `_save` wrote back in place, and return the losses."""
    values = load_file(path)
    for place, parameter in enumerate(trained):
        parameter.data.copy_(values[f"{place}.parameter"])
        optimizer.state[parameter] = {name: values[f"{place}.{name}"].to(parameter.device if name != "step" else "cpu")
                                      for name in ("step", "exp_avg", "exp_avg_sq")}  # fmt: skip
    return [float(loss) for loss in values["losses"]]


def _rate(step: int, steps: int) -> float:
    """Return the learning rate at `step` of `steps`, over its maximum."""
    warm = max(1, steps // 10)
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _batches(tasks: Sequence[TokenTask], steps: int, size: int, seed: int) -> list[list[TokenTask]]:
    """Return `steps` batches in random order; tasks of similar length share a batch, so that little is padding.

    They are sorted by length within eight batches' worth of tasks, a number small enough to leave the order random.
    """
    generator = torch.Generator().manual_seed(seed)
    batches: list[list[TokenTask]] = []
    while len(batches) < steps:
        order = torch.randperm(len(tasks), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, 8 * size):
            pool = sorted((tasks[i] for i in order[start : start + 8 * size]), key=lambda t: len(t.prompt))
            batches += [pool[i : i + size] for i in range(0, len(pool) - size + 1, size)]
    chosen = batches[:steps]
    return [chosen[i] for i in torch.randperm(steps, generator=generator).tolist()]
