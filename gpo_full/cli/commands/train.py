"""`gpo train`: fine-tune a language model on preference pairs with any loss."""

__all__ = ["EXAMPLE", "add_arguments", "add_shared_arguments", "run", "shared_words"]

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.cli.options.parameters import read_parameters
from gpo_full.diagnosis.log import RUN_FILE
from gpo_full.output import print_json
from gpo_theory.errors import InputError, nearest

if TYPE_CHECKING:
    from gpo_full.training.config import GPOConfig
    from gpo_full.training.trainer import GPOTrainer

EXAMPLE = 'gpo train --model MODEL --data pairs.jsonl --loss "max(0,1-x)**2" --beta 0.1 --output run --steps 60'
CANNOT_SAVE, NO_GOOD_CHECKPOINT, NON_FINITE = 1, 4, 5
# Flag -> field of GPOConfig.
FIELDS = {"loss": "loss", "beta": "beta", "learning_rate": "learning_rate", "steps": "max_steps",
          "epochs": "num_train_epochs", "batch_pairs": "per_device_train_batch_size", "max_length": "max_length",
          "margin": "margin", "seed": "seed", "bf16": "bf16", "lora_rank": "lora_rank",
          "last_layers": "train_last_layers", "reference_store": "reference_store", "report_to": "report_to",
          "sample_every": "sample_every", "prompts": "sample_prompts", "reward": "sample_reward"}  # fmt: skip
RESULT_FILE = "result.json"
# What only the command knows of a run, and what only the trainer knows.
SPLIT = ("test_by", "test_share", "prompt_from")
OF_THE_FILES, OF_THE_TRAINER = {"schema", "model", "eval_data", *SPLIT}, {"reference_weights", "world_size"}
# The files that make a folder loadable; they are moved into place last.
COMPLETE = ("config.json", "adapter_config.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--loss", required=True, help="name, alias or formula in x = beta * rho")
    add("--beta", required=True, type=float, help="scale of the margin, above 0")
    add("--output", required=True, metavar="FOLDER", help="new or empty folder for the trained model and metrics.jsonl")
    add("--param", action="append", default=[], metavar="NAME=VALUE", help="value of a parameter of the loss")
    add("--seed", type=int, help="order of the pairs (default: 42)")
    add("--resume", action="store_true", help="continue the run in FOLDER from its newest whole checkpoint")
    add("--allow-change", action="append", default=[], metavar="NAME",
        help="with --resume: a setting that may differ from the run begun (also: data, eval_data, model); "
             "repeatable")  # fmt: skip
    add("--reference-only", action="store_true",
        help="compute the reference log-probabilities, which many runs can share, and train nothing")  # fmt: skip
    add("--dry-run", action="store_true",
        help="print what the run needs of each device, memory and arithmetic; no weight is loaded")  # fmt: skip
    add("--json", action="store_true", help="print the result as one JSON object")
    add_shared_arguments(parser)


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that all runs of a sweep have in common."""
    add = parser.add_argument
    add("--model", required=True, help="folder or hub name of a causal language model: policy and reference")
    add("--data", required=True, metavar="DATA", help="prompt, chosen and rejected: a file (JSONL, CSV, Parquet), a "
        "folder that datasets saved, or owner/name[:split] of a data set on the hub")  # fmt: skip
    add("--eval-data", metavar="DATA", help="held-out pairs, evaluated once at the end")
    add("--test-by", metavar="COLUMN", help="hold out the rows of some values of this column of --data, at random and "
        "never by row, and evaluate them as --eval-data is; no test response is counted twice")  # fmt: skip
    add("--test-share", type=float, metavar="S", help="with --test-by: share of the values held out (default: 0.3)")
    add("--prompt-from", metavar="TEMPLATE", help="with --test-by: the prompt out of other columns, '{topic}: ', with "
        "\\n for a new line (default: the column prompt)")  # fmt: skip
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
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="any other field of GPOConfig")
    add("--threads", type=int, help="threads of torch (default: torch's choice)")


def run(args: argparse.Namespace) -> int:
    """Train, save, report; after a signal or a failure, what was saved is there to --resume."""
    with _warnings_on_stderr():
        try:
            return _run(args)
        except RuntimeError as error:
            from gpo_full.distributed import OtherRankFailed

            if not isinstance(error, OtherRankFailed):
                raise
            return _stopped(str(error), CANNOT_SAVE)


def _run(args: argparse.Namespace) -> int:
    output = Path(args.output)
    # A setting may be named as its option is.
    args.allow_change = [FIELDS.get(name.replace("-", "_"), name) for name in args.allow_change]
    if args.dry_run and args.reference_only:
        raise InputError("--dry-run tells of the training, and --reference-only makes none: choose one")
    _check_output(output, args.resume)
    _check_split(args)
    data = _open(args)
    _quiet(args.threads)
    config = _config(args)
    _check_hub(args.model)
    record = _record(args, config, data)
    if args.resume:
        changed = _check_same(output, record, args.allow_change)
        if any((output / name).exists() for name in COMPLETE):
            return _already_complete(output, changed, args.json)
    elif args.allow_change:
        raise InputError(f"--allow-change {args.allow_change[0]} is for --resume")
    if args.dry_run:
        return _dry_run(args, config, _sides(args, config, data))
    created = not output.exists()
    try:
        trainer = _trainer(args, config, _sides(args, config, data))
    except BaseException:
        if created and output.exists() and not any(output.iterdir()):
            output.rmdir()
        raise
    if args.reference_only:
        pairs, summary = len(trainer.train_dataset), trainer.summaries.get("train")
        where = "the data" if summary and summary.referred else config.store_folder()
        print(f"the reference's log-probabilities of {pairs} pairs are in {where}")
        if created:
            output.rmdir()
        return 0
    trainer.facts = record = {**record, "reference_weights": trainer.reference_weights}
    return _train(trainer, output, record, args)


def _already_complete(output: Path, changed: Collection[str], as_json: bool) -> int:
    if changed:
        raise InputError(f"{str(output)!r} is complete, and no setting of it can change now: {'; '.join(changed)}; to "
                         "train on, start a run with it as --model")  # fmt: skip
    print(f"gpo train: {str(output)!r} is already complete", file=sys.stderr)
    if as_json and (output / RESULT_FILE).is_file() and os.environ.get("RANK", "0") == "0":
        print_json({"output": str(output), **json.loads((output / RESULT_FILE).read_text(encoding="utf-8"))})
    return 0


def _dry_run(args: argparse.Namespace, config: "GPOConfig", data: Mapping[str, Any]) -> int:
    from dataclasses import asdict

    from gpo_full.training.dry_run import forecast_needs
    from gpo_full.training.rows import pairs_of

    pairs, _ = pairs_of("train", data["data"], _tokenizer(args.model), config)
    found = forecast_needs(args.model, config, pairs)
    if args.json:
        print_json({**asdict(found), "total_mib": found.total_mib})
        return 0
    print(f"{found.parameters / 1e6:.4g} M parameters, {found.trained / 1e6:.4g} M trained; "
          f"{_count(found.steps, 'step')} on {_count(len(pairs), 'pair')}")  # fmt: skip
    print("memory of each device in MiB, with the largest pairs in one micro-batch:")
    for name, size in {**found.memory_mib, "in all": found.total_mib}.items():
        print(f"  {name:<12}{size:14,.1f}")
    print(f"arithmetic of the largest micro-batch ({_count(found.pairs, 'pair')}, {found.tokens:,} tokens): "
          f"{found.flops / 1e12:.3g} TFLOP; of the run at most {found.run_flops / 1e12:.3g}")  # fmt: skip
    return 0


def _train(trainer: "GPOTrainer", output: Path, record: dict[str, Any], args: argparse.Namespace) -> int:
    from gpo_full.checkpoints.atomic import CheckpointNotSaved, DamagedCheckpoint
    from gpo_full.training.interruption import Interrupted
    from gpo_full.training.reporting.metrics import NonFiniteLoss
    from gpo_full.training.reporting.model_cards import SECONDS, card_files
    from gpo_theory import analyze

    if args.resume:
        _check_same(output, record, args.allow_change)
    analysis = analyze(trainer.loss, SECONDS)
    try:
        _say_convention(args.loss, trainer.args.margin)
        with trainer.writing(), redirect_stdout(sys.stderr):  # trackers print, and stdout is for the result
            trainer.train(resume_from_checkpoint=args.resume or None, allow_changes={*args.allow_change} - OF_THE_FILES)
            if not any("loss" in entry for entry in trainer.state.log_history):
                raise NonFiniteLoss("no step was applied, for none was finite; their rows are in events.jsonl")
            held_out = trainer.evaluate() if trainer.eval_dataset is not None else None
            command = ["gpo", "train", *_words(vars(args))]
            result = _result(trainer, output, held_out)
            _save(trainer, output, {**card_files(trainer, analysis, record, command, held_out),
                                    RESULT_FILE: json.dumps(result, allow_nan=False) + "\n"})  # fmt: skip
    except NonFiniteLoss as error:
        return _stopped(f"stopped after step {trainer.state.global_step}: {error}", NON_FINITE)
    except CheckpointNotSaved as error:
        return _stopped(f"{error}; the checkpoints before it are intact", CANNOT_SAVE)
    except DamagedCheckpoint as error:
        return _stopped(str(error), NO_GOOD_CHECKPOINT)
    except Interrupted as error:
        return _stopped(f"{error}; --resume goes on from there", int(error.code or 0))
    if trainer.is_world_process_zero():
        _report(trainer, output, result, args.json)
    return 0


def _say_convention(loss: str, margin: str) -> None:
    from gpo_theory.choosing.matching import convention

    note = convention(loss, margin)
    if note and os.environ.get("RANK", "0") == "0":
        print(f"gpo train: convention: {note}", file=sys.stderr)


def shared_words(args: argparse.Namespace) -> list[str]:
    """Return those of the options in `args` that all runs of a sweep have in common, as they could be typed."""
    parser = argparse.ArgumentParser(add_help=False)
    add_shared_arguments(parser)
    return _words({name: value for name, value in vars(args).items() if name in {a.dest for a in parser._actions}})


def _words(options: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        given = value if isinstance(value, list) else [value] if value is not None and value is not False else []
        for each in given:
            words += [f"--{name.replace('_', '-')}", *([] if each is True else [str(each)])]
    return words


def _stopped(why: str, code: int) -> int:
    print(f"gpo train: {why}", file=sys.stderr)
    return code


def _check_output(output: Path, resume: bool) -> None:
    if resume:
        if not (output / RUN_FILE).is_file():
            raise InputError(f"{str(output)!r} holds no run to resume ({RUN_FILE} is missing)")
    elif output.exists() and (not output.is_dir() or any(not _is_of_a_dead_start(path) for path in output.iterdir())):
        raise InputError(f"output {str(output)!r} is not an empty folder; choose another, or --resume")
    above = next(path for path in (output, *output.resolve().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"output {str(output)!r} cannot be made: {str(above)!r} is no folder that can be written")


def _is_of_a_dead_start(path: Path) -> bool:
    """What a run leaves that is killed before it has written RUN_FILE; the next writer removes it."""
    from gpo_full.checkpoints.atomic import LOCK, TEMPORARIES

    return path.name == LOCK or path.name.startswith(TEMPORARIES)


def _open(args: argparse.Namespace) -> dict[str, Any]:
    from gpo_full.data.sources import open_data

    given = {"data": args.data} if args.eval_data is None else {"data": args.data, "eval_data": args.eval_data}
    found = {name: open_data(f"--{name.replace('_', '-')}", text) for name, text in given.items()}
    # Anything but owner/name can only be a folder: say so before a hub is asked.
    if not Path(args.model).is_dir() and (args.model.count("/") > 1 or args.model.startswith((".", "/", "~"))):
        raise InputError(f"--model {args.model!r} is not a folder")
    return {"eval_data": None, **found}


def _check_split(args: argparse.Namespace) -> None:
    for option in ("test_share", "prompt_from"):
        if args.test_by is None and getattr(args, option) is not None:
            raise InputError(f"--{option.replace('_', '-')} goes with --test-by")
    if args.test_by is not None and args.eval_data is not None:
        raise InputError("--test-by takes the held-out pairs from --data, --eval-data from elsewhere: choose one")


def _sides(args: argparse.Namespace, config: "GPOConfig", data: dict[str, Any]) -> dict[str, Any]:
    """Return what is trained on and what is held out."""
    if args.test_by is None:
        return data
    from gpo_full.data.split import split_pairs

    template = None if args.prompt_from is None else args.prompt_from.replace("\\n", "\n")
    share = 0.3 if args.test_share is None else args.test_share
    try:
        split = split_pairs(data["data"], args.test_by, share, prompt=template, skip=config.bad_rows == "skip")
    except InputError as error:
        raise InputError(f"--data {args.data!r}: {error}") from None
    print(f"gpo train: {split}", file=sys.stderr)
    return {"data": split.train, "eval_data": split.test}


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
    """Show what the engine has to say, on one rank: rows skipped, texts cut, prefixes not shared."""
    handler, logger = logging.StreamHandler(), logging.getLogger("gpo_full")
    handler.setLevel(logging.ERROR if int(os.environ.get("RANK", "0")) else logging.NOTSET)
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
    from gpo_full.training.config import GPOConfig

    values = {name: getattr(args, flag) for flag, name in FIELDS.items() if getattr(args, flag) is not None}
    if args.steps is not None and args.steps < 1:
        raise InputError(f"--steps {args.steps} must be at least 1")
    if args.steps is None and args.epochs is None:
        values["num_train_epochs"] = 1.0
    values["parameters"] = read_parameters("=".join(_named(text, "--param")) for text in args.param)
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

    from gpo_full.training.config import GPOConfig

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


def _record(args: argparse.Namespace, config: "GPOConfig", data: Mapping[str, Any]) -> dict[str, Any]:
    """What a resumed run must agree with."""
    from gpo_full.data.sources import fingerprint
    from gpo_full.training.trainer import settings

    record = {"schema": 1, "model": args.model, **{name: getattr(args, name) for name in SPLIT},
              **{name: None if each is None else fingerprint(each) for name, each in data.items()}}  # fmt: skip
    return {**record, **settings(config)}


def _check_same(output: Path, record: Mapping[str, Any], allowed: Collection[str]) -> list[str]:
    """Return what differs from the run begun, each one allowed; InputError otherwise."""
    try:
        before = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{str(output / RUN_FILE)!r} is damaged; the run cannot be resumed") from None
    known = {*record, *OF_THE_TRAINER}
    for name in {*allowed} - known:
        raise InputError(f"--allow-change {name} is no setting of a run{nearest(name, known)}")
    changed = {name: f"{name}: {before.get(name)!r} -> {value!r}" for name, value in record.items()
               if before.get(name) != value}  # fmt: skip
    refused = [text for name, text in changed.items() if name not in allowed]
    if refused:
        raise InputError(f"{str(output)!r} was begun with another configuration: {'; '.join(refused)} "
                         "(--allow-change NAME allows one)")  # fmt: skip
    return [*changed.values()]


def _trainer(args: argparse.Namespace, config: "GPOConfig", data: Mapping[str, Any]) -> "GPOTrainer":
    from transformers import PrinterCallback

    from gpo_full.training.trainer import GPOTrainer, ProgressLines

    # An adapter's folder names its base model by this path, wherever it is loaded from.
    model = str(Path(args.model).resolve()) if Path(args.model).is_dir() else args.model
    trainer = GPOTrainer(model, config, data["data"], data["eval_data"], _tokenizer(model))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressLines())
    return trainer


def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no tokenizer in model {model!r}: {str(error).splitlines()[0]}") from None


def _save(trainer: "GPOTrainer", output: Path, texts: Mapping[str, str]) -> None:
    """Write the model and `texts` beside their place and move them there, the file that makes it loadable last."""
    with tempfile.TemporaryDirectory(dir=output, prefix=".model-") as folder:
        trainer.save_model(folder)
        for name, text in texts.items() if trainer.is_world_process_zero() else ():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.name in COMPLETE):
            os.replace(path, output / path.name)


def _result(trainer: "GPOTrainer", output: Path, held_out: Mapping[str, float] | None) -> dict[str, Any]:
    with (output / "metrics.jsonl").open(encoding="utf-8") as file:
        objects = [json.loads(line) for line in file]
    return {"pairs": len(trainer.train_dataset), "steps": trainer.state.global_step,
            "first": objects[0], "last": objects[-1], "evaluation": held_out}  # fmt: skip


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _four(value: float) -> str:
    return f"{round(value, 4) + 0.0: .4f}"  # no minus before a zero


def _report(trainer: "GPOTrainer", output: Path, result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"output": str(output), **result})
        return
    first, last, held_out = result["first"], result["last"], result["evaluation"]
    print(f"{_count(trainer.state.global_step, 'step')} on {_count(len(trainer.train_dataset), 'pair')}, loss "
          f"{trainer.loss.name}, beta {trainer.args.beta:g}, {last['cpu_seconds']:.3g} CPU-seconds")  # fmt: skip
    for name in ("loss", "margin", "log_ratio_chosen", "log_ratio_rejected", "accuracy", "regularizer"):
        end = f"   held out {_four(held_out[f'eval_{name}'])}" if held_out else ""
        print(f"  {name:<20} {_four(first[name])} -> {_four(last[name])}{end}")
    if held_out:
        from gpo_full.training.reporting.length_bias import against_length

        print(against_length(held_out))
    print(f"model and metrics.jsonl in {output}; README.md is the model's card")
