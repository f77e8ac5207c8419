"""GPOTrainer: the loss it minimises, the reference it uses, the metrics it writes, on random tiny models."""

import copy
import json
import math
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from gpo_full import GPOConfig, GPOTrainer
from gpo_full.checkpoints.atomic import DamagedCheckpoint, FolderInUse, NoGoodCheckpoint
from gpo_full.diagnosis.log import read_run
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import Plan
from gpo_full.engine.packing import pack
from gpo_full.training.live_evaluation import LiveEvaluation
from gpo_full.training.reporting.metrics import NonFiniteLoss
from gpo_full.training.rows import Collator
from gpo_theory import LOSSES, InputError
from tests.support.oracle import TRUTHS, evaluate
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, Passes, apart, objects, step0, trained, trainer, untimed, weights
from tests.support.two_sequences import response_sums

KEYS = {"step", "epoch", "loss", "margin", "margin_std", "log_ratio_chosen", "log_ratio_rejected", "accuracy",
        "regularizer", "regularizer_share", "weight", "saturated_left", "saturated_right", "flat_right", "grad_norm", "tokens",
        "cpu_seconds"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LOSSES))
def test_step_0_loss_is_f_of_0_in_float64(name: str, tmp_path: Path) -> None:
    # Default parameters; TRUTHS holds each f written out by hand in mpmath, and mpmath reads the formula of the others.
    made = trainer(tmp_path, tiny_model(dtype=torch.float64), loss=name, beta=1.0)
    truth = TRUTHS[name].f(0) if name in TRUTHS else evaluate(str(LOSSES[name].f), 0)
    assert step0(made) == pytest.approx(float(truth), abs=1e-6)


@pytest.mark.parametrize("reference", ["stored", "live", "adapter", "modified in memory"])
@pytest.mark.parametrize("name", ["logistic", "squared", "exponential"])
def test_step_0_loss_is_f_of_0_with_every_kind_of_reference(name: str, reference: str, tmp_path: Path) -> None:
    beta, model, options = 0.5, tiny_model("llama"), {}
    if reference == "stored":
        trainer(tmp_path, tiny_model(), run="before", loss="savage", beta=3.0)
    if reference == "live":
        options["reference"] = tiny_model()
    if reference == "adapter":
        options["lora_rank"] = 2
    if reference == "modified in memory":
        trainer(tmp_path, tiny_model(), run="before")  # the store now holds the model as it was
        with torch.no_grad():
            model.lm_head.weight.mul_(1.1)
    made = trainer(tmp_path, model, loss=name, beta=beta, **options)
    slope = abs(float(TRUTHS[name].taylor[1].replace("1/2", "0.5")))
    assert abs(step0(made) - float(TRUTHS[name].f(0))) <= slope * beta * 1e-4


def test_dropout_is_switched_off(tmp_path: Path) -> None:
    model = tiny_model("gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3, dtype=torch.float64)
    assert step0(trainer(tmp_path, model)) == pytest.approx(math.log(2), abs=1e-9)


def test_the_gradient_is_that_of_the_definition_and_a_dropped_beta_is_caught(tmp_path: Path) -> None:
    # rho from separate sequences and f(x) = (x-1)^2 written out; the policy is away from its reference.
    reference, policy, _ = apart()
    made = trainer(tmp_path, policy, loss="squared", beta=0.3, reference=reference)
    check_definition(made, policy, reference)
    made.objective = replace(made.objective, beta=1.0)  # the planted fault: f(rho) in place of f(beta rho)
    with pytest.raises(AssertionError):
        check_definition(made, policy, reference)


def check_definition(made: GPOTrainer, policy: Any, reference: Any) -> None:
    batch = made.data_collator([made.train_dataset[i] for i in range(len(PAIRS))])
    loss = made.compute_loss(policy, batch)
    loss.backward()
    found = [parameter.grad.clone() for parameter in policy.parameters()]
    policy.zero_grad()
    ratios = response_sums(policy, PAIRS) - response_sums(reference, PAIRS).detach()
    expected = ((0.3 * (ratios[:, 0] - ratios[:, 1]) - 1) ** 2).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    for mine, parameter in zip(found, policy.parameters(), strict=True):
        assert float((mine - parameter.grad).norm() / parameter.grad.norm()) <= 1e-6  # Llama's norms compute in float32


def test_length_averaged_margin_uses_averages_of_the_same_store(tmp_path: Path) -> None:
    reference, policy, ratios = apart("mean")
    trainer(tmp_path, policy, run="sum", reference=reference)
    passes = Passes(reference)
    made = trainer(tmp_path, policy, loss="logistic", beta=2.0, margin="mean", reference=reference)
    assert passes.count < 20  # the probe and the rows that are checked, not a pass
    expected = torch.log1p(torch.exp(-2.0 * (ratios[:, 0] - ratios[:, 1]))).mean()
    assert step0(made) == pytest.approx(float(expected), rel=1e-9)
    assert len(list((tmp_path / "references").iterdir())) == 1


def test_a_formula_with_a_parameter_trains(tmp_path: Path) -> None:
    trained(tmp_path, tiny_model(), loss="max(0, m-x)**2", parameters={"m": 2}, max_steps=3)
    assert objects(tmp_path)[0]["loss"] == pytest.approx(4.0, abs=1e-3)
    assert objects(tmp_path)[-1]["loss"] < 4.0


def test_accumulated_uneven_micro_batches_are_one_batch(tmp_path: Path) -> None:
    # Seven pairs as micro-batches of 3, 3 and 1, against one batch of seven: one epoch, one step, same weights.
    runs = []
    for size, n in ((3, 3), (7, 1)):
        made = trained(tmp_path, tiny_model(dtype=torch.float64), PAIRS[:7], max_steps=-1, optim="sgd",
                       num_train_epochs=1, learning_rate=0.1, per_device_train_batch_size=size, gradient_accumulation_steps=n)  # fmt: skip
        assert made.state.global_step == 1
        runs.append(weights(made.model))
    assert float((runs[1] - weights(tiny_model(dtype=torch.float64))).norm()) > 1e-3
    torch.testing.assert_close(*runs, rtol=1e-9, atol=1e-12)


def test_metrics_have_the_stated_keys_and_are_exact_over_uneven_batches(tmp_path: Path) -> None:
    # 11 pairs in batches of 4, 4 and 3 with learning rate 0: the epoch's means are plain means over the 11 pairs.
    reference, policy, ratios = apart()
    options = {"reference": reference, "loss": "hinge", "beta": 0.02, "learning_rate": 0.0, "max_steps": 3}
    made = trained(tmp_path, policy, logging_steps=3, eval_dataset=PAIRS, per_device_eval_batch_size=4, **options)
    (found,) = objects(tmp_path)
    assert set(found) >= KEYS
    rho = ratios[:, 0] - ratios[:, 1]
    x = 0.02 * rho
    expected = {
        "loss": (1 - x).clamp(min=0).mean(), "margin": rho.mean(), "margin_std": rho.std(correction=0),
        "log_ratio_chosen": ratios[:, 0].mean(), "log_ratio_rejected": ratios[:, 1].mean(),
        "accuracy": (rho > 0).double().mean(), "regularizer": (rho**2 / 2).mean(), "weight": (x < 1).double().mean(),
        "flat_right": (x > 1).double().mean(),
    }  # fmt: skip
    assert found["regularizer_share"] == 0  # the hinge has no curvature at 0
    held_out = made.evaluate()
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-7), name
        assert held_out[f"eval_{name}"] == pytest.approx(float(value), rel=1e-7), name
    assert found["tokens"] == sum(pair.size for pair in PAIRS)
    assert (found["step"], found["epoch"]) == (3, 1.0)


def test_the_gradient_norm_is_that_before_clipping(tmp_path: Path) -> None:
    norms = {}
    for limit in (0.0, 1e-3, 1e9):
        trainer(tmp_path, tiny_model(), run=str(limit), max_grad_norm=limit).train()
        norms[limit] = objects(tmp_path, str(limit))[0]["grad_norm"]
    assert norms[0.0] > 0.1
    assert norms[0.0] == norms[1e-3] == norms[1e9]


def test_a_run_made_in_python_records_its_settings_for_diagnose(tmp_path: Path) -> None:
    made = trained(tmp_path, tiny_model(), loss="ipo", beta=0.5)
    log = read_run(made.args.output_dir)
    assert (log.source, log.settings["loss"], log.settings["beta"], log.settings["schema"]) == ("gpo", "ipo", 0.5, 1)
    assert log.settings["reference_weights"] == made.reference_weights


@pytest.mark.parametrize(("options", "logged"), [
    ({"max_steps": 5, "logging_steps": 2}, [2, 4, 5]), ({"max_steps": -1, "num_train_epochs": 2}, [1, 2, 3, 4, 5, 6]),
])  # fmt: skip
def test_few_steps_and_the_last_interval_are_logged(options: dict[str, Any], logged: list[int], tmp_path: Path) -> None:
    trained(tmp_path, tiny_model(), **options)
    assert steps(objects(tmp_path)) == logged


def test_scale_gradient_divides_by_beta_and_the_slope_at_0(tmp_path: Path) -> None:
    # At step 0 the scaled gradient of every loss is that of -rho: d/d rho [f(beta rho) / (beta |f'(0)|)] = -1.
    found = []
    for run, (loss, beta) in enumerate([("logistic", 0.1), ("squared", 2.0), ("1-x", 1.0)]):
        trained(tmp_path, tiny_model(dtype=torch.float64), run=str(run), loss=loss, beta=beta, scale_gradient=True,
                per_device_train_batch_size=11)  # fmt: skip
        found += objects(tmp_path, str(run))
    assert [each["loss"] for each in found] == pytest.approx([math.log(2), 1.0, 1.0])  # of f itself
    assert [each["grad_norm"] for each in found] == pytest.approx([found[0]["grad_norm"]] * 3, rel=1e-6)


def test_only_the_last_layers_move_and_nothing_below_takes_part_in_backward(tmp_path: Path) -> None:
    model = tiny_model(num_hidden_layers=4)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    graph: list[bool] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, inputs, output: graph.append(output.requires_grad))
    made = trainer(tmp_path, model, train_last_layers=2, max_steps=2)
    graph.clear()
    made.train()
    assert graph == [False, False, True, True] * 2
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(("model.layers.2.", "model.layers.3.", "model.norm."))}
    with pytest.raises(InputError, match="train_last_layers=5, but the model has 4 layers"):
        trainer(tmp_path, tiny_model(num_hidden_layers=4), train_last_layers=5)


@pytest.mark.parametrize("family", ["gpt2", "opt", "qwen3"])
def test_last_layers_of_other_families(family: str, tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny_model(family), train_last_layers=1)
    moved = {name for name, value in made.model.named_parameters() if value.requires_grad}
    assert all(".1." in name or "norm" in name or "ln_f" in name for name in moved)
    assert any("final" in name or "ln_f" in name or name == "model.norm.weight" for name in moved)


def test_an_adapter_trains_alone_and_its_base_is_the_reference(tmp_path: Path) -> None:
    base = tiny_model()
    before = copy.deepcopy(base.state_dict())
    made = trained(tmp_path, base, lora_rank=2, max_steps=4)
    moved = {name for name, value in made.model.named_parameters() if value.requires_grad}
    assert moved
    assert all("lora_" in name for name in moved)
    plain = made.model.unload()
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert objects(tmp_path)[-1]["margin"] > 0.01
    # The same file serves training with and without the adapter: its key is the base model's.
    trainer(tmp_path, tiny_model(), run="plain")
    assert len(list((tmp_path / "references").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"lora_rank": 2}])
def test_a_clean_resume_is_bitwise_equal(options: dict[str, Any], tmp_path: Path) -> None:
    settings = {"max_steps": 6, "per_device_train_batch_size": 2, "logging_steps": 2, **options}
    straight = trained(tmp_path, tiny_model(), run="straight", **settings)
    saving = {"run": "broken", "save_strategy": "steps", "save_steps": 3, **settings}
    trained(tmp_path, tiny_model(), **saving)
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "half')  # what a crash may leave
    resumed = trained(tmp_path, tiny_model(), resume=str(tmp_path / "broken" / "checkpoint-3"), **saving)
    assert torch.equal(weights(resumed.model), weights(straight.model))
    once, twice = objects(tmp_path, "straight"), objects(tmp_path, "broken")
    assert steps(twice) == [2, 4, 6]
    assert untimed(twice) == untimed(once)  # step 4's interval was cut by the checkpoint at 3
    times = [found["cpu_seconds"] for found in twice]
    assert times == sorted(times)


def test_the_same_seed_twice_is_bitwise_equal_and_another_is_not(tmp_path: Path) -> None:
    found = [weights(trained(tmp_path, tiny_model(), max_steps=2, seed=seed).model) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def events(folder: Path, run: str = "run") -> list[dict[str, Any]]:
    return objects(folder, run, "events")


def steps(rows: list[dict[str, Any]]) -> list[int]:
    return [row["step"] for row in rows]


def moments(made: GPOTrainer) -> list[torch.Tensor]:
    return [value.clone() for state in made.optimizer.state_dict()["state"].values() for value in state.values() if isinstance(value, torch.Tensor)]


class Spoiled(TrainerCallback):
    """Weights, moments and rows around each step, of which some get a gradient that is not finite."""

    def __init__(self, made: GPOTrainer, steps: tuple[int, ...] = (), value: float = math.inf, step: int = 1) -> None:
        self.weights, self.moments, self.rows = [weights(made.model)], [], {}
        self.made, self.step, compute = made, step, made.compute_loss

        def watched(model: Any, inputs: dict[str, torch.Tensor], *rest: Any, **named: Any) -> torch.Tensor:
            self.rows[self.step] = self.rows.get(self.step, []) + inputs["row"].tolist()
            return compute(model, inputs, *rest, **named)

        made.compute_loss = watched
        next(made.model.parameters()).register_hook(lambda each: each * value if self.step in steps else each)
        made.add_callback(self)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step += 1
        self.weights.append(weights(self.made.model))
        self.moments.append(moments(self.made))


def test_spec_11_three_losses_that_are_not_finite_stop_the_run_with_the_batch(tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny_model(), max_steps=5, save_strategy="steps", save_steps=1)
    made.train_dataset.reference[:, 0] = math.nan
    watch, before = Spoiled(made), weights(made.model)
    with pytest.raises(NonFiniteLoss, match="not finite: loss"):
        made.train()
    assert objects(tmp_path) == []
    assert made.state.log_history == []
    assert torch.equal(weights(made.model), before)
    # The steps that came to nothing are saved as what they are: the weights as they were.
    for step in (1, 2):
        saved = load_file(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors")
        assert all(torch.equal(value, made.model.state_dict()[name]) for name, value in saved.items())
    assert steps(events(tmp_path)) == [1, 2, 3]
    batch = json.loads((tmp_path / "run" / "non_finite_batch.json").read_text())
    assert batch["step"] == 3
    assert [pair["row"] for pair in batch["pairs"]] == watch.rows[3]
    for pair in batch["pairs"]:
        assert (pair["loss"], pair["reference"][0]) == ("nan", "nan")
        assert tuple(pair["chosen"]) == PAIRS[pair["row"]].chosen


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_spec_11_a_loss_that_is_not_finite_is_not_applied_not_averaged_and_said(
    value: float, pieces: int, tmp_path: Path
) -> None:
    # Row 10 is in the second of the epoch's three steps, which have 4, 4 and 3 pairs.
    made, watch = spoiled_row(tmp_path, value, pieces, 1)
    output = made.train()
    (found,) = events(tmp_path, "every-1")
    assert (found["step"], found["rows"]) == (2, watch.rows[2])
    assert found["rows_with_loss_not_finite"] == [10]
    assert {"loss", "margin"} <= {*found["quantities"]}
    assert torch.equal(watch.weights[2], watch.weights[1])
    assert all(map(torch.equal, watch.moments[1], watch.moments[0]))
    assert not torch.equal(watch.weights[1], watch.weights[0])
    assert not torch.equal(watch.weights[3], watch.weights[2])
    assert {float(state["step"]) for state in made.optimizer.state_dict()["state"].values()} == {2.0}
    first, last = objects(tmp_path, "every-1")
    assert (first["step"], last["step"]) == (1, 3)
    assert output.training_loss == pytest.approx((first["loss"] + last["loss"]) / 2, rel=1e-5)
    spoiled_row(tmp_path, value, pieces, 3)[0].train()
    (whole,) = objects(tmp_path, "every-3")
    assert whole["loss"] == pytest.approx((4 * first["loss"] + 3 * last["loss"]) / 7, rel=1e-12)
    assert whole["grad_norm"] == pytest.approx((first["grad_norm"] + last["grad_norm"]) / 2, rel=1e-12)
    assert whole["tokens"] == sum(PAIRS[row].size for row in watch.rows[1] + watch.rows[3])


def spoiled_row(tmp_path: Path, value: float, pieces: int, interval: int) -> tuple[GPOTrainer, Spoiled]:
    made = trainer(tmp_path, tiny_model(), run=f"every-{interval}", max_steps=3, learning_rate=1e-2, loss="squared",
                   gradient_accumulation_steps=pieces, per_device_train_batch_size=4 // pieces,
                   logging_steps=interval)  # fmt: skip
    made.train_dataset.reference[10, 0] = value
    return made, Spoiled(made)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_spec_12_a_gradient_that_is_not_finite_is_the_same(value: float, tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny_model(), max_steps=4, save_strategy="steps", save_steps=4)
    watch = Spoiled(made, (2, 3), value)
    made.train()
    assert [(found["step"], found["quantities"], found["rows"], found["rows_with_loss_not_finite"])
            for found in events(tmp_path)] == [(step, ["gradient"], watch.rows[step], []) for step in (2, 3)]  # fmt: skip
    assert torch.equal(watch.weights[1], watch.weights[3])
    assert all(map(torch.equal, watch.moments[0], watch.moments[2]))
    assert not torch.equal(watch.weights[4], watch.weights[3])
    assert steps(objects(tmp_path)) == [1, 4]  # nothing is said of steps 2 and 3 but the event
    assert all(math.isfinite(value) for found in objects(tmp_path) for value in found.values())


def test_spec_11_after_three_in_a_row_the_device_applies_none_until_the_host_hears_of_it(tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny_model(), max_steps=8, logging_steps=8)
    watch = Spoiled(made, (2, 4, 5, 6))
    with pytest.raises(NonFiniteLoss, match="not finite: gradient, the third step in a row"):
        made.train()
    assert steps(events(tmp_path)) == [2, 4, 5, 6]
    assert not torch.equal(watch.weights[3], watch.weights[1])
    assert torch.equal(watch.weights[8], watch.weights[3])
    assert json.loads((tmp_path / "run" / "non_finite_batch.json").read_text())["step"] == 6


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adafactor"])
def test_spec_11_an_optimizer_that_is_not_fused_applies_it_neither(optimizer: str, tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny_model(), max_steps=3, optim=optimizer)
    watch = Spoiled(made, (2,))
    made.train()
    assert torch.equal(watch.weights[2], watch.weights[1])
    assert not torch.equal(watch.weights[1], watch.weights[0])
    assert not torch.equal(watch.weights[3], watch.weights[2])
    assert steps(events(tmp_path)) == [2]


WAITED_FOR = ("_local_scalar_dense", "nonzero", "masked_select", "equal")


class Waits(TorchDispatchMode):
    """Counts by step what makes the host wait for a device, once a step's batches are drawn."""

    def __init__(self, made: GPOTrainer) -> None:
        super().__init__()
        self.count, self.on, self.values = [0], False, _Values(self)
        draw, finish = made.get_batch_samples, made._finalize_training

        def drawn(*arguments: Any) -> Any:
            self.on = False
            self.count.append(0)
            batches = draw(*arguments)
            self.on = True
            return batches

        def finished(*arguments: Any) -> Any:
            self.on = False
            return finish(*arguments)

        made.get_batch_samples, made._finalize_training = drawn, finished

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count[-1] += self.on and function.overloadpacket.__name__ in WAITED_FOR
        return function(*arguments, **(named or {}))


class _Values(TorchFunctionMode):
    """What torch reads without a call of an operation: the values of a whole tensor."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.waits.count[-1] += self.waits.on and getattr(function, "__name__", "") in ("tolist", "cpu", "numpy")
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize(("optimizer", "fused"), [("adamw_torch_fused", True), ("adamw_torch", False)])
def test_the_host_waits_for_the_device_once_a_logging_interval(optimizer: str, fused: bool, tmp_path: Path) -> None:
    """With an optimizer that is not fused, it waits at each step: which shows that the count sees it."""
    made = trainer(tmp_path, tiny_model(), max_steps=6, logging_steps=3, optim=optimizer, gradient_accumulation_steps=2)
    made.plan, made.data_collator = Plan("rows"), Collator("rows")  # as on a device; "line" is for the CPU
    waits = Waits(made)
    with waits, waits.values:
        made.train()
    assert len(objects(tmp_path)) == 2
    assert waits.count[1:] == [0, 0, 1, 0, 0, 1] if fused else min(waits.count[1:]) >= 1


def test_spec_11_a_resume_goes_on_counting(tmp_path: Path) -> None:
    """Two steps that come to nothing, a resume, and the third: the run ends as the straight one does."""
    for run, resume in (("straight", None), ("broken", None), ("broken", True)):
        made = trainer(tmp_path, tiny_model(), run=run, max_steps=5, logging_steps=5, save_strategy="steps",
                       save_steps=1)  # fmt: skip
        Spoiled(made, (2, 3, 4), step=4 if resume else 1)
        with pytest.raises(NonFiniteLoss):
            made.train(resume_from_checkpoint=resume)
    assert made.state.global_step == 4  # the save heard of it
    assert events(tmp_path, "straight") == events(tmp_path, "broken")


SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """The folder of a run of four steps with checkpoints at 2 and 4, and its last weights."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, weights(trained(folder, tiny_model(), **SAVING).model)


@pytest.fixture
def done(finished: tuple[Path, torch.Tensor], tmp_path: Path) -> Path:
    """A copy of that run."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), [
    ("learning_rate", {"learning_rate": 2e-3}), ("loss", {"loss": "hinge"}), ("beta", {"beta": 0.2}), ("data", {}),
    ("world_size", {}), ("reference_weights", {}),
])  # fmt: skip
def test_spec_08_a_changed_run_is_refused_by_name_unless_allowed(name: str, change: dict[str, Any], done: Path) -> None:
    pairs = PAIRS[1:] + PAIRS[:1] if name == "data" else PAIRS
    changed = trainer(done, tiny_model(), pairs, **SAVING, **change)
    if name == "reference_weights":
        changed.reference_weights = "another"
    if name == "world_size":
        changed._record = lambda record=changed._record: record() | {"world_size": 2}
    before = weights(changed.model)
    where = str(done / "run" / "checkpoint-2")
    with pytest.raises(InputError, match=rf"checkpoint-2 is of another run: {name}: .* -> [^;]*$"):
        changed.train(resume_from_checkpoint=where)
    assert torch.equal(weights(changed.model), before)
    changed.train(resume_from_checkpoint=where, allow_changes=[name])
    (found,) = events(done)
    assert (found["step"], list(found["changes"])) == (2, [name])
    assert steps(objects(done)) == [1, 2, 3, 4]
    if name == "learning_rate":  # linear to zero over four steps, at the new height: it is really used
        assert [entry["learning_rate"] for entry in objects(done)] == pytest.approx([1e-3, 0.75e-3, 1e-3, 0.5e-3])
    with pytest.raises(InputError, match="'learning_rat' may change, but is no setting of a run; did you mean"):
        changed.train(resume_from_checkpoint=where, allow_changes=["learning_rat"])


def test_spec_08_a_setting_that_is_gone_counts_if_it_had_an_effect(tmp_path: Path) -> None:
    """A checkpoint of a version that had compile_mlp: off, it resumes; on, it is refused unless that is allowed."""
    where = str(tmp_path / "run" / "checkpoint-2")
    for was_on in (False, True):
        old = trainer(tmp_path, tiny_model(), **SAVING)
        old._record = lambda record=old._record, was_on=was_on: record() | {"compile_mlp": was_on}
        old.train()
        again = trainer(tmp_path, tiny_model(), **SAVING)
        if was_on:
            with pytest.raises(InputError, match=r"checkpoint-2 is of another run: compile_mlp: True -> None$"):
                again.train(resume_from_checkpoint=where)
        again.train(resume_from_checkpoint=where, allow_changes=["compile_mlp"] if was_on else [])
        assert (tmp_path / "run" / "events.jsonl").exists() == was_on
        assert steps(objects(tmp_path)) == [1, 2, 3, 4]
        assert torch.equal(weights(again.model), weights(old.model))
    assert [found["changes"] for found in events(tmp_path)] == [{"compile_mlp": [True, None]}]


@pytest.mark.parametrize(("setting", "model", "reason"), [
    ({"max_steps": 1}, tiny_model(), r"checkpoint-2 is of step 2, and the run would end at step 1: it cannot go back"),
    ({"max_steps": -1, "num_train_epochs": 0.2}, tiny_model(), r"checkpoint-2 is of step 2, and the run would end at step 1"),
    ({"train_last_layers": 1}, tiny_model(), r"checkpoint-2 is of a run that trained \d+ parameters, and this one trains \d+: that cannot"),
    ({}, tiny_model().requires_grad_(False), r"checkpoint-2 is of a run that trained \d+ parameters, and this one trains 2: that cannot"),
])  # fmt: skip
def test_what_cannot_change_even_if_it_is_allowed(setting: Any, model: Any, reason: str, finished: Any, done: Path) -> None:
    if not setting:
        model.model.norm.requires_grad_()
        model.lm_head.requires_grad_()
    changed = trainer(done, model, **{**SAVING, **setting})
    where = str(done / "run" / "checkpoint-2")
    with pytest.raises(InputError, match=reason):
        changed.train(resume_from_checkpoint=where, allow_changes=[*setting])
    again = trained(done, tiny_model(), resume=where, **SAVING)
    assert torch.equal(weights(again.model), finished[1])
    assert not (done / "run" / "events.jsonl").exists()


@pytest.mark.parametrize("optim", ["sgd", "adafactor", "rmsprop", "adagrad"])
def test_another_optimizer_starts_without_the_moments_of_the_first(optim: str, done: Path) -> None:
    changed = trainer(done, tiny_model(), **SAVING, optim=optim)
    where = done / "run" / "checkpoint-2"
    changed.train(resume_from_checkpoint=str(where), allow_changes=["optim"])
    assert steps(objects(done)) == [1, 2, 3, 4]
    if optim == "sgd":  # a step of it by hand
        start = load_file(where / "model.safetensors")
        moved = {name: value - start[name] for name, value in changed.model.state_dict().items()}
        assert not any("exp_avg" in state for state in changed.optimizer.state.values())
        assert 0 < max(float(value.abs().max()) for value in moved.values()) < 2e-3


def test_spec_08_every_changed_key_is_named(done: Path) -> None:
    changed = trainer(done, tiny_model(), PAIRS[1:], loss="hinge", learning_rate=1.0, **SAVING)
    with pytest.raises(InputError, match=r"data: .*; learning_rate: 0.001 -> 1.0; loss: 'logistic' -> 'hinge'$"):
        changed.train(resume_from_checkpoint=True)
    with pytest.raises(InputError, match=r"another run: data: .*; loss: "):
        changed.train(resume_from_checkpoint=True, allow_changes=["learning_rate"])


def test_spec_04_no_whole_checkpoint_is_an_error_and_nothing_is_loaded(done: Path) -> None:
    for step in (2, 4):
        path = done / "run" / f"checkpoint-{step}" / "resume.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    made = trainer(done, tiny_model(seed=3), **SAVING)
    before = weights(made.model)
    with pytest.raises(NoGoodCheckpoint, match="none of the 2 checkpoints"):
        made.train(resume_from_checkpoint=True)
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint-2 is damaged: 'resume.safetensors' is not what was saved"):
        made.train(resume_from_checkpoint=str(done / "run" / "checkpoint-2"))
    assert torch.equal(weights(made.model), before)


def test_spec_07_two_trainers_on_one_folder(tmp_path: Path) -> None:
    first, second = (trainer(tmp_path, tiny_model()) for _ in range(2))
    with first.writing():
        with pytest.raises(FolderInUse):
            second.train()
        first.train()
    second.train()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.jsonl", "run.json"]


def test_a_model_saved_alone_cannot_be_resumed(tmp_path: Path) -> None:
    made = trained(tmp_path, tiny_model(), save_only_model=True, **SAVING)
    with pytest.raises(InputError, match=r"checkpoint-4 was saved without resume.json"):
        made.train(resume_from_checkpoint=True)


def test_a_resume_behind_the_last_step_takes_no_step_more(done: Path, finished: tuple[Path, torch.Tensor]) -> None:
    again = trainer(done, tiny_model(), **SAVING)
    assert again.train(resume_from_checkpoint=True).global_step == 4
    assert torch.equal(weights(again.model), finished[1])


def test_weights_of_another_model_are_refused(done: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"weights are not this model's: model\.layers\.2"):
        trained(done, tiny_model(num_hidden_layers=3), resume=True, allow=["reference_weights"], **SAVING)


def test_evaluation_and_workers_that_pack_ahead_change_nothing_of_the_training(tmp_path: Path) -> None:
    options = ({}, {"eval_strategy": "steps", "eval_steps": 1}, {"dataloader_num_workers": 2})
    runs = [trained(tmp_path, tiny_model(), max_steps=3, eval_dataset=PAIRS[:3], **each) for each in options]
    plain, evaluated, packed = runs
    assert torch.equal(weights(evaluated.model), weights(plain.model))
    assert torch.equal(weights(packed.model), weights(plain.model))
    logged = [entry for entry in evaluated.state.log_history if "eval_loss" in entry]
    assert len(logged) == 3
    assert logged[-1]["eval_margin"] > 0


def test_bfloat16_training_keeps_float32_weights(tmp_path: Path) -> None:
    made = trained(tmp_path, tiny_model(spread=0.05), bf16=True, max_steps=3)
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}
    first, *_, last = objects(tmp_path)
    assert first["loss"] == pytest.approx(math.log(2), abs=0.02)  # policy and reference may lie in other rows
    assert last["loss"] < first["loss"]


def test_half_precision_tells_its_noise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, tiny_model(), run="exact")
    assert "half precision" not in caplog.text
    made = trainer(tmp_path, tiny_model(), bf16=True)
    said = re.search(r"up to (\S+) nats \(root mean square (\S+)\) for the first 4 pairs", caplog.text)
    assert said
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        policy = response_log_probabilities(made.model, pack(PAIRS[:4], "line"))
    ratios = policy - made.train_dataset.reference[:4]
    rho = ratios[:, 0] - ratios[:, 1]
    assert [float(each) for each in said.groups()] == pytest.approx(
        [float(rho.abs().max()), float(rho.square().mean().sqrt())], rel=0.06)  # fmt: skip
    assert 0 < float(said[1]) < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_which_small_steps_are_lost_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(InputError, match=f"the weights to be trained are {name}, in which small steps are lost: load the"):
        trainer(tmp_path, tiny_model().to(dtype))


def test_a_frozen_base_may_be_of_half_precision(tmp_path: Path) -> None:
    made = trained(tmp_path, tiny_model(dtype=torch.bfloat16), lora_rank=2)
    assert {each.dtype for each in made.model.parameters() if each.requires_grad} == {torch.float32}


def test_several_devices_without_a_launcher_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GPOConfig, "n_gpu", property(lambda self: 2))
    with pytest.raises(InputError, match=r"2 devices are visible without a launcher, which would run nn\.DataParallel"):
        GPOConfig(output_dir=str(tmp_path), use_cpu=True)


def test_samples_of_a_sharded_policy_are_refused() -> None:
    with pytest.raises(InputError, match="sample_every needs a whole policy on each device, and FSDP shards it"):
        LiveEvaluation(SimpleNamespace(args=None, is_fsdp_enabled=True))


def test_gradient_checkpointing_trains_the_same(tmp_path: Path) -> None:
    found = [weights(trained(tmp_path, tiny_model(dtype=torch.float64), max_steps=2, activation_checkpointing=on).model)
             for on in (False, True)]  # fmt: skip
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "opt", "mistral"])
def test_other_families_train(family: str, tmp_path: Path) -> None:
    trained(tmp_path, tiny_model(family), max_steps=8, beta=0.5)
    assert objects(tmp_path)[-1]["margin"] > 0


def test_a_windowed_model_falls_back_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = trainer(tmp_path, tiny_model("mistral", sliding_window=4))
    assert made.plan.layout == "apart"
    assert "prefixes are not shared: its attention looks back 4 tokens" in caplog.text
    assert step0(made) == pytest.approx(math.log(2), abs=1e-4)


def test_text_rows_need_a_tokenizer_and_skipped_rows_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "the", "chosen": " cat", "rejected": " dog"}, {"prompt": "the", "chosen": " cat"}]
    with pytest.raises(InputError, match="processing_class must be its tokenizer"):
        trainer(tmp_path, tiny_model(), rows, bad_rows="skip")
    made = trainer(tmp_path, tiny_model(), rows, bad_rows="skip", processing_class=tiny_tokenizer())
    assert made.summaries["train"].kept == 1
    assert "1 of 2 pairs, 1 skipped (key 'rejected' is missing" in caplog.text


@pytest.mark.parametrize(("model", "reason"), [
    ({"max_position_embeddings": 8}, "the model 8 positions: lower max_length"),
    ({"vocab_size": 12}, "the model knows 12: is this its tokenizer"),
])  # fmt: skip
def test_a_model_that_cannot_take_the_data(model: dict[str, int], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        trainer(tmp_path, tiny_model(**model))


def test_arguments_must_be_gpo_s() -> None:
    with pytest.raises(InputError, match="args must be a GPOConfig, not dict"):
        GPOTrainer(tiny_model(), {}, PAIRS)


def test_the_order_of_pairs_does_not_depend_on_what_was_computed_before(tmp_path: Path) -> None:
    for run in ("first", "second"):  # the second run reads its reference from the store
        random.seed(run)
        trained(tmp_path, tiny_model(), run=run, max_steps=3)
    assert untimed(objects(tmp_path, "first")) == untimed(objects(tmp_path, "second"))


def test_a_reference_may_be_a_folder(tmp_path: Path) -> None:
    other = tiny_model(seed=5)
    other.save_pretrained(tmp_path / "other")
    one, two = (trainer(tmp_path, tiny_model(), reference=each) for each in (str(tmp_path / "other"), other))
    assert torch.equal(one.train_dataset.reference, two.train_dataset.reference)
    assert one.reference_weights == two.reference_weights


def test_a_resume_that_is_refused_leaves_the_record_of_the_run(done: Path) -> None:
    record = (done / "run" / "run.json").read_bytes()
    for error, model, changed in ((DamagedCheckpoint, tiny_model(num_hidden_layers=3), {}), (InputError, tiny_model(), {"train_last_layers": 1})):
        with pytest.raises(error):
            trained(done, model, resume=True, allow=["reference_weights", "max_steps", *changed], **{**SAVING, "max_steps": 9, **changed})
        assert (done / "run" / "run.json").read_bytes() == record
