"""Every kind of architecture at tiny random size: the rows it gets, said aloud, and the same numbers as plain sequences."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gpo_full import GPOConfig, GPOTrainer
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import plan
from gpo_full.engine.packing import pack
from tests.support.pairs import distance, gradients, some_pairs
from tests.support.tiny_models import tiny_model
from tests.support.two_sequences import response_sums

PAIRS = some_pairs(5, scale=2)
LONGEST = max(len(pair.prefix) + max(len(pair.chosen), len(pair.rejected)) for pair in PAIRS)

WINDOW, NEAR = {"sliding_window": 8}, "looks back 8 tokens"
HEADS = {"head_dim": 8}
SOFT_CAP = "changes its logits after the head"
PROBE, STATES = "a probe of packed rows differs", "are not all full or sliding attention"
EAGER = {"attention": "eager"}
# Name -> family, what its configuration changes, the layout of its rows, and every reason why it is not the fast way.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], str, tuple[str, ...]]] = {
    "llama": ("llama", {}, "line", ()),
    "llama, eager": ("llama", EAGER, "rows", ()),
    "qwen2": ("qwen2", {}, "line", ()),
    "qwen2, windows above a layer": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, **WINDOW}, "apart", (NEAR,)),
    "qwen2, windows not used": ("qwen2", {"use_sliding_window": False, **WINDOW}, "line", ()),
    "qwen3": ("qwen3", {}, "line", ()),
    "qwen3, linear attention": (
        "qwen3_5_text", {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
                         "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8, **HEADS},
        "apart", (STATES,)),
    "gemma": ("gemma", HEADS, "line", ()),
    "gemma2": ("gemma2", EAGER, "apart", (SOFT_CAP, NEAR)),
    "gemma2, a window longer than the data": ("gemma2", {"sliding_window": 256, **EAGER}, "rows", (SOFT_CAP,)),
    "gemma3": ("gemma3_text", WINDOW | HEADS, "apart", (NEAR,)),
    "gemma3, a window longer than the data": ("gemma3_text", {"sliding_window": 256, **HEADS}, "line", ()),
    "gpt2": ("gpt2", {}, "line", ()),
    "gpt-neo, local attention": (
        "gpt_neo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8, **EAGER}, "apart", (NEAR,)),
    "mistral": ("mistral", {}, "line", ()),
    "mistral, a window": ("mistral", WINDOW, "apart", (NEAR,)),
    "opt": ("opt", {}, "line", ()),
    "bloom, no positions": ("bloom", {"n_layer": 2, "n_head": 4, **EAGER}, "apart", (PROBE,)),
    "mamba": ("mamba", {"state_size": 4, **EAGER}, "apart", (STATES,)),
    "mamba2": ("mamba2", {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8, **EAGER}, "apart", (STATES,)),
    "falcon-h1, a hybrid": (
        "falcon_h1", {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1,
                      "mamba_chunk_size": 8, **HEADS}, "apart", (STATES,)),
    "lfm2, convolutions": ("lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}, "apart", (STATES,)),
}  # fmt: skip


def made(name: str) -> Any:
    family, changes, *_ = ARCHITECTURES[name]
    return tiny_model(family, dtype=torch.float64, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_are_chosen_said_equal_to_plain_sequences_and_trained(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, _, layout, reasons = ARCHITECTURES[name]
    model = made(name)
    found = plan(model, LONGEST)
    assert found.layout == layout
    assert len(found.reasons) == len(reasons)
    assert all(part in whole for part, whole in zip(reasons, found.reasons, strict=True))
    assert found.fused_head == (SOFT_CAP not in reasons)

    expected = response_sums(model, PAIRS)
    sums = response_log_probabilities(model, pack(PAIRS, found.layout), fused_head=found.fused_head)
    # A state-space scan is computed in float32 whatever the model: there the bound of float32 holds.
    bounds = {"rtol": 1e-6, "atol": 0.0} if name == "mamba" else {"rtol": 0.0, "atol": 1e-5}
    torch.testing.assert_close(sums, expected, **bounds)
    assert distance(gradients(model, sums), gradients(model, expected)) <= 1e-6

    args = GPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True, disable_tqdm=True, max_steps=1, learning_rate=1e-3,
                     per_device_train_batch_size=len(PAIRS), reference_store=str(tmp_path), save_strategy="no",
                     report_to=[], beta=1.0)  # fmt: skip
    trainer = GPOTrainer(model, args, PAIRS)
    assert all(reason in caplog.text for reason in found.reasons)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(PAIRS))])
    trainer.train()
    (first,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # States of such layers are float32 whatever the model: |f'(0)| beta 1e-4.
    assert first["loss"] == pytest.approx(math.log(2), abs=5e-5 if STATES in reasons else 1e-6)
    assert math.isfinite(first["grad_norm"])
    assert float(trainer.compute_loss(model, batch).detach()) < math.log(2) - 1e-3


@pytest.mark.parametrize("name", ["mistral, a window", "gpt-neo, local attention", "gemma2", "mamba2"])
def test_shared_rows_would_have_been_wrong(name: str) -> None:
    """The fallback is needed: the same model in shared rows is off by far more than rounding."""
    model = made(name)
    found = response_log_probabilities(model, pack(PAIRS, "rows"), fused_head=SOFT_CAP not in ARCHITECTURES[name][3])
    assert float((found - response_sums(model, PAIRS)).detach().abs().max()) > 1e-2


def test_a_sliding_window_matters_where_sequences_are_longer() -> None:
    model = tiny_model("mistral", sliding_window=16)
    assert plan(model, 16).layout == "line"
    found = plan(model, 17)
    assert found.layout == "apart"
    assert "looks back 16 tokens, sequences have up to 17" in found.reasons[0]


def test_planning_leaves_the_training_mode_and_the_random_state_alone() -> None:
    model = tiny_model()
    model.train()
    model.model.layers[0].eval()
    before = torch.random.get_rng_state()
    plan(model, 64)
    assert model.training
    assert not model.model.layers[0].training
    assert torch.equal(torch.random.get_rng_state(), before)
