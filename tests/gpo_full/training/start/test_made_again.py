"""What a person changes in a model by hand, and no configuration keeps, is refused; what is saved with it is not."""

import logging
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import nn

from gpo_full.training.start.made_again import check_made_again
from gpo_theory import InputError
from tests.support.tiny_models import FAMILIES, tiny_model
from tests.support.trainings import step0, trainer

pytestmark = pytest.mark.filterwarnings("ignore")
Change = Callable[[Any], Any]


def adapter(kind: str = "Lora", **options: Any) -> Any:
    config = getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", **{"target_modules": ["q_proj", "v_proj"], **options})
    return peft.get_peft_model(tiny_model(), config)


def each(kind: str, change: Change) -> Change:
    def changed(model: Any) -> None:
        for module in model.modules():
            if kind in type(module).__name__ and not isinstance(module, nn.ModuleList):
                change(module)

    return changed


def scaled(module: Any) -> None:
    module.scaling["default"] *= 3


def alpha(model: Any) -> None:
    model.peft_config["default"].lora_alpha *= 2


def cut(model: Any) -> None:
    del model.model.layers[1:]


def angles(model: Any) -> None:
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_theta": 5.0}


def width(model: Any) -> None:
    model.lm_head = nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=True)


def wrapped(model: Any) -> None:
    model.lm_head = nn.Sequential(model.lm_head)


BY_HAND: dict[str, tuple[Callable[[], Any], Change, str]] = {
    "scaling of an adapter": (adapter, each("Linear", lambda m: scaled(m) if hasattr(m, "scaling") else None), r"q_proj\.scaling is \{'default': "),
    "alpha of its configuration": (adapter, alpha, r"q_proj\.scaling is "),
    "epsilon of a norm": (tiny_model, each("RMSNorm", lambda m: setattr(m, "variance_epsilon", 0.1)), r"variance_epsilon is 0\.1"),
    "scaling of attention": (tiny_model, each("Attention", lambda m: setattr(m, "scaling", 1.0)), r"self_attn\.scaling is 1\.0"),
    "activation": (tiny_model, each("MLP", lambda m: setattr(m, "act_fn", nn.GELU())), "act_fn is GELU"),
    "weight norm": (tiny_model, each("MLP", lambda m: torch.nn.utils.parametrizations.weight_norm(m.up_proj)), "parametrizations"),
    "layers": (tiny_model, cut, r"layers\.1\.\S+ is missing"),
    "positions": (tiny_model, angles, "inv_freq is not that"),
    "bias of the head": (tiny_model, width, r"lm_head\.bias is not of"),
    "a head in a head": (tiny_model, wrapped, r"lm_head\.0\.weight is not of"),
    "precision": (tiny_model, lambda m: m.bfloat16().float(), "inv_freq is not that"),
    "half precision": (tiny_model, lambda m: m.half(), "inv_freq is not that"),
    "rows": (tiny_model, lambda m: setattr(m.config, "vocab_size", 7), r"weight is \[\d+, \d+\], not \[7, "),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_what_would_not_be_saved_is_refused(name: str) -> None:
    make, change, said = BY_HAND[name]
    model = make()
    change(model)
    with pytest.raises(InputError, match=rf"^what is saved would not be what is trained: .*{said}"):
        check_made_again(model)


def test_it_is_refused_before_a_training(tmp_path: Any) -> None:
    model = tiny_model()
    cut(model)
    with pytest.raises(InputError, match="what is saved would not be what is trained"):
        trainer(tmp_path, model)
    assert not (tmp_path / "references").exists()


def resized(model: Any) -> None:
    model.resize_token_embeddings(model.config.vocab_size + 64)


def fewer(model: Any) -> None:
    cut(model)
    model.config.num_hidden_layers = 1


def second(model: Any) -> None:
    model.add_adapter("other", peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["k_proj"]))


SAVED: dict[str, tuple[Callable[[], Any], Change]] = {
    **{family: (lambda family=family: tiny_model(family, attention="eager"), lambda m: None) for family in FAMILIES},
    "rows": (tiny_model, resized), "layers": (tiny_model, fewer), "weights": (tiny_model, lambda m: m.lm_head.weight.data.mul_(2)),
    "frozen": (tiny_model, lambda m: m.requires_grad_(False)),
    "dropout": (lambda: tiny_model(attention_dropout=0.5), lambda m: None), "two adapters": (adapter, second),
    "pissa": (lambda: adapter(init_lora_weights="pissa"), lambda m: None), "dora": (lambda: adapter(use_dora=True), lambda m: None),
    "rslora": (lambda: adapter(use_rslora=True, alpha_pattern={"q_proj": 3}), lambda m: None),
    "head": (lambda: adapter(modules_to_save=["lm_head"]), lambda m: None),
    "embeddings": (lambda: adapter(target_modules=["embed_tokens", "lm_head"]), lambda m: None),
    "tokens": (lambda: adapter(trainable_token_indices=[3]), lambda m: None), "LoHa": (lambda: adapter("LoHa"), lambda m: None),
    "IA3": (lambda: adapter("IA3", feedforward_modules=[]), lambda m: None), "Vera": (lambda: adapter("Vera"), lambda m: None),
    "OFT": (lambda: adapter("OFT", oft_block_size=4), lambda m: None),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_what_is_saved_is_not_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    make, change = SAVED[name]
    model = make()
    change(model)
    caplog.clear()
    before = torch.get_rng_state()
    check_made_again(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert caplog.text == ""


def doubled(module: Any, inputs: Any, output: Any) -> Any:
    return output * 2


@pytest.mark.parametrize("patch", [lambda m: m.lm_head.register_forward_hook(doubled), lambda m: setattr(m, "forward", m.forward),
                                   lambda m: m.model.norm.register_forward_pre_hook(lambda module, inputs: inputs)])  # fmt: skip
def test_a_model_with_a_hook_has_a_reference_of_its_own(patch: Change, tmp_path: Any) -> None:
    trainer(tmp_path, tiny_model(), run="plain")
    model = tiny_model()
    patch(model)
    made = trainer(tmp_path, model, run="patched")
    assert len([*(tmp_path / "references").iterdir()]) == 2
    assert step0(made) == pytest.approx(0.6931471, abs=1e-5)


def test_hooks_are_named(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 2)
    with caplog.at_level(logging.WARNING):
        check_made_again(model)
    assert "model.layers.1.mlp has a hook or a forward of its own (1 such in all), which is not saved" in caplog.text
