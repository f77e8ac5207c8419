"""The same rows, policy and reference through TRL 1.16's DPOTrainer and through ours: equal losses and gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from gpo_full import GPOConfig, GPOTrainer

trl = pytest.importorskip("trl", reason="trl 1.16 is a test oracle, not a dependency")
pytestmark = pytest.mark.slow

ROWS = [
    {"prompt": "the cat sat", "chosen": " on the mat", "rejected": " on a dog and ran"},
    {"prompt": "return the", "chosen": " sum of the values", "rejected": " list"},
    {"prompt": "the dog and the cat ran after", "chosen": " the cat", "rejected": " values in the list of the dog"},
]
BETA = 0.05
# TRL's loss_type and options -> ours, with the constant between them.
SAME: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "sigmoid": ({}, {"loss": "dpo"}, 1.0),
    "hinge": ({}, {"loss": "slic"}, 1.0),
    "robust": ({"label_smoothing": 0.1}, {"loss": "robust_dpo"}, 1.0),
    "exo_pair": ({"label_smoothing": 0.2}, {"loss": "exo", "parameters": {"eps": "1/5"}}, 1.0),
    # (rho - 1/(2 beta))^2 = (x - 1/2)^2 / beta^2 on the length-averaged margin.
    "ipo": ({}, {"loss": "ipo_tau", "margin": "mean"}, BETA**-2),
}


def gradient(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", SAME)
def test_loss_and_gradient_equal_trl(name: str, tmp_path: Path) -> None:
    from datasets import Dataset

    theirs, ours, constant = SAME[name]
    policy, reference, tokenizer = tiny_model(seed=1), tiny_model(seed=2), tiny_tokenizer()
    config = trl.DPOConfig(output_dir=str(tmp_path / "trl"), loss_type=name, beta=BETA, report_to="none",
                           use_cpu=True, per_device_train_batch_size=3, bf16=False, gradient_checkpointing=False,
                           remove_unused_columns=False, disable_tqdm=True, **theirs)  # fmt: skip
    other = trl.DPOTrainer(model=policy, ref_model=reference, args=config, train_dataset=Dataset.from_list(ROWS),
                           processing_class=tokenizer)  # fmt: skip
    expected = other.compute_loss(policy, next(iter(other.get_train_dataloader())))
    expected_gradient = gradient(policy, expected)
    args = GPOConfig(output_dir=str(tmp_path / "gpo"), use_cpu=True, beta=BETA, reference_store=str(tmp_path), **ours)
    made = GPOTrainer(policy, args, ROWS, processing_class=tokenizer, reference=reference)
    found = made.compute_loss(policy, made.data_collator([made.train_dataset[i] for i in range(3)])) * constant
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-4, atol=1e-5)
    found_gradient = gradient(policy, found)
    assert float((found_gradient - expected_gradient).norm() / expected_gradient.norm()) <= 1e-4
