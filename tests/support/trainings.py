"""Trainings of a tiny model in this process, and what they leave."""

__all__ = ["PAIRS", "Passes", "objects", "step0", "trainer", "weights"]

import json
from pathlib import Path
from typing import Any

import torch

from gpo_full import GPOConfig, GPOTrainer
from gpo_full.data.pairs import Pair
from tests.support.pairs import some_pairs

PAIRS = some_pairs(11)


def trainer(folder: Path, model: Any, pairs: list[Pair] = PAIRS, *, run: str = "run", **options: Any) -> GPOTrainer:
    others = {name: options.pop(name) for name in ("reference", "eval_dataset") if name in options}
    settings = {"learning_rate": 1e-3, "max_steps": 1, "per_device_train_batch_size": 4, "save_strategy": "no",
                "reference_store": str(folder / "references"), **options}  # fmt: skip
    args = GPOConfig(output_dir=str(folder / run), use_cpu=True, disable_tqdm=True, **settings)
    return GPOTrainer(model, args, pairs, **others)


def objects(folder: Path, run: str = "run") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def step0(made: GPOTrainer) -> float:
    """The loss of all training pairs before any step, as training computes it."""
    batch = made.data_collator([made.train_dataset[i] for i in range(len(made.train_dataset))])
    made.model.train()
    return float(made.compute_loss(made.model, batch).detach())


class Passes:
    """How many forward passes a model made."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.count = 0
        model.register_forward_pre_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1
