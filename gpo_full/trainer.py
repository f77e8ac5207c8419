"""GPO training: a thin subclass of `transformers.Trainer` around packed pairs, stored references and any loss f."""

__all__ = ["GPOTrainer", "ProgressLines", "settings"]

import hashlib
import json
import logging
import math
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import TrainOutput

from gpo_full import checkpoint
from gpo_full.checkpoint import Checkpoint, DamagedCheckpoint
from gpo_full.config import GPOConfig
from gpo_full.files import atomic_file
from gpo_full.interruption import Interrupted, Interruption
from gpo_full.log_probabilities import response_log_probabilities
from gpo_full.metrics import COLUMNS, Meter, NonFiniteLoss, pair_metrics
from gpo_full.model_plan import plan
from gpo_full.packing import Batch, pack
from gpo_full.pairs import Pair, PairSummary, read_pairs
from gpo_full.reference_store import open_store, weights_hash
from gpo_full.training_state import decode, encode, random_state, set_random_state
from gpo_theory import InputError, taylor, to_torch
from gpo_theory.errors import nearest

METRICS_FILE = "metrics.jsonl"
EVENTS_FILE = "events.jsonl"
NON_FINITE_FILE = "non_finite_batch.json"
# Steps in a row that may come to nothing before the run is given up.
PATIENCE = 3
# Where the meter's state lies in a checkpoint's trainer_state.json.
_STATE = "GPOMeter"
# Optimizer, schedule, scaler and settings; and the random generators of every rank.
RESUME_FILE, TENSORS_FILE, RANDOM_FILE = "resume.json", "resume.safetensors", "random.safetensors"
# Fields of the configuration that do not change what is computed.
UNRECORDED = {"output_dir", "reference_store", "logging_dir", "run_name", "disable_tqdm"}
_log = logging.getLogger(__name__)


class GPOTrainer(Trainer):  # type: ignore[misc]
    """Minimise the mean of f(beta rho) over preference pairs.

    `train_dataset` and `eval_dataset` are what `read_pairs` takes, or lists of `Pair`. `model` is a causal language
    model or the name of one, loaded in float32. The reference is `reference`, or else the model as it is handed in,
    before anything is trained; with LoRA, the model with its adapter off. Its log-probabilities are computed, or read
    from `args.reference_store`, when the trainer is made, and no second model is kept.

    Each forward pass goes through the wrapped model, so that autocast, DDP and gradient checkpointing act as in any
    Trainer. `output_dir/metrics.jsonl` gets one object per logging interval.

    A step whose loss, metrics or gradient are not finite is not applied: weights and optimizer stay as they are, its
    pairs enter no mean, and `events.jsonl` gets the step and its rows (indices into the pairs that were kept). The
    third in a row raises NonFiniteLoss, with the batch in `non_finite_batch.json`. SIGTERM and SIGINT finish the step,
    save a checkpoint and raise Interrupted. Checkpoints are `gpo_full.checkpoint`'s.
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
        self.slope_at_zero = _slope_at_zero(self.loss)
        self.scale = _gradient_scale(args, self.slope_at_zero)
        self.summaries: dict[str, PairSummary] = {}
        train = self._pairs("train", train_dataset, processing_class, args)
        held_out = None if eval_dataset is None else self._pairs("eval", eval_dataset, processing_class, args)
        model = _prepared(_loaded(model) if isinstance(model, str) else model, args)
        super().__init__(model=model, args=args, data_collator=_Collator("rows"), train_dataset=_Rows(train),
                         eval_dataset=None if held_out is None else _Rows(held_out),
                         processing_class=processing_class, **others)  # fmt: skip
        longest = _check_sizes(self.model, train + (held_out or []))
        self.plan = plan(self.model, longest)
        for reason in self.plan.reasons:
            _log.warning("%s: %s", type(self.model).__name__, reason)
        self.data_collator = _Collator(self.plan.layout)
        sets = [rows for rows in (self.train_dataset, self.eval_dataset) if rows is not None]
        self._refer(sets, reference, longest)
        self._pending: list[_Evaluated] = []
        self._counted = self._fruitless = 0
        self._checkpoint: Checkpoint | None = None
        self._changes: dict[str, Any] = {}
        self._is_writing = False
        self._interruption = Interruption()
        self.add_callback(self._interruption)
        self.add_callback(_Logging(self))

    def _pairs(self, name: str, data: Any, tokenizer: Any, args: GPOConfig) -> list[Pair]:
        if isinstance(data, Sequence) and not isinstance(data, str) and data and isinstance(data[0], Pair):
            return list(data)
        if isinstance(data, Mapping):
            raise InputError(f"{name} data must be one set of pairs, not a mapping of several")
        if tokenizer is None:
            raise InputError(f"{name} data is text: processing_class must be its tokenizer")
        pairs, summary = read_pairs(data, tokenizer, max_length=args.max_length, bad_rows=args.bad_rows,
                                    max_prompt_length=args.max_prompt_length or 1)  # fmt: skip
        self.summaries[name] = summary
        if summary.kept < summary.rows or summary.prompts_truncated or summary.responses_truncated:
            _log.warning("%s data: %s", name, summary)
        return pairs

    def _refer(self, sets: "list[_Rows]", reference: nn.Module | None, longest: int) -> None:
        """Attach the reference's log-probabilities to every pair; other ranks read what the first has written."""
        model = self.model if reference is None else reference.to(self.args.device)
        layout = self.plan if reference is None else plan(model, longest)
        with self.args.main_process_first(desc="reference pass"):
            self.reference_weights = weights_hash(model)
            for rows in sets:
                store = open_store(model, rows.pairs, self.args.store_folder(), plan=layout,
                                        weights=self.reference_weights, autocast=self.accelerator.autocast)  # fmt: skip
                rows.reference = store.response_log_probabilities(rows.pairs, self.args.margin)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | int | None]:
        """Draw the micro-batches of a step and count their pairs, over all ranks, per rank."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._pending.clear()
        self._loss_before = self._tr_loss.clone()
        pairs = sum(len(batch["lengths"]) for batch in batches)
        if self.args.world_size == 1:
            return batches, pairs
        # DDP averages gradients over ranks, so each divides by the mean number of pairs.
        total = self.accelerator.reduce(torch.tensor(float(pairs), device=device), "sum")
        return batches, total / self.args.world_size

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the sum of f(beta rho) over the micro-batch's pairs, divided by the pairs of the whole step."""
        evaluated = self._evaluate_pairs(model, inputs)
        values = evaluated.values
        self._pending.append(evaluated._replace(values=values.detach()))
        loss = self.scale * values.sum() / (len(values) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _evaluate_pairs(self, model: nn.Module, inputs: dict[str, Tensor]) -> "_Evaluated":
        inputs = dict(inputs)
        reference, rows = inputs.pop("reference"), inputs.pop("row")
        batch = Batch(**inputs, layout=self.plan.layout)
        policy = response_log_probabilities(model, batch, self.args.margin, fused_head=self.plan.fused_head)
        log_ratios = policy - reference
        with torch.enable_grad():
            x = self.args.beta * (log_ratios[:, 0] - log_ratios[:, 1])
            x = x if x.requires_grad else x.requires_grad_()
            values = self.f(x)
            (slope,) = torch.autograd.grad(values.sum(), x, retain_graph=True)
        sums = pair_metrics(values, slope, x, log_ratios, self.f.knees, self.slope_at_zero)
        return _Evaluated(rows, values, sums, (batch.block > 0).sum())

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradient norm; count the step's pairs, or make nothing of a step that is not finite."""
        norm = super()._get_grad_norm(model, grad_norm)
        broken = self._not_finite(norm)
        if broken:
            # No optimizer touches a parameter, or its moments, that has no gradient.
            model.zero_grad(set_to_none=True)
            self._drop_step(broken)
            return norm
        self._fruitless = 0
        self._counted += 1
        for evaluated in self._pending:
            self.meter.add(evaluated.sums, evaluated.tokens)
        # Under a loss scaler an overflow is ordinary, and the scaler skips the step.
        if self.accelerator.scaler is None or math.isfinite(norm):
            self.meter.add_gradient_norm(norm)
        return norm

    def _not_finite(self, norm: Tensor | float) -> list[str]:
        """The quantities of the step that are not finite, on any rank; one transfer a step, before it is applied."""
        device = self.args.device
        values = torch.stack([evaluated.sums for evaluated in self._pending]).sum(0)
        norm = torch.zeros(()) if self.accelerator.scaler is not None else torch.as_tensor(norm)
        broken = ~torch.cat([values, norm.detach().double().to(device)[None]]).isfinite()
        signals = torch.tensor([float(self._interruption.number or 0)], device=device)
        flags = torch.cat([broken.to(signals.dtype), signals])
        if self.args.world_size > 1:
            flags = self.accelerator.reduce(flags, "sum")
            # Ranks must stop at the same step, whichever of them the signal reached first.
            self._interruption.number = self._interruption.number or (signal.SIGTERM if flags[-1] else None)
        return [name for name, flag in zip((*COLUMNS, "gradient"), flags.tolist(), strict=False) if flag]

    def _drop_step(self, broken: list[str]) -> None:
        """Take the step out of every mean, and say so; the third in a row ends the run."""
        self._tr_loss.copy_(self._loss_before)
        self._initial_global_step += 1
        self._fruitless += 1
        step, rows = self.state.global_step + 1, self._over_rows(torch.cat([each.rows for each in self._pending]))
        losses = self._over_rows(torch.cat([each.values for each in self._pending]).double())
        self._event({"step": step, "event": "not finite, not applied", "quantities": broken, "rows": rows,
                     "rows_with_loss_not_finite": [r for r, loss in zip(rows, losses, strict=True)
                                                   if not math.isfinite(loss)]})  # fmt: skip
        if self._fruitless < PATIENCE:
            _log.warning("step %d is not applied: not finite: %s; rows %s", step, ", ".join(broken), rows)
            return
        path = Path(self.args.output_dir) / NON_FINITE_FILE
        if self.is_world_process_zero():
            self._save_batch(path, step, rows, losses)
        raise NonFiniteLoss(f"not finite: {', '.join(broken)}, the third step in a row; the batch is in {path}")

    def _over_rows(self, values: Tensor) -> list[Any]:
        if self.args.world_size > 1:
            count = self.accelerator.gather(torch.tensor([len(values)], device=values.device))
            values = self.accelerator.gather(self.accelerator.pad_across_processes(values))
            values = torch.cat([part[:n] for part, n in zip(values.chunk(len(count)), count.tolist(), strict=True)])
        found: list[Any] = values.tolist()
        return found

    def _save_batch(self, path: Path, step: int, rows: list[int], losses: list[float]) -> None:
        pairs, reference = self.train_dataset.pairs, self.train_dataset.reference
        batch = [{"row": row, **asdict(pairs[row]), "reference": [repr(value) for value in reference[row].tolist()],
                  "loss": repr(loss)} for row, loss in zip(rows, losses, strict=True)]  # fmt: skip
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps({"step": step, "pairs": batch}, allow_nan=False) + "\n", encoding="utf-8")

    def _event(self, event: dict[str, Any]) -> None:
        if self.is_world_process_zero():
            with (Path(self.args.output_dir) / EVENTS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, allow_nan=False) + "\n")

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the metrics of the held-out pairs, exact means over all of them; nothing of the training changes."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(rows, _Rows):
            raise InputError("evaluate takes the eval_dataset that the trainer was made with")
        meter, training = Meter(self.args.device), self.model.training
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            for inputs in self.get_eval_dataloader(rows):
                evaluated = self._evaluate_pairs(self.model, self._prepare_inputs(inputs))
                meter.add(evaluated.sums, evaluated.tokens)
        self.model.train(training)
        measured = meter.drain(self._over_ranks)
        for of_training in ("grad_norm", "tokens", "cpu_seconds"):
            del measured[of_training]
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; a training step's logs become this interval's exact means, which also go to `metrics.jsonl`."""
        if "loss" in logs and not self._counted:
            return  # no step of the interval was applied: there is no mean
        if "train_loss" in logs and self.state.global_step == self._initial_global_step:
            logs = {name: value for name, value in logs.items() if name != "train_loss"}
        if "loss" in logs:
            self._counted = 0
            logs |= self.meter.drain(self._over_ranks)
            record = {"step": self.state.global_step, "epoch": self.state.epoch, **logs}
            if self.is_world_process_zero():
                with (Path(self.args.output_dir) / METRICS_FILE).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record, allow_nan=False) + "\n")
        super().log(logs, start_time)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        if self.args.world_size == 1:
            return sums
        total: Tensor = self.accelerator.reduce(sums, "sum")
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
            self._changes = {} if self._checkpoint is None else self._changed(self._checkpoint, allow_changes)
            path = None if self._checkpoint is None else str(self._checkpoint.path)
            output = self._finished() or super().train(path, *others, **keywords)
            number = self._interruption.number
            if number is not None:
                step = self.state.global_step
                if not (Path(self.args.output_dir) / f"checkpoint-{step}").exists():
                    self._save_checkpoint(self.model, None)
                raise Interrupted(number, step)
        return output

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer of `output_dir`; FolderInUse while there is another."""
        if self._is_writing or not self.is_world_process_zero():
            yield
            return
        with checkpoint.sole_writer(Path(self.args.output_dir)):
            self._is_writing = True
            try:
                yield
            finally:
                self._is_writing = False

    def _chosen(self, wanted: str | bool | None) -> Checkpoint | None:
        if not wanted:
            return None
        output = Path(self.args.output_dir)
        found = checkpoint.verify(Path(wanted)) if isinstance(wanted, str) else checkpoint.load(output)
        _log.warning("resuming from %s", found.path.name if found else "the start: no checkpoint was saved")
        return found

    def _record(self) -> dict[str, Any]:
        """What a resumed run must agree with."""
        digest = hashlib.sha256()
        for pair in self.train_dataset.pairs:
            digest.update(repr((pair.prefix, pair.chosen, pair.rejected, pair.prompt_length)).encode())
        return {**settings(self.args), "data": digest.hexdigest(), "reference_weights": self.reference_weights,
                "world_size": self.args.world_size}  # fmt: skip

    def _changed(self, found: Checkpoint, allowed: Collection[str]) -> dict[str, Any]:
        """Return what differs from the run that was saved; InputError if any of it is not allowed."""
        before, now = found.json(RESUME_FILE)["record"], self._record()
        for name in {*allowed} - {*before, *now}:
            raise InputError(f"allow_changes names {name!r}, which is no setting{nearest(name, now)}")
        changed = {name: [before.get(name), now.get(name)] for name in sorted({*before, *now})
                   if before.get(name) != now.get(name)}  # fmt: skip
        refused = [f"{name}: {old!r} -> {new!r}" for name, (old, new) in changed.items() if name not in allowed]
        if refused:
            raise InputError(f"{found.path.name} is of another run: {'; '.join(refused)}")
        return changed

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
        _keep_until(Path(self.args.output_dir), self.state.global_step)
        return TrainOutput(self.state.global_step, math.nan, {})

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.store_flos()
        output, step = Path(self.args.output_dir), self.state.global_step
        self.state.stateful_callbacks[_STATE] = {**self.meter.state(), "counted": self._counted,
                                                 "fruitless": self._fruitless}  # fmt: skip
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(output / f"checkpoint-{self.state.best_global_step}")
        parts = self._parts()
        if self.args.should_save:
            for name in (METRICS_FILE, EVENTS_FILE):
                if (output / name).exists():
                    checkpoint.sync(output / name)
            checkpoint.save(output, step, parts, fill=lambda folder: self.save_model(str(folder), _internal_call=True),
                            keep=self.args.save_total_limit,
                            protected=[Path(self.state.best_model_checkpoint or "").name])  # fmt: skip
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(output / f"checkpoint-{step}"))
        self.accelerator.wait_for_everyone()

    def _parts(self) -> dict[str, Any]:
        state = json.loads(json.dumps(asdict(self.state)))
        generators = {name: self._rows_of_ranks(value) for name, value in random_state().items()}
        if self.args.save_only_model:
            return {"trainer_state.json": state}
        tensors: dict[str, Tensor] = {}
        scaler = self.accelerator.scaler
        resume = {"record": self._record(), **{
            name: None if part is None else encode(part.state_dict(), tensors)
            for name, part in (("optimizer", self.optimizer), ("scheduler", self.lr_scheduler), ("scaler", scaler))
        }}  # fmt: skip
        return {"trainer_state.json": state, RESUME_FILE: resume, TENSORS_FILE: tensors, RANDOM_FILE: generators}

    def _rows_of_ranks(self, value: Tensor) -> Tensor:
        if self.args.world_size == 1:
            return value[None]
        gathered: Tensor = self.accelerator.gather(value[None].to(self.args.device)).cpu()
        return gathered

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)  # a pickle

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._whole(resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self._whole(self.state.best_model_checkpoint)
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
        resume, tensors = found.json(RESUME_FILE), found.tensors(TENSORS_FILE)
        try:
            parts = {name: decode(resume[name], tensors) for name in ("optimizer", "scheduler", "scaler")}
            if self._changes:
                self._event({"step": found.step, "event": "resumed with changes", "changes": self._changes})
                self._keep_settings(parts)
            self.optimizer.load_state_dict(parts["optimizer"])
            self.lr_scheduler.load_state_dict(parts["scheduler"])
            if parts["scaler"] is not None and self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(parts["scaler"])
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedCheckpoint(f"{found.path.name}: {RESUME_FILE} does not fit this run: {error}") from None

    def _keep_settings(self, parts: dict[str, Any]) -> None:
        """Let the new run's settings of optimizer and schedule stand, at the step of the old one."""
        scheduler = self.lr_scheduler
        if not isinstance(scheduler, LambdaLR):
            raise InputError(f"settings cannot change under the schedule {type(scheduler).__name__}")
        step = parts["scheduler"]["last_epoch"]
        rates = [base * of(step) for base, of in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        parts["scheduler"] |= {"base_lrs": scheduler.base_lrs, "_last_lr": rates}
        groups = self.optimizer.state_dict()["param_groups"]
        parts["optimizer"]["param_groups"] = [{**group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]

    def _load_scaler(self, checkpoint: str | None) -> None:
        """It is loaded with the optimizer."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        rank, generators = self.args.process_index, self._whole(checkpoint).tensors(RANDOM_FILE)
        # A rank that did not exist when the checkpoint was saved keeps its own.
        if rank < len(generators["torch"]):
            set_random_state({name: value[rank] for name, value in generators.items()})

    def _whole(self, path: str) -> Checkpoint:
        """Return the checkpoint in `path`, verified now unless `train` has done it."""
        known = self._checkpoint
        return known if known is not None and str(known.path) == path else checkpoint.verify(Path(path))


def settings(args: GPOConfig) -> dict[str, Any]:
    """Return the configuration as JSON, without what does not change what is computed."""
    values = {name: value for name, value in args.to_dict().items() if name not in UNRECORDED}
    return json.loads(json.dumps(values, default=str))  # type: ignore[no-any-return]


class _Logging(TrainerCallback):  # type: ignore[misc]
    """The logging rule, the last partial interval, and metrics that go on where a resumed run was cut."""

    def __init__(self, trainer: GPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: GPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > 0 and _STATE in state.stateful_callbacks:
            saved = state.stateful_callbacks[_STATE]
            self.trainer.meter.restore(saved)
            self.trainer._counted, self.trainer._fruitless = saved["counted"], saved["fruitless"]
        if args.automatic_logging:
            state.logging_steps = args.logging_interval(state.max_steps)
        if state.is_world_process_zero:
            _keep_until(Path(args.output_dir), state.global_step)

    def on_step_end(self, args: GPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True


class ProgressLines(TrainerCallback):  # type: ignore[misc]
    """One line on stderr about every second, once the training outlasts two."""

    def on_train_begin(self, args: GPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        self.start = self.last = time.monotonic()

    def on_log(self, args: GPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        logs, now = kwargs["logs"], time.monotonic()
        if "loss" in logs and now - self.start > 2 and now - self.last > 1:
            self.last = now
            shown = ", ".join(f"{name} {logs[name]:.4g}" for name in ("loss", "margin", "accuracy"))
            print(f"step {state.global_step}/{state.max_steps}: {shown}", file=sys.stderr, flush=True)


def _keep_until(output: Path, step: int) -> None:
    """Drop the metrics and events after `step`: a resumed run writes them again."""
    for path in (output / METRICS_FILE, output / EVENTS_FILE):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept or path.name == METRICS_FILE:
            with atomic_file(path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")
        else:
            path.unlink(missing_ok=True)


class _Evaluated(NamedTuple):
    """A micro-batch of P pairs: their rows [P], f(beta rho) [P], the sums of COLUMNS, the number of tokens."""

    rows: Tensor
    values: Tensor
    sums: Tensor
    tokens: Tensor


class _Rows(torch.utils.data.Dataset[tuple[int, Pair, Tensor]]):
    """Pairs by row, and their reference log-probabilities, [N, 2]."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        self.reference = torch.zeros(len(pairs), 2)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[int, Pair, Tensor]:
        return index, self.pairs[index], self.reference[index]


@dataclass(frozen=True)
class _Collator:
    layout: str

    def __call__(self, rows: Sequence[tuple[int, Pair, Tensor]]) -> dict[str, Tensor]:
        row, pairs, reference = zip(*rows, strict=True)
        return {**pack(pairs, self.layout).tensors(), "reference": torch.stack(reference), "row": torch.tensor(row)}


def _check_sizes(model: Any, pairs: Sequence[Pair]) -> int:
    """Return the length of the longest sequence; InputError if the model cannot take it, or one of its tokens."""
    longest = max(len(pair.prefix) + max(len(pair.chosen), len(pair.rejected)) for pair in pairs)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or longest
    if longest > positions:
        raise InputError(f"sequences have up to {longest} tokens, the model {positions} positions: lower max_length")
    largest, known = max(map(_largest_id, pairs)), model.get_input_embeddings().weight.shape[0]
    if largest >= known:
        raise InputError(f"the data holds token id {largest}, the model knows {known}: is this its tokenizer?")
    return longest


def _largest_id(pair: Pair) -> int:
    return max(max(ids) for ids in (pair.prefix, pair.chosen, pair.rejected) if ids)


def _slope_at_zero(loss: Any) -> float | None:
    coefficients = taylor(loss, 1)
    return None if coefficients[1] is None else coefficients[1].value


def _gradient_scale(args: GPOConfig, slope_at_zero: float | None) -> float:
    if not args.scale_gradient:
        return 1.0
    if not slope_at_zero:
        raise InputError(f"scale_gradient divides by |f'(0)|, and loss {args.loss!r} has no slope at 0")
    return 1 / (args.beta * abs(slope_at_zero))


def _loaded(name: str) -> nn.Module:
    from transformers import AutoModelForCausalLM

    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"model {name!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    return model


def _prepared(model: nn.Module, args: GPOConfig) -> nn.Module:
    """Switch dropout off, and leave trainable only what the configuration says."""
    for module in model.modules():
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if args.lora_rank is not None:
        return _with_adapter(model, args.lora_rank, args.seed)
    if args.train_last_layers is not None:
        _freeze_lower(model, args.train_last_layers)
    return model


def _with_adapter(model: nn.Module, rank: int, seed: int) -> nn.Module:
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        raise InputError("lora_rank is for a model without an adapter; this one has its own")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    # The Trainer seeds only later, and an adapter begins at random.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted: nn.Module = get_peft_model(model, config)
    return adapted


def _freeze_lower(model: Any, count: int) -> None:
    """Train the last `count` layers and the norm behind them; embeddings, head and lower layers are frozen.

    Nothing below the first trained layer takes part in the backward pass.
    """
    total = model.config.get_text_config().num_hidden_layers
    stack = next((name for name, module in model.named_modules()
                  if isinstance(module, nn.ModuleList) and len(module) == total), None)  # fmt: skip
    if stack is None or not count <= total:
        raise InputError(f"train_last_layers={count}, but the model has {total} layers")
    model.requires_grad_(False)
    for layer in model.get_submodule(stack)[-count:]:
        layer.requires_grad_(True)
    for module in model.get_submodule(stack.rpartition(".")[0]).children():
        if "norm" in type(module).__name__.lower():
            module.requires_grad_(True)
