"""What a training needs in its middle or at its end, tried before it starts: optimizer, schedule, and saving."""

__all__ = ["try_start"]

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import GenerationConfig, Trainer, get_scheduler

from gpo_full.config import GPOConfig
from gpo_full.other_libraries import in_one_line

_log = logging.getLogger(__name__)


def try_start(model: Any, tokenizer: Any, args: GPOConfig, *, optimizers: tuple[Any, Any] = (None, None)) -> None:
    """Make the optimizer and the schedule for one number, and save for a trial all but the weights.

    `optimizers` are those that are given instead. Settings of the generation configuration that transformers does not
    save, as they have no effect, are left out. InputError for what fails.
    """
    given, schedule = optimizers
    if given is None:
        with in_one_line(f"optim={getattr(args.optim, 'value', args.optim)!r}"):
            kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
            if not {"params", "model", "optimizer_dict"} & options.keys():  # else it is made for parameters by name
                given = kind([torch.nn.Parameter(torch.zeros(1))], **options)
    if schedule is None and given is not None:
        name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        with in_one_line(f"lr_scheduler_type={name!r}"):
            steps = args.max_steps if args.max_steps > 0 else 1000
            get_scheduler(name, given, args.get_warmup_steps(steps), steps, args.lr_scheduler_kwargs)
    with TemporaryDirectory() as folder:
        _save(model, tokenizer, Path(folder))


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
