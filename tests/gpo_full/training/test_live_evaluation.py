"""Samples during training: the training is bitwise the same, the numbers are those of an evaluation made by hand."""

import copy
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
from gpo_full.training.live_evaluation import LiveEvaluation
from gpo_theory import InputError
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import objects, same, trained, trainer, untimed, weights

ROWS = [{"prompt": "the cat sat on", "target": "the mat"}, {"prompt": "return the sum", "target": "of the values"},
        {"prompt": "the dog", "target": "ran"}]  # fmt: skip


def shorter(samples: Sequence[str], targets: Sequence[str]) -> list[float]:
    random.random(), np.random.rand(), torch.rand(1)  # a reward may draw numbers of its own
    return [-float(len(sample)) for sample in samples]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "prompts.jsonl", ROWS)


def sampling(folder: Path, prompts: Path, **options: Any) -> Any:
    """A run of four steps that samples at every other one."""
    settings = {"sample_every": 2, "sample_prompts": str(prompts), "sample_reward": f"{__name__}:shorter",
                "sample_length": 5, "max_steps": 4, "processing_class": tiny_tokenizer(), **options}  # fmt: skip
    return trainer(folder, tiny_model(), **settings)


def live_of(made: Any) -> LiveEvaluation:
    (live,) = (each for each in made.callback_handler.callbacks if isinstance(each, LiveEvaluation))
    return live


def records(folder: Path, run: str = "run") -> list[dict[str, Any]]:
    return objects(folder, run, "samples")


@pytest.mark.slow
def test_the_training_is_bitwise_the_same(tmp_path: Path, prompts: Path) -> None:
    torch.manual_seed(0)
    plain = trained(tmp_path, tiny_model(), run="plain", max_steps=4)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    made = sampling(tmp_path, prompts)
    made.train()
    assert torch.equal(weights(made.model), weights(plain.model))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]
    assert untimed(objects(tmp_path)) == untimed(objects(tmp_path, "plain"))
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
        copied = [p.numel() for p in live_of(made)._reference.parameters() if id(p) not in frozen]
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
    assert same(*(load_file(tmp_path / run / "checkpoint-6" / "model.safetensors") for run in ("run", "straight")))
    logged = [[(log["step"], log["sample_kl"]) for log in made.state.log_history if "sample_kl" in log]
              for made in (again, straight)]  # fmt: skip
    assert logged[0] == logged[1]


def test_a_copy_does_not_move_when_the_policy_does(tmp_path: Path, prompts: Path) -> None:
    made = sampling(tmp_path, prompts)
    before = copy.deepcopy(made.model.state_dict())
    made.train()
    assert all(torch.equal(value, before[name]) for name, value in live_of(made)._reference.state_dict().items())
    assert not any(torch.equal(value, before[key]) for key, value in made.model.state_dict().items() if "proj" in key)


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
