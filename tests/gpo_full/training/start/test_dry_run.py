"""The forecast of a training's memory: counts against the model itself, the sum against a measured peak."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpo_full import GPOConfig
from gpo_full.bench.run import SHAPES, SIZES
from gpo_full.data.pairs import Pair
from gpo_full.training.start.dry_run import DryRun, forecast_needs
from gpo_full.training.start.model import prepared
from gpo_theory import InputError
from tests.gpo_full.cli.test_command_train import Train, model, train  # noqa: F401
from tests.support.tiny_models import tiny_model

PAIRS = [Pair((1, 2, 3), (4, 5), (6,), 3), Pair((1, 2), (7, 8, 9), (4, 4), 2), Pair((3,), (5,), (6,), 1)]


def needs(folder: Path, pairs: list[Pair] = PAIRS, policy: Any = None, **options: Any) -> DryRun:
    """The forecast for a model of which there is the configuration alone."""
    (tiny_model() if policy is None else policy).config.save_pretrained(folder)
    return forecast_needs(str(folder), GPOConfig(output_dir=str(folder), use_cpu=True, **options), pairs)


@pytest.mark.parametrize("options", [{}, {"train_last_layers": 1}, {"lora_rank": 2}])
def test_it_counts_what_the_model_has(options: dict[str, Any], tmp_path: Path) -> None:
    found = needs(tmp_path, per_device_train_batch_size=2, num_train_epochs=3, **options)
    real = prepared(tiny_model(), GPOConfig(output_dir=str(tmp_path), use_cpu=True, **options))
    sizes = [(each.numel(), each.requires_grad) for each in real.parameters()]
    assert found.parameters == sum(size for size, _ in sizes)
    assert found.trained == sum(size for size, trained in sizes if trained)
    assert found.memory_mib["weights"] == 4 * found.parameters / 2**20
    assert found.memory_mib["moments"] == 2 * found.memory_mib["gradients"] == 8 * found.trained / 2**20
    assert (found.pairs, found.tokens, found.steps) == (2, 13, 6)  # 6 + 7 tokens; 3 epochs of ceil(3 / 2) steps


def test_the_largest_batch_is_of_different_prompts(tmp_path: Path) -> None:
    """Pairs of one prompt share it, so that smaller ones of other prompts need more."""
    prompt = tuple(range(1, 21))
    long = [Pair(prompt, (30, 1), (31,), 20), Pair(prompt, (30, 2), (31,), 20), Pair((*prompt, 40), (1,), (2,), 20)]
    found = [needs(tmp_path, [*PAIRS, *long], per_device_train_batch_size=count).tokens for count in (1, 2, 4, 6)]
    # 23 tokens of a long pair, 7, 6 and 3 of the others; two more long ones add one and two responses of 2 tokens.
    assert found == [23, 30, 39, 45]


def test_sharding_divides_what_lies_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the launcher's variables say, on a machine without the devices."""
    tiny_model().config.save_pretrained(tmp_path)
    args = GPOConfig(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=1, num_train_epochs=2,
                     gradient_accumulation_steps=2)  # fmt: skip
    whole = forecast_needs(str(tmp_path), args, PAIRS)
    assert whole.run_flops == 4 * 2 * whole.flops  # 2 epochs of ceil(3 / 2) steps of two micro-batches
    monkeypatch.setenv("WORLD_SIZE", "4")
    replicated = forecast_needs(str(tmp_path), args, PAIRS)
    assert replicated.memory_mib == whole.memory_mib
    assert replicated.run_flops == 2 * 2 * whole.flops  # 3 pairs are one batch a device
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    pieces = forecast_needs(str(tmp_path), args, PAIRS).memory_mib
    for name, size in whole.memory_mib.items():
        assert pieces[name] == (size / 4 if name in ("weights", "gradients", "moments") else size)


def test_what_another_optimizer_keeps_is_not_guessed(tmp_path: Path) -> None:
    for known in ("adamw_torch", "adamw_torch_fused"):
        assert needs(tmp_path, optim=known).memory_mib["moments"] > 0
    for unknown in ("adamw_torch_4bit", "sgd"):
        with pytest.raises(InputError, match=f"the memory of optim='{unknown}' is not known"):
            needs(tmp_path, optim=unknown)


def test_it_is_told_without_weights_and_nothing_is_written(train: Train, tmp_path: Path) -> None:  # noqa: F811
    policy = shutil.copytree(train.model, tmp_path / "policy", ignore=shutil.ignore_patterns("*.safetensors"))
    told = json.loads(train("--dry-run", "--json", model=policy).stdout)
    shown = train("--dry-run", model=policy).stdout
    assert not train.output.exists()
    assert told["schema"] == 1
    assert told["total_mib"] == pytest.approx(sum(told["memory_mib"].values()))
    assert "4 steps on 7 pairs" in shown
    assert f"in all      {told['total_mib']:14,.1f}" in shown


def test_a_dry_run_is_not_a_reference_pass(train: Train) -> None:  # noqa: F811
    assert "choose one" in train.refused("--dry-run", "--reference-only")
    assert not train.output.exists()


def test_memory_grows_with_the_row_and_not_with_its_square(tmp_path: Path) -> None:
    """Twice as many prompts, each of 800 tokens, whose scores no kernel keeps."""
    prompts = [Pair((i, *[5] * 800), (6,), (7,), 801) for i in range(10, 14)]
    policy = tiny_model(max_position_embeddings=4096)
    kept = [needs(tmp_path, prompts, policy, per_device_train_batch_size=n).memory_mib["activations"] for n in (2, 4)]
    assert kept[1] / kept[0] == pytest.approx(2, rel=0.01)


def test_checkpointing_and_bfloat16_need_less(tmp_path: Path) -> None:
    options = ({}, {"bf16": True}, {"activation_checkpointing": True})
    found = [needs(tmp_path, **each).memory_mib["activations"] for each in options]
    assert found[0] > found[1] > found[2] > 0


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["summarisation", "long"])
def test_the_sum_is_the_measured_peak(shape: str, tmp_path: Path) -> None:
    """Within a fifth of what a process of its own needs for two steps, above what it needs to have imported."""
    size = replace(SIZES["10m"], pairs=2)
    measure = (f"from gpo_full.bench import run; from gpo_full.bench.device import Place; run._warm('ours'); run.SIZES['10m'] = run.{size}; "
               f"print(run._alone('ours', '{shape}', '10m', Place()).peak)")  # fmt: skip
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", measure], capture_output=True, text=True, check=True)
    pairs = SHAPES[shape].pairs(size.pairs, size.vocabulary)
    found = needs(tmp_path, pairs, size.model(), per_device_train_batch_size=size.pairs)
    assert found.total_mib == pytest.approx(float(done.stdout.split()[-1]), rel=0.2)
