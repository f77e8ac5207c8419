"""The golden reward: cosine of mean-pooled embeddings, pluggable by any function."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from gpo_full.evaluation.golden_reward import GoldenReward, load_reward
from gpo_theory.errors import InputError
from tests.support.tiny_models import tiny_tokenizer

TEXTS = ["the cat", "return the sum of the values in the list", "a"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=320, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=32, initializer_range=0.5)).save_pretrained(folder)  # fmt: skip
    tiny_tokenizer().save_pretrained(folder)
    return folder


@torch.no_grad()
def test_the_reward_is_the_cosine_of_each_text_encoded_alone(encoder: Path) -> None:
    model, tokenizer = BertModel.from_pretrained(encoder).eval(), tiny_tokenizer()
    means = [model(input_ids=torch.tensor([tokenizer(t)["input_ids"]])).last_hidden_state[0].mean(0) for t in TEXTS]
    expected = [float(means[i] @ means[2] / means[i].norm() / means[2].norm()) for i in range(3)]
    assert GoldenReward(encoder)(TEXTS, [TEXTS[2]] * 3) == pytest.approx(expected, abs=1e-5)


def test_the_reward_of_the_target_itself_is_one_and_it_is_symmetric(encoder: Path) -> None:
    reward = GoldenReward(encoder, batch_size=2)
    assert reward(TEXTS, TEXTS) == pytest.approx([1, 1, 1], abs=1e-5)
    assert reward(TEXTS[:1], TEXTS[1:2]) == pytest.approx(reward(TEXTS[1:2], TEXTS[:1]), abs=1e-6)
    assert reward(["", " "], ["a", "a"]) == pytest.approx(reward(["", " "], ["a", "a"]))


def test_samples_and_targets_must_pair_up(encoder: Path) -> None:
    with pytest.raises(ValueError, match="3 samples but 1 targets"):
        GoldenReward(encoder)(TEXTS, ["a"])


def test_a_users_function_is_a_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reward.py").write_text("def shorter(samples, targets):\n    return [-len(s) for s in samples]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["."])
    assert load_reward("my_reward:shorter")(["ab", "c"], ["", ""]) == [-2, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("no_such_module:f", "cannot be imported"), ("math:no_such", "cannot be imported"), ("math:pi", "not a function"),
     ("no_such_folder", "no sentence encoder")],
)  # fmt: skip
def test_a_reward_that_is_none_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_reward(text)
