"""Models and adapters are loaded whole, or refused: no weight is left random, and none is left out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from gpo_full import GPOConfig
from gpo_full.data.pairs import Pair
from gpo_full.training.start.adapters import with_saved_adapter
from gpo_full.training.start.model import check_sizes, loaded, loaded_tokenizer, prepared
from gpo_theory import InputError
from tests.support.tiny_models import adapted, moved, saved_policy, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
Weights = dict[str, Tensor]
IDS = torch.arange(3, 20)[None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a base model of two layers and of an adapter on it."""
    folder = tmp_path_factory.mktemp("models")
    base = AutoModelForCausalLM.from_pretrained(saved_policy(folder / "base"), dtype=torch.float32)
    adapted(base).save_pretrained(folder / "adapter")
    return folder


def copied(place: Path, name: str, to: Path, change: Callable[[Weights], Weights] = lambda whole: whole, **settings: object) -> str:
    """A copy of the model or adapter `name` with other weights and settings."""
    folder = Path(shutil.copytree(place / name, to / f"changed-{name}"))
    weights, config = (("adapter_model", "adapter_config") if name == "adapter" else ("model", "config"))
    save_file(change(load_file(folder / f"{weights}.safetensors")), folder / f"{weights}.safetensors", {"format": "pt"})
    path = folder / f"{config}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(folder)


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda whole: {name: value for name, value in whole.items() if part not in name}


def renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda whole: {name.replace(old, new): value for name, value in whole.items()}


def doubled(part: str, other: str) -> Callable[[Weights], Weights]:
    return lambda whole: whole | {name.replace(part, other): value.clone() for name, value in whole.items() if part in name}


BASES: dict[str, tuple[Callable[[Weights], Weights], dict[str, object], str]] = {
    "a layer more in the configuration": (lambda whole: whole, {"num_hidden_layers": 3}, r"no weights for model\.layers\.2\.\S+ \(9 are missing\)"),
    "a layer less in the configuration": (lambda whole: whole, {"num_hidden_layers": 1}, r"weights of further layers, model\.layers\.1\.\S+ \(9 in all\)"),
    "a matrix lost": (without("layers.1.mlp.up_proj"), {}, r"no weights for model\.layers\.1\.mlp\.up_proj\.weight \(1 are missing\)"),
    "another width": (lambda whole: whole, {"intermediate_size": 40}, r"mlp\.\S+ is \[\d+, \d+\], not \["),
    "names of torch.compile": (renamed("model.", "_orig_mod.model."), {}, "no weights for"),
}  # fmt: skip


@pytest.mark.parametrize("case", BASES)
def test_a_model_that_does_not_fit_its_configuration_is_refused(case: str, place: Path, tmp_path: Path) -> None:
    change, settings, reason = BASES[case]
    with pytest.raises(InputError, match="does not fit its config.json: .*" + reason):
        loaded(copied(place, "base", tmp_path, change, **settings))


def test_weights_of_another_head_are_left_out(place: Path, tmp_path: Path) -> None:
    """As trainers of rewards and values save them beside a policy."""
    folder = copied(place, "base", tmp_path, lambda whole: whole | {"v_head.summary.weight": torch.ones(1, 32)})
    assert all(torch.equal(value, load_file(place / "base" / "model.safetensors")[name]) for name, value in loaded(folder).state_dict().items()
               if "lm_head" not in name)  # fmt: skip


ADAPTERS: dict[str, tuple[Callable[[Weights], Weights], dict[str, object], str]] = {
    "names without the prefix": (renamed("base_model.model.", ""), {}, r"lacks weights for \S+ \(8 in all\)"),
    "names of DeepSpeed": (renamed("base_model.model.", "base_model.model.module."), {}, r"lacks weights for \S+ \(8 in all\)"),
    "a layer lost": (without("layers.1."), {}, r"lacks weights for \S+layers\.1\.\S+ \(4 in all\)"),
    "a module more in the configuration": (lambda whole: whole, {"target_modules": ["q_proj", "v_proj", "k_proj"]}, r"lacks weights for \S+k_proj\S+ \(4 in all\)"),
    "a module less in the configuration": (lambda whole: whole, {"target_modules": ["q_proj"]}, r"has weights for \S+v_proj\S+ \(4 in all\)"),
    "more layers than the base model": (doubled("layers.1.", "layers.2."), {}, r"has weights for \S+layers\.2\.\S+ \(4 in all\)"),
    "half of each": (without("lora_B"), {}, r"lacks weights for \S+lora_B\S+ \(4 in all\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_that_does_not_fit_is_refused(case: str, place: Path, tmp_path: Path) -> None:
    change, settings, reason = ADAPTERS[case]
    with pytest.raises(InputError, match="does not fit its base model and its configuration: it " + reason):
        loaded(copied(place, "adapter", tmp_path, change, **settings))


def test_an_adapter_on_an_adapter_is_refused_and_so_is_one_on_itself(place: Path, tmp_path: Path) -> None:
    on_adapter = copied(place, "adapter", tmp_path, base_model_name_or_path=str(place / "adapter"))
    itself = copied(place, "base", tmp_path)
    shutil.copytree(place / "adapter", itself, dirs_exist_ok=True)
    (Path(itself) / "adapter_config.json").write_text(
        json.dumps(json.loads((place / "adapter" / "adapter_config.json").read_text()) | {"base_model_name_or_path": itself}))  # fmt: skip
    for folder, base in ((on_adapter, place / "adapter"), (itself, itself)):
        for load in (loaded, loaded_tokenizer) if folder == on_adapter else (loaded,):
            with pytest.raises(InputError, match=f"is '{base}', which holds an adapter itself: merge that one into its base model first"):
                load(folder)


def test_a_base_model_that_transformers_gave_its_adapter_is_refused(place: Path) -> None:
    """As it does where the base model's name, on the hub, is that of an adapter."""
    base = AutoModelForCausalLM.from_pretrained(place / "adapter")
    with pytest.raises(InputError, match=r"the base model of adapter 'mine' is .*base', which holds an adapter itself"):
        with_saved_adapter(base, "mine")


def test_an_adapter_without_its_weights(place: Path, tmp_path: Path) -> None:
    folder = copied(place, "adapter", tmp_path)
    (Path(folder) / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no weights: adapter_model\.safetensors is missing"):
        loaded(folder)


@pytest.mark.parametrize(("base", "reason"), [
    (None, "names no base model"), ("", "names no base model"), ("/nowhere/llama", "the base model of adapter .*, '/nowhere/llama', is not there"),
    ("../base", "the base model of adapter .*, '../base', is not there"),
])  # fmt: skip
def test_a_base_model_that_is_not_there(base: str | None, reason: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = copied(place, "adapter", tmp_path, base_model_name_or_path=base)
    for load in loaded, loaded_tokenizer:
        with pytest.raises(InputError, match=reason):
            load(folder)


def test_an_adapter_that_fits_is_what_peft_loads(place: Path) -> None:
    found, expected = loaded(str(place / "adapter")), AutoPeftModelForCausalLM.from_pretrained(place / "adapter", is_trainable=True)
    assert {name: each.requires_grad for name, each in found.named_parameters()} == {name: each.requires_grad for name, each in expected.named_parameters()}
    assert torch.equal(found.eval()(IDS).logits, expected.eval()(IDS).logits)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
def test_an_adapter_with_embeddings_for_more_tokens(place: Path, tmp_path: Path) -> None:
    """It is saved with its tokenizer, and its embeddings twice, once as modules_to_save."""
    tokenizer, base = tiny_tokenizer(), AutoModelForCausalLM.from_pretrained(place / "base", dtype=torch.float32)
    more = base.get_input_embeddings().weight.shape[0] + 8 - len(tokenizer)
    tokenizer.add_tokens([f"<new {i}>" for i in range(more)])
    base.resize_token_embeddings(len(tokenizer))
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM")
    model = moved(get_peft_model(base, config)).eval()
    model.save_pretrained(tmp_path / "more")
    tokenizer.save_pretrained(tmp_path / "more")
    found = loaded(str(tmp_path / "more")).eval()
    assert torch.equal(found(IDS).logits, model(IDS).logits)
    assert len(loaded_tokenizer(str(tmp_path / "more"))) == len(tokenizer)


@pytest.mark.parametrize(("name", "noise"), [
    ("BartForCausalLM", {"decoder_layerdrop": 0.5, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 48}),
    ("MixtralForCausalLM", {"router_jitter_noise": 0.3, "num_local_experts": 4, "num_key_value_heads": 2}),
    ("LlamaForCausalLM", {"attention_dropout": 0.5, "num_key_value_heads": 2}),
])  # fmt: skip
def test_nothing_random_is_left_on(name: str, noise: dict[str, Any], tmp_path: Path) -> None:
    """Two passes in training mode are one pass in evaluation."""
    kind = getattr(transformers, name)
    config = kind.config_class(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                               max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **noise)  # fmt: skip
    model = prepared(kind(config), GPOConfig(output_dir=str(tmp_path), use_cpu=True))
    expected = model.eval()(IDS).logits
    model.train()
    for _ in range(4):
        torch.testing.assert_close(model(IDS).logits, expected, rtol=0, atol=1e-6)


def test_a_head_that_would_not_be_saved_is_refused(place: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(place / "base")
    model.lm_head.weight = model.model.embed_tokens.weight
    with pytest.raises(InputError, match=r"config\.tie_word_embeddings is False: what is saved would have no head"):
        prepared(model, GPOConfig(output_dir=str(tmp_path), use_cpu=True))


def test_an_adapter_that_is_saved_beside_another_is_named(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = AutoPeftModelForCausalLM.from_pretrained(place / "adapter", is_trainable=True)
    model.load_adapter(place / "adapter", "second", is_trainable=True)
    model.set_adapter("second")
    args = GPOConfig(output_dir=str(tmp_path), use_cpu=True)
    prepared(model, args)
    assert "the adapter 'second' is trained, and saved in the folder of that name" in caplog.text
    caplog.clear()
    model.delete_adapter("default")
    prepared(model, args)
    assert caplog.text == ""


def test_positions_that_depend_on_the_batch_are_refused() -> None:
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 12, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "rope_theta": 1e4}
    model = tiny_model(rope_parameters=rope, max_position_embeddings=96)
    pairs = [Pair((5,), (6,) * size, (7,) * size, 1) for size in (4, 11)]
    assert check_sizes(model, [pairs]) == 12
    with pytest.raises(InputError, match="sequences have up to 13 tokens, and beyond 12 this model's positions"):
        check_sizes(model, [[*pairs, Pair((5,), (6,) * 12, (7,), 1)]])


@pytest.mark.parametrize(("trained_on", "said"), [("base", False), ("other", True)])
def test_an_adapter_of_another_base_model_is_named(
    trained_on: str, said: bool, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(place / "base", tmp_path / "other")
    where = place / "base" if trained_on == "base" else tmp_path / "other"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(where), place / "adapter", is_trainable=True)
    prepared(model, GPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True))
    assert ("what is saved names the first, and is loaded on it" in caplog.text) == said
