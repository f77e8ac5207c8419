"""TRL 1.16's own DPO losses under `check_loss`: DPOTrainer's `_compute_loss` driven with log-ratios that are set.

A stand-in for the model returns the log-probability of a one-token response, so that x = beta (rho_w - rho_l) is exact.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpo_theory import LOSSES, Loss
from gpo_theory.checking.check import check_loss

trl = pytest.importorskip("trl", minversion="1.16", reason="trl 1.16 is a test oracle, not a dependency")

# TRL's loss_type -> its options and our loss, where it is a function of the margin alone (beta = 1, one token).
OF_THE_MARGIN: dict[str, tuple[dict[str, float], Loss]] = {
    "sigmoid": ({}, LOSSES["logistic"]), "sigmoid_norm": ({}, LOSSES["logistic"]), "hinge": ({}, LOSSES["hinge"]),
    "ipo": ({}, LOSSES["ipo_tau"]), "robust": ({"label_smoothing": 0.1}, LOSSES["robust_dpo"]),
    "exo_pair": ({"label_smoothing": 0.001}, LOSSES["exo"]), "discopop": ({}, LOSSES["discopop"]),
}
ABSOLUTE = ("nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "sft")
BATCH_COUPLED = ("aot", "aot_unpaired")


def trl_loss(name: str, chosen: torch.Tensor, rejected: torch.Tensor, reference: torch.Tensor | None = None, **options: float) -> torch.Tensor:
    """The mean loss of a batch of log-probabilities; those of the reference are `reference` (or 0), and 0."""
    n = len(chosen)
    logps = torch.cat([chosen, rejected])[:, None]
    outputs = SimpleNamespace(log_probs=logps, entropy=torch.zeros_like(logps), mean_logits=torch.zeros_like(logps),
                              is_top1=torch.ones_like(logps, dtype=torch.bool))  # fmt: skip
    same = SimpleNamespace(device=chosen.device, gather=lambda t: t, gather_for_metrics=lambda t: t)
    metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False), accelerator=same, aux_loss_enabled=False, ld_alpha=None, beta=1.0,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=[name], loss_weights=[1.0],
        label_smoothing=options.get("label_smoothing", 0.0), args=SimpleNamespace(discopop_tau=0.05), use_weighting=False,
        _metrics=metrics, _total_train_tokens=0, _tp_size=1)  # fmt: skip
    inputs = {"input_ids": torch.ones(2 * n, 2, dtype=torch.long), "attention_mask": torch.ones(2 * n, 2, dtype=torch.long),
              "completion_mask": torch.tensor([[0, 1]] * (2 * n)), "ref_chosen_logps": torch.zeros_like(chosen) if reference is None else reference,
              "ref_rejected_logps": torch.zeros_like(rejected)}  # fmt: skip
    return trl.DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)


def margin_loss(name: str, **options: float) -> Any:
    """TRL's loss as a function of x, one pair at a time: TRL returns the mean of a batch."""

    def function(x: torch.Tensor) -> torch.Tensor:
        each = [trl_loss(name, one[None], 0 * one[None].detach(), **options) for one in x.reshape(-1)]
        return torch.stack(each).reshape(x.shape) if each else 0 * x  # an empty batch

    return function


def found(name: str) -> set[tuple[str, str, float | None]]:
    options, loss = OF_THE_MARGIN[name]
    # What is left out is shown by the formula, or would test `margin_loss`, which calls TRL pair by pair.
    skip = ["consistency", "elementwise", "state", "layout", "upstream", "no_grad", "gradient"]
    return {(f.test, f.dtype, f.x) for f in check_loss(margin_loss(name, **options), loss, margins=4, skip=skip).findings}


@pytest.mark.parametrize("name", [name for name in OF_THE_MARGIN if name not in ("exo_pair", "discopop")])
def test_what_trl_computes_well(name: str) -> None:
    assert found(name) == set()


def test_discopop_is_nan_where_exp_overflows() -> None:
    """inf * 0: below -log(2^128) = -88.7 in float32, below -709.8 in float64."""
    assert {case for case in found("discopop") if case[0] == "finite"} == {("finite", "float32", -89.0), ("finite", "float64", -711.0)}
    value = trl_loss("discopop", torch.tensor([-88.8]), torch.zeros(1))
    assert value.isnan()
    assert trl_loss("discopop", torch.tensor([-88.6]), torch.zeros(1)).isfinite()


def test_exo_keeps_its_epsilon_in_float32() -> None:
    """torch.tensor(0.001) has 24 bits, so in float64 the value is right to about 8 digits only."""
    assert {(test, dtype) for test, dtype, _ in found("exo_pair")} == {("value", "float64"), ("slope", "float64")}
    x = torch.tensor([3.0], dtype=torch.float64)
    value = float(trl_loss("exo_pair", x, 0 * x, label_smoothing=0.001))
    # KL((s, 1-s) || (1-eps, eps)) at x = 3, s = 0.9525741268, by hand.
    s, e = torch.sigmoid(x).item(), 0.001
    by_hand = s * torch.log(torch.tensor(s / (1 - e), dtype=torch.float64)) + (1 - s) * torch.log(torch.tensor((1 - s) / e, dtype=torch.float64))
    assert value == pytest.approx(float(by_hand), rel=1e-6)


@pytest.mark.parametrize("name", ABSOLUTE)
def test_not_a_function_of_the_margin_for_its_absolute_terms(name: str) -> None:
    """The same margin with both log-ratios moved by the same amount has another loss (proposition P7 excludes it)."""
    chosen, rejected = torch.tensor([0.3]), torch.tensor([-0.4])
    assert abs(float(trl_loss(name, chosen, rejected)) - float(trl_loss(name, chosen + 1, rejected + 1))) > 1e-2


@pytest.mark.parametrize("name", OF_THE_MARGIN)
def test_a_function_of_the_margin_has_none(name: str) -> None:
    chosen, rejected, options = torch.tensor([0.3]), torch.tensor([-0.4]), OF_THE_MARGIN[name][0]
    moved = trl_loss(name, chosen + 1, rejected + 1, **options)
    assert float(trl_loss(name, chosen, rejected, **options)) == pytest.approx(float(moved), rel=1e-5)


@pytest.mark.parametrize("name", BATCH_COUPLED)
def test_not_a_function_of_the_margin_for_its_batch(name: str) -> None:
    """Policy and reference are sorted apart: two pairs together have another mean than each alone."""
    chosen, rejected, reference = torch.tensor([3.0, -1.0]), torch.tensor([0.0, 2.0]), torch.tensor([-2.0, 3.0])
    alone = [float(trl_loss(name, *(t[i : i + 1] for t in (chosen, rejected, reference)))) for i in (0, 1)]
    assert abs(float(trl_loss(name, chosen, rejected, reference)) - sum(alone) / 2) > 1e-2


def test_every_loss_type_of_trl_is_accounted_for() -> None:
    import inspect
    import re

    source = inspect.getsource(trl.DPOTrainer._compute_loss)
    assert set(re.findall(r'loss_type == "(\w+)"', source)) == {*OF_THE_MARGIN, *ABSOLUTE, *BATCH_COUPLED}
