"""GPOConfig: what it takes, what it refuses, and that it says why."""

import copy
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from gpo_full.config import GPOConfig
from gpo_theory import InputError, to_torch


def config(path: Path, **options: Any) -> GPOConfig:
    return GPOConfig(output_dir=str(path / "run"), use_cpu=True, **options)


def test_defaults(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert (made.loss, made.beta, made.margin, made.label_noise, made.bad_rows) == ("logistic", 0.1, "sum", 0.0, "fail")
    assert (made.max_length, made.max_prompt_length) == (1024, 512)
    assert made.remove_unused_columns is False
    assert made.logging_nan_inf_filter is False
    assert made.optimised_loss().name == "logistic"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("loss", "margin"), [("trl-ipo", "mean"), ("ipo_tau", "sum"), ("dpo", "sum")])
def test_a_name_that_fixes_the_aggregation_sets_it(loss: str, margin: str, tmp_path: Path) -> None:
    assert config(tmp_path, loss=loss).margin == margin
    assert config(tmp_path, loss=loss, margin="mean").margin == "mean"


# f'(0), or the slopes on both sides of 0, by hand.
REFUSED = {"log(1+exp(x))": "f'(0) = 1/2 > 0", "max(0, 1+x)": "f'(0) = 1 > 0", "sinh(x)": "f'(0) = 1 > 0", "3": "f'(0) = 0 >= 0", "x**4": "f'(0) = 0 >= 0",
           "cosh(x)": "f'(0) = 0 >= 0", "log(1+x^2)": "f'(0) = 0 >= 0", "max(0, -x)**2": "f'(0) = 0 >= 0", "where(x < 0, 2, 1)": "f'(0) = 0 >= 0",
           "max(x, 2*x)": "f' = 1 and 2 on the sides of 0 > 0", "max(0, 3*x)": "f' = 0 and 3 on the sides of 0 >= 0"}  # fmt: skip
SAID = {"log(1+exp(-x))": None, "max(0, 2-x)": None, "max(-x, -3*x)": "f' = -3 and -1 on the sides of 0", "2*abs(x)": "f' = -2 and 2 on the sides of 0",
        "max(0, -x)": "f' = -1 and 0 on the sides of 0", "perceptron": "f' = -1 and 0 on the sides of 0", "psi_learning": "f' = 0 and -2 on the sides of 0",
        "discopop": "f'(0) = 17/4 - 5*log(2) > 0: it begins by making", "sqrt(x**2)*exp(-x)": "whether it falls at 0, where training starts, is not decided"}  # fmt: skip


@pytest.mark.parametrize("loss", REFUSED)
def test_a_loss_that_does_not_fall_at_0_is_refused(loss: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        config(tmp_path, loss=loss)
    assert str(caught.value).startswith(f"loss {loss} has {REFUSED[loss]}: it ")
    if "f'(0)" in REFUSED[loss]:  # (1-2e) f'(0) has its sign
        with pytest.raises(InputError, match=r"f'\(0\) = \S+ >"):
            config(tmp_path, loss=loss, label_noise=0.25)


@pytest.mark.parametrize("loss", SAID)
def test_a_kink_at_0_and_what_is_not_decided_are_said(loss: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config(tmp_path, loss=loss)
    said = [record.getMessage() for record in caplog.records if "of 0" in record.getMessage() or " at 0" in record.getMessage() or "f'(0)" in record.getMessage()]
    assert len(said) == (SAID[loss] is not None)
    assert all(f"loss {loss}" in text and str(SAID[loss]) in text for text in said)


# What the command line says of TRL's names; the others are refused (test_methods).
@pytest.mark.parametrize(("loss", "options", "said"), [
    ("sigmoid", {}, "convention: sigmoid is 1/(1+exp(x)), x = beta rho, rho summed over tokens; what TRL calls sigmoid is dpo here"),
    ("ipo", {}, "convention: ipo is (x-1)^2, x = beta rho, rho summed over tokens: (rho - 1/(2 tau))^2 with beta = 2 tau, up to scale"),
    ("ipo", {"margin": "mean"}, "convention: ipo is (x-1)^2, x = beta rho, rho averaged over tokens: (rho - 1/(2 tau))^2 with beta = 2 tau, up to scale"),
    ("trl-ipo", {}, "convention: trl-ipo is (x-1/2)^2, x = beta rho, rho averaged over tokens"),
    ("dpo", {}, None), ("hinge", {}, None), ("exo_pair", {}, None), ("discopop", {}, None),
])  # fmt: skip
def test_a_name_with_other_meanings_elsewhere_is_said(
    loss: str, options: dict[str, Any], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config(tmp_path, loss=loss, **options)
    found = [record.getMessage() for record in caplog.records if record.getMessage().startswith("convention: ")]
    assert found == ([] if said is None else [said])


@pytest.mark.parametrize(("loss", "reason"), [
    ("robust", "what TRL calls so is robust_dpo, with eps for label_smoothing"),
    ("sigmoid_norm", "what TRL calls so is dpo on the length-averaged margin"),
    ("nca_pair", "'nca_pair' is not of the form f(beta rho): absolute terms"),
    ("bco_pair", "'bco_pair' is not of the form f(beta rho): absolute terms"),
    ("apo_zero", "'apo_zero' is not of the form f(beta rho): absolute terms"),
    ("aot_unpaired", "'aot_unpaired' is not of the form f(beta rho): batch coupling"),
    ("sft", "'sft' is not of the form f(beta rho): no margin"),
    (["sigmoid"], "loss=['sigmoid']: loss must be a name or a formula"),
])  # fmt: skip
def test_a_name_of_trl_that_is_no_loss_here_is_refused(loss: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        config(tmp_path, loss=loss)
    assert reason in str(caught.value)


@pytest.mark.parametrize(("options", "reason"), [
    ({"group_by_prompt": True, "train_sampling_strategy": "sequential"}, "exclude each other"),
    ({"beta": 0}, "beta=0 must be a finite number above 0"),
    ({"beta": -0.1}, "beta=-0.1"),
    ({"beta": float("nan")}, "beta=nan"),
    ({"beta": float("inf")}, "beta=inf"),
    ({"beta": True}, "beta=True"),
    ({"beta": "0.1"}, "beta='0.1'"),
    ({"loss": "logstic"}, "did you mean 'logistic'"),
    ({"loss": "sigmoidal"}, "sigmoidal"),
    ({"loss": "log(x"}, "log(x"),
    ({"loss": "exp(-a*x)"}, "'a'"),
    ({"parameters": {"a": 1}}, "'a'"),
    ({"label_noise": 0.5}, "label_noise=0.5 must be at least 0 and below 1/2"),
    ({"label_noise": -0.1}, "label_noise=-0.1"),
    ({"margin": "average"}, "margin='average'; allowed: sum, mean"),
    ({"loss": "trl-ipo", "margin": "sum"}, "'trl-ipo' is a function of the length-averaged margin, and margin='sum' is "
                                           "given; on the summed margin its name is ipo_tau"),
    ({"loss": ["trl-ipo"]}, "loss must be a name or a formula"),
    ({"bad_rows": "ignore"}, "bad_rows='ignore'; allowed: fail, skip"),
    ({"max_length": 1}, "leaves no token"),
    ({"max_length": 100, "max_prompt_length": 100}, "leaves no token"),
    ({"max_length": 10.5}, "max_length=10.5 must be a whole number"),
    ({"max_length": None}, "max_length=None must be a whole number"), ({"max_steps": "2"}, "max_steps='2' must be a whole number"),
    ({"max_steps": 2.0}, "max_steps=2.0 must be a whole number"), ({"per_device_train_batch_size": None}, "per_device_train_batch_size=None must be"),
    ({"bf16": "false"}, "bf16='false' must be True or False"), ({"eval_on_start": 1}, "eval_on_start=1 must be True or False"),
    ({"seed": 2.0}, "seed=2.0 must be a whole number of at least 0"),
    ({"per_device_train_batch_size": 2.5}, "per_device_train_batch_size=2.5 must be a whole number of at least 1"),
    ({"train_last_layers": 0}, "train_last_layers=0"),
    ({"lora_rank": -1}, "lora_rank=-1"),
    ({"lora_rank": 4, "train_last_layers": 1}, "exclude each other"),
    ({"lr_scheduler_type": "sideways"}, "sideways"),
    ({"fsdp": True}, "fsdp=True is refused: 1 process(es) on cpu would run unsharded"),
])  # fmt: skip
def test_values_that_cannot_be_used(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        config(tmp_path, **options)
    assert reason in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_bfloat16_needs_no_accelerator(tmp_path: Path) -> None:
    made = GPOConfig(output_dir=str(tmp_path), bf16=True)
    assert made.bf16
    assert made.use_cpu is not torch.accelerator.is_available()


@pytest.mark.parametrize(("options", "steps"), [
    ({"max_steps": 1000}, 1), ({"max_steps": 1001}, 10), ({}, 10), ({"max_steps": 5, "logging_steps": 3}, 3),
])  # fmt: skip
def test_logging_rule(options: dict[str, Any], steps: int, tmp_path: Path) -> None:
    assert config(tmp_path, **options).logging_steps == steps


def test_parameters_are_exact(tmp_path: Path) -> None:
    loss = config(tmp_path, loss="focal", parameters={"gamma": 0.1}).optimised_loss()
    assert loss.parameters == {"gamma": Fraction(1, 10)}


def test_label_noise_is_a_transform_of_the_loss(tmp_path: Path) -> None:
    # (1 - e)(1 - x) + e (1 + x) = 1 - (1 - 2e) x
    x = torch.tensor([-2.0, 0.0, 3.0])
    noisy = to_torch(config(tmp_path, loss="1-x", label_noise=0.25).optimised_loss())
    torch.testing.assert_close(noisy(x), 1 - x / 2)


@pytest.mark.parametrize(("name", "said"), [("loss_type", "the loss is called loss"), ("label_smoothing", "is called label_noise"), ("lose", "did you mean 'loss'"),
                                            ("precompute_ref_log_probs", "always computed once"), ("rpo_alpha", "alone")])  # fmt: skip
def test_a_field_that_is_none_names_what_there_is(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"GPOConfig has no field '{name}'") as caught:
        GPOConfig(output_dir=str(tmp_path), **{name: 1})
    assert said in str(caught.value)


def test_a_configuration_can_be_copied(tmp_path: Path) -> None:
    made = GPOConfig(output_dir=str(tmp_path), beta=0.3, use_cpu=True)
    assert copy.deepcopy(made).beta == 0.3
