"""What cannot be used in the middle or at the end of a run is found before the reference pass, and nothing is left."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from gpo_full.checkpoints.atomic import sole_writer
from gpo_full.training.reporting.run_folder import leaving_nothing
from gpo_full.training.start.trial import planned_steps
from gpo_theory import InputError
from tests.gpo_full.cli.test_command_train import Train, model, train  # noqa: F401
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, trainer


def unsaved_config(policy: Any) -> None:
    policy.config.thing = object()


def refused_generation(policy: Any) -> None:
    policy.generation_config.suppress_tokens = policy.generation_config.forced_eos_token_id = [2]


def nothing(policy: Any) -> None:
    """Leave the model as it is."""


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (nothing, {"optim": "adamw_bnb_8bit"}, r"^optim='adamw_bnb_8bit': You need to install `bitsandbytes`"),
        (nothing, {"optim": "grokadamw"}, r"^optim='grokadamw': .*install"),
        (nothing, {"optim": "apollo_adamw", "optim_target_modules": ["attn"]}, r"^optim='apollo_adamw': .*[Ii]nstall"),
        (nothing, {"optim_args": "momentum=0.9", "optim": "sgd"}, None),
        (nothing, {"adam_beta1": 1.5}, r"^optim='adamw_torch_fused': .*beta"),
        (nothing, {"lr_scheduler_type": "cosine_with_min_lr"}, r"^lr_scheduler_type='cosine_with_min_lr': One of min_lr"),
        (nothing, {"lr_scheduler_type": "warmup_stable_decay"}, r"^lr_scheduler_type='warmup_stable_decay': "),
        (nothing, {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycle": 2}}, r"^lr_scheduler_type='cosine': .*num_cycle"),
        (nothing, {"eval_strategy": "steps", "eval_steps": 1}, r"^the training cannot start: .*eval_dataset"),
        (unsaved_config, {}, "^the model's configuration cannot be saved: "),
        (refused_generation, {}, "^the model's generation configuration cannot be saved: Every token in `forced_eos_token_id`"),
    ],
)  # fmt: skip
def test_it_is_one_line_before_the_reference_pass(change: Any, options: Any, message: str | None, tmp_path: Path) -> None:
    policy = tiny_model()
    change(policy)
    if message is None:
        trainer(tmp_path, policy, **options)
        return
    with pytest.raises(InputError, match=message) as found:
        trainer(tmp_path, policy, **options)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "references").exists()
    assert not list((tmp_path / "run").glob("*"))


def test_a_tokenizer_that_cannot_be_saved(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.init_kwargs["thing"] = object()
    with pytest.raises(InputError, match=r"^the tokenizer cannot be saved: "):
        trainer(tmp_path, tiny_model(), processing_class=tokenizer)


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [({"do_sample": False, "temperature": 0.9, "top_p": 0.6}, {"temperature", "top_p"}), ({"temperature": 0.3, "top_k": 7}, {"temperature", "top_k"}),
     ({"do_sample": True, "temperature": 0.9}, set()), ({"num_beams": 1, "length_penalty": 2.0}, {"length_penalty"}),
     ({"output_scores": True}, {"output_scores"}), ({"do_sample": False, "max_new_tokens": 7}, set())],
)  # fmt: skip
def test_what_generates_is_saved_but_for_what_has_no_effect(settings: Any, left_out: set[str], tmp_path: Path,
                                                            caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    policy = tiny_model()
    policy.generation_config.update(**settings)
    made = trainer(tmp_path, policy)
    made.save_model(str(tmp_path / "saved"))
    found = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert {name for name, value in settings.items() if found.get(name) != value and value is not False} == left_out
    said = [record.message for record in caplog.records if "generation config" in record.message]
    assert len(said) == bool(left_out)
    assert all(name in said[0] for name in left_out)


@pytest.mark.parametrize("settings", [{"use_cache": True}, {"use_cache": False}, {"use_cache": True, "own_field": [1, {"a": None}]}])
@pytest.mark.parametrize("options", [{}, {"activation_checkpointing": True}])
def test_the_base_s_settings_are_kept_in_what_is_saved(settings: Any, options: Any, tmp_path: Path) -> None:
    policy = tiny_model(**settings)
    policy.save_pretrained(tmp_path / "before")
    made = trainer(tmp_path, policy, **options)
    made.train()
    made.save_model(str(tmp_path / "after"))
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after"))
    assert after == before


@pytest.mark.slow
class TestCommand:
    @pytest.mark.parametrize("wrong", ["lr_scheduler_type=cosine_with_min_lr", "optim=adamw_bnb_8bit", "eval_strategy=epoch"])
    def test_the_corrected_command_works_with_the_same_output(self, train: Train, wrong: str) -> None:  # noqa: F811
        assert train.refused("--set", wrong)
        if "eval" not in wrong:
            train.refused("--set", wrong, "--dry-run")
        assert not train.output.exists()
        train.output.mkdir()
        train.refused("--set", wrong)
        assert not list(train.output.iterdir())
        train("--set", "lr_scheduler_type=constant")

    def test_a_card_that_cannot_be_written_is_found_before_the_first_step(self, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
        def fails(*_: Any) -> str:
            raise InputError("no card")

        monkeypatch.setattr("gpo_full.training.reporting.model_cards.model_card", fails)
        assert "no card" in train.refused()
        assert not train.output.exists()

    def test_a_package_that_is_missing_is_named(self, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
        def fails(*_: Any, **named: Any) -> str:
            raise ModuleNotFoundError("No module named 'awq.kernels'", name="awq.kernels")

        monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fails)
        assert "awq is not installed; No module named 'awq.kernels'" in train.refused()

    def test_no_question_is_asked_about_a_model_s_own_code(self, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
        config = json.loads((train.model / "config.json").read_text())
        own = train.output.parent / "own"
        own.mkdir()
        (own / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": {
            "AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}))  # fmt: skip
        (own / "mine.py").write_text("raise SystemExit('this code was run')\n")
        (own / "tokenizer.json").write_text((train.model / "tokenizer.json").read_text())
        (own / "tokenizer_config.json").write_text((train.model / "tokenizer_config.json").read_text())
        monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
        for more in ([], ["--dry-run"]):
            assert "contains custom code" in train.refused(*more, model=own)


def test_another_run_s_files_are_not_taken_for_what_is_left(tmp_path: Path) -> None:
    with leaving_nothing(tmp_path / "run"):
        (tmp_path / "run").mkdir()
        with sole_writer(tmp_path / "run"):
            (tmp_path / "run" / "run.json").write_text("{}")
            with leaving_nothing(tmp_path / "run"):
                pass
            assert (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["checkpoint-1/config.json", "metrics.jsonl", "events.jsonl", "non_finite_batch.json"])
def test_what_a_run_has_found_is_kept(name: str, tmp_path: Path) -> None:
    def interrupted() -> None:
        (tmp_path / "run" / name).parent.mkdir(parents=True)
        (tmp_path / "run" / name).write_text("{}")
        (tmp_path / "run" / "run.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), leaving_nothing(tmp_path / "run"):
        interrupted()
    assert len(list((tmp_path / "run").iterdir())) == 2




def test_a_start_in_python_that_fails_leaves_no_record(tmp_path: Path) -> None:
    class Fails(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **named: Any) -> None:
            raise AssertionError("no metric")

    made = trainer(tmp_path, tiny_model())
    made.add_callback(Fails)
    with pytest.raises(AssertionError, match="no metric"):
        made.train()
    assert not list((tmp_path / "run").iterdir())
    made.remove_callback(Fails)
    made.train()
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(("settings", "steps"), [  # on 11 pairs
    ({"per_device_train_batch_size": 4}, 3), ({"per_device_train_batch_size": 4, "dataloader_drop_last": True}, 2),
    ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, 2), ({"per_device_train_batch_size": 11, "dataloader_drop_last": True}, 1),
    ({"per_device_train_batch_size": 12}, 1), ({"per_device_train_batch_size": 12, "dataloader_drop_last": True}, None),
    ({"per_device_train_batch_size": 64, "dataloader_drop_last": True, "max_steps": 5}, None), ({"num_train_epochs": 2.5, "per_device_train_batch_size": 4}, 8),
])  # fmt: skip
def test_the_steps_of_a_run_are_the_trainer_s_and_none_is_refused(settings: dict[str, Any], steps: int | None, tmp_path: Path) -> None:
    settings = {"max_steps": -1, "num_train_epochs": 1, **settings}
    if steps is None:
        with pytest.raises(InputError, match="the run would have no step: dataloader_drop_last=True leaves out a batch of fewer than"):
            trainer(tmp_path, tiny_model(), **settings)
        return
    made = trainer(tmp_path, tiny_model(), **settings)
    assert planned_steps(made.args, len(PAIRS)) == steps
    made.train()
    assert made.state.global_step == steps


@pytest.mark.parametrize(("settings", "said"), [
    ({"learning_rate": 0.0}, "learning_rate=0: no weight will change"), ({"warmup_steps": 9, "max_steps": 4}, "warms up over 9 steps, and the run has 4"),
    ({"warmup_steps": 3, "max_steps": 4}, None), ({"warmup_steps": 0.5, "max_steps": 4}, None), ({"max_steps": 1}, None),
])  # fmt: skip
def test_a_rate_that_is_never_reached_is_said(settings: dict[str, Any], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, tiny_model(), **settings)
    assert (said or "") in caplog.text
    assert ("never reaches" in caplog.text or "no weight" in caplog.text) == (said is not None)
