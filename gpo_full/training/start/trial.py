"""What a training needs in its middle or at its end, tried before it starts: optimizer, schedule, and saving."""

__all__ = ["planned_steps", "try_start"]

import logging
import math
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import GenerationConfig, Trainer, get_scheduler

from gpo_full.config import GPOConfig
from gpo_full.other_libraries import in_one_line
from gpo_theory.errors import InputError

_log = logging.getLogger(__name__)


def try_start(
    model: Any, tokenizer: Any, args: GPOConfig, *, pairs: int = 0, optimizers: tuple[Any, Any] = (None, None)
) -> None:
    """Make the optimizer and the schedule for one number, and save for a trial all but the weights.

    `optimizers` are those that are given instead, `pairs` the number that is trained on, 0 if nothing is. Settings of
    the generation configuration that transformers does not save, as they have no effect, are left out. InputError for
    what fails.
    """
    given, schedule = optimizers
    steps = planned_steps(args, pairs) if pairs else 1000
    if optimizers == (None, None):
        _warn_of_rates(args, steps)
    if given is None:
        with in_one_line(f"optim={getattr(args.optim, 'value', args.optim)!r}"):
            kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
            if not {"params", "model", "optimizer_dict"} & options.keys():  # else it is made for parameters by name
                given = kind([torch.nn.Parameter(torch.zeros(1))], **options)
    if schedule is None and given is not None:
        name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        with in_one_line(f"lr_scheduler_type={name!r}"):
            get_scheduler(name, given, args.get_warmup_steps(steps), steps, args.lr_scheduler_kwargs)
    with TemporaryDirectory() as folder:
        _save(model, tokenizer, Path(folder))


def planned_steps(args: GPOConfig, pairs: int) -> int:
    """Return the optimizer steps of a run on so many pairs; InputError if it has none."""
    together = args.per_device_train_batch_size * int(os.environ.get("WORLD_SIZE", "1"))
    batches = pairs // together if args.dataloader_drop_last else math.ceil(pairs / together)
    if not batches:
        raise InputError(f"the run would have no step: dataloader_drop_last=True leaves out a batch of fewer than "
                         f"{together} pairs, and there are {pairs}")  # fmt: skip
    steps: int = args.max_steps
    an_epoch = math.ceil(batches / args.gradient_accumulation_steps)
    return steps if steps > 0 else math.ceil(args.num_train_epochs * an_epoch)


def _warn_of_rates(args: GPOConfig, steps: int) -> None:
    if args.learning_rate == 0:
        _log.warning("learning_rate=0: no weight will change")
    elif (warmup := args.get_warmup_steps(steps)) >= steps > 1:
        _log.warning("the learning rate warms up over %d steps, and the run has %d: it never reaches %g", warmup, steps,
                     args.learning_rate)  # fmt: skip


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    with in_one_line("the model's configuration cannot be saved"):
        model.config.save_pretrained(folder)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        _leave_out_what_has_no_effect(generation)
        with in_one_line("the model's generation configuration cannot be saved"):
            generation.save_pretrained(folder)
    if tokenizer is not None:
        with in_one_line("the tokenizer cannot be saved"):
            tokenizer.save_pretrained(folder)


def _leave_out_what_has_no_effect(config: Any) -> None:
    """Reset what `validate` objects to, which is what other settings leave without an effect."""
    usual, said = GenerationConfig(), ""
    try:
        config.validate(strict=True)
    except ValueError as error:
        said = str(error)
    without = {name: value for name, value in config.to_diff_dict().items()
               if f"- `{name}`: " in said and name != "do_sample"}  # fmt: skip
    for name in without:
        setattr(config, name, getattr(usual, name, None))
    if without:
        _log.warning("generation config: %s: without effect, as transformers says, and left out of what is saved",
                     ", ".join(f"{name}={value}" for name, value in without.items()))
