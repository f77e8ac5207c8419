"""Supervised fine-tuning: the loss is the library's own, and only what was asked for is trained."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from gpo_full.experiment import sft
from gpo_full.experiment.sft import fine_tune, response_loss, tokenize_tasks
from tests.support.tiny_models import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPTS, TARGETS = ["the cat sat:", "return the sum of the list:"], ["the dog", "a mat and values"]
TEXTS = [{"prompt": prompt, "target": target} for prompt, target in zip(PROMPTS, TARGETS, strict=True)]
TASKS = tokenize_tasks(TOKENIZER, TEXTS * 8)
SETTINGS: dict[str, Any] = {"steps": 12, "batch_size": 4, "learning_rate": 1e-2, "last_layers": 1, "seed": 0}


def test_prompt_and_target_are_tokenised_whole_and_end() -> None:
    task = TASKS[0]
    assert TOKENIZER.decode(task.prompt) == "the cat sat:"
    assert TOKENIZER.decode(task.target) == " the dog</s>"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_is_that_of_the_whole_model_on_each_task_alone(family: str) -> None:
    model = tiny_model(family, dtype=torch.float64)
    total, count = response_loss(model, TASKS[:3])
    expected, tokens = 0.0, 0
    for task in TASKS[:3]:
        ids = torch.tensor([[*task.prompt, *task.target]])
        labels = ids.clone()
        labels[0, : len(task.prompt)] = -100
        expected += float(model(input_ids=ids, labels=labels).loss.detach()) * len(task.target)
        tokens += len(task.target)
    assert count == tokens
    torch.testing.assert_close(float(total.detach()), expected, rtol=1e-5, atol=0)


def test_the_last_layers_learn_and_nothing_else_moves() -> None:
    model = tiny_model("llama")
    before = copy.deepcopy(model.state_dict())
    losses = fine_tune(model, TASKS, **SETTINGS)
    moved = {name for name, value in model.state_dict().items() if not bool((value == before[name]).all())}
    assert moved
    assert all(name.startswith("model.layers.1.") for name in moved)
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("stops", [(1,), (11,), (3, 4, 9)])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(
    stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny_model("llama")
    losses = fine_tune(whole, TASKS, **SETTINGS)
    monkeypatch.setattr(sft, "_BETWEEN_SAVES", 0.0)
    calls: list[int] = []

    def loss(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) - 1 in stops:  # in the middle of the step after so many
            raise KeyboardInterrupt
        return response_loss(*arguments)

    monkeypatch.setattr(sft, "response_loss", loss)
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            fine_tune(tiny_model("llama"), TASKS, **SETTINGS, state=tmp_path / "state")
    model = tiny_model("llama")
    assert fine_tune(model, TASKS, **SETTINGS, state=tmp_path / "state") == losses
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), whole.parameters(), strict=True))
    assert len(calls) == SETTINGS["steps"] + len(stops)  # no step twice but those that were interrupted


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    states = []
    for seed in (0, 0, 1):
        model = tiny_model("llama")
        fine_tune(model, TASKS, **SETTINGS | {"steps": 3, "seed": seed})
        states.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert bool((states[0] == states[1]).all())
    assert not bool((states[0] == states[2]).all())
