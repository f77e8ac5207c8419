"""GPO training: a thin subclass of `transformers.Trainer` around packed pairs, stored references and any loss f."""

__all__ = ["GPOTrainer", "ProgressLines", "settings"]

import json
import logging
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import TrainOutput

from gpo_full.attention.on_cuda import HALF
from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.checkpoints.atomic import Checkpoint, DamagedCheckpoint
from gpo_full.checkpoints.sharded import full_state_dict, is_sharded, load_model, sharded_copy
from gpo_full.checkpoints.state import random_state, set_random_state
from gpo_full.data.pairs import Pair, PairSummary
from gpo_full.data.pairs_on_disk import prompt_keys_of
from gpo_full.diagnosis.log import METER, RESUMED
from gpo_full.distributed import largest, stacked, summed, together
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import evaluating, plan
from gpo_full.engine.packing import Batch
from gpo_full.kernels.autocast import autocast_dtype
from gpo_full.reference.from_data import largest_difference, reference_from_data
from gpo_full.reference.store import ReferenceStore, open_store, weights_hash
from gpo_full.training import resumption
from gpo_full.training.config import GPOConfig
from gpo_full.training.distribution import check_asked, check_distribution, half_precision_in_layers_alone
from gpo_full.training.interruption import Interrupted, Interruption
from gpo_full.training.live_evaluation import LiveEvaluation
from gpo_full.training.model import check_sizes, loaded, prepared
from gpo_full.training.reporting.length_bias import length_metrics, length_sums
from gpo_full.training.reporting.metrics import Meter, pair_metrics
from gpo_full.training.reporting.progress_lines import ProgressLines
from gpo_full.training.reporting.run_folder import RunFolder
from gpo_full.training.reporting.trackers import follow
from gpo_full.training.resumption import settings
from gpo_full.training.rows import Collator, Rows, pairs_of, real_rows
from gpo_full.training.sampler import PromptSampler
from gpo_full.training.saving import save_together
from gpo_full.training.step_guard import Evaluated, StepGuard, skip_where
from gpo_theory import InputError, taylor, to_torch

_log = logging.getLogger(__name__)
# Nats per token: further apart than one model's log-probabilities in two precisions.
ANOTHER = 0.1
# What the collator's dictionary holds of a Batch.
BATCH = [each.name for each in fields(Batch) if each.name != "layout"]


class GPOTrainer(Trainer):  # type: ignore[misc]
    """Minimise the mean of f(beta rho) over preference pairs, or of w (p f(beta rho) + (1-p) f(-beta rho)).

    The latter for pairs with a weight w, or a probability p of their label, that is not 1.
    `train_dataset` and `eval_dataset` are what `read_pairs` takes, or sequences of `Pair`; a file is
    read through `pair_table`, and its pairs stay on disk. `model` is a causal language
    model or the name of one, loaded in float32. The reference is `reference`, or else the model as it is handed in,
    before anything is trained; with LoRA, the model with its adapter off. Its log-probabilities are computed, or read
    from `args.reference_store`, when the trainer is made, unless the pairs bring them; no second model is kept
    (with `args.sample_every`, a copy of the parameters that are trained).

    Each forward pass goes through the wrapped model, so that autocast, DDP and gradient checkpointing act as in any
    Trainer. `output_dir/metrics.jsonl` gets one object per logging interval, and `run.json` the settings.

    A step whose loss, metrics or gradient are not finite is not applied: weights and optimizer stay as they are, its
    pairs enter no mean, and `events.jsonl` gets the step and its rows (indices into the pairs that were kept). The
    third in a row raises NonFiniteLoss, with the batch in `non_finite_batch.json`. All of this is decided on the
    device; the host waits for it once a logging interval (and once a step with an optimizer that is not fused).
    SIGTERM and SIGINT finish the step,
    save a checkpoint and raise Interrupted. Checkpoints are `gpo_full.checkpoints.atomic`'s.
    """

    # The loss is divided by the pairs of the whole accumulated batch here, so that uneven micro-batches weigh right.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module | str,
        args: GPOConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reference: nn.Module | None = None,
        **others: Any,
    ) -> None:
        if not isinstance(args, GPOConfig):
            raise InputError(f"args must be a GPOConfig, not {type(args).__name__}")
        self.meter = Meter(args.device)
        self.loss = args.objective()
        self.f = to_torch(self.loss)
        self.slope_at_zero, self.curvature_at_zero = _at_zero(self.loss)
        self.scale = _gradient_scale(args, self.slope_at_zero)
        given = {"train": train_dataset} if eval_dataset is None else {"train": train_dataset, "eval": eval_dataset}
        sets = {name: pairs_of(name, data, processing_class, args) for name, data in given.items()}
        self.summaries: dict[str, PairSummary] = {name: summary for name, (_, summary) in sets.items() if summary}
        rows = {name: Rows(pairs) for name, (pairs, _) in sets.items()}
        model = prepared(loaded(model) if isinstance(model, str) else model, args)
        super().__init__(model=model, args=args, data_collator=Collator("rows"), train_dataset=rows["train"],
                         eval_dataset=rows.get("eval"), processing_class=processing_class, **others)  # fmt: skip
        check_asked(self.accelerator, args)
        half_precision_in_layers_alone(self.accelerator)
        longest = check_sizes(self.model, [each.pairs for each in rows.values()])
        self.plan = plan(self.model, longest, self.accelerator.autocast)
        for reason in self.plan.reasons:
            _log.warning("%s: %s", type(self.model).__name__, reason)
        self.data_collator = Collator(self.plan.layout)
        self._refer([*rows.values()], reference, longest)
        if reference is None and self.accelerator.is_main_process and not self.is_fsdp_enabled:
            self._say_noise()
        self._checkpoint: Checkpoint | None = None
        self._changes: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}  # what else run.json is to record
        self._is_writing = False
        patience = timedelta(seconds=args.ddp_timeout)
        self._interruption = Interruption(lambda number: largest(self.accelerator, number, patience))
        self._guard = StepGuard(self.accelerator)
        self._micro_batches: list[Evaluated] = []
        self.add_callback(self._interruption)
        self.add_callback(_Logging(self))
        follow(self)
        if args.sample_every is not None:
            self.add_callback(LiveEvaluation(self, reference))

    def _refer(self, sets: list[Rows], reference: nn.Module | None, longest: int) -> None:
        """Attach the reference's log-probabilities to every pair; the ranks share the pass."""
        model = self.model if reference is None else reference
        layout = self.plan if reference is None else plan(model, longest, self.accelerator.autocast)
        self.reference_weights = weights_hash(model)
        if self.is_fsdp_enabled and reference is None:
            # The Trainer shards its own only when training begins; whole, it may be too large for a device.
            model = sharded_copy(model, self.accelerator)
        else:
            model = model.to(self.args.device)

        def store(pairs: Sequence[Pair]) -> ReferenceStore:
            return open_store(model, pairs, self.args.store_folder(), plan=layout, weights=self.reference_weights,
                              autocast=self.accelerator.autocast, accelerator=self.accelerator)  # fmt: skip

        for rows in sets:
            given = reference_from_data(rows.pairs, self.args.margin)
            if given is None:
                rows.reference = store(rows.pairs).response_log_probabilities(rows.pairs, self.args.margin)
            elif reference is not None:
                raise InputError("the data brings the reference's log-probabilities, and reference is given: "
                                 "choose one")  # fmt: skip
            else:
                some = [rows.pairs[at] for at in sorted({0, len(rows) // 2, len(rows) - 1})]
                _say_if_another(largest_difference(store(some), some))
                rows.reference = given.to(torch.promote_types(self.model.dtype, torch.float32))

    def _say_noise(self) -> None:
        """Tell how far from 0 rho is before training, where policy and reference are computed in half precision.

        They are one model then, but the reference pass packs other pairs together than a step does. Not under FSDP: no
        device has the whole model yet.
        """
        first_ones = range(min(len(self.train_dataset), self.args.per_device_train_batch_size))
        rows = [self.train_dataset[i] for i in first_ones]
        with evaluating(self.model), self.accelerator.autocast():
            if autocast_dtype(next(self.model.parameters())) not in HALF or rows[0][1].reference_log_probabilities:
                return
            inputs = {name: value.to(self.args.device) if isinstance(value, Tensor) else value
                      for name, value in self.data_collator(rows).items()}  # fmt: skip
            log_ratios = self._log_ratios(self.model, self._batch(inputs), inputs["reference"])
        rho = log_ratios[:, 0] - log_ratios[:, 1]
        _log.warning("half precision: rho is 0 before training, and is computed as up to %.2g nats (root mean square "
                     "%.2g) for the first %d pairs", rho.abs().max(), rho.square().mean().sqrt(), len(rho))  # fmt: skip

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        if not self.args.group_by_prompt:
            drawn: torch.utils.data.Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return drawn
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return PromptSampler(prompt_keys_of(self.train_dataset.pairs), seed)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | int | None]:
        """Draw the micro-batches of a step and count their pairs, over all ranks, per rank."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            batches[-1]["real"] = real_rows(self.accelerator, len(batches[-1]["row"]), len(self.train_dataset),
                                            drop_last=self.args.dataloader_drop_last)  # fmt: skip
        self._micro_batches = []
        self._loss_before = self._tr_loss.clone()
        pairs = sum(batch.get("real", len(batch["row"])) for batch in batches)
        if self.args.world_size == 1:
            return batches, pairs
        # DDP averages gradients over ranks, so each divides by the mean number of pairs.
        return batches, summed(self.accelerator, torch.full((), float(pairs), device=device)) / self.args.world_size

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the sum of f(beta rho) over the micro-batch's pairs, divided by the pairs of the whole step."""
        evaluated = self._evaluate_pairs(model, inputs)
        values = evaluated.values
        self._micro_batches.append(evaluated._replace(values=values.detach()))
        loss = self.scale * values.sum() / (len(values) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _evaluate_pairs(self, model: nn.Module, inputs: dict[str, Any]) -> Evaluated:
        rows, batch = inputs["row"], self._batch(inputs)
        real: Any = inputs.get("real", len(rows))
        weight, p = (inputs[name][:real] if name in inputs else None for name in ("weight", "p"))
        log_ratios = self._log_ratios(model, batch, inputs["reference"])[:real]
        with torch.enable_grad():
            x = self.args.beta * (log_ratios[:, 0] - log_ratios[:, 1])
            x = x if x.requires_grad else x.requires_grad_()
            values = self.f(x) if p is None else p * self.f(x) + (1 - p) * self.f(-x)
            values = values if weight is None else weight * values
            (slope,) = torch.autograd.grad(values.sum(), x, retain_graph=True)
        # Of w (p f(x) + (1-p) f(-x)), whose slope at 0 is w (2p-1) f'(0), and whose curvature w f''(0).
        w = 1 if weight is None else weight
        at_zero = self.slope_at_zero and self.slope_at_zero * w * (1 if p is None else 2 * p - 1)
        sums = pair_metrics(values, slope, x, log_ratios, self.f.knees, at_zero,
                            self.curvature_at_zero and self.curvature_at_zero * w)  # fmt: skip
        tokens = ((batch.pair > 0) & (batch.pair <= real)).sum()
        return Evaluated(rows[:real], values, sums, tokens, length_sums(log_ratios.detach(), batch.lengths[:real]))

    def _batch(self, inputs: dict[str, Any]) -> Batch:
        return Batch(**{name: inputs[name] for name in BATCH}, layout=self.plan.layout)

    def _log_ratios(self, model: nn.Module, batch: Batch, reference: Tensor) -> Tensor:
        return response_log_probabilities(model, batch, self.args.margin, fused_head=self.plan.fused_head) - reference

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradient norm; count the step's pairs, or make nothing of a step that is not finite."""
        norm = super()._get_grad_norm(model, grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        skipped = self._guard.judge(self.state.global_step + 1, self._micro_batches, norm)
        skip_where(skipped, self.optimizer.optimizer)

        def unless_skipped(value: Tensor) -> Tensor:
            return torch.where(skipped > 0, 0, value)

        for evaluated in self._micro_batches:
            self.meter.add(unless_skipped(evaluated.sums), unless_skipped(evaluated.tokens))
        self.meter.add_gradient_norm(unless_skipped(norm), 1 - skipped)
        self._tr_loss.copy_(torch.where(skipped > 0, self._loss_before, self._tr_loss))
        return norm

    def _settle(self) -> None:
        """Hear of the steps that the device has done, the meter having just been asked."""
        self._initial_global_step += self._guard.settle(self.meter.steps, self._folder, self.train_dataset)

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(Path(self.args.output_dir), self.is_world_process_zero())

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the metrics of the held-out pairs, exact means over all of them; nothing of the training changes."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(rows, Rows):
            raise InputError("evaluate takes the eval_dataset that the trainer was made with")
        meter, training = Meter(self.args.device), self.model.training
        by_length = torch.zeros(5, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            for inputs in self.get_eval_dataloader(rows):
                inputs["real"] = real_rows(self.accelerator, len(inputs["row"]), len(rows),
                                           drop_last=self.args.dataloader_drop_last)  # fmt: skip
                evaluated = self._evaluate_pairs(self.model, self._prepare_inputs(inputs))
                meter.add(evaluated.sums, evaluated.tokens)
                by_length += evaluated.by_length
        self.model.train(training)
        measured = meter.drain(self._over_ranks)
        measured |= length_metrics(summed(self.accelerator, by_length).tolist())
        for of_training in ("grad_norm", "tokens", "cpu_seconds"):
            del measured[of_training]
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Any, *others: Any, learning_rate: float | None = None, **named: Any
    ) -> None:
        """Log with one transfer from the device, where the Trainer takes one for each number; then as the Trainer."""
        if self.control.should_log and self.state.global_step > self._globalstep_last_logged:
            self._globalstep_last_logged: int = self.state.global_step
            tr_loss.zero_()
            self._log_interval(self._get_learning_rate() if learning_rate is None else learning_rate)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *others, learning_rate=learning_rate, **named)

    def _log_interval(self, learning_rate: float) -> None:
        """Log the exact means since the last time, here and to `metrics.jsonl`; nothing if no step was applied."""
        measured = self.meter.drain(self._over_ranks)
        self._settle()
        applied, self._guard.counted = self._guard.counted, 0
        if applied:
            # The first interval of a resumed run may have steps of the run before.
            mine = min(applied, self.state.global_step - self._initial_global_step)
            self._total_loss_scalar += measured["loss"] * mine
            logs = {"learning_rate": learning_rate, **measured}
            self._folder.metrics({"step": self.state.global_step, "epoch": self.state.epoch, **logs})
            self.log(logs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, but no mean loss of a training of which no step was applied."""
        if "train_loss" in logs and self.state.global_step == self._initial_global_step:
            logs = {name: value for name, value in logs.items() if name != "train_loss"}
        super().log(logs, start_time)

    def _finalize_training(self, *arguments: Any, **named: Any) -> Any:
        self.meter.state(self._over_ranks)
        self._settle()
        return super()._finalize_training(*arguments, **named)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        total = summed(self.accelerator, sums)
        if self.args.world_size > 1:
            total[-2:] /= self.args.world_size  # every rank counted the same steps and norms
        return total

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        *others: Any,
        allow_changes: Collection[str] = (),
        **keywords: Any,
    ) -> Any:
        """Train; with `resume_from_checkpoint`, go on bitwise where the checkpoint was saved.

        True takes the newest whole checkpoint of `output_dir` (the beginning, if there is none), a path that one and no
        other. A run with other settings, data, reference or number of processes is refused, each named, unless named in
        `allow_changes`, which `events.jsonl` records. Raises NoGoodCheckpoint, DamagedCheckpoint, CheckpointNotSaved,
        FolderInUse, NonFiniteLoss, and Interrupted after a signal.
        """
        with self.writing(), self._interruption.watching():
            self.state: Any
            self._checkpoint = self._chosen(resume_from_checkpoint)
            if self._checkpoint is not None:
                self._changes = resumption.changes(self._checkpoint, self._record(), allow_changes)
            self._folder.run({"schema": 1, **settings(self.args), "reference_weights": self.reference_weights,
                              **self.facts})  # fmt: skip
            path = None if self._checkpoint is None else str(self._checkpoint.path)
            output = self._finished() or super().train(path, *others, **keywords)
            number = self._interruption.number()
            if number:
                step = self.state.global_step
                saved = (Path(self.args.output_dir) / f"checkpoint-{step}").exists()
                if not self._of_first_rank(saved):
                    self._save_checkpoint(self.model, None)
                raise Interrupted(number, step)
        return output

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer of `output_dir`; FolderInUse while there is another."""
        if self._is_writing:
            yield
            return
        with ExitStack() as held:
            with together(self.accelerator, "the output folder cannot be written"):
                if self.is_world_process_zero():
                    held.enter_context(checkpoint.sole_writer(Path(self.args.output_dir)))
            self._is_writing = True
            try:
                yield
            finally:
                self._is_writing = False

    def _chosen(self, wanted: str | bool | None) -> Checkpoint | None:
        if not wanted:
            return None
        output = Path(self.args.output_dir)
        with together(self.accelerator, "no checkpoint that can be read"):
            found = checkpoint.verify(Path(wanted)) if isinstance(wanted, str) else checkpoint.load(output)
            step = -1 if found is None else found.step
        if self._of_first_rank(step) != step:
            raise DamagedCheckpoint("the ranks find different checkpoints: output_dir must be a folder that all share")
        _log.warning("resuming from %s", found.path.name if found else "the start: no checkpoint was saved")
        return found

    def _of_first_rank(self, value: int) -> int:
        return largest(self.accelerator, int(value) if self.is_world_process_zero() else -1)

    def _record(self) -> dict[str, Any]:
        return resumption.record(self.args, self._data, self.reference_weights)

    @cached_property
    def _data(self) -> str:
        return resumption.data_hash(self.train_dataset.pairs)

    def _finished(self) -> TrainOutput | None:
        """If the checkpoint is that of the last step, load it: the Trainer's loop would take one step more."""
        if self._checkpoint is None:
            return None
        *_, last = self.set_initial_training_values(self.args, self.get_train_dataloader())
        state = self._checkpoint.json("trainer_state.json")
        if state["global_step"] < last:
            return None
        self._load_from_checkpoint(str(self._checkpoint.path))
        self.state = type(self.state).load_from_json(str(self._checkpoint.path / "trainer_state.json"))
        self._folder.keep_until(self.state.global_step)
        if self.is_world_process_zero():  # a run killed between its last save and the end of that
            checkpoint.rotate(Path(self.args.output_dir), self.state.global_step, self.args.save_total_limit,
                              [Path(self.state.best_model_checkpoint or "").name])  # fmt: skip
        return TrainOutput(self.state.global_step, math.nan, {})

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.store_flos()
        output, step = Path(self.args.output_dir), self.state.global_step
        state = self.meter.state(self._over_ranks)
        self._settle()
        self.state.stateful_callbacks[METER] = {**state, "counted": self._guard.counted,
                                                 "fruitless": self._guard.fruitless}  # fmt: skip
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(output / f"checkpoint-{self.state.best_global_step}")
        parts, pieces, write_model = self._parts(), dict[str, Tensor](), self._model_writer()
        if is_sharded(self.model):
            pieces = parts.pop(resumption.TENSORS_FILE, {})
        save_together(self.accelerator, self._folder, step, parts, {resumption.PIECES: pieces}, fill=write_model,
                      keep=self.args.save_total_limit,
                      protected=[Path(self.state.best_model_checkpoint or "").name])  # fmt: skip
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(output / f"checkpoint-{step}"))

    def _parts(self) -> dict[str, Any]:
        state = json.loads(json.dumps(asdict(self.state)))
        generators = {name: stacked(self.accelerator, value) for name, value in random_state().items()}
        if self.args.save_only_model:
            return {"trainer_state.json": state}
        parts = resumption.saved_parts(self._record(), self.optimizer, self.lr_scheduler)
        return {"trainer_state.json": state, resumption.RANDOM_FILE: generators, **parts}

    def _model_writer(self) -> Callable[[Path], None]:
        """Return what writes the model into a folder; of a sharded one, every rank must ask for it."""
        state = full_state_dict(self.model, keep=self.args.should_save) if is_sharded(self.model) else None
        return lambda folder: self._save(str(folder), state_dict=state)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model as an ordinary Hugging Face folder, whole also if it is sharded; every rank must call it."""
        write = self._model_writer()
        if self.args.should_save:
            write(Path(output_dir or self.args.output_dir))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)  # a pickle

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        found = self._whole(resume_from_checkpoint)
        if is_sharded(self.model):
            load_model(found, self.model)
        elif self.is_fsdp_enabled:
            pass  # the Trainer comes here a second time, when the model is sharded
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        found = self._whole(self.state.best_model_checkpoint)
        if is_sharded(self.model):
            load_model(found, self.model)
        else:
            super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        model = self.model
        tied = {*(getattr(model, "all_tied_weights_keys", None) or ()), *(model._keys_to_ignore_on_save or ())}
        strange = sorted({*load_result.missing_keys} - tied) + load_result.unexpected_keys
        if strange:
            raise DamagedCheckpoint(f"the checkpoint's weights are not this model's: {', '.join(strange[:5])}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        found = self._whole(checkpoint)
        resumption.restore(found, self.optimizer, self.lr_scheduler, keep_settings=bool(self._changes))
        if self._changes:
            self._folder.event({"step": found.step, "event": RESUMED, "changes": self._changes})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        rank, generators = self.args.process_index, self._whole(checkpoint).tensors(resumption.RANDOM_FILE)
        # A rank that did not exist when the checkpoint was saved keeps its own.
        if rank < len(generators["torch"]):
            set_random_state({name: value[rank] for name, value in generators.items()})

    def _whole(self, path: str) -> Checkpoint:
        """Return the checkpoint in `path`, verified now unless `train` has done it."""
        known = self._checkpoint
        return known if known is not None and str(known.path) == path else checkpoint.verify(Path(path))


class _Logging(TrainerCallback):  # type: ignore[misc]
    """The logging rule, the last partial interval, and metrics that go on where a resumed run was cut."""

    def __init__(self, trainer: GPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: GPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        found = check_distribution(trainer.model_wrapped, trainer.accelerator)
        if state.global_step > 0 and METER in state.stateful_callbacks:
            saved = state.stateful_callbacks[METER]
            trainer.meter.restore(saved, first=state.is_world_process_zero)
            trainer._guard.restore(saved["counted"], saved["fruitless"])
        if args.automatic_logging:
            state.logging_steps = args.logging_interval(state.max_steps)
        trainer._folder.keep_until(state.global_step)
        if found["processes"] > 1 and state.is_world_process_zero:
            _log.warning("%(processes)d processes: %(model)s, %(parameters)s parameters", found)
            trainer._folder.event({"step": state.global_step, "event": "distributed", **found})

    def on_step_end(self, args: GPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True


def _say_if_another(distance: float) -> None:
    if distance > ANOTHER:
        _log.warning("the reference's log-probabilities that the data brings are not this model's: up to %.2g nats per "
                     "token apart in three pairs; the first loss is then not f(0)", distance)  # fmt: skip


def _at_zero(loss: Any) -> tuple[float | None, float | None]:
    """f'(0) and f''(0), where they exist."""
    _, slope, half = taylor(loss, 2)
    return None if slope is None else slope.value, None if half is None else 2 * half.value


def _gradient_scale(args: GPOConfig, slope_at_zero: float | None) -> float:
    if not args.scale_gradient:
        return 1.0
    if not slope_at_zero:
        raise InputError(f"scale_gradient divides by |f'(0)|, and loss {args.loss!r} has no slope at 0")
    return 1 / (args.beta * abs(slope_at_zero))
