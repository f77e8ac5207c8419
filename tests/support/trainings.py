"""Trainings of a tiny model in this process, and what they leave."""

__all__ = ["PAIRS", "Passes", "apart", "at_call", "objects", "same", "step0", "trained", "trainer", "untimed",
           "weights"]  # fmt: skip

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpo_full import GPOConfig, GPOTrainer
from tests.support.pairs import some_pairs
from tests.support.tiny_models import on_disk, tiny_model
from tests.support.two_sequences import response_sums

PAIRS = some_pairs(11)


def trainer(folder: Path, model: Any, pairs: Any = PAIRS, *, run: str = "run", **options: Any) -> GPOTrainer:
    others = {name: options.pop(name, None) for name in ("reference", "eval_dataset", "processing_class")}
    settings = {"learning_rate": 1e-3, "max_steps": 1, "per_device_train_batch_size": 4, "save_strategy": "no",
                "reference_store": str(folder / "references"), **options}  # fmt: skip
    if "lora_rank" in options and isinstance(model, torch.nn.Module) and not model.name_or_path:
        on_disk(model)
    args = GPOConfig(output_dir=str(folder / run), use_cpu=True, disable_tqdm=True, **settings)
    return GPOTrainer(model, args, pairs, **others)


def trained(folder: Path, model: Any, *pairs: Any, resume: Any = None, allow: Any = (), **options: Any) -> GPOTrainer:
    made = trainer(folder, model, *pairs, **options)
    made.train(resume_from_checkpoint=resume, allow_changes=allow)
    return made


def apart(margin: str = "sum") -> tuple[Any, Any, torch.Tensor]:
    """A reference and a policy away from it in float64, and the log-ratios of PAIRS by the definition."""
    reference, policy = (tiny_model(seed=seed, dtype=torch.float64) for seed in (1, 2))
    return reference, policy, (response_sums(policy, PAIRS, margin) - response_sums(reference, PAIRS, margin)).detach()


def objects(folder: Path, run: str = "run", name: str = "metrics") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / run / f"{name}.jsonl").read_text().splitlines()]


def untimed(rows: list[dict[str, Any]], *but: str) -> list[dict[str, Any]]:
    """The rows without what no two runs share, and without what else is not to be compared."""
    return [{name: value for name, value in row.items() if name not in ("cpu_seconds", *but)} for row in rows]


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Whether two runs ended with the same weights, bit by bit."""
    return found.keys() == expected.keys() and all(torch.equal(found[name], value) for name, value in expected.items())


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def step0(made: GPOTrainer) -> float:
    """The loss of all training pairs before any step, as training computes it."""
    batch = made.data_collator([made.train_dataset[i] for i in range(len(made.train_dataset))])
    made.model.train()
    return float(made.compute_loss(made.model, batch).detach())


def at_call(number: int, function: Callable[..., Any], then: Callable[[], object]) -> Callable[..., Any]:
    """The function, before whose call of that number `then` is called."""
    count = itertools.count(1)

    def counted(*arguments: Any, **named: Any) -> Any:
        if next(count) == number:
            then()
        return function(*arguments, **named)

    return counted


class Passes:
    """How many forward passes a model made."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.count = 0
        model.register_forward_pre_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1
