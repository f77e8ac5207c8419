"""GPO training: a thin subclass of `transformers.Trainer` around packed pairs, stored references and any loss f."""

__all__ = ["GPOTrainer", "ProgressLines"]

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from gpo_full.config import GPOConfig
from gpo_full.files import atomic_file
from gpo_full.log_probabilities import response_log_probabilities
from gpo_full.metrics import Meter, pair_metrics
from gpo_full.model_plan import plan
from gpo_full.packing import Batch, pack
from gpo_full.pairs import Pair, PairSummary, read_pairs
from gpo_full.reference_store import open_store, weights_hash
from gpo_theory import InputError, taylor, to_torch

METRICS_FILE = "metrics.jsonl"
# Where the meter's state lies in a checkpoint's trainer_state.json.
_STATE = "GPOMeter"
_log = logging.getLogger(__name__)


class GPOTrainer(Trainer):  # type: ignore[misc]
    """Minimise the mean of f(beta rho) over preference pairs.

    `train_dataset` and `eval_dataset` are what `read_pairs` takes, or lists of `Pair`. `model` is a causal language
    model or the name of one, loaded in float32. The reference is `reference`, or else the model as it is handed in,
    before anything is trained; with LoRA, the model with its adapter off. Its log-probabilities are computed, or read
    from `args.reference_store`, when the trainer is made, and no second model is kept.

    Each forward pass goes through the wrapped model, so that autocast, DDP and gradient checkpointing act as in any
    Trainer. `output_dir/metrics.jsonl` gets one object per logging interval. A loss or gradient that is not finite
    raises NonFiniteLoss at the next logging or save, before anything is written.
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
        self.add_callback(_Logging(self.meter))

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
        values, sums, tokens = self._evaluate_pairs(model, inputs)
        self.meter.add(sums, tokens)
        loss = self.scale * values.sum() / (len(values) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _evaluate_pairs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return f(beta rho) of each pair, the sums of its metrics, and the number of tokens."""
        inputs = dict(inputs)
        reference = inputs.pop("reference")
        batch = Batch(**inputs, layout=self.plan.layout)
        policy = response_log_probabilities(model, batch, self.args.margin, fused_head=self.plan.fused_head)
        log_ratios = policy - reference
        with torch.enable_grad():
            x = self.args.beta * (log_ratios[:, 0] - log_ratios[:, 1])
            x = x if x.requires_grad else x.requires_grad_()
            values = self.f(x)
            (slope,) = torch.autograd.grad(values.sum(), x, retain_graph=True)
        sums = pair_metrics(values, slope, x, log_ratios, self.f.knees, self.slope_at_zero)
        return values, sums, (batch.block > 0).sum()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        self.meter.add_gradient_norm(norm)
        return norm

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
                _, sums, tokens = self._evaluate_pairs(self.model, self._prepare_inputs(inputs))
                meter.add(sums, tokens)
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
        if "loss" in logs:
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

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # Raises before anything is written if the run has met a NaN since the last log.
        self.state.stateful_callbacks[_STATE] = self.meter.state()
        super()._save_checkpoint(model, trial)


class _Logging(TrainerCallback):  # type: ignore[misc]
    """The logging rule, the last partial interval, and metrics that go on where a resumed run was cut."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_begin(self, args: GPOConfig, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > 0 and _STATE in state.stateful_callbacks:
            self.meter.restore(state.stateful_callbacks[_STATE])
        if args.automatic_logging:
            state.logging_steps = args.logging_interval(state.max_steps)
        if state.is_world_process_zero:
            _keep_until(Path(args.output_dir) / METRICS_FILE, state.global_step)

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


def _keep_until(path: Path, step: int) -> None:
    """Drop the objects after `step`: a resumed run writes them again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


class _Rows(torch.utils.data.Dataset[tuple[Pair, Tensor]]):
    """Pairs and their reference log-probabilities, [N, 2]."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        self.reference = torch.zeros(len(pairs), 2)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Pair, Tensor]:
        return self.pairs[index], self.reference[index]


@dataclass(frozen=True)
class _Collator:
    layout: str

    def __call__(self, rows: Sequence[tuple[Pair, Tensor]]) -> dict[str, Tensor]:
        pairs, reference = zip(*rows, strict=True)
        return {**pack(pairs, self.layout).tensors(), "reference": torch.stack(reference)}


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
