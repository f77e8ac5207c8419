"""GPO training: a thin subclass of `transformers.Trainer` around packed pairs, stored references and any loss f."""

__all__ = ["GPOTrainer"]

import inspect
import json
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from gpo_full.checkpoints import atomic
from gpo_full.checkpoints.atomic import Checkpoint
from gpo_full.checkpoints.sharded import is_sharded, load_model
from gpo_full.config import GPOConfig
from gpo_full.data.pairs import PairSummary
from gpo_full.data.pairs_on_disk import prompt_keys_of
from gpo_full.distributed import largest, summed
from gpo_full.engine.model_plan import plan
from gpo_full.other_libraries import in_one_line
from gpo_full.run_files import BASE_FILE, EVENTS_FILE, METER, METRICS_FILE, RESUMED, STATE_FILE
from gpo_full.training import resumption
from gpo_full.training.callbacks import Interrupted, Interruption, Logging
from gpo_full.training.live_evaluation import LiveEvaluation
from gpo_full.training.loss import MicroBatch, Objective, evaluate_pairs
from gpo_full.training.references import attach_reference, moments_of
from gpo_full.training.reporting.metrics import Meter
from gpo_full.training.reporting.run_folder import RunFolder
from gpo_full.training.reporting.trackers import follow
from gpo_full.training.resumption import Resumed
from gpo_full.training.rows import Collator, PromptSampler, Rows, check_sets, pairs_of, real_rows
from gpo_full.training.saving import FolderLock, model_writer, save_together
from gpo_full.training.start.arguments import check_arguments, check_callbacks, check_model, check_optimizers, model_of
from gpo_full.training.start.launch import check_asked, half_precision_in_layers_alone
from gpo_full.training.start.made_again import check_made_again
from gpo_full.training.start.model import check_sizes, loaded, loaded_tokenizer, prepared
from gpo_full.training.start.named_base import base_of, check_named_base, hash_of_named_base
from gpo_full.training.start.trial import try_start
from gpo_full.training.steps import OpenStep, Steps, held_out_metrics
from gpo_theory import InputError

_log = logging.getLogger(__name__)


def _tokenizer_of(given: Any) -> Any:
    """Return the tokenizer of a model that is given by its name, None if there is none."""
    with suppress(InputError):
        return loaded_tokenizer(given) if isinstance(given, str) else None
    return None


def _ready(given: Any, args: GPOConfig) -> nn.Module:
    """Return a model, or that of a name, ready for training; InputError if what is saved would be another."""
    if isinstance(given, str):
        return prepared(loaded(given), args)
    model = prepared(given, args)
    check_made_again(model)
    if hasattr(model, "peft_config"):
        check_named_base(model)
    return model


class GPOTrainer(Trainer):  # type: ignore[misc]
    """Minimise the mean of f(beta rho) over preference pairs, or of w (p f(beta rho) + (1-p) f(-beta rho)).

    The latter for pairs whose `numbers` have a weight w or a probability p of their label that is not 1.
    `train_dataset` and `eval_dataset` are what `read_pairs` takes, or sequences of `Pair`; a file is
    read through `pair_table`, and its pairs stay on disk. `eval_dataset` may also be a mapping of several from their
    names, and the only one. `model` is a causal language model or the name of one, loaded in float32, or what
    `model_init` makes; of one with an adapter (peft), the adapter is trained. The reference is
    `reference`, or else the model as it is handed in, its adapter included, before anything is trained. Its
    log-probabilities are computed, or read from `args.reference_store`, when the trainer is made, unless the pairs
    bring them; no second model is kept (with `args.sample_every`, a copy of the parameters that are trained).

    Each forward pass goes through the wrapped model, so that autocast, DDP and gradient checkpointing act as in any
    Trainer. `output_dir/metrics.jsonl` gets one object per logging interval, and `run.json` the settings.

    A step whose loss, metrics or gradient are not finite is not applied: weights and optimizer stay as they are, its
    pairs enter no mean, and `events.jsonl` gets the step and its rows (indices into the pairs that were kept). The
    third in a row raises NonFiniteLoss, with the batch in `non_finite_batch.json`. All of this is decided on the
    device; the host waits for it once a logging interval (and once a step with an optimizer that is not fused).
    SIGTERM and SIGINT finish the step, save a checkpoint and raise Interrupted. Checkpoints are
    `gpo_full.checkpoints.atomic`'s.

    `callbacks`, `optimizers` and `optimizer_cls_and_kwargs` are the Trainer's; its other arguments are refused
    (`REFUSED_ARGUMENTS`).

    What this class overrides hands over to `training`'s other modules: `loss` (the loss of a batch), `steps` (which
    steps are applied, and their metrics), `saving` and `resumption`.
    """

    # The loss is divided by the pairs of the whole accumulated batch here, so that uneven micro-batches weigh right.
    loss_is_scaled_for_ga = True
    _open_step: OpenStep | None = None
    _resumed: Resumed | None = None

    def __init__(
        self,
        model: nn.Module | str | None = None,
        args: GPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reference: nn.Module | str | None = None,
        *,
        model_init: Callable[..., nn.Module] | None = None,
        callbacks: Sequence[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        **others: Any,
    ) -> None:
        check_arguments(args, train_dataset, eval_dataset, others, inspect.signature(GPOTrainer).parameters)
        assert args is not None
        meter = Meter(args.device)  # its CPU time includes what follows
        self.objective = Objective.of(args.optimised_loss(), beta=args.beta, margin=str(args.margin),
                                      scale_gradient=args.scale_gradient)  # fmt: skip
        given, self._is_made_here = model_of(model, model_init, args.seed), model is None
        check_model("reference", reference)
        processing_class = _tokenizer_of(given) if processing_class is None else processing_class
        rows = self._read(train_dataset, eval_dataset, processing_class, args, from_reference=reference is None)
        model = _ready(given, args)
        check_optimizers(model, optimizers, optimizer_cls_and_kwargs)
        check_callbacks(callbacks or (), args)
        config: Any = model.config
        use_cache = config.use_cache
        with in_one_line("the training cannot start"):
            super().__init__(
                model=model, args=args, data_collator=Collator("rows"), processing_class=processing_class,
                train_dataset=self.train_dataset, eval_dataset=self.eval_dataset, optimizers=optimizers,
                callbacks=[*(callbacks or ())], optimizer_cls_and_kwargs=optimizer_cls_and_kwargs)  # fmt: skip
        config.use_cache = use_cache  # it is saved with the model, and no step asks for it
        try_start(model, processing_class, args, pairs=len(self.train_dataset or ()), optimizers=optimizers)
        check_asked(self.accelerator, args)
        half_precision_in_layers_alone(self.accelerator)
        longest = check_sizes(self.model, [each.pairs for each in rows])
        self.plan = plan(self.model, longest, self.accelerator.autocast, self.accelerator.device)
        for reason in self.plan.reasons:
            _log.warning("%s: %s", type(self.model).__name__, reason)
        self.data_collator = Collator(self.plan.layout)
        reference = loaded(str(reference)) if isinstance(reference, str | Path) else reference
        self._refer(rows, reference, longest)
        self.facts: dict[str, Any] = {}  # what else run.json is to record
        self.steps = Steps(self.accelerator, meter, lambda: self.folder, self.train_dataset)
        self._lock = FolderLock(lambda: self.folder, self.accelerator)
        self._add_callbacks(reference)

    @property
    def folder(self) -> RunFolder:
        """The folder of the run, `args.output_dir` as it is now; the first rank writes into it."""
        return RunFolder(Path(self.args.output_dir), self.is_world_process_zero())

    def _read(
        self, train: Any, held_out: Any, tokenizer: Any, args: GPOConfig, *, from_reference: bool
    ) -> list[Rows]:
        """Read `train_dataset` and `eval_dataset`, of which there may be several by name; return all of them."""
        several = held_out if isinstance(held_out, Mapping) else {"": held_out}
        given = {"train": train, **{f"eval_{name}".rstrip("_"): each for name, each in several.items()}}
        sets = {name: pairs_of(name.partition("_")[0], data, tokenizer, args)
                for name, data in given.items() if data is not None}  # fmt: skip
        self.summaries: dict[str, PairSummary] = {name: summary for name, (_, summary) in sets.items() if summary}
        pairs = {name: each for name, (each, _) in sets.items()}
        check_sets(pairs.pop("train", ()), pairs, from_reference=from_reference)
        rows = {name: Rows(each) for name, (each, _) in sets.items()}
        self.train_dataset: Any = rows.get("train")
        by_name = {name: rows[f"eval_{name}"] for name in several if name}
        self.eval_dataset: Any = by_name or rows.get("eval")
        return [*rows.values()]

    def _add_callbacks(self, reference: nn.Module | None) -> None:
        patience = timedelta(seconds=self.args.ddp_timeout)
        self._interruption = Interruption(lambda number: largest(self.accelerator, number, patience))
        self.add_callback(self._interruption)
        self.add_callback(Logging(self))
        follow(self)
        if self.args.sample_every is not None:
            self.add_callback(LiveEvaluation(self, reference))

    def _refer(self, sets: list[Rows], reference: nn.Module | None, longest: int) -> None:
        """Attach the reference's log-probabilities to every pair."""
        self.reference_weights = attach_reference(self, sets, reference, longest)
        self._as_made = moments_of(self.model) if reference is None else None
        self._base = hash_of_named_base(*base_of(self.model)) if hasattr(self.model, "peft_config") else None

    # --- a step ---

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if not self.args.group_by_prompt:
            drawn: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return drawn
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return PromptSampler(prompt_keys_of(self.train_dataset.pairs), seed)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | int | None]:
        """Draw the micro-batches of a step; return with them its mean number of pairs per rank."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches[-1:]:
            batch["real"] = self._real(batch, self.train_dataset)
        self._open_step = OpenStep(self.state.global_step + 1, self._tr_loss.clone())
        pairs = sum(batch.get("real", len(batch["row"])) for batch in batches)
        if self.args.world_size == 1:
            return batches, pairs
        # DDP averages gradients over ranks, so each divides by the mean number of pairs.
        return batches, summed(self.accelerator, torch.full((), float(pairs), device=device)) / self.args.world_size

    def _real(self, batch: dict[str, Any], data: Rows) -> int:
        return real_rows(self.accelerator, len(batch["row"]), len(data), drop_last=self.args.dataloader_drop_last)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the sum of f(beta rho) over the micro-batch's pairs, divided by the pairs of the whole step."""
        found = evaluate_pairs(model, inputs, self.objective, self.plan)
        if self._open_step is not None:
            self._open_step.micro_batches.append(found._replace(values=found.values.detach()))
        loss = self.objective.scale * found.values.sum()
        loss = loss / (len(found.values) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradient norm; count the step's pairs, or keep a step that is not finite from being applied."""
        norm = super()._get_grad_norm(model, grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        step, self._open_step = self._open_step, None
        assert step is not None
        self.steps.close(step, norm=norm, optimizer=self.optimizer.optimizer, running_loss=self._tr_loss)
        return norm

    # --- held-out pairs and logs ---

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the metrics of the held-out pairs, exact means over all of them; nothing of the training changes.

        Of several sets, each has its own: `eval_NAME_loss` and so on.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(rows, Mapping):
            several = [self.evaluate(each, ignore_keys, f"{metric_key_prefix}_{name}") for name, each in rows.items()]
            return {name: value for found in several for name, value in found.items()}
        if not isinstance(rows, Rows):
            raise InputError("evaluate takes the eval_dataset that the trainer was made with")
        training = self.model.training
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            found = held_out_metrics(self._evaluated(rows), self.accelerator)
        self.model.train(training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluated(self, rows: Rows) -> Iterator[MicroBatch]:
        # The Trainer may keep a loader for evaluation, whatever it is asked to evaluate next; none for a test.
        for inputs in self.get_test_dataloader(rows):
            inputs = self._prepare_inputs({**inputs, "real": self._real(inputs, rows)})
            yield evaluate_pairs(self.model, inputs, self.objective, self.plan)

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
        means, applied, skipped = self.steps.interval()
        self._initial_global_step += skipped
        if applied:
            # The first interval of a resumed run may have steps of the run before.
            mine = min(applied, self.state.global_step - self._initial_global_step)
            self._total_loss_scalar += means["loss"] * mine
            logs = {"learning_rate": learning_rate, **means}
            self.folder.append(METRICS_FILE, {"step": self.state.global_step, "epoch": self.state.epoch, **logs})
            self.log(logs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, but no mean loss of a training of which no step was applied."""
        if "train_loss" in logs and self.state.global_step == self._initial_global_step:
            logs = {name: value for name, value in logs.items() if name != "train_loss"}
        super().log(logs, start_time)

    def _finalize_training(self, *arguments: Any, **named: Any) -> Any:
        self._initial_global_step += self.steps.state()[1]
        return super()._finalize_training(*arguments, **named)

    # --- a run: from where it starts or resumes to its end or a signal ---

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        *others: Any,
        allow_changes: Collection[str] = (),
        **keywords: Any,
    ) -> Any:
        """Train; with `resume_from_checkpoint`, continue bitwise where the checkpoint was saved.

        True takes the newest whole checkpoint of `output_dir` (the start, if there is none), a path that one and no
        other; None what `args.resume_from_checkpoint` says. A run with other settings, data, reference or number of
        processes is refused, each named, unless named in `allow_changes`, which `events.jsonl` records. Raises
        NoGoodCheckpoint, DamagedCheckpoint, CheckpointNotSaved, FolderInUse, NonFiniteLoss, and Interrupted after a
        signal.
        """
        if self.train_dataset is None:
            raise InputError("training needs a train_dataset")
        resume = self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        if self.state.global_step and not resume and (self._is_made_here or self._as_made is not None):
            raise InputError(f"the model{' that model_init made' * self._is_made_here} is trained already, and the "
                             "reference is what it was before: make another trainer, or give it a reference")
        check_callbacks(self.callback_handler.callbacks, self.args)
        with self.writing(), self._interruption.watching():
            self.state: Any
            found = resumption.chosen_checkpoint(resume, self.folder.path, self.accelerator)
            self._resumed = None if found is None else resumption.resumed(found, self._record(), allow_changes)
            ended = found is not None and self._has_ended(found)
            if found is None and self._as_made is not None and not torch.equal(self._as_made, moments_of(self.model)):
                _log.warning("the model was changed after the trainer was made: the reference is what it was before, "
                             "and the first loss is not f(0)")
            with self.folder.started(self.run_record()):
                path = found and str(found.path)
                output = self._finished() if ended else super().train(path, *others, **keywords)
            self._stop_if_interrupted()
        return output

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer of `output_dir`; FolderInUse while there is another."""
        return self._lock.held()

    def _stop_if_interrupted(self) -> None:
        number, step = self._interruption.number(), self.state.global_step
        if number:
            saved = self.is_world_process_zero() and (self.folder.path / f"checkpoint-{step}").exists()
            if not largest(self.accelerator, int(saved)):
                self._save_checkpoint(self.model, None)
            raise Interrupted(number, step)

    def run_record(self) -> dict[str, Any]:
        """Return what run.json records: the settings, the reference's weights, and `facts`."""
        return {"schema": 1, **resumption.settings(self.args), "reference_weights": self.reference_weights,
                **self.facts}  # fmt: skip

    def _record(self) -> dict[str, Any]:
        return resumption.record(self.args, data=self._data_hash, reference_weights=self.reference_weights)

    @cached_property
    def _data_hash(self) -> str:
        return resumption.data_hash(self.train_dataset.pairs)

    def _has_ended(self, found: Checkpoint) -> bool:
        """Return whether a checkpoint is that of the last step; InputError if it is of a later one."""
        step, (*_, last) = found.step, self.set_initial_training_values(self.args, self.get_train_dataloader())
        if step > last:
            raise InputError(f"{found.path.name} is of step {step}, and the run would end at step {last}: it cannot go "
                             "back; train for more steps, or resume from an earlier checkpoint")  # fmt: skip
        return bool(step == last)

    def _finished(self) -> TrainOutput:
        """Load the checkpoint of the last step: the Trainer's loop would take one step more."""
        assert self._resumed is not None
        found = self._resumed.checkpoint
        self._load_from_checkpoint(str(found.path))
        self.state = type(self.state).load_from_json(str(found.path / STATE_FILE))
        self.folder.keep_until(self.state.global_step)
        if self.folder.writes:  # a run killed between its last save and the end of that
            atomic.rotate(self.folder.path, self.state.global_step, self.args.save_total_limit, self._protected())
        return TrainOutput(self.state.global_step, math.nan, {})

    # --- checkpoints ---

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.store_flos()
        output, step = self.folder.path, self.state.global_step
        self.state.stateful_callbacks[METER], skipped = self.steps.state()
        self._initial_global_step += skipped
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(output / f"checkpoint-{self.state.best_global_step}")
        parts: dict[str, Any] = {STATE_FILE: json.loads(json.dumps(asdict(self.state)))}
        pieces: dict[str, Any] = {}
        if not self.args.save_only_model:
            parts |= resumption.saved_parts(self._record(), self.optimizer, self.lr_scheduler, self.accelerator)
        if is_sharded(self.model):
            pieces = {resumption.PIECES: parts.pop(resumption.TENSORS_FILE, {})}
        save_together(self.accelerator, self.folder, step, parts, pieces, fill=model_writer(self),
                      keep=self.args.save_total_limit, protected=self._protected())  # fmt: skip
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(output / f"checkpoint-{step}"))

    def _protected(self) -> list[str]:
        """The checkpoint that is never removed: the best one so far."""
        return [Path(self.state.best_model_checkpoint or "").name]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model as an ordinary Hugging Face folder, whole also if it is sharded; every rank must call it."""
        write = model_writer(self)
        if self.args.should_save:
            write(Path(output_dir or self.args.output_dir))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle
        for path in folder.glob("**/adapter_config.json") if self._base else ():
            (path.parent / BASE_FILE).write_text(json.dumps({"sha256": self._base}) + "\n")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        found = self._verified(resume_from_checkpoint)
        if is_sharded(self.model):
            load_model(found, self.model)
        elif not self.is_fsdp_enabled:  # else the Trainer calls this a second time, when the model is sharded
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        found = self._verified(self.state.best_model_checkpoint)
        if is_sharded(self.model):
            load_model(found, self.model)
        else:
            super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        resumption.check_loaded(self.model, load_result)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self._resumed is None:
            return
        resumption.check_trained(self._resumed.checkpoint, self.optimizer)
        resumption.restore(self._resumed, self.optimizer, self.lr_scheduler)
        if self._resumed.changes:
            event = {"step": self._resumed.checkpoint.step, "event": RESUMED, "changes": self._resumed.changes}
            self.folder.append(EVENTS_FILE, event)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            resumption.restore_generators(self._verified(checkpoint), self.args.process_index)

    def _verified(self, path: str) -> Checkpoint:
        """Return the checkpoint in `path`, verified now unless `train` has done it."""
        known = self._resumed and self._resumed.checkpoint
        return known if known and str(known.path) == path else atomic.verify(Path(path))
