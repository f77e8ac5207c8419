"""Samples during training: the training is bitwise the same, the numbers are those of an evaluation made by hand."""

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from gpo_full.evaluation.compare import evaluate, reference_answers
from gpo_theory import InputError
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import objects, trainer, weights

ROWS = [{"prompt": "the cat sat on", "target": "the mat"}, {"prompt": "return the sum", "target": "of the values"},
        {"prompt": "the dog", "target": "ran"}]  # fmt: skip


def shorter(samples: Sequence[str], targets: Sequence[str]) -> list[float]:
    random.random(), np.random.rand(), torch.rand(1)  # a reward may draw numbers of its own
    return [-float(len(sample)) for sample in samples]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def sampling(folder: Path, prompts: Path, model: Any = None, **options: Any) -> Any:
    """A run of four steps that samples at every other one."""
    settings = {"sample_every": 2, "sample_prompts": str(prompts), "sample_reward": f"{__name__}:shorter",
                "sample_length": 5, "max_steps": 4, "processing_class": tiny_tokenizer(), **options}  # fmt: skip
    made = tiny_model() if model is None else model
    tokenizer = settings.pop("processing_class")
    return with_tokenizer(folder, made, tokenizer, **settings)


def with_tokenizer(folder: Path, model: Any, tokenizer: Any, *, run: str = "run", **settings: Any) -> Any:
    from gpo_full import GPOConfig, GPOTrainer
    from tests.support.trainings import PAIRS

    reference = settings.pop("reference", None)
    defaults = {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "save_strategy": "no", "use_cpu": True,
                "reference_store": str(folder / "references"), "disable_tqdm": True}  # fmt: skip
    args = GPOConfig(output_dir=str(folder / run), **defaults | settings)
    return GPOTrainer(model, args, PAIRS, processing_class=tokenizer, reference=reference)


def records(folder: Path, run: str = "run") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / run / "samples.jsonl").read_text().splitlines()]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "cpu_seconds"} for row in rows]


@pytest.mark.slow
def test_the_training_is_bitwise_the_same(tmp_path: Path, prompts: Path) -> None:
    torch.manual_seed(0)
    plain = trainer(tmp_path, tiny_model(), run="plain", max_steps=4)
    plain.train()
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    made = sampling(tmp_path, prompts)
    made.train()
    assert torch.equal(weights(made.model), weights(plain.model))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]
    assert without_times(objects(tmp_path)) == without_times(objects(tmp_path, "plain"))
    assert [row["step"] for row in objects(tmp_path)] == [1, 2, 3, 4]
    assert made.model.training


def test_the_numbers_are_those_of_an_evaluation_afterwards(tmp_path: Path, prompts: Path) -> None:
    made = sampling(tmp_path, prompts, sample_every=3, train_last_layers=1)
    made.train()
    last = records(tmp_path)[-1]
    prompt, target = ([row[name] for row in ROWS] for name in ("prompt", "target"))
    reference, tokenizer = tiny_model(), tiny_tokenizer()
    options = {"seed": 42, "max_new_tokens": 5}
    against = reference_answers(reference, tokenizer, prompt, target, **options)
    found = evaluate(made.model, reference, tokenizer, against, shorter, **options)
    assert [row["step"] for row in records(tmp_path)] == [3, 4]  # the interval, and the end
    assert (last["schema"], last["n"], last["judge"]) == (1, 3, f"{__name__}:shorter")
    assert found.kl > 0.001
    for name in ("kl", "kl_se", "kl_sequence", "kl_sequence_se", "win_rate", "win_low", "win_high", "regularizer"):
        assert last[name] == pytest.approx(getattr(found, name), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("kind", ["given", "adapter"])
def test_the_reference_is_the_one_of_the_training(kind: str, tmp_path: Path, prompts: Path) -> None:
    """With a learning rate of 0 the policy stays where it began: at its reference, or as far from it as it was."""
    options: dict[str, Any] = {"lora_rank": 2} if kind == "adapter" else {"reference": tiny_model(seed=1)}
    made = sampling(tmp_path, prompts, learning_rate=0.0, max_steps=1, **options)
    made.train()
    (found,) = records(tmp_path)
    assert (found["kl"] > 0.1) == (kind == "given")
    if kind == "adapter":
        assert found["kl"] == pytest.approx(0, abs=1e-6)
        frozen = {id(p) for p in made.model.parameters() if not p.requires_grad}
        live = next(each for each in made.callback_handler.callbacks if type(each).__name__ == "LiveEvaluation")
        copied = [p.numel() for p in live._reference.parameters() if id(p) not in frozen]
        assert sum(copied) == sum(p.numel() for p in made.model.parameters() if p.requires_grad)


class Killed(BaseException):
    """A crash that nothing handles."""


class Kill(TrainerCallback):  # type: ignore[misc]
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4 and "sample_kl" in kwargs["logs"]:
            raise Killed


@pytest.mark.slow
def test_a_resumed_run_writes_each_record_once(tmp_path: Path, prompts: Path) -> None:
    save = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    straight = sampling(tmp_path, prompts, run="straight", **save)
    straight.train()
    broken = sampling(tmp_path, prompts, **save)
    broken.add_callback(Kill())
    with pytest.raises(Killed):
        broken.train()
    assert [row["step"] for row in records(tmp_path)] == [2, 4]  # the checkpoint is that of step 3
    again = sampling(tmp_path, prompts, **save)
    again.train(resume_from_checkpoint=True)
    assert records(tmp_path) == records(tmp_path, "straight")
    assert [row["step"] for row in records(tmp_path)] == [2, 4, 6]
    kept = [load_file(tmp_path / run / "checkpoint-6" / "model.safetensors") for run in ("run", "straight")]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[1])
    logged = [[(log["step"], log["sample_kl"]) for log in made.state.log_history if "sample_kl" in log]
              for made in (again, straight)]  # fmt: skip
    assert logged[0] == logged[1]


def test_a_copy_does_not_move_when_the_policy_does(tmp_path: Path, prompts: Path) -> None:
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    made = sampling(tmp_path, prompts, model)
    live = next(each for each in made.callback_handler.callbacks if type(each).__name__ == "LiveEvaluation")
    made.train()
    assert all(torch.equal(value, before[name]) for name, value in live._reference.state_dict().items())
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items() if "proj" in name)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"sample_prompts": None}, "go together"),
    ({"sample_every": None}, "go together"),
    ({"sample_every": 0}, "sample_every=0 must be a whole number"),
    ({"sample_length": 0}, "sample_length=0 must be a whole number"),
    ({"sample_prompts": "absent.jsonl"}, "'absent.jsonl' cannot be read"),
    ({"sample_reward": "no_such:reward"}, "cannot be imported"),
    ({"processing_class": None}, "sample_every needs the tokenizer"),
])  # fmt: skip
def test_what_cannot_be_used_is_refused(changes: dict[str, Any], reason: str, tmp_path: Path, prompts: Path) -> None:
    with pytest.raises(InputError, match=reason):
        sampling(tmp_path, prompts, **changes)
