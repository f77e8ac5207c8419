"""The same rows, policy and reference through TRL 1.16's DPOTrainer and through ours: equal losses and gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gpo_full import GPOTrainer
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.training.rows import batch_of
from tests.gpo_full.test_trl_adapter import BETA, QUIET, ROWS
from tests.support.pairs import distance
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import trainer

trl = pytest.importorskip("trl", minversion="1.16", reason="trl 1.16 is a test oracle, not a dependency")
pytestmark = [pytest.mark.slow, *QUIET]

# TRL's loss_type and options -> ours, with the constant between them.
SAME: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "sigmoid": ({}, {"loss": "dpo"}, 1.0),
    "sigmoid_norm": ({}, {"loss": "dpo", "margin": "mean"}, 1.0),
    "hinge": ({}, {"loss": "slic"}, 1.0),
    "robust": ({"label_smoothing": 0.1}, {"loss": "robust_dpo"}, 1.0),
    "exo_pair": ({"label_smoothing": 0.2}, {"loss": "exo", "parameters": {"eps": "1/5"}}, 1.0),
    "discopop": ({}, {"loss": "discopop"}, 1.0),
    # (rho - 1/(2 beta))^2 = (x - 1/2)^2 / beta^2 on the length-averaged margin.
    "ipo": ({}, {"loss": "ipo_tau", "margin": "mean"}, BETA**-2),
}


def measured(made: Any, batch: Any, constant: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and its gradient in every weight of the model."""
    made.model.zero_grad()
    loss = made.compute_loss(made.model, batch) * constant
    loss.backward()
    gradients = [parameter.grad.flatten() for parameter in made.model.parameters() if parameter.grad is not None]
    return loss.detach(), torch.cat(gradients)


def of_trl(folder: Path, name: str, beta: float = BETA, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    from datasets import Dataset

    config = trl.DPOConfig(output_dir=str(folder / "trl"), loss_type=name, beta=beta, report_to="none", use_cpu=True,
                           per_device_train_batch_size=3, bf16=False, gradient_checkpointing=False,
                           remove_unused_columns=False, disable_tqdm=True, **options)  # fmt: skip
    made = trl.DPOTrainer(model=tiny_model(seed=1), ref_model=tiny_model(seed=2), args=config,
                          train_dataset=Dataset.from_list(ROWS), processing_class=tiny_tokenizer())  # fmt: skip
    return measured(made, next(iter(made.get_train_dataloader())))


def of_ours(folder: Path, constant: float = 1.0, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return measured(*trainer_of_ours(folder, **options), constant)


def trainer_of_ours(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[GPOTrainer, Any]:
    """A trainer, and its batch."""
    policy, base = tiny_model(seed=1).to(dtype), tiny_model(seed=2).to(dtype)
    made = trainer(folder, policy, ROWS, processing_class=tiny_tokenizer(), reference=base, **{"beta": BETA, **options})
    return made, made.data_collator([made.train_dataset[i] for i in range(len(ROWS))])


def of_one_rounding(folder: Path, **options: Any) -> float:
    """By how much the slopes f'(x) of a batch change, relatively, when each log-probability in rho is rounded once.

    A slope changes by f''(x) beta (sum of the four |log p|) 2^-24: much for discopop, which has a pair near the zero
    of f'.
    """
    made, batch = trainer_of_ours(folder, torch.float64, **options)
    packed, reference = batch_of(batch, made.plan.layout), batch["reference"]
    ratios = response_log_probabilities(made.model, packed, made.objective.margin).detach() - reference
    x = (BETA * (ratios[:, 0] - ratios[:, 1])).requires_grad_()
    (slope,) = torch.autograd.grad(made.objective.f(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    change = curvature * BETA * ((ratios + reference).abs() + reference.abs()).sum(1) * 2**-24
    return float(change.norm() / slope.norm())


@pytest.mark.parametrize("name", SAME)
def test_loss_and_gradient_equal_trl(name: str, tmp_path: Path) -> None:
    """TRL computes in float32, its head whatever the model; ours in float64 too, so that one rounding is not two."""
    theirs, ours, constant = SAME[name]
    expected, slope = of_trl(tmp_path, name, **theirs)
    exact, exact_gradient = of_ours(tmp_path / "double", constant=constant, dtype=torch.float64, **ours)
    found, gradient = of_ours(tmp_path, constant=constant, **ours)
    for value in (found, exact.float()):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    for one in (gradient, slope):
        assert distance(one.double(), exact_gradient) <= 1.5e-6 + of_one_rounding(tmp_path / "double", **ours)


def test_the_comparison_sees_a_margin_that_is_not_length_averaged(tmp_path: Path) -> None:
    theirs, ours, constant = SAME["ipo"]
    expected, slope = of_trl(tmp_path, "ipo", **theirs)
    found, gradient = of_ours(tmp_path, constant=constant, **ours | {"margin": "sum"})
    assert distance(found, expected) > 1e-2
    assert distance(gradient, slope) > 1e-2


def test_discopop_goes_on_where_trl_s_is_nan(tmp_path: Path) -> None:
    """At beta = 100 one of the three pairs has x < -88.7, and with it TRL's batch is lost."""
    loss, _ = of_trl(tmp_path, "discopop", beta=100.0)
    assert loss.isnan()
    found, gradient = of_ours(tmp_path, beta=100.0, loss="discopop")
    assert found.isfinite()
    assert gradient.isfinite().all()
