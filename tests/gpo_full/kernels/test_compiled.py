"""A compiled MLP computes what the plain one does, whatever the lengths, and is compiled once for all of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gpo_full import GPOConfig, GPOTrainer
from gpo_full.data.pairs import Pair
from gpo_theory import InputError
from tests.support.tiny_models import tiny_model

PAIRS = [Pair(tuple(range(5, 12 + i)), (20, 21, 2), (30, 31, 32, 2), 7 + i) for i in range(12)]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not on the path")


def trainer(folder: Path, family: str = "llama", **options: Any) -> GPOTrainer:
    args = GPOConfig(output_dir=str(folder), reference_store=str(folder / "references"), use_cpu=True, max_steps=6,
                     per_device_train_batch_size=3, learning_rate=1e-3, save_strategy="no", disable_tqdm=True,
                     **options)  # fmt: skip
    model = tiny_model(
        family,
        attention="eager" if family == "gemma2" else "sdpa",
        **({"n_layer": 4} if family == "gpt2" else {"num_hidden_layers": 4}),
    )
    return GPOTrainer(model, args, PAIRS)


@pytest.mark.slow
@needs_compiler
# Both are torch's own, of what it does while it compiles.
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf",
)
@pytest.mark.parametrize(("family", "options"), [
    ("llama", {}), ("llama", {"train_last_layers": 2}), ("llama", {"lora_rank": 2}), ("gpt2", {}), ("gemma2", {}),
    ("llama", {"activation_checkpointing": True}), ("llama", {"bf16": True}),
])  # fmt: skip
def test_a_run_with_compiled_mlps_is_the_run_without(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    runs = []
    for compiled in (False, True):
        made = trainer(tmp_path / str(compiled), family, compile_mlp=compiled, **options)
        made.train()
        assert not any("_orig_mod" in name for name in made.model.state_dict())
        runs.append([line["loss"] for line in made.state.log_history if "loss" in line])
    # Rounding apart, which AdamW carries on: bfloat16 has 2^-8.
    assert runs[0] == pytest.approx(runs[1], abs=5e-3 if options.get("bf16") else 2e-6)
    assert runs[0][-1] < runs[0][0] - 0.01
    # Layers of one kind share a graph: with and without a gradient, frozen and trained; six lengths make no other.
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 6
    assert not torch._dynamo.utils.counters["graph_break"]


def test_what_cannot_be_compiled_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args: dict[str, Any] = {"output_dir": str(tmp_path), "use_cpu": True, "compile_mlp": True}
    with pytest.raises(InputError, match="compile_mlp: OPTForCausalLM has no mlp or feed_forward below its last layer"):
        GPOTrainer(tiny_model("opt"), GPOConfig(**args), PAIRS)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"compile_mlp needs a C\+\+ compiler"):
        GPOTrainer(tiny_model(), GPOConfig(**args), PAIRS)
