"""A sequence classifier as reward: equal to the classifier's own head on each text alone, however they are batched."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from gpo_full.evaluation.golden_reward import load_reward
from gpo_full.evaluation.reward_model import RewardModel
from gpo_full.evaluation.tasks import read_tasks
from gpo_theory import InputError
from tests.support.tiny_models import FAMILIES, tiny_tokenizer

PROMPTS = ["the cat", "return the sum of the values in the list", "a", "the dog"]
ANSWERS = [" sat", " ran after the dog", " b c", ""]


def saved(folder: Path, *, template: bool, pad: int | None = 0, labels: int = 1, longest: int = 256) -> Path:
    config = LlamaConfig(**FAMILIES["llama"] | {"max_position_embeddings": longest}, num_labels=labels, pad_token_id=pad)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = LlamaForSequenceClassification(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None if pad is None else "<unk>"
    if not template:
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def by_hand(folder: Path, texts: list[str]) -> list[float]:
    """The head's row times the last hidden state of each text alone."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    states = [model.model(input_ids=torch.tensor([tiny_tokenizer()(text)["input_ids"]])).last_hidden_state[0, -1]
              for text in texts]  # fmt: skip
    return [float(model.score.weight[0] @ state) for state in states]


@pytest.mark.parametrize("pad", [0, None])
def test_the_reward_is_the_head_on_prompt_and_answer(pad: int | None, tmp_path: Path) -> None:
    folder = saved(tmp_path, template=False, pad=pad)
    expected = by_hand(folder, [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)])
    assert len({round(value, 3) for value in expected}) == 4
    for size in (1, 3, 16):
        assert RewardModel(folder, batch_size=size)(ANSWERS, PROMPTS) == pytest.approx(expected, abs=1e-5)


def test_a_chat_template_is_used_where_there_is_one(tmp_path: Path) -> None:
    folder = saved(tmp_path, template=True)
    texts = [f"<s>user\n{prompt}</s><s>assistant\n{answer}</s>" for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    assert RewardModel(folder)(ANSWERS, PROMPTS) == pytest.approx(by_hand(folder, texts), abs=1e-5)


def test_a_folder_with_a_classifier_is_a_reward_that_needs_no_target(tmp_path: Path) -> None:
    reward = load_reward(str(saved(tmp_path / "model", template=False)))
    assert isinstance(reward, RewardModel)
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "the cat"}\n')
    (task,) = read_tasks(tmp_path / "tasks.jsonl")
    assert task.judged_against(reward) == "the cat"
    with pytest.raises(InputError, match="row 1: 'target' is missing"):
        task.judged_against(len)


def test_samples_and_prompts_must_pair_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        RewardModel(saved(tmp_path, template=False))(ANSWERS, PROMPTS[:2])


def test_a_text_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"reads 8 tokens, and a prompt with its answer has \d+"):
        RewardModel(saved(tmp_path, template=False, longest=8))(ANSWERS, PROMPTS)


def test_several_outputs_are_no_reward(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 2 outputs; a reward has one"):
        RewardModel(saved(tmp_path, template=False, labels=2))


def test_weights_in_a_pickle_are_not_read(tmp_path: Path) -> None:
    folder = saved(tmp_path, template=False)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        RewardModel(folder)


@pytest.mark.parametrize("config", [None, "{", "[]", '{"architectures": null}', '{"architectures": ["BertModel"]}'])
def test_other_folders_are_no_reward_model(config: str | None, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert not RewardModel.is_in(tmp_path)
