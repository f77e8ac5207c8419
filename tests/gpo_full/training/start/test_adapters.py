"""A policy that brings an adapter: it is trained on, its reference is the policy as handed in, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gpo_full import GPOTrainer
from gpo_full.reference.weights import weights_hash
from gpo_full.training.steps import NoGradient
from gpo_theory import InputError
from tests.gpo_full.test_trl_adapter import QUIET, ROWS
from tests.support.commands import gpo
from tests.support.tables import write_rows
from tests.support.tiny_models import adapted, moved, saved_policy, tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, objects, same, step0, trained, trainer, weights
from tests.support.two_sequences import response_sums

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
F64 = {"dtype": torch.float64}


def truth(model: Any) -> torch.Tensor:
    """log pi(y|x) by the definition, two sequences a pair, [P, 2]."""
    with torch.no_grad():
        return response_sums(model, PAIRS).double()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a base model and of an adapter on it, which has no tokenizer of its own, as peft saves it."""
    place = tmp_path_factory.mktemp("sft")
    base = AutoModelForCausalLM.from_pretrained(saved_policy(place / "base"), dtype=torch.float32)
    adapted(base).save_pretrained(place / "adapter")
    return place


def test_the_reference_is_the_policy_as_handed_in(tmp_path: Path) -> None:
    model = adapted()
    expected, bare = truth(model), truth(tiny_model(**F64))
    assert float((expected - bare).abs().min()) > 1e-3
    made = trainer(tmp_path, model, max_steps=3)
    assert step0(made) == pytest.approx(math.log(2), abs=1e-12)
    torch.testing.assert_close(made.train_dataset.reference, expected, rtol=1e-9, atol=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if ".lora_" in name}


def test_a_reference_that_is_given_keeps_its_adapter(tmp_path: Path) -> None:
    reference = adapted()
    expected = truth(reference)
    made = trainer(tmp_path, tiny_model(seed=5, **F64), reference=reference)
    torch.testing.assert_close(made.train_dataset.reference, expected, rtol=1e-9, atol=0)


def test_a_new_adapter_is_on_every_linear_layer_and_drawn_by_the_seed(tmp_path: Path) -> None:
    models = [trainer(tmp_path, tiny_model(), lora_rank=3, seed=seed).model for seed in (1, 1, 2)]
    config = models[0].peft_config["default"]
    assert (config.r, config.lora_alpha, config.task_type, config.inference_mode) == (3, 6, "CAUSAL_LM", False)
    linear = {name for name, each in tiny_model().named_modules() if isinstance(each, torch.nn.Linear)} - {"lm_head"}
    assert {name.partition(".lora_A")[0].removeprefix("base_model.model.") for name, _ in models[0].named_parameters() if ".lora_A" in name} == linear
    drawn = [weights(each) for each in models]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_an_adapter_loaded_for_inference_is_trained(tmp_path: Path, folder: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    made = trained(tmp_path, PeftModel.from_pretrained(base, folder / "adapter"), max_steps=2)
    assert all(".lora_" in name for name, each in made.model.named_parameters() if each.requires_grad)
    assert objects(tmp_path)[-1]["margin"] > 0


def test_a_folder_and_then_the_run_s_own_output(tmp_path: Path, folder: Path) -> None:
    before = load_file(folder / "adapter" / "adapter_model.safetensors")
    made = trained(tmp_path, str(folder / "adapter"), max_steps=3)
    made.save_model(str(tmp_path / "first"))
    after = load_file(tmp_path / "first" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    again = trainer(tmp_path, str(tmp_path / "first"), run="again")
    assert step0(again) == pytest.approx(math.log(2), abs=1e-6)
    assert torch.equal(weights(again.model), weights(made.model))
    expected = truth(made.model.merge_and_unload())
    torch.testing.assert_close(again.train_dataset.reference.double(), expected, rtol=0, atol=1e-4)


def test_a_resume_is_bitwise_and_its_reference_is_still_the_first_policy(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    straight = trained(tmp_path, adapted(), run="straight", **saving)
    trained(tmp_path, adapted(), run="cut", **saving)
    resumed = trained(tmp_path, adapted(), run="cut", resume=str(tmp_path / "cut" / "checkpoint-2"), **saving)
    assert torch.equal(weights(resumed.model), weights(straight.model))
    torch.testing.assert_close(resumed.train_dataset.reference, truth(adapted()), rtol=1e-9, atol=0)
    with pytest.raises(InputError, match="reference_weights"):
        trained(tmp_path, moved(adapted(), 4), run="cut", resume=str(tmp_path / "cut" / "checkpoint-2"), **saving)


def test_samples_are_compared_with_the_policy_as_handed_in(tmp_path: Path) -> None:
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": "the cat sat on", "target": "the mat"}])
    options = {"sample_every": 2, "sample_prompts": str(prompts), "sample_length": 8, "max_steps": 2,
               "sample_reward": "tests.gpo_full.training.test_live_evaluation:shorter"}  # fmt: skip
    for run, rate, model in (("still", 0.0, adapted()), ("moving", 0.05, adapted())):
        trained(tmp_path, model, processing_class=tiny_tokenizer(), run=run, learning_rate=rate, **options)
    (still,), (moving,) = (objects(tmp_path, run, "samples") for run in ("still", "moving"))
    assert still["kl"] == pytest.approx(0, abs=1e-9)
    assert moving["kl"] > 0.01
    # A reference that shares what is trained, as the model itself does, is what it was at the start.
    model = adapted()
    trained(tmp_path, model, processing_class=tiny_tokenizer(), run="itself", learning_rate=0.05, reference=model, **options)
    assert objects(tmp_path, "itself", "samples")[0]["kl"] == pytest.approx(moving["kl"])


def other_scale(model: Any) -> None:
    model.base_model.model.model.layers[1].self_attn.q_proj.scaling["default"] *= 2


def other_weight(model: Any) -> None:
    with torch.no_grad():
        model.base_model.model.model.layers[1].self_attn.v_proj.lora_A["default"].weight[0, 0] += 1e-9


def other_active(model: Any) -> None:
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    moved(model, 7).set_adapter("second")


def none_active(model: Any) -> None:
    model.base_model.disable_adapter_layers()


@pytest.mark.parametrize("change", [other_scale, other_weight, other_active, none_active])
def test_the_store_s_key_knows_the_adapter_that_is_active(change: Any) -> None:
    before, model = weights_hash(adapted()), adapted()
    assert weights_hash(model) == before
    change(model)
    assert weights_hash(model) != before


def test_the_store_s_key_does_not_know_an_adapter_that_computes_nothing() -> None:
    plain, model = weights_hash(tiny_model(**F64)), adapted()
    fresh = get_peft_model(tiny_model(**F64), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert weights_hash(fresh) == weights_hash(fresh.base_model.model) == plain
    before = weights_hash(model)
    model.add_adapter("default2", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert weights_hash(moved_only(model, "default2")) == before
    none_active(model)
    assert weights_hash(model) == plain


@pytest.mark.parametrize("kind", ["DoRA", "IA3", "AdaLoRA", "LoHa"])
def test_the_store_s_key_knows_adapters_of_other_kinds(kind: str) -> None:
    """Their first weights may compute something, so they always enter."""
    from peft import AdaLoraConfig, IA3Config, LoHaConfig

    target: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    config = {"DoRA": lambda: LoraConfig(r=2, use_dora=True, **target), "IA3": lambda: IA3Config(feedforward_modules=[], **target),
              "AdaLoRA": lambda: AdaLoraConfig(init_r=3, total_step=9, **target), "LoHa": lambda: LoHaConfig(r=2, **target)}[kind]()
    model = get_peft_model(tiny_model(**F64), config)
    before = weights_hash(model)
    assert before != weights_hash(tiny_model(**F64))
    with torch.no_grad():
        next(each for each in model.parameters() if each.requires_grad).add_(1e-6)
    assert weights_hash(model) != before


def test_one_of_several_adapters_is_trained_and_a_folder_of_several_is_named(tmp_path: Path) -> None:
    model = adapted()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    moved(model, 7).set_adapter("second")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = trained(tmp_path, model, max_steps=2)
    assert {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])} == {name for name in before if ".second." in name}
    assert step0(trainer(tmp_path, adapted(), run="first")) == pytest.approx(math.log(2))
    made.model.save_pretrained(tmp_path / "several")
    (tmp_path / "several" / "adapter_config.json").unlink()  # as where none is called default
    (tmp_path / "several" / "first").mkdir()
    (tmp_path / "several" / "first" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds the adapters first, second: give the folder of one, as in .*first"):
        trainer(tmp_path, str(tmp_path / "several"))


def moved_only(model: Any, name: str) -> Any:
    with torch.no_grad():
        for key, each in model.named_parameters():
            if f".lora_B.{name}." in key:
                each.add_(1)
    return model


def trainable_base(model: Any) -> None:
    model.base_model.model.lm_head.weight.requires_grad_(True)


def two_active(model: Any) -> None:
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["default", "second"])


def merged(model: Any) -> None:
    model.merge_adapter()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [(None, {"lora_rank": 2}, r"lora_rank=2 is for a model without an adapter.* leave lora_rank out; to merge it first: peft"),
     (None, {"train_last_layers": 1}, "train_last_layers=1 is for a model without an adapter"),
     (trainable_base, {}, r"lm_head.weight would be trained, but is not saved with the adapter: .*modules_to_save"),
     (two_active, {}, "adapters default, second are active: set one by"), (none_active, {}, "disabled or merged"),
     (merged, {}, "disabled or merged")],
)  # fmt: skip
def test_what_an_adapter_does_not_go_with(change: Any, options: Any, message: str, tmp_path: Path) -> None:
    model = adapted()
    if change is not None:
        change(model)
    with pytest.raises(InputError, match=message):
        trainer(tmp_path, model, **options)
    assert not (tmp_path / "run").exists()


def test_adapters_that_have_no_place_in_packed_pairs_or_cannot_be_resumed(tmp_path: Path, folder: Path) -> None:
    prompt = get_peft_model(tiny_model(), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(InputError, match="a PROMPT_TUNING adapter puts tokens before the prompt"):
        trainer(tmp_path, prompt)
    with pytest.raises(InputError, match="an adapter that transformers loaded"):
        trainer(tmp_path, AutoModelForCausalLM.from_pretrained(folder / "adapter", dtype=torch.float32))


def test_a_model_of_which_nothing_is_trainable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no parameter of the model is trainable"):
        trainer(tmp_path, tiny_model().requires_grad_(False))


class TestNoGradient:
    """A gradient of exactly 0 where the loss is not flat ends the run; where the loss is flat it is its own."""

    @staticmethod
    def beside(model: Any) -> Any:
        """The model, frozen, as one of a class that has a parameter on which nothing depends."""

        def init(self: Any, config: Any) -> None:
            super(kind, self).__init__(config)
            self.unused = torch.nn.Parameter(torch.ones(3))

        kind = type("Beside", (type(model),), {"__init__": init})
        made = kind(model.config)
        made.load_state_dict(model.state_dict(), strict=False)
        made.requires_grad_(False).unused.requires_grad_()
        return made

    @pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"max_grad_norm": 0.0}])
    def test_it_ends_the_run(self, options: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(NoGradient, match=r"step 1: the gradient is exactly 0, and the loss is not flat"):
            trained(tmp_path, self.beside(tiny_model()), max_steps=4, **options)

    def test_the_hinge_s_own_zeros_do_not(self, tmp_path: Path) -> None:
        with torch.no_grad():
            ratios = response_sums(tiny_model(), PAIRS) - response_sums(tiny_model(seed=1), PAIRS)
        far = [pair for pair, rho in zip(PAIRS, ratios[:, 0] - ratios[:, 1], strict=True) if rho > 1]
        assert far
        made = trained(tmp_path, tiny_model(), far, reference=tiny_model(seed=1), loss="slic", beta=1.0, max_steps=2)
        assert [row["grad_norm"] for row in objects(tmp_path)] == [0.0, 0.0]
        assert torch.equal(weights(made.model), weights(tiny_model()))

    def test_nor_do_labels_that_say_nothing(self, tmp_path: Path) -> None:
        from dataclasses import replace

        pairs = [*(replace(pair, p=0.5) for pair in PAIRS[1:]), PAIRS[0]]
        options = {"max_steps": 2, "per_device_train_batch_size": 4, "train_sampling_strategy": "sequential"}
        trained(tmp_path, tiny_model(), pairs, **options)
        assert objects(tmp_path)[0]["grad_norm"] < 1e-6
        with pytest.raises(InputError, match=r"every pair has weight 0 or p = 1/2, so that nothing would be trained"):
            trained(tmp_path, tiny_model(), pairs[:-1])
        trained(tmp_path, tiny_model(), pairs[:-1], reference=tiny_model(seed=1))
        with pytest.raises(InputError, match="nothing would be trained"):
            trained(tmp_path, tiny_model(), [replace(pair, weight=0.0) for pair in PAIRS], reference=tiny_model(seed=1))

    def test_held_out_pairs_that_are_trained_on_are_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        trainer(tmp_path, tiny_model(), PAIRS[2:], eval_dataset=PAIRS[:5])
        assert "eval: 3 of 5 held-out pairs are trained on too" in caplog.text
        caplog.clear()
        trainer(tmp_path, tiny_model(), PAIRS[5:], eval_dataset=PAIRS[:5])
        assert "held-out" not in caplog.text


@pytest.mark.slow
class TestCommand:
    """`gpo train`, `gpo evaluate` with the folder of an adapter, in which peft saves no tokenizer."""

    def words(self, folder: Path, tmp_path: Path, *more: object) -> list[object]:
        data = write_rows(tmp_path / "pairs.jsonl", ROWS)
        return ["train", "--model", folder / "adapter", "--data", data, "--loss", "dpo", "--beta", 0.1, "--steps", 2, "--batch-pairs", 3,
                "--learning-rate", 1e-2, "--output", tmp_path / "out", "--reference-store", tmp_path / "store", *more]  # fmt: skip

    def test_it_is_trained_forecast_and_resumed(self, folder: Path, tmp_path: Path) -> None:
        forecast = gpo(*self.words(folder, tmp_path, "--dry-run"), code=0).stdout
        assert f"{sum(each.numel() for name, each in adapted().named_parameters() if '.lora_' in name) / 1e6:.4g} M trained" in forecast
        gpo(*self.words(folder, tmp_path), code=0)
        first, *_ = objects(tmp_path, "out")
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
        after = load_file(tmp_path / "out" / "adapter_model.safetensors")
        assert not same(after, load_file(folder / "adapter" / "adapter_model.safetensors"))
        assert "already complete" in gpo(*self.words(folder, tmp_path, "--resume"), code=0).stderr
        assert "library_name: peft" in (tmp_path / "out" / "README.md").read_text()

    def test_the_evaluation_says_if_the_reference_is_not_where_the_training_started(self, folder: Path, tmp_path: Path) -> None:
        gpo(*self.words(folder, tmp_path), code=0)
        tasks = write_rows(tmp_path / "tasks.jsonl", [{"prompt": "the cat sat on", "target": "the mat"}])
        start, out = folder / "adapter", tmp_path / "out"
        for policy, reference, said in ((out, start, (False, False)), (out, folder / "base", (True, False)), (start, out, (False, True))):
            done = gpo("evaluate", "--policy", policy, "--reference", reference, "--data", tasks, "--max-new-tokens", 3,
                       "--reward", "tests.gpo_full.training.test_live_evaluation:shorter", code=0)  # fmt: skip
            assert tuple(each in done.stderr for each in ("is not the model that the training", "seem to be swapped")) == said

    def test_a_base_that_is_gone_is_named(self, folder: Path, tmp_path: Path) -> None:
        import json

        (tmp_path / "adapter").mkdir()
        config = json.loads((folder / "adapter" / "adapter_config.json").read_text()) | {"base_model_name_or_path": "/gone/base"}
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        line = gpo(*self.words(tmp_path, tmp_path), code=2).stderr
        assert "'/gone/base' is not a folder" in line
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings(*[each.args[0] for each in QUIET])
def test_six_steps_equal_trl(tmp_path: Path, folder: Path) -> None:
    """TRL 1.16 keeps a copy of the adapter as its reference; each step is of all three rows, in any order."""
    trl = pytest.importorskip("trl", minversion="1.16", reason="trl 1.16 is a test oracle, not a dependency")
    from datasets import Dataset

    def policy() -> Any:
        base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        return PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)

    shared = {"beta": 0.1, "per_device_train_batch_size": 3, "max_steps": 6, "learning_rate": 5e-3, "logging_steps": 1,
              "save_strategy": "no", "lr_scheduler_type": "constant", "report_to": "none"}  # fmt: skip
    config = trl.DPOConfig(output_dir=str(tmp_path / "trl"), bf16=False, gradient_checkpointing=False, use_cpu=True, disable_tqdm=True, **shared)
    theirs = trl.DPOTrainer(model=policy(), args=config, train_dataset=Dataset.from_list(ROWS), processing_class=tiny_tokenizer())
    theirs.train()
    ours: GPOTrainer = trainer(tmp_path, policy(), ROWS, processing_class=tiny_tokenizer(), loss="dpo", **shared)
    ours.train()
    expected = [log["loss"] for log in theirs.state.log_history if "loss" in log]
    found = [row["loss"] for row in objects(tmp_path)]
    assert len(found) == 6
    assert found[0] == pytest.approx(math.log(2), abs=1e-6)
    assert found[-1] < 0.6
    assert found == pytest.approx(expected, rel=2e-4)
