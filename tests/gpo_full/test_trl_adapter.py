"""Our f inside TRL 1.16's DPOTrainer: the logistic loss is TRL's own, other losses are theirs or our trainer's."""

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gpo_full.diagnosis.log import read_run
from gpo_full.trl_adapter import dpo_trainer
from gpo_theory import LOSSES, DomainError, InputError, parse
from tests.support.tiny_models import tiny_model, tiny_tokenizer

ROWS = [
    {"prompt": "the cat sat", "chosen": " on the mat", "rejected": " on a dog and ran"},
    {"prompt": "return the", "chosen": " sum of the values", "rejected": " list"},
    {"prompt": "the dog and the cat ran after", "chosen": " the cat", "rejected": " values in the list of the dog"},
]
BETA = 0.05
# What trl and datasets say on being imported and used, none of it about losses; dill, with which datasets fingerprints
# what it is given, names objects that it finds no other way to describe.
QUIET = [pytest.mark.filterwarnings(f"ignore:{warning}") for warning in (
    ":FutureWarning", ":DeprecationWarning", ":UserWarning", "Cannot (pickle|locate):Warning")]  # fmt: skip


def test_a_missing_or_another_trl_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(InputError, match=r"^trl is not installed: pip install 'trl==1\.16\.\*'$"):
        dpo_trainer("dpo")
    other = ModuleType("trl")
    other.__dict__["__version__"] = "1.17.0"
    monkeypatch.setitem(sys.modules, "trl", other)
    with pytest.raises(InputError, match=r"trl 1\.17\.0 is installed; this adapter knows 1\.16 only"):
        dpo_trainer("dpo")


def test_a_loss_that_is_not_one_is_refused_before_trl_is_asked_for() -> None:
    with pytest.raises(InputError, match="dpoo"):
        dpo_trainer("dpoo")
    with pytest.raises(DomainError, match="not defined on all of R"):
        dpo_trainer("log(x)")


class TestInsideTrl:
    """One model, one batch; whichever trainer is asked, the loss and its gradient."""

    pytestmark = [pytest.mark.slow, *QUIET]  # noqa: RUF012

    @pytest.fixture(scope="class")
    def trl(self) -> Any:
        return pytest.importorskip("trl", minversion="1.16", reason="trl 1.16 is a test oracle, not a dependency")

    def made(self, trl: Any, trainer: Any, folder: Path, reference: int = 2, beta: float = BETA, **options: Any) -> Any:
        from datasets import Dataset

        config = trl.DPOConfig(output_dir=str(folder), beta=beta, report_to="none", use_cpu=True, bf16=False,
                               per_device_train_batch_size=3, gradient_checkpointing=False, disable_tqdm=True,
                               remove_unused_columns=False, logging_steps=1, save_strategy="no", **options)  # fmt: skip
        return trainer(model=tiny_model(seed=1), ref_model=tiny_model(seed=reference), args=config,
                       train_dataset=Dataset.from_list(ROWS), processing_class=tiny_tokenizer())  # fmt: skip

    def measured(self, trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
        loss.backward()
        gradients = [parameter.grad.flatten() for parameter in trainer.model.parameters() if parameter.grad is not None]
        return loss.detach(), torch.cat(gradients)

    @pytest.mark.parametrize(("loss", "margin", "theirs", "constant"), [
        (LOSSES["logistic"], "sigmoid", "sigmoid", 1.0),
        ("dpo", "sigmoid_norm", "sigmoid_norm", 1.0),
        ("slic", "sigmoid", "hinge", 1.0),
        ("trl-ipo", "sigmoid_norm", "ipo", BETA**-2),  # (rho - 1/(2 beta))^2 = (x - 1/2)^2 / beta^2
    ])  # fmt: skip
    def test_loss_and_gradient_equal_trls_own(
        self, loss: Any, margin: str, theirs: str, constant: float, trl: Any, tmp_path: Path
    ) -> None:
        value, gradient = self.measured(self.made(trl, dpo_trainer(loss), tmp_path, loss_type=margin))
        expected, slope = self.measured(self.made(trl, trl.DPOTrainer, tmp_path, loss_type=theirs))
        torch.testing.assert_close(value * constant, expected, rtol=1e-6, atol=1e-6)
        assert float((gradient * constant - slope).norm() / slope.norm()) <= 1e-6
        assert float(slope.norm()) > 0

    def test_a_stored_reference_and_an_adapter_s_base_are_references_too(self, trl: Any, tmp_path: Path) -> None:
        from peft import LoraConfig

        stored = self.made(trl, dpo_trainer("slic"), tmp_path, precompute_ref_log_probs=True)
        live = self.made(trl, trl.DPOTrainer, tmp_path, loss_type="hinge")
        torch.testing.assert_close(self.measured(stored)[0], self.measured(live)[0], rtol=1e-6, atol=1e-6)
        config = trl.DPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, disable_tqdm=True,
                               gradient_checkpointing=False, remove_unused_columns=False)  # fmt: skip
        adapted = dpo_trainer("exp(-x)")(
            model=tiny_model(seed=1), args=config, train_dataset=live.train_dataset, processing_class=tiny_tokenizer(),
            peft_config=LoraConfig(r=2, task_type="CAUSAL_LM"))  # fmt: skip
        assert float(self.measured(adapted)[0]) == pytest.approx(1.0, abs=1e-4)

    def test_a_loss_that_trl_lacks_starts_at_f_of_0_and_trains(self, trl: Any, tmp_path: Path) -> None:
        trainer = self.made(trl, dpo_trainer("max(0, a-x)**2", {"a": "2"}), tmp_path, reference=1, max_steps=3, learning_rate=1e-3)
        trainer.train()
        logs = [log for log in trainer.state.log_history if "loss" in log]
        assert logs[0]["loss"] == pytest.approx(4.0, abs=1e-3)
        assert logs[-1]["loss"] < logs[0]["loss"]
        assert logs[-1]["rewards/margins"] > 0
        trainer.state.save_to_json(str(tmp_path / "trainer_state.json"))
        log = read_run(tmp_path)
        assert (log.source, len(log)) == ("trl", 3)
        assert {"margin", "accuracy", "log_ratio_chosen", "log_ratio_rejected", "grad_norm"} <= set(log.columns)

    def test_trl_itself_is_as_before(self, trl: Any, tmp_path: Path) -> None:
        functional = sys.modules[trl.DPOTrainer.__module__].__dict__["F"]
        dpo_trainer(parse("exp(-x)"))
        assert functional is torch.nn.functional
        assert sys.modules[trl.DPOTrainer.__module__].__dict__["F"] is functional
        value, _ = self.measured(self.made(trl, trl.DPOTrainer, tmp_path, reference=1))
        assert float(value) == pytest.approx(math.log(2), abs=1e-5)

    @pytest.mark.parametrize(("options", "message"), [
        ({"loss_type": "hinge"}, "f takes the place of 'sigmoid'"),
        ({"loss_type": ["sigmoid", "sft"]}, "alone"),
        ({"loss_type": "sigmoid", "loss_weights": [2.0]}, "alone"),
        ({"label_smoothing": 0.1}, "label_smoothing=0.1 would be ignored"),
        ({"f_divergence_type": "js_divergence"}, "rho is a log-ratio only"),
        ({"ld_alpha": 0.5}, "ld_alpha=0.5, use_weighting=False: both change rho"),
        ({"use_weighting": True}, "use_weighting=True: both change rho"),
        ({"beta": -0.1}, "must be a finite number above 0"),
    ])  # fmt: skip
    def test_what_would_change_f_or_be_ignored_is_refused(
        self, options: dict[str, Any], message: str, trl: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=message):
            self.made(trl, dpo_trainer("dpo"), tmp_path, **options)
