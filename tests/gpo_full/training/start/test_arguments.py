"""Every argument of transformers' Trainer and every field of its TrainingArguments: used, refused or without meaning.

A release that adds one fails here, until somebody has looked at what this training does with it.
"""

import copy
import dataclasses
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from gpo_full import GPOConfig, GPOTrainer
from gpo_full.config import NEEDS, REFUSED, REFUSED_OF_ACCELERATE, REFUSED_VALUES
from gpo_full.training.start.arguments import REFUSED_ARGUMENTS
from gpo_theory import InputError
from tests.support.pairs import ROWS, some_pairs
from tests.support.tiny_models import on_disk, saved_policy, tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, objects, trainer, weights

FIELDS = {each.name: each for each in dataclasses.fields(TrainingArguments)}
# Fields that need not do anything, and why.
IRRELEVANT = {
    "remove_unused_columns": "no column reaches the model: pairs are read and packed whatever it says",
    "logging_nan_inf_filter": "a step that is not finite is not applied, and enters no mean",
    "do_train": "for scripts that read it; train() trains",
    "do_eval": "for scripts that read it; evaluate() evaluates",
    "do_predict": "for scripts that read it",
    "local_rank": "the launcher's environment says it; kept by the Trainer for old launchers' command lines",
}
# Fields that the Trainer's loop, the launcher or the hub's client act on, without a test here: what they need is not at
# hand (several processes, an accelerator, the hub), or they are in other tests.
ELSEWHERE = {
    "output_dir", "tf32", "bf16", "use_cpu", "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id", "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy",
    "hub_always_push", "hub_revision", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
    "ddp_static_graph", "ddp_backend", "ddp_timeout", "fsdp", "fsdp_config", "full_determinism", "optim_target_modules",
    "log_on_each_node", "log_level", "log_level_replica", "disable_tqdm", "debug",
    "activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "ignore_data_skip", "accelerator_config", "dataloader_pin_memory",
    "dataloader_multiprocessing_context",
}  # fmt: skip
# Field: a value with which the weights after three steps are others than without, and what is set in both runs.
COMPUTES: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_steps": (2, {}), "num_train_epochs": (2.0, {"max_steps": -1, "per_device_train_batch_size": 11}),
    "learning_rate": (1e-2, {}), "lr_scheduler_type": ("cosine", {}), "warmup_steps": (2, {}),
    "lr_scheduler_kwargs": ({"num_cycles": 3}, {"lr_scheduler_type": "cosine_with_restarts", "max_steps": 5}),
    "optim": ("sgd", {}), "optim_args": ("momentum=0.9", {"optim": "sgd"}), "weight_decay": (0.5, {}),
    "adam_beta1": (0.5, {}), "adam_beta2": (0.5, {}), "adam_epsilon": (1e-2, {}), "max_grad_norm": (1e-3, {"optim": "sgd"}),
    "gradient_accumulation_steps": (2, {}), "per_device_train_batch_size": (3, {}), "seed": (7, {}), "data_seed": (7, {}),
    "dataloader_drop_last": (True, {"max_steps": 4}), "train_sampling_strategy": ("sequential", {}),
}  # fmt: skip
# Field: settings with which the weights are bit by bit those without, and what is seen of them beside.
BESIDE: dict[str, tuple[dict[str, Any], Callable[[GPOTrainer], Any], Any]] = {
    "logging_steps": ({"logging_steps": 2}, lambda made: logged(made), [2, 3]),
    "logging_first_step": ({"logging_steps": 3, "logging_first_step": True}, lambda made: logged(made), [1, 3]),
    "logging_strategy": ({"logging_strategy": "epoch", "max_steps": 6}, lambda made: logged(made), [3, 6]),
    "save_strategy": ({"save_strategy": "epoch"}, lambda made: saved(made), [3]),
    "save_steps": ({"save_strategy": "steps", "save_steps": 2}, lambda made: saved(made), [2, 3]),
    "save_total_limit": ({"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}, lambda made: saved(made), [3]),
    "save_only_model": ({"save_strategy": "epoch", "save_only_model": True}, lambda made: kept(made), False),
    "eval_strategy": ({"eval_strategy": "epoch", "max_steps": 6}, lambda made: evaluated(made), [3, 6]),
    "eval_steps": ({"eval_strategy": "steps", "eval_steps": 2}, lambda made: evaluated(made), [2, 3]),
    "eval_delay": ({"eval_strategy": "steps", "eval_steps": 1, "eval_delay": 2}, lambda made: evaluated(made), [2, 3]),
    "eval_on_start": ({"eval_on_start": True}, lambda made: evaluated(made), [0]),
    "per_device_eval_batch_size": ({"per_device_eval_batch_size": 2}, lambda made: len(made.get_eval_dataloader()), 2),
    "metric_for_best_model": ({"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "margin"},
                              lambda made: made.state.best_metric == max(held_out(made, "margin")), True),
    "greater_is_better": ({"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "margin", "greater_is_better": False},
                          lambda made: made.state.best_metric == min(held_out(made, "margin")), True),
    "include_num_input_tokens_seen": ({"include_num_input_tokens_seen": "all"}, lambda made: made.state.num_input_tokens_seen > 0, True),
    "skip_memory_metrics": ({"skip_memory_metrics": False}, lambda made: "train_mem_cpu_alloc_delta" in made.state.log_history[-1], True),
    "torch_empty_cache_steps": ({"torch_empty_cache_steps": 1}, lambda made: made.args.torch_empty_cache_steps, 1),
    "dataloader_num_workers": ({"dataloader_num_workers": 1}, lambda made: made.get_train_dataloader().num_workers, 1),
    "dataloader_prefetch_factor": ({"dataloader_num_workers": 1, "dataloader_prefetch_factor": 3},
                                   lambda made: made.get_train_dataloader().prefetch_factor, 3),
    "dataloader_persistent_workers": ({"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
                                      lambda made: made.get_train_dataloader().persistent_workers, True),
}  # fmt: skip
OWN_TEST = {"load_best_model_at_end", "resume_from_checkpoint"}

# Field: a value that is refused.
VALUES: dict[str, Any] = {
    "label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0, "use_liger_kernel": True, "liger_kernel_config": {"rope": True},
    "auto_find_batch_size": True, "average_tokens_across_devices": False, "length_column_name": "size",
    "dataloader_in_order": False, "deepspeed": "x.json", "fp16": True, "torch_compile": True, "torch_compile_backend": "eager",
    "torch_compile_mode": "default", "label_names": ["labels"], "batch_eval_metrics": True, "prediction_loss_only": True,
    "include_for_metrics": ["inputs"], "eval_do_concat_batches": False, "eval_accumulation_steps": 1,
    "eval_use_gather_object": True, "bf16_full_eval": True, "fp16_full_eval": True, "save_on_each_node": True,
    "use_cache": True, "enable_jit_checkpoint": True, "parallelism_config": {"tp_size": 2}, "restore_callback_states_from_checkpoint": True,
}  # fmt: skip


def run(folder: Path, **options: Any) -> GPOTrainer:
    made = trainer(folder, tiny_model(), **{"max_steps": 3, "lr_scheduler_type": "linear", "eval_dataset": some_pairs(4), **options})
    made.train()
    return made


def logged(made: GPOTrainer) -> list[int]:
    return [row["step"] for row in objects(Path(made.args.output_dir), ".")]


def saved(made: GPOTrainer) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in Path(made.args.output_dir).glob("checkpoint-*"))


def kept(made: GPOTrainer) -> bool:
    return (Path(made.args.output_dir) / "checkpoint-3" / "resume.safetensors").exists()


def held_out(made: GPOTrainer, metric: str) -> list[float]:
    return [row[f"eval_{metric}"] for row in made.state.log_history if f"eval_{metric}" in row]


def evaluated(made: GPOTrainer) -> list[int]:
    return [row["step"] for row in made.state.log_history if "eval_loss" in row]


def test_every_field_is_known() -> None:
    tables = [{*REFUSED}, {*IRRELEVANT}, ELSEWHERE, {*COMPUTES}, {*BESIDE}, OWN_TEST]
    assert sorted(name for table in tables for name in table) == sorted(FIELDS)  # each in one of them
    assert {*REFUSED_VALUES, *NEEDS} <= {*FIELDS} - {*REFUSED}
    assert {*REFUSED} == {*VALUES}


def test_every_argument_of_the_trainer_is_known() -> None:
    given = {*inspect.signature(Trainer.__init__).parameters}
    used = {*inspect.signature(GPOTrainer.__init__).parameters}
    assert given - {*REFUSED_ARGUMENTS} <= used
    assert not {*REFUSED_ARGUMENTS} & used


@pytest.mark.parametrize("name", COMPUTES)
def test_a_field_changes_what_is_computed(name: str, tmp_path: Path) -> None:
    value, shared = COMPUTES[name]
    plain, changed = (weights(run(tmp_path, run=folder, **{**shared, **more}).model)
                      for folder, more in (("plain", {}), ("changed", {name: value})))  # fmt: skip
    assert not torch.equal(plain, changed)


@pytest.mark.parametrize("name", BESIDE)
def test_a_field_acts_and_leaves_the_weights(name: str, tmp_path: Path) -> None:
    options, seen, expected = BESIDE[name]
    made = run(tmp_path, **options)
    assert seen(made) == expected
    assert torch.equal(weights(made.model), weights(run(tmp_path, run="plain", max_steps=made.state.max_steps).model))


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    made = run(tmp_path, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
               metric_for_best_model="margin", greater_is_better=False)  # fmt: skip
    best = min(range(3), key=held_out(made, "margin").__getitem__) + 1
    assert best == made.state.best_global_step != 3
    until = trainer(tmp_path, tiny_model(), run="until", max_steps=3)
    until.add_callback(Stop(best))
    until.train()
    assert torch.equal(weights(made.model), weights(until.model))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_field_that_would_do_nothing_or_harm_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        GPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True, **{name: VALUES[name]})
    assert str(caught.value) == f"{name}={VALUES[name]!r} is refused: {REFUSED[name]}"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (values, _) in REFUSED_VALUES.items() for value in values])
def test_a_value_is_refused(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name}='{value}' is refused: "):
        GPOConfig(output_dir=str(tmp_path), use_cpu=True, **{name: value})
    with pytest.raises(InputError, match="is refused: "):
        GPOConfig(output_dir=str(tmp_path), use_cpu=True, debug="underflow_overflow tpu_metrics_debug")


@pytest.mark.parametrize(("name", "value", "reason"), [
    ("train_sampling_strategy", "sideways", "allowed: random, sequential"),
    ("include_num_input_tokens_seen", "some", "allowed: no, all, False, True"),
    ("activation_checkpointing_kwargs", {"use_reentrant": False}, "does nothing without activation_checkpointing"),
    ("gradient_checkpointing_kwargs", {"use_reentrant": False}, "does nothing without activation_checkpointing"),
    ("fsdp_config", {"min_num_params": 1}, "does nothing without fsdp"),
    ("dataloader_persistent_workers", True, "does nothing without dataloader_num_workers"),
    ("dataloader_multiprocessing_context", "fork", "does nothing without dataloader_num_workers"),
    ("optim_args", "momentum=0.9", "does nothing with optim='adamw_torch_fused': its settings are fields"),
    ("optim_target_modules", ["q_proj"], "does nothing with optim='adamw_torch_fused'"),
    *((f"accelerator_config: {name}", value, reason) for name, (value, reason) in REFUSED_OF_ACCELERATE.items()),
])  # fmt: skip
def test_what_would_be_ignored_is_refused(name: str, value: Any, reason: str, tmp_path: Path) -> None:
    of, _, key = name.partition(": ")
    with pytest.raises(InputError) as caught:
        GPOConfig(output_dir=str(tmp_path), use_cpu=True, **{of: {key: value} if key else value})
    assert reason in str(caught.value)


def test_the_default_is_refused_for_no_field(tmp_path: Path) -> None:
    """Given one by one, as by a script that passes all of its own options on, and all of them again from the object."""
    for name, each in FIELDS.items():
        value = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        if name not in ("output_dir", "logging_steps"):
            GPOConfig(**{"output_dir": str(tmp_path), "use_cpu": True, name: value})
    for options in ({}, {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}}):
        made = GPOConfig(output_dir=str(tmp_path), use_cpu=True, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert dataclasses.replace(made, beta=0.2).beta == 0.2


# --- the Trainer's arguments ---


class Stop(TrainerCallback):
    """Ends the training after a step, having seen some."""

    def __init__(self, step: int = 2) -> None:
        self.step, self.seen = step, []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(state.global_step)
        control.should_training_stop = state.global_step >= self.step


def made_with(folder: Path, model: Any = None, pairs: Any = PAIRS, eval_dataset: Any = None, processing_class: Any = None,
              settings: dict[str, Any] | None = None, **named: Any) -> GPOTrainer:
    args = GPOConfig(**{"output_dir": str(folder / "run"), "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3, "max_steps": 3,
                        "reference_store": str(folder / "references"), "per_device_train_batch_size": 4,
                        "save_strategy": "no", **(settings or {})})  # fmt: skip
    return GPOTrainer(model, args, pairs, eval_dataset, processing_class, **named)


@pytest.mark.parametrize(("name", "reason"), [
    *((name, f"{name} is refused: {reason}") for name, reason in REFUSED_ARGUMENTS.items()),
    ("optimiser", "GPOTrainer has no argument 'optimiser'; did you mean 'optimizers'?"),
    ("beta", "GPOTrainer has no argument 'beta'"),
])  # fmt: skip
def test_an_argument_is_refused_before_anything_is_done(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        made_with(tmp_path, "no such model", "no such data", **{name: print})
    assert str(caught.value) == reason
    assert not [*tmp_path.iterdir()]


def test_a_refused_argument_that_is_none_says_nothing(tmp_path: Path) -> None:
    made_with(tmp_path, tiny_model(), compute_metrics=None, data_collator=None, callbacks=None, optimizers=(None, None))


def test_callbacks_are_used(tmp_path: Path) -> None:
    stop = Stop()
    made = made_with(tmp_path, tiny_model(), callbacks=(stop,))
    made.train()
    assert stop.seen == [1, 2]
    assert made.state.global_step == 2


def by_hand(model: Any, rates: list[float], pairs: Any = PAIRS[:4]) -> torch.Tensor:
    """The weights after steps of plain gradient descent on the mean of log(1 + exp(-0.1 rho)) of all pairs."""
    from tests.support.two_sequences import response_sums

    before = response_sums(model, pairs).detach()
    for rate in rates:
        ratios = response_sums(model, pairs) - before
        torch.nn.functional.softplus(-0.1 * (ratios[:, 0] - ratios[:, 1])).mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= rate * parameter.grad
        model.zero_grad()
    return weights(model)


@pytest.mark.parametrize("how", ["optimizer", "optimizer and schedule", "class", "optimizer under the settings' schedule"])
def test_an_optimizer_of_ones_own_makes_the_steps(how: str, tmp_path: Path) -> None:
    model, expected = (tiny_model("gpt2", dtype=torch.float64) for _ in range(2))  # Llama's norms compute in float32
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    rates = [0.5, 0.5, 0.5]
    named: dict[str, Any] = {"optimizers": (sgd, None)}
    if how == "optimizer and schedule":
        named, rates = {"optimizers": (sgd, LambdaLR(sgd, lambda step: [1.0, 0.25, 0.5][min(step, 2)]))}, [0.5, 0.125, 0.25]
    if how == "class":
        named = {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.5})}
    settings: dict[str, Any] = {"lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    if "settings" in how:
        settings, rates = settings | {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}, [0.0, 0.25, 0.5]
    made_with(tmp_path, model, PAIRS[:4], settings=settings, **named).train()
    torch.testing.assert_close(weights(model), by_hand(expected, rates), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_of_ones_own_leaves_out_a_step_that_is_not_finite(fused: bool, tmp_path: Path) -> None:
    model = tiny_model()
    before = weights(model)
    adam = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    made = made_with(tmp_path, model, optimizers=(adam, None), settings={"max_steps": 1})
    made.train_dataset.reference.fill_(float("nan"))
    made.train()
    assert torch.equal(weights(model), before)
    assert objects(tmp_path, name="events")[0]["event"] == "not finite, not applied"


def optimizers(case: str, model: Any) -> dict[str, Any]:
    other = torch.optim.SGD(tiny_model().parameters(), lr=0.1)
    mine = torch.optim.SGD(model.parameters(), lr=0.1)
    free = torch.optim.SGD(model.parameters(), lr=0.1)
    free.eval = lambda: None
    return {"a schedule alone": {"optimizers": (None, LambdaLR(other, lambda step: 1.0))},
            "another's schedule": {"optimizers": (mine, LambdaLR(other, lambda step: 1.0))},
            "both": {"optimizers": (mine, None), "optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.1})},
            "another's parameters": {"optimizers": (other, None)}, "new adapters": {"optimizers": (mine, None)},
            "schedule-free": {"optimizers": (free, None)}}[case]  # fmt: skip


@pytest.mark.parametrize(("case", "reason"), [
    ("a schedule alone", "the schedule belongs to another optimizer"), ("another's schedule", "the schedule belongs to another"),
    ("both", "optimizers and optimizer_cls_and_kwargs exclude each other"), ("schedule-free", "schedule-free"),
    ("another's parameters", "holds no parameter that is trained"), ("new adapters", "holds no parameter that is trained"),
])  # fmt: skip
def test_an_optimizer_that_would_not_train_the_model_is_refused(case: str, reason: str, tmp_path: Path) -> None:
    model = on_disk(tiny_model())
    with pytest.raises(InputError, match=reason):
        made_with(tmp_path, model, settings={"lora_rank": 2} if case == "new adapters" else {}, **optimizers(case, model))


def test_model_init_makes_the_model_with_the_seed(tmp_path: Path) -> None:
    def drawn(trial: Any) -> Any:
        model = tiny_model()
        torch.nn.init.normal_(model.lm_head.weight, std=0.2)
        return model

    made, same = (made_with(tmp_path, model_init=drawn, settings={"seed": 5, "output_dir": str(tmp_path / run)}) for run in "ab")
    assert torch.equal(weights(made.model), weights(same.model))
    other = made_with(tmp_path, model_init=lambda: drawn(None), settings={"seed": 6})
    assert not torch.equal(weights(made.model), weights(other.model))
    before = weights(made.model)
    made.train()
    assert not torch.equal(weights(made.model), before)
    with pytest.raises(InputError, match="the model that model_init made is trained already"):
        made.train()


@pytest.mark.parametrize("model", [{}, {"model": "m", "model_init": print}])
def test_one_of_model_and_model_init(model: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give either model or model_init"):
        made_with(tmp_path, **model)


def test_resume_from_checkpoint_is_the_argument_of_train(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1}
    whole = made_with(tmp_path, tiny_model(), settings=saving)
    whole.train()
    at_1 = str(tmp_path / "run" / "checkpoint-1")
    made = made_with(tmp_path, tiny_model(seed=9), settings={**saving, "resume_from_checkpoint": at_1},
                     reference=tiny_model())  # fmt: skip
    steps = Stop(9)
    made.add_callback(steps)
    made.train()
    assert steps.seen == [2, 3]
    assert torch.equal(weights(made.model), weights(whole.model))
    made.train(resume_from_checkpoint=False)
    assert steps.seen == [2, 3, 1, 2, 3]


# --- data sets ---


def test_several_held_out_sets_are_evaluated_each_by_its_name(tmp_path: Path) -> None:
    one, two = some_pairs(4, seed=1), some_pairs(6, seed=2)
    settings = {"eval_strategy": "steps", "eval_steps": 3, "metric_for_best_model": "eval_two_margin",
                "dataloader_num_workers": 1, "dataloader_persistent_workers": True}  # fmt: skip
    made = made_with(tmp_path, tiny_model(), eval_dataset={"one": one, "two": two}, settings=settings)
    made.train()
    found = made.evaluate()
    assert (found["eval_one_pairs"], found["eval_two_pairs"]) == (4, 6)
    assert made.state.best_metric == found["eval_two_margin"]
    for name, pairs in (("one", one), ("two", two)):
        alone = made_with(tmp_path, copy.deepcopy(made.model), eval_dataset=pairs, reference=tiny_model()).evaluate()
        assert {f"eval_{name}_{key.removeprefix('eval_')}": value for key, value in alone.items()}.items() <= found.items()


def test_held_out_sets_are_read_as_any_data(tmp_path: Path) -> None:
    made = made_with(tmp_path, tiny_model(), ROWS, {"a": ROWS[:3], "b": ROWS}, tiny_tokenizer())
    assert {name: each.kept for name, each in made.summaries.items()} == {"train": 7, "eval_a": 3, "eval_b": 7}


def test_without_pairs_to_train_on_it_evaluates(tmp_path: Path) -> None:
    reference, policy = (tiny_model(seed=seed, dtype=torch.float64) for seed in (1, 2))
    only = made_with(tmp_path, policy, None, eval_dataset=PAIRS, reference=reference)
    both = made_with(tmp_path, policy, PAIRS, eval_dataset=PAIRS, reference=reference)
    assert only.evaluate() == both.evaluate()
    assert made_with(tmp_path, policy, None, eval_dataset=PAIRS).evaluate()["eval_margin"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(InputError, match="training needs a train_dataset"):
        only.train()


@pytest.mark.parametrize(("named", "settings", "reason"), [
    ({"pairs": None}, {}, "neither train_dataset nor eval_dataset is given"),
    ({}, {"eval_strategy": "epoch"}, "the training cannot start: eval_strategy='epoch' needs held-out pairs, eval_dataset"),
    ({"eval_dataset": {}}, {"eval_strategy": "epoch"}, "needs held-out pairs, eval_dataset"),
    ({}, {"eval_on_start": True}, "the training cannot start: eval_on_start=True needs held-out pairs, eval_dataset"),
    ({"eval_dataset": PAIRS}, {"eval_strategy": "epoch", "metric_for_best_model": "acuracy"},
     "metric_for_best_model='acuracy' is no metric of the evaluation; did you mean 'eval_accuracy'?"),
    ({"eval_dataset": {"a": PAIRS}}, {"eval_strategy": "epoch", "metric_for_best_model": "loss"}, "did you mean 'eval_a_loss'?"),
    ({"eval_dataset": PAIRS}, {"eval_strategy": "epoch", "metric_for_best_model": "grad_norm"}, "is no metric of the evaluation"),
])  # fmt: skip
def test_data_sets_that_are_missing(named: dict[str, Any], settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        made_with(tmp_path, "no such model", **{"settings": settings, **named})
    assert reason in str(caught.value)
    assert not [*tmp_path.iterdir()]


# --- what is handed in for a model; a trainer that is used again ---


@pytest.mark.parametrize(("what", "reason"), [
    (torch.nn.DataParallel(torch.nn.Linear(2, 2)), "is wrapped in DataParallel: hand in its `module`"),
    (torch.nn.Linear(2, 2), "must be a causal language model of transformers, its folder or its name, not Linear"),
    (3.5, "must be a causal language model of transformers, its folder or its name, not float"), ({}, "not dict"),
])  # fmt: skip
def test_what_is_no_model_is_refused(what: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^model .*{reason}"):
        made_with(tmp_path, what)
    with pytest.raises(InputError, match=f"^reference .*{reason}"):
        made_with(tmp_path, tiny_model(), reference=what)


@pytest.mark.parametrize("settings", [{}, {"eval_strategy": "epoch"}, {"metric_for_best_model": "eval_margin"}])
@pytest.mark.parametrize("callback", [EarlyStoppingCallback, EarlyStoppingCallback(2)])
def test_early_stopping_needs_a_metric(callback: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="EarlyStoppingCallback follows a metric of held-out pairs: it needs"):
        made_with(tmp_path, tiny_model(), eval_dataset=PAIRS, settings=settings, callbacks=[callback])
    later = made_with(tmp_path, tiny_model(), eval_dataset=PAIRS, settings=settings)
    later.add_callback(callback)
    with pytest.raises(InputError, match="EarlyStoppingCallback follows a metric"):
        later.train()


CHANGES: dict[str, tuple[Any, bool]] = {
    "nothing": (lambda model: None, False), "frozen": (lambda model: model.lm_head.requires_grad_(False), False),
    "scaled": (lambda model: model.lm_head.weight.data.mul_(1.01), True), "one number": (lambda model: model.model.norm.weight.data[3].add_(0.1), True),
    "loaded": (lambda model: model.load_state_dict(tiny_model(seed=3).state_dict()), True),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_that_was_changed_before_the_training_is_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, (change, is_said) = tiny_model(), CHANGES[name]
    made = made_with(tmp_path, model)
    change(model)
    made.train()
    assert ("the model was changed after the trainer was made" in caplog.text) == is_said
    with pytest.raises(InputError, match="the model is trained already, and the reference is what it was before"):
        made.train()


def test_the_tokenizer_of_a_named_model_is_loaded(tmp_path: Path) -> None:
    made = made_with(tmp_path, str(saved_policy(tmp_path / "policy")), ROWS)
    assert made.processing_class.get_vocab() == tiny_tokenizer().get_vocab()
    tiny_model().save_pretrained(tmp_path / "without")
    with pytest.raises(InputError, match="processing_class must be its tokenizer"):
        made_with(tmp_path, tmp_path / "without", ROWS)
