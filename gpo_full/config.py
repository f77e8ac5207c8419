"""What a run is: the Trainer's own arguments and the few that GPO adds, each checked."""

__all__ = ["GPOConfig", "check_total"]

import logging
import math
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainingArguments

from gpo_full.data.columns import Columns
from gpo_full.data.file_formats import BAD_ROWS
from gpo_full.margin import MARGINS
from gpo_full.training.reporting.trackers import checked_trackers
from gpo_theory import DomainError, Loss, Verdict, find_loss
from gpo_theory.budget import OutOfTimeError, limited
from gpo_theory.calculus.series import one_sided
from gpo_theory.catalogue import ALIASES, AVERAGED
from gpo_theory.choosing.matching import convention
from gpo_theory.claims.lower_bounds import bounded_below
from gpo_theory.claims.proving import accepted
from gpo_theory.claims.totality import total
from gpo_theory.errors import InputError, nearest
from gpo_theory.transforms import soft_label

# Fields of TRL's DPOConfig, and what there is instead.
IN_TRL = {
    "loss_type": "the loss is called loss, a name or a formula", "f_divergence_type": "the loss is called loss",
    "label_smoothing": "the rate of flipped labels is called label_noise",
    "precompute_ref_log_probs": "the reference's log-probabilities are always computed once, and stored",
    "precompute_ref_batch_size": "the reference pass chooses its batches by their tokens",
    "reference_free": "a loss without a reference is no f(beta rho)",
    "sync_ref_model": "the reference does not move", "rpo_alpha": "the loss is f(beta rho) alone",
    "max_completion_length": "max_length bounds prompt and response", "truncation_mode": "the prompt's end is kept",
    "padding_free": "pairs are always packed", "disable_dropout": "dropout is always off",
    "dataset_num_proc": "pairs are tokenized once, and kept on disk",
    "model_adapter_name": "the adapter that is active is trained",
    "ref_adapter_name": "the reference is the model as it is handed in, or reference",
    "model_init_kwargs": "hand in the model itself",
}  # fmt: skip
# Inherited options that this training would ignore, or that would break it, and why.
REFUSED = {
    "label_smoothing_factor": "it smooths token labels; label_noise is the preference's",
    "neftune_noise_alpha": "noise in the embeddings moves the policy away from its stored reference",
    "use_liger_kernel": "the response log-probabilities have their own head",
    "liger_kernel_config": "the response log-probabilities have their own head",
    "use_cache": "no step asks for a cache, and the model's own setting is what is saved",
    "auto_find_batch_size": "it would change the batch, and with it the run",
    "average_tokens_across_devices": "the loss is the mean over the pairs of all devices, whatever their tokens",
    "length_column_name": "pairs are drawn at random, in their order (sequential) or by prompt (group_by_prompt)",
    "dataloader_in_order": "which pairs are in a batch would depend on time",
    "prediction_loss_only": "evaluation returns metrics of the margin, never logits",
    "batch_eval_metrics": "evaluation metrics are exact means over pairs",
    "include_for_metrics": "evaluation metrics are exact means over pairs",
    "eval_do_concat_batches": "evaluation adds up sums, and gathers no predictions",
    "eval_accumulation_steps": "evaluation adds up sums, and gathers no predictions",
    "eval_use_gather_object": "evaluation adds up sums, and gathers no predictions",
    "bf16_full_eval": "the margin is evaluated in the precision in which it is trained",
    "fp16_full_eval": "the margin is evaluated in the precision in which it is trained",
    "label_names": "the batches hold no labels",
    "torch_compile": "attention goes pair by pair, which torch cannot compile as one graph",
    "torch_compile_backend": "attention goes pair by pair, which torch cannot compile as one graph",
    "torch_compile_mode": "attention goes pair by pair, which torch cannot compile as one graph",
    "deepspeed": "sharded training is FSDP's",
    "parallelism_config": "a sequence or a layer is not split over devices; sharded training is FSDP's",
    "fp16": "its loss scaler skips steps by rules of its own; bf16 needs none",
    "restore_callback_states_from_checkpoint": "metrics resume by themselves",
    "save_on_each_node": "one process writes the run's folder, which all nodes share",
    "enable_jit_checkpoint": "SIGTERM saves a checkpoint without it",
}
# Values of inherited options that are refused although others are used.
REFUSED_VALUES: dict[str, tuple[tuple[str, ...], str]] = {
    "train_sampling_strategy": (("group_by_length", "batch_rebalance"), REFUSED["length_column_name"]),
    "include_num_input_tokens_seen": (("non_padding",), "the metric tokens is their number"),
    "debug": (("tpu_metrics_debug",), "a TPU is not supported"),
    "optim": (("lomo", "adalomo", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise",
               "galore_adafactor_layerwise", "apollo_adamw_layerwise", "schedule_free_radam", "schedule_free_adamw",
               "schedule_free_sgd"),
              "it changes weights before the step is judged, or trains others than it evaluates"),
}  # fmt: skip
# Fields of accelerator_config, the value that is refused, and why.
REFUSED_OF_ACCELERATE = {
    "even_batches": (False, "ranks must take the same number of steps"),
    "dispatch_batches": (True, "packed batches cannot be cut up"),
    "use_seedable_sampler": (False, "a resumed run draws the pairs in the same order"),
}
# Options that do nothing unless one of others is set.
NEEDS = {
    "activation_checkpointing_kwargs": ("activation_checkpointing", "gradient_checkpointing"),
    "gradient_checkpointing_kwargs": ("activation_checkpointing", "gradient_checkpointing"),
    "fsdp_config": ("fsdp",),
    "dataloader_persistent_workers": ("dataloader_num_workers",),
    "dataloader_multiprocessing_context": ("dataloader_num_workers",),
}
# Fields that are numbers, and which: out of range, some would end a run only in its middle.
NUMBERS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("beta num_train_epochs", "a finite number above 0", lambda value: 0 < value < math.inf),
    ("learning_rate weight_decay max_grad_norm", "a finite number of at least 0", lambda value: 0 <= value < math.inf),
    ("label_noise", "at least 0 and below 1/2", lambda value: 0 <= value < 0.5),
    ("max_length max_prompt_length train_last_layers lora_rank sample_every sample_length per_device_train_batch_size "
     "per_device_eval_batch_size gradient_accumulation_steps", "a whole number of at least 1",
     lambda value: isinstance(value, int) and value >= 1),
    ("max_steps", "a whole number", lambda value: isinstance(value, int)),
    ("seed data_seed", f"a whole number of at least 0 and at most {2**32 - 1}",
     lambda value: isinstance(value, int) and 0 <= value < 2**32),
)  # fmt: skip
# Fields that take one of a few values, of which the Trainer would take any other for one of them.
CHOICES: dict[str, Collection[Any]] = {
    "margin": MARGINS, "bad_rows": BAD_ROWS, "train_sampling_strategy": ("random", "sequential"),
    "include_num_input_tokens_seen": ("no", "all", False, True),
}  # fmt: skip
# Those of NUMBERS that may not be None.
NEEDED = {"beta", "num_train_epochs", "label_noise", "learning_rate", "max_length", "max_steps", "sample_length",
          "seed", "per_device_train_batch_size", "gradient_accumulation_steps"}  # fmt: skip
_log = logging.getLogger(__name__)


def _option(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass
class GPOConfig(TrainingArguments):  # type: ignore[misc]
    """Arguments of `GPOTrainer`: those of `transformers.TrainingArguments` and the following.

    The loss of a pair is f(beta rho), rho = log pi/pi_ref (chosen) - log pi/pi_ref (rejected), in nats; a batch's
    loss is the mean over its pairs, however they are split into micro-batches. A value that cannot be used raises
    InputError, and so do inherited options that would be ignored or would break this training (`REFUSED`).
    Dropout is always off: with it, the policy would differ from its own reference at step 0.

    Metrics are logged at every step of a run of at most 1,000 steps, else at every tenth, unless `logging_steps` is
    given.
    """

    loss: str = _option("logistic", "name, alias or formula in x of the loss f")
    parameters: dict[str, Any] | None = field(default=None, metadata={"help": "values of the formula's parameters"})
    beta: float = _option(0.1, "factor on the margin rho, above 0: x = beta * rho")
    margin: str | None = _option(
        None, "how the log-ratios of tokens become rho: sum, mean (default: mean for trl-ipo, else sum)"
    )
    label_noise: float = _option(0.0, "rate e of flipped labels: (1-e) f(x) + e f(-x)")
    max_length: int = _option(1024, "tokens of prompt and response; the response is cut")
    max_prompt_length: int | None = _option(
        None, "tokens of the prompt, its first ones are cut (default: half of max_length)")  # fmt: skip
    reference_store: str | None = _option(None, "folder of reference log-probabilities (default: in the cache)")
    train_last_layers: int | None = _option(None, "train the last layers and the final norm only; the rest is frozen")
    lora_rank: int | None = _option(None, "train adapters of this rank on all linear layers")
    group_by_prompt: bool = _option(
        False, "draw the pairs of a prompt one after another: a batch then computes the prompt, and a response of "
        "several pairs, once; its gradient is of fewer prompts")  # fmt: skip
    columns: dict[str, str] | None = field(
        default=None, metadata={"help": "what the data calls the columns of pairs: {'prompt': 'question'}"}
    )
    bad_rows: str = _option("fail", "what to do with a row that cannot be used: fail, skip")
    scale_gradient: bool = _option(
        False, "optimise f(beta rho) / (beta |f'(0)|), so that every loss and beta starts with the same gradient; "
        "metrics show f itself. max_grad_norm=0 turns clipping off")  # fmt: skip
    sample_every: int | None = _option(None, "steps between samples of the policy, for KL and win rate (default: none)")
    sample_prompts: str | None = _option(None, "JSONL with prompt and target, to sample for")
    sample_reward: str | None = _option(
        None, "what judges samples: as --reward of gpo evaluate (default: the prepared one)")  # fmt: skip
    sample_length: int = _option(32, "tokens of the longest sample")
    report_to: str | list[str] | None = field(
        default="none", metadata={"help": "trackers that get the logs: none, tensorboard, trackio, wandb"}
    )
    learning_rate: float = _option(1e-6, "initial learning rate")
    # Every trained parameter takes part in every step.
    ddp_find_unused_parameters: bool | None = _option(False, "see DistributedDataParallel")
    ddp_timeout: int = _option(120, "seconds after which a run ends of which a process hangs")
    logging_steps: float | None = _option(None, "steps between metrics (default: 1 up to 1,000 steps, else 10)")

    def __new__(cls, *_: Any, **named: Any) -> "GPOConfig":
        """Name what there is instead of an argument that is none, before the fields are set."""
        for name in named.keys() - {each.name for each in fields(cls) if each.init}:
            instead = f": {IN_TRL[name]}" if name in IN_TRL else nearest(name, [each.name for each in fields(cls)])
            raise InputError(f"GPOConfig has no field {name!r}{instead}")
        found: GPOConfig = super().__new__(cls)
        return found

    def __post_init__(self) -> None:
        _check_refused(self)
        self.margin = _aggregation(self.loss, self.margin)
        _check_values(self)
        if self.max_prompt_length is None:
            self.max_prompt_length = self.max_length // 2
        self.automatic_logging = self.logging_steps is None
        if self.automatic_logging:
            self.logging_steps = self.logging_interval(self.max_steps)
        check_total(self.optimised_loss())
        _say_convention(self.loss, self.margin)
        _check_falls(self.loss, self.optimised_loss())
        _warn_if_unbounded(self.loss, self.optimised_loss())
        trackers: Any = checked_trackers(self.report_to)
        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # or the Trainer would ask for it
        _join_on_cpu(self)
        try:
            super().__post_init__()
        except (ValueError, TypeError) as error:
            raise InputError(str(error)) from None
        _check_accelerate(self)
        self.report_to = trackers  # the Trainer adds some by itself
        self.remove_unused_columns = False
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False
        else:  # a batch must not wait for the steps before it
            self.accelerator_config.non_blocking = self.dataloader_pin_memory
        # The filter would replace a NaN by an average and log it as if nothing had happened.
        self.logging_nan_inf_filter = False
        if self.fsdp and (self.device.type == "cpu" or self.world_size == 1):
            raise InputError(f"fsdp={self.fsdp!r} is refused: {self.world_size} process(es) on {self.device.type} "
                             "would run unsharded; it needs accelerators and a launcher")  # fmt: skip
        if self.n_gpu > 1:
            raise InputError(f"{self.n_gpu} devices are visible without a launcher, which would run nn.DataParallel; "
                             "use `accelerate launch`, or show one device")  # fmt: skip

    def optimised_loss(self) -> Loss:
        """Return the loss that is optimised, label noise included."""
        values = {name: value if isinstance(value, int | Fraction) else str(value)
                  for name, value in (self.parameters or {}).items()}  # fmt: skip
        loss = find_loss(self.loss, values)
        return soft_label(loss, str(self.label_noise)) if self.label_noise else loss

    def store_folder(self) -> Path:
        """Return the folder of reference log-probabilities."""
        from gpo_full.files import cache_root

        return Path(self.reference_store).expanduser() if self.reference_store else cache_root() / "references"

    @staticmethod
    def logging_interval(max_steps: int) -> int:
        """Return the number of steps between metrics in a run of `max_steps`."""
        return 1 if 0 < max_steps <= 1000 else 10


def _join_on_cpu(config: GPOConfig) -> None:
    """Join the launcher's other processes; on the CPU the Trainer would do so without a timeout."""
    on_cpu = config.use_cpu or os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    if on_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group(config.ddp_backend or "gloo", timeout=timedelta(seconds=config.ddp_timeout))


def check_total(loss: Loss) -> None:
    """Raise DomainError if `loss` is not defined on all of R."""
    f = loss.f.primitive()
    for found in total(f):
        if found.verdict is Verdict.REFUTED and accepted(f, found).verdict is Verdict.REFUTED:
            raise DomainError(f"{loss.formula!r} is not defined on all of R: {found.because}")


def _aggregation(loss: Any, margin: str | None) -> str:
    """Return the margin's aggregation, which some names of a loss fix."""
    if not isinstance(loss, str):
        raise InputError(f"loss={loss!r}: loss must be a name or a formula")
    fixed = "mean" if loss in AVERAGED else None
    if fixed and margin not in (fixed, None):
        raise InputError(f"loss={loss!r} is a function of the length-averaged margin, and margin={margin!r} is given; "
                         f"on the summed margin its name is {ALIASES[loss]}")  # fmt: skip
    return margin or fixed or "sum"


def _say_convention(name: str, margin: str | None) -> None:
    """Say what a name means that has other meanings elsewhere."""
    if note := convention(name, margin):
        _log.warning("convention: %s", note)


def _check_falls(name: str, loss: Loss) -> None:
    """Raise InputError for a loss that is shown not to fall at 0, where training starts, unless it is published.

    Such a one is named in a warning, and so are a kink at 0 and what a second does not decide.
    """
    left = right = None
    with suppress(OutOfTimeError), limited(1.0):
        left, right = (one_sided(loss.f.primitive(), side, 1)[1] for side in (-1, 1))
    if left is None or right is None:
        _log.warning("loss %s: whether it falls at 0, where training starts, is not decided", name)
        return
    beside = f"f'(0) = {left.text}" if left == right else f"f' = {left.text} and {right.text} on the sides of 0"
    low, high = sorted((left.value, right.value))
    if low < 0:
        if left != right:
            _log.warning("loss %s has %s, where training starts: rounding chooses between the two", name, beside)
        return
    does = ("begins by making the chosen response less likely than the rejected one; is the sign of x right?"
            if high > 0 else "does not prefer the chosen response where training starts; (x-1)^2 does, x^2 shifted")
    said = f"loss {name} has {beside} {'>' if low > 0 else '>='} 0: it {does}"
    if not loss.reference:
        raise InputError(said)
    _log.warning("%s", said)


def _warn_if_unbounded(name: str, loss: Loss) -> None:
    """Warn of a loss that can fall without limit, if a second decides that."""
    with suppress(OutOfTimeError), limited(1.0):
        found = next(bounded_below(loss.f.primitive()))
        if found.verdict is Verdict.REFUTED:
            _log.warning("loss %s is not bounded below, %s: a falling value alone is no progress; watch the accuracy",
                         name, found.because)  # fmt: skip


def _check_refused(config: GPOConfig) -> None:
    for each in fields(TrainingArguments):
        name, value = each.name, getattr(config, each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if name in REFUSED and value != default and (value or default):
            raise InputError(f"{name}={value!r} is refused: {REFUSED[name]}")
        values, reason = REFUSED_VALUES.get(name, ((), ""))
        for one in {*_words(value)} & {*values}:
            raise InputError(f"{name}={one!r} is refused: {reason}")
        if value and name in NEEDS and not any(getattr(config, other) for other in NEEDS[name]):
            raise InputError(f"{name}={value!r} does nothing without {NEEDS[name][0]}")


def _words(value: Any) -> list[str]:
    """The words of an option: a text of some, a member of an enumeration, or a list of either."""
    texts = value if isinstance(value, list) else [value]
    return [word for text in texts for word in str(getattr(text, "value", text)).split()]


def _check_accelerate(config: GPOConfig) -> None:
    for name, (refused, reason) in REFUSED_OF_ACCELERATE.items():
        if getattr(config.accelerator_config, name) is refused:
            raise InputError(f"accelerator_config: {name}={refused} is refused: {reason}")


def _check_values(config: GPOConfig) -> None:
    for names, what, fits in NUMBERS:
        for name in names.split():
            value = getattr(config, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and fits(value)) and (value is not None or name in NEEDED):
                raise InputError(f"{name}={value!r} must be {what}")
    for each in fields(config):
        if each.type in (bool, "bool") and not isinstance(value := getattr(config, each.name), bool):
            raise InputError(f"{each.name}={value!r} must be True or False")
    for name, allowed in CHOICES.items():
        value = getattr(config, name)
        if value not in allowed:
            words = [*map(str, allowed)]
            raise InputError(f"{name}={value!r}; allowed: {', '.join(words)}{nearest(str(value), words)}")
    Columns(config.columns or {})
    _check_together(config)
    if not isinstance(config.parameters or {}, Mapping):
        raise InputError(f"parameters={config.parameters!r} must be a mapping from names to numbers")


def _check_together(config: GPOConfig) -> None:
    if config.max_steps != -1 and config.max_steps < 1:
        raise InputError(f"max_steps={config.max_steps!r} must be at least 1, or -1 for num_train_epochs")
    if config.max_length < 2 or (config.max_prompt_length or 1) >= config.max_length:
        raise InputError(f"max_prompt_length={config.max_prompt_length} leaves no token of max_length="
                         f"{config.max_length} to the response")  # fmt: skip
    given = [value is not None for value in (config.sample_every, config.sample_prompts)]
    if any(given) != all(given) or (config.sample_reward is not None and not all(given)):
        raise InputError("sample_every, the steps between samples, and sample_prompts, the file of their prompts, go "
                         "together; sample_reward needs both")  # fmt: skip
    optim = str(getattr(config.optim, "value", config.optim))
    if config.optim_args and optim in ("adamw_torch", "adamw_torch_fused", "adafactor"):
        raise InputError(f"optim_args={config.optim_args!r} does nothing with optim={optim!r}: its settings are "
                         "fields")  # fmt: skip
    if config.optim_target_modules and not optim.startswith(("galore", "apollo")):
        raise InputError(f"optim_target_modules={config.optim_target_modules!r} does nothing with optim={optim!r}")
    if config.group_by_prompt and config.train_sampling_strategy == "sequential":
        raise InputError("group_by_prompt and train_sampling_strategy='sequential' exclude each other")
    if config.train_last_layers is not None and config.lora_rank is not None:
        raise InputError("train_last_layers and lora_rank exclude each other")
