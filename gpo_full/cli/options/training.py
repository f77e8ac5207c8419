"""The options of `gpo train`: those that all runs of a sweep share, and the GPOConfig that they make."""

__all__ = ["FIELDS", "add_columns_option", "add_shared_arguments", "columns_of", "config_of", "shared_words",
           "words_of"]  # fmt: skip

import argparse
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gpo_full.cli.options.parameters import read_parameters
from gpo_theory.errors import InputError, nearest

if TYPE_CHECKING:
    from gpo_full.config import GPOConfig

# Option -> field of GPOConfig.
FIELDS = {"loss": "loss", "beta": "beta", "learning_rate": "learning_rate", "steps": "max_steps",
          "epochs": "num_train_epochs", "batch_pairs": "per_device_train_batch_size", "max_length": "max_length",
          "margin": "margin", "seed": "seed", "bf16": "bf16", "lora_rank": "lora_rank",
          "last_layers": "train_last_layers", "reference_store": "reference_store", "report_to": "report_to",
          "sample_every": "sample_every", "prompts": "sample_prompts", "reward": "sample_reward"}  # fmt: skip

# Fields that the command does in another way.
ELSEWHERE = {"push_to_hub": "`hf upload` takes the finished folder",
             "resume_from_checkpoint": "--resume continues a run"}  # fmt: skip
# What a shell cannot easily type, in a template of columns.
ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}
_ESCAPE = re.compile(r"\\([nt\\])")
# How --set reads the types of fields that are no texts, in this order.
READERS: dict[type, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()], int: int, float: float, dict: json.loads,
    list: json.loads,
}  # fmt: skip


def add_shared_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Declare the options that all runs of a sweep have in common; model and data are `required`, or checked later."""
    add = parser.add_argument
    add("--model", required=required, help="folder or hub name of a causal language model: policy and reference")
    add("--data", required=required, metavar="DATA", help="prompt, chosen and rejected: a file (JSON, CSV, Parquet), a "
        "folder[:split] of files or that datasets saved, or owner/name[:split] of a data set on the hub")  # fmt: skip
    add("--eval-data", metavar="DATA", help="held-out pairs, evaluated once at the end")
    add("--test-by", metavar="COLUMN", help="hold out the rows of some values of this column of --data, drawn at "
        "random, and evaluate them as --eval-data is; no test response counts twice")  # fmt: skip
    add("--test-share", type=float, metavar="S", help="with --test-by: share of the values held out (default: 0.3)")
    add_columns_option(parser, "prompt, chosen, rejected, system, tools, chat_template_kwargs, weight, p")
    add("--learning-rate", type=float, help="initial learning rate (default: 1e-6)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="optimizer steps")
    length.add_argument("--epochs", type=float, help="passes over the data (default: 1)")
    add("--batch-pairs", type=int, help="pairs per device and micro-batch (default: 8)")
    add("--max-length", type=int, help="tokens of prompt and response (default: 1024; half of it for the prompt)")
    add("--margin", help="sum or mean: how log-ratios are added up over tokens (default: mean for trl-ipo, else sum)")
    add("--bf16", action="store_true", default=None, help="compute in bfloat16; weights stay float32")
    add("--lora-rank", type=int, help="train adapters of this rank instead of the weights")
    add("--last-layers", type=int, help="train only so many last layers")
    add("--reference-store", metavar="FOLDER", help="where reference log-probabilities are kept (default: the cache)")
    add("--sample-every", type=int, metavar="N", help="steps between samples of the policy: KL and win rate against "
        "the reference in samples.jsonl; the training is bitwise the same")  # fmt: skip
    add("--prompts", metavar="FILE", help="JSONL with prompt and target, for --sample-every")
    add("--reward", help="what judges the samples: folder of a sentence encoder or of a reward model, or "
        "module:function, your own code, typed by you and run (default: the prepared encoder)")  # fmt: skip
    add("--report-to", action="append", metavar="TRACKER",
        help="also log to tensorboard, trackio or wandb (default: nowhere); repeatable")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="any other field of GPOConfig; repeatable")
    add("--threads", type=int, help="threads of torch (default: torch's choice)")


def add_columns_option(parser: argparse.ArgumentParser, ours: str) -> None:
    """Declare `--columns OURS=THEIRS`, repeatable."""
    parser.add_argument("--columns", action="extend", nargs="+", metavar="OURS=THEIRS", help=f"what the data calls a "
        f"column ({ours}), as in prompt=question, or a template of several, as in 'prompt={{instruction}}\\n{{input}}' "
        "(\\n is a new line, \\t a tab, \\\\ a backslash); repeatable")  # fmt: skip


def columns_of(texts: Sequence[str] | None) -> dict[str, str] | None:
    """Return what --columns says, None if it is not given; InputError for another form or a name given twice.

    >>> columns_of(["prompt={topic}: ", "chosen=good"])
    {'prompt': '{topic}: ', 'chosen': 'good'}
    """
    names = read_parameters(texts or (), "--columns", "OURS=THEIRS, as in prompt=question")
    values = (_ESCAPE.sub(lambda found: ESCAPES[found[1]], text.partition("=")[2]) for text in texts or ())
    return dict(zip(names, values, strict=True)) or None


def shared_words(args: argparse.Namespace) -> list[str]:
    """Return those of the options in `args` that all runs of a sweep have in common, as they could be typed."""
    parser = argparse.ArgumentParser(add_help=False)
    add_shared_arguments(parser)
    shared = {action.dest for action in parser._actions}
    return words_of(argparse.Namespace(**{name: value for name, value in vars(args).items() if name in shared}))


def words_of(options: argparse.Namespace) -> list[str]:
    """Return parsed options as they could be typed.

    >>> words_of(argparse.Namespace(bf16=True, set=["seed=1"], margin=None))
    ['--bf16', '--set', 'seed=1']
    """
    words = []
    for name, value in vars(options).items():
        if callable(value):  # `gpo` itself, which the entry point hands to every command
            continue
        given = value if isinstance(value, list) else [value] if value is not None and value is not False else []
        for each in given:
            words += [f"--{name.replace('_', '-')}", *([] if each is True else [str(each)])]
    return words


def config_of(args: argparse.Namespace) -> "GPOConfig":
    """Return the configuration that the options of `gpo train` make; InputError for what cannot be used."""
    from gpo_full.config import GPOConfig

    values = {name: getattr(args, option) for option, name in FIELDS.items() if getattr(args, option) is not None}
    own = {name: option for option, name in FIELDS.items()} | {"output_dir": "output", "parameters": "param"}
    for name, value in read_parameters(args.set, "--set").items():
        if name in values or name in ("output_dir", "parameters") or (args.steps and name == "num_train_epochs"):
            raise InputError(f"--set {name}={value}: {name} has an option of its own, --{own[name].replace('_', '-')}")
        if name in ELSEWHERE:
            raise InputError(f"--set {name}={value} is refused: {ELSEWHERE[name]}")
        values[name] = _typed(name, value)
    if args.columns:
        values["columns"] = columns_of(args.columns)
    if args.steps is None and args.epochs is None:
        values.setdefault("num_train_epochs", 1.0)
    return GPOConfig(**{"output_dir": args.output, "disable_tqdm": True, "parameters": read_parameters(args.param),
                        **values})  # fmt: skip


def _typed(name: str, text: str) -> Any:
    """Return `text` as the type of GPOConfig's field `name`: number, true or false, none, JSON, or the text itself."""
    from dataclasses import fields
    from typing import get_args, get_type_hints

    from gpo_full.config import IN_TRL, GPOConfig

    allowed = [each.name for each in fields(GPOConfig) if each.init]
    if name not in allowed:
        instead = f": {IN_TRL[name]}" if name in IN_TRL else nearest(name, allowed)
        raise InputError(f"--set {name}={text}: GPOConfig has no field {name!r}{instead}")
    hint = get_type_hints(GPOConfig)[name]
    kinds = get_args(hint) or (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    for kind, read in READERS.items():
        if kind in {getattr(each, "__origin__", each) for each in kinds}:
            with suppress(ValueError, KeyError):
                return read(text)
    if any(isinstance(each, type) and issubclass(each, str) for each in kinds):
        return text
    raise InputError(f"--set {name}={text}: {text!r} is not a value of type {getattr(hint, '__name__', hint)}")
