"""`gpo train`: fine-tune a language model on preference pairs with any loss."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.files import atomic_file
from gpo_full.output import print_json
from gpo_theory.errors import InputError, nearest

if TYPE_CHECKING:
    from gpo_full.config import GPOConfig
    from gpo_full.trainer import GPOTrainer

EXAMPLE = 'gpo train --model MODEL --data pairs.jsonl --loss "max(0,1-x)**2" --beta 0.1 --output run --steps 60'
CANNOT_SAVE, NO_GOOD_CHECKPOINT, NON_FINITE = 1, 4, 5
# Flag -> field of GPOConfig.
FIELDS = {"loss": "loss", "beta": "beta", "learning_rate": "learning_rate", "steps": "max_steps",
          "epochs": "num_train_epochs", "batch_pairs": "per_device_train_batch_size", "max_length": "max_length",
          "margin": "margin", "seed": "seed", "bf16": "bf16", "lora_rank": "lora_rank",
          "last_layers": "train_last_layers", "reference_store": "reference_store"}  # fmt: skip
RUN_FILE = "run.json"
# What only the command knows of a run, and what only the trainer knows.
OF_THE_FILES, OF_THE_TRAINER = {"schema", "model", "eval_data"}, {"reference_weights", "world_size"}
# The files that make a folder loadable; they are moved into place last.
COMPLETE = ("config.json", "adapter_config.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--model", required=True, help="folder or hub name of a causal language model: policy and reference")
    add("--data", required=True, metavar="FILE", help="JSONL with prompt, chosen and rejected")
    add("--loss", required=True, help="name, alias or formula in x = beta * rho")
    add("--beta", required=True, type=float, help="scale of the margin, above 0")
    add("--output", required=True, metavar="FOLDER", help="new or empty folder for the trained model and metrics.jsonl")
    add("--eval-data", metavar="FILE", help="held-out pairs, evaluated once at the end")
    add("--learning-rate", type=float, help="initial learning rate (default: 1e-6)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="optimizer steps")
    length.add_argument("--epochs", type=float, help="passes over the data (default: 1)")
    add("--batch-pairs", type=int, help="pairs per device and micro-batch (default: 8)")
    add("--max-length", type=int, help="tokens of prompt and response (default: 1024; half of it for the prompt)")
    add("--margin", help="sum (default) or mean: how log-ratios are added up over tokens")
    add("--param", action="append", default=[], metavar="NAME=VALUE", help="value of a parameter of the loss")
    add("--seed", type=int, help="order of the pairs (default: 42)")
    add("--bf16", action="store_true", default=None, help="compute in bfloat16; weights stay float32")
    add("--lora-rank", type=int, help="train adapters of this rank instead of the weights")
    add("--last-layers", type=int, help="train only so many last layers")
    add("--reference-store", metavar="FOLDER", help="where reference log-probabilities are kept (default: the cache)")
    add("--resume", action="store_true", help="continue the run in FOLDER from its newest whole checkpoint")
    add("--allow-change", action="append", default=[], metavar="NAME",
        help="with --resume: a setting that may differ from the run begun (also: data, eval_data, model)")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="any other field of GPOConfig")
    add("--threads", type=int, help="threads of torch (default: torch's choice)")
    add("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Train, save, report; after a signal or a failure, what was saved is there to --resume."""
    with _warnings_on_stderr():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    output = Path(args.output)
    _check_output(output, args.resume)
    if args.resume and any((output / name).exists() for name in COMPLETE):
        print(f"gpo train: {str(output)!r} is already complete", file=sys.stderr)
        return 0
    _check_files(args)
    _quiet(args.threads)
    config = _config(args)
    _check_hub(args.model)
    record = _record(args, config)
    if args.resume:
        _check_same(output, record, args.allow_change)
    elif args.allow_change:
        raise InputError(f"--allow-change {args.allow_change[0]} is for --resume")
    created = not output.exists()
    try:
        trainer = _trainer(args, config)
    except BaseException:
        if created and output.exists() and not any(output.iterdir()):
            output.rmdir()
        raise
    record["reference_weights"] = trainer.reference_weights
    return _train(trainer, output, record, args)


def _train(trainer: "GPOTrainer", output: Path, record: dict[str, Any], args: argparse.Namespace) -> int:
    from gpo_full.checkpoint import CheckpointNotSaved, DamagedCheckpoint
    from gpo_full.interruption import Interrupted
    from gpo_full.metrics import NonFiniteLoss

    if args.resume:
        _check_same(output, record, args.allow_change)
    try:
        with trainer.writing():
            with atomic_file(output / RUN_FILE) as temporary:
                temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            trainer.train(resume_from_checkpoint=args.resume or None, allow_changes={*args.allow_change} - OF_THE_FILES)
            held_out = trainer.evaluate() if trainer.eval_dataset is not None else None
            _save(trainer, output)
    except NonFiniteLoss as error:
        return _stopped(f"stopped after step {trainer.state.global_step}: {error}", NON_FINITE)
    except CheckpointNotSaved as error:
        return _stopped(f"{error}; the checkpoints before it are intact", CANNOT_SAVE)
    except DamagedCheckpoint as error:
        return _stopped(str(error), NO_GOOD_CHECKPOINT)
    except Interrupted as error:
        return _stopped(f"{error}; --resume goes on from there", int(error.code or 0))
    _report(trainer, output, held_out, args.json)
    return 0


def _stopped(why: str, code: int) -> int:
    print(f"gpo train: {why}", file=sys.stderr)
    return code


def _check_output(output: Path, resume: bool) -> None:
    if resume:
        if not (output / RUN_FILE).is_file():
            raise InputError(f"{str(output)!r} holds no run to resume ({RUN_FILE} is missing)")
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"output {str(output)!r} is not an empty folder; choose another, or --resume")


def _check_files(args: argparse.Namespace) -> None:
    for flag, path in (("--data", args.data), ("--eval-data", args.eval_data)):
        if path is not None and not Path(path).is_file():
            raise InputError(f"{flag} {path!r} is not a file")
    # Anything but owner/name can only be a folder: say so before a hub is asked.
    if not Path(args.model).is_dir() and (args.model.count("/") > 1 or args.model.startswith((".", "/", "~"))):
        raise InputError(f"--model {args.model!r} is not a folder")


def _check_hub(model: str) -> None:
    """Ask the hub once for a model that is no folder: loading it would retry for most of a minute."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    if Path(model).is_dir():
        return
    try:
        known = isinstance(try_to_load_from_cache(model, "config.json"), str)
        if not known and not constants.HF_HUB_OFFLINE:
            HfApi().model_info(model, timeout=10)
            known = True
    except Exception as error:  # whatever the client's network library raises
        raise InputError(f"--model {model!r} is no folder, and the hub says: {str(error).splitlines()[0]}") from None
    if not known:
        raise InputError(f"--model {model!r} is neither a folder nor in the hub's cache (HF_HUB_OFFLINE is set)")


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Show what the engine has to say: rows skipped, texts cut, prefixes not shared."""
    handler, logger = logging.StreamHandler(), logging.getLogger("gpo_full")
    handler.setFormatter(logging.Formatter("gpo train: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def _quiet(threads: int | None) -> None:
    """Keep stdout for results, and stderr for what concerns the user."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads} must be at least 1")
        torch.set_num_threads(threads)


def _config(args: argparse.Namespace) -> "GPOConfig":
    from gpo_full.config import GPOConfig

    values = {name: getattr(args, flag) for flag, name in FIELDS.items() if getattr(args, flag) is not None}
    if args.steps is None and args.epochs is None:
        values["num_train_epochs"] = 1.0
    values["parameters"] = dict(_named(text, "--param") for text in args.param)
    explicit = {name for flag, name in FIELDS.items() if getattr(args, flag) is not None}
    for text in args.set:
        name, value = _named(text, "--set")
        if name in explicit or name in ("output_dir", "parameters"):
            raise InputError(f"--set {text}: {name} has an option of its own, or is given twice")
        explicit.add(name)
        values[name] = _typed(name, value)
    return GPOConfig(output_dir=args.output, disable_tqdm=True, **values)


def _named(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise InputError(f"{option} {text!r} must be NAME=VALUE")
    return name.strip(), value.strip()


def _typed(name: str, text: str) -> Any:
    """Return `text` as the type of GPOConfig's field `name`: number, true or false, none, JSON, or the text itself."""
    from dataclasses import fields
    from typing import get_args, get_type_hints

    from gpo_full.config import GPOConfig

    allowed = [each.name for each in fields(GPOConfig) if each.init]
    if name not in allowed:
        raise InputError(f"--set {name}={text}: GPOConfig has no field {name!r}{nearest(name, allowed)}")
    hint = get_type_hints(GPOConfig)[name]
    kinds = get_args(hint) or (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    for kind, read in ((bool, _boolean), (int, int), (float, float), (dict, json.loads), (list, json.loads)):
        if kind in {getattr(each, "__origin__", each) for each in kinds}:
            try:
                return read(text)
            except ValueError:
                continue
    if any(isinstance(each, type) and issubclass(each, str) for each in kinds):
        return text
    raise InputError(f"--set {name}={text}: {text!r} is not a value of type {getattr(hint, '__name__', hint)}")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _record(args: argparse.Namespace, config: "GPOConfig") -> dict[str, Any]:
    """What a resumed run must agree with."""
    from gpo_full.trainer import settings

    record = {"schema": 1, "model": args.model, "data": _sha256(args.data),
              "eval_data": None if args.eval_data is None else _sha256(args.eval_data)}  # fmt: skip
    return {**record, **settings(config)}


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_same(output: Path, record: Mapping[str, Any], allowed: Collection[str]) -> None:
    try:
        before = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{str(output / RUN_FILE)!r} is damaged; the run cannot be resumed") from None
    changed = [f"{name}: {before.get(name)!r} -> {value!r}" for name, value in record.items()
               if before.get(name) != value and name not in allowed]  # fmt: skip
    known = {*record, *OF_THE_TRAINER}
    for name in {*allowed} - known:
        raise InputError(f"--allow-change {name} is no setting of a run{nearest(name, known)}")
    if changed:
        raise InputError(f"{str(output)!r} was begun with another configuration: {'; '.join(changed)}")


def _trainer(args: argparse.Namespace, config: "GPOConfig") -> "GPOTrainer":
    from transformers import AutoTokenizer, PrinterCallback

    from gpo_full.trainer import GPOTrainer, ProgressLines

    # An adapter's folder names its base model by this path, wherever it is loaded from.
    model = str(Path(args.model).resolve()) if Path(args.model).is_dir() else args.model
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no tokenizer in model {args.model!r}: {str(error).splitlines()[0]}") from None
    trainer = GPOTrainer(model, config, args.data, args.eval_data, tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressLines())
    return trainer


def _save(trainer: "GPOTrainer", output: Path) -> None:
    """Write the model beside its place and move it there, the file that makes it loadable last."""
    with tempfile.TemporaryDirectory(dir=output, prefix=".model-") as folder:
        trainer.save_model(folder)
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.name in COMPLETE):
            os.replace(path, output / path.name)


def _report(trainer: "GPOTrainer", output: Path, held_out: Mapping[str, float] | None, as_json: bool) -> None:
    with (output / "metrics.jsonl").open(encoding="utf-8") as file:
        objects = [json.loads(line) for line in file]
    if as_json:
        print_json({"output": str(output), "pairs": len(trainer.train_dataset), "steps": trainer.state.global_step,
                    "first": objects[0], "last": objects[-1], "evaluation": held_out})  # fmt: skip
        return
    first, last = objects[0], objects[-1]
    print(f"{trainer.state.global_step} steps on {len(trainer.train_dataset)} pairs, loss {trainer.loss.name}, "
          f"beta {trainer.args.beta:g}, {last['cpu_seconds']:.0f} CPU-seconds")  # fmt: skip
    for name in ("loss", "margin", "log_ratio_chosen", "log_ratio_rejected", "accuracy", "regularizer"):
        end = f"   held out {held_out[f'eval_{name}']: .4f}" if held_out else ""
        print(f"  {name:<20} {first[name]: .4f} -> {last[name]: .4f}{end}")
    print(f"model and metrics.jsonl in {output}")
