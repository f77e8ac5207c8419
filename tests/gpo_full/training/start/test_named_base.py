"""The base model that an adapter would be saved for is the one it was trained on: else it is refused, or loads as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gpo_full.training.start.model import loaded
from gpo_full.training.start.named_base import hash_of_named_base
from gpo_theory import InputError
from tests.support.tiny_models import adapted, moved, saved_policy, tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, trained, trainer
from tests.support.two_sequences import response_sums

pytestmark = pytest.mark.filterwarnings("ignore")
Change = Callable[[Any], Any]
LORA: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj", "down_proj"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_policy(tmp_path_factory.mktemp("named") / "base")


def read(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def merged(model: Any) -> Any:
    return moved(peft.get_peft_model(model, peft.LoraConfig(**LORA))).merge_and_unload()


def changed(model: Any, name: str, change: Change) -> Any:
    with torch.no_grad():
        change(model.get_parameter(name))
    return model


def other_config(model: Any) -> Any:
    return AutoModelForCausalLM.from_config(model.config)


OTHER: dict[str, tuple[dict[str, Any], Change, str]] = {
    "merged": ({}, merged, "has other values in memory"),
    "another's weights": ({}, lambda m: (m.load_state_dict(tiny_model(seed=8).state_dict()), m)[1], "has other values in memory"),
    "drawn anew": ({}, other_config, "has other values in memory"),
    "one number": ({}, lambda m: changed(m, "model.layers.1.mlp.up_proj.weight", lambda w: w[3, 5].add_(1e-3)), r"layers\.1\.mlp\.up_proj\.weight has"),
    "a norm": ({}, lambda m: changed(m, "model.norm.weight", lambda w: w.mul_(0.9)), r"model\.norm\.weight has"),
    "a row": ({}, lambda m: changed(m, "model.embed_tokens.weight", lambda w: w[319].copy_(w[7])), r"embed_tokens\.weight has"),
    "a setting": ({"rms_norm_eps": 1e-2}, lambda m: m, "rms_norm_eps is 0.01 in memory, and 1e-06 there"),
    "positions": ({"rope_parameters": {"rope_type": "default", "rope_theta": 99.0}}, lambda m: m, "rope_parameters is "),
    "an activation": ({"hidden_act": "relu"}, lambda m: m, "hidden_act is 'relu' in memory, and 'silu' there"),
    "tied": ({"tie_word_embeddings": True}, lambda m: m, "tie_word_embeddings is True"),
}  # fmt: skip


@pytest.mark.parametrize("how", ["lora_rank", "peft"])
@pytest.mark.parametrize("name", OTHER)
def test_an_adapter_on_another_base_than_it_names_is_refused(name: str, how: str, base: Path, tmp_path: Path) -> None:
    options, change, said = OTHER[name]
    model = change(read(base, **options))
    if how == "peft":
        model = peft.get_peft_model(model, peft.LoraConfig(**LORA))
    with pytest.raises(InputError, match=rf"saved for the base model '.*', which is not the one that it is trained on: .*{said}.*; save that"):
        trainer(tmp_path, model, **({"lora_rank": 2} if how == "lora_rank" else {}))
    assert not (tmp_path / "references").exists()


@pytest.mark.parametrize("name", ["", "/gone/base"])
def test_a_base_that_is_nowhere_is_refused(name: str, tmp_path: Path) -> None:
    model = tiny_model()
    model.name_or_path = name
    with pytest.raises(InputError, match="without the name of its base" if not name else "'/gone/base', which is not there"):
        trainer(tmp_path, peft.get_peft_model(model, peft.LoraConfig(**LORA)))


def test_a_base_whose_files_cannot_be_read_is_said(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = read(base)
    model.name_or_path = "nobody/not-in-the-cache"
    trainer(tmp_path, model, lora_rank=2)
    assert "whether the base model in memory is 'nobody/not-in-the-cache', for which the adapter is saved, is not known" in caplog.text


def grown(model: Any) -> Any:
    model.resize_token_embeddings(328)
    return model


def half(folder: Path) -> None:
    read(folder).to(torch.bfloat16).save_pretrained(folder)


def in_pieces(folder: Path) -> None:
    model = read(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")


def renamed(folder: Path) -> None:
    """As the files of older models, whose names begin below the language model's head."""
    tensors = load_file(folder / "model.safetensors")
    save_file({key.removeprefix("transformer."): value for key, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def pickled(folder: Path) -> None:
    torch.save(read(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


SAME: dict[str, tuple[str, Callable[[Path], Any], dict[str, Any], Change]] = {
    "as it is": ("llama", lambda f: None, {}, lambda m: m), "half": ("llama", half, {"dtype": torch.float32}, lambda m: m),
    "read in half precision": ("llama", lambda f: None, {"dtype": torch.bfloat16}, lambda m: m), "tied": ("gpt2", lambda f: None, {}, lambda m: m),
    "double": ("llama", lambda f: None, {}, lambda m: m.double()), "pieces": ("llama", in_pieces, {}, lambda m: m),
    "more tokens": ("llama", lambda f: None, {}, grown), "older names": ("gpt2", renamed, {}, lambda m: m), "pickle": ("llama", pickled, {}, lambda m: m),
    "dropout": ("llama", lambda f: None, {"attention_dropout": 0.5}, lambda m: m),
    "an end": ("llama", lambda f: None, {}, lambda m: setattr(m.config, "pad_token_id", 0) or m),
    "experts": ("mixtral", lambda f: None, {}, lambda m: m),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_an_adapter_on_the_base_that_it_names_is_trained(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    family, rewrite, options, change = SAME[name]
    rewrite(saved_policy(tmp_path / "base", family=family, **({"num_local_experts": 2} if family == "mixtral" else {})))
    trainer(tmp_path, change(read(tmp_path / "base", **options)), lora_rank=2)
    assert "is not known" not in caplog.text


def test_what_is_saved_is_what_was_trained(base: Path, tmp_path: Path) -> None:
    """The remedy of the message: the merged model saved, and loaded from there."""
    merged(read(base)).save_pretrained(tmp_path / "merged")
    made = trained(tmp_path, read(tmp_path / "merged"), lora_rank=2, max_steps=2)
    made.save_model(str(tmp_path / "out"))
    with torch.no_grad():
        expected, found = (response_sums(model, PAIRS) for model in (made.model.eval(), peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# --- our own output, whose base is no longer what it was ---


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ours")
    made = trained(place, str(saved_policy(place / "base")), lora_rank=2, save_strategy="steps", save_steps=1, processing_class=tiny_tokenizer())
    made.save_model()
    return place


def put(folder: Path, file: str, text: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    (folder / file).write_text(json.dumps(text(json.loads((folder / file).read_text()))))


REPLACED: dict[str, Callable[[Path], Any]] = {
    "weights": lambda folder: tiny_model(seed=4).save_pretrained(folder),
    "one weight": lambda folder: changed(read(folder), "lm_head.weight", lambda w: w[0, 0].add_(1)).save_pretrained(folder),
    "a setting": lambda folder: put(folder, "config.json", lambda config: config | {"rms_norm_eps": 0.1}),
}


@pytest.mark.parametrize("where", ["run", "run/checkpoint-1"])
@pytest.mark.parametrize("name", REPLACED)
def test_our_adapter_is_not_put_on_a_base_that_was_replaced(name: str, where: str, ours: Path, tmp_path: Path) -> None:
    for each in ("base", "run"):
        shutil.copytree(ours / each, tmp_path / each)
    adapter = tmp_path / where
    put(adapter, "adapter_config.json", lambda config: config | {"base_model_name_or_path": str(tmp_path / "base")})
    loaded(str(adapter))
    REPLACED[name](tmp_path / "base")
    with pytest.raises(InputError, match=r"was trained on other weights or settings than its base model '.*' has now: put those back, or remove"):
        loaded(str(adapter))
    (adapter / "base_model.json").unlink()
    loaded(str(adapter))


def test_the_hash_of_a_base_is_of_what_is_computed(base: Path, tmp_path: Path) -> None:
    before = hash_of_named_base(str(base), None)
    assert before is not None
    shutil.copytree(base, tmp_path / "copy")
    in_pieces(tmp_path / "copy")
    put(tmp_path / "copy", "config.json", lambda config: config | {"transformers_version": "9.9", "use_cache": False, "eos_token_id": 0})
    assert hash_of_named_base(str(tmp_path / "copy"), None) == before
    assert hash_of_named_base(str(tmp_path), None) is None


def test_a_run_that_was_given_an_adapter_records_the_base_as_well(ours: Path, tmp_path: Path) -> None:
    made = trained(tmp_path, str(ours / "run"))
    made.save_model(str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "base_model.json").read_text()) == {"sha256": hash_of_named_base(str(ours / "base"), None)}
    second = trained(tmp_path, adapted(), run="second")
    second.save_model(str(tmp_path / "in memory"))
    assert (tmp_path / "in memory" / "base_model.json").exists()
