"""`gpo train`: fine-tune a language model on preference pairs with any loss."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import logging
import os
import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.cli.options.parameters import add_param_option
from gpo_full.cli.options.recorded import options_to_record, take_recorded
from gpo_full.cli.options.training import FIELDS, add_shared_arguments, config_of, words_of
from gpo_full.output import announce, print_json
from gpo_full.signals import signals_as_exits
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from gpo_full.config import GPOConfig
    from gpo_full.training.trainer import GPOTrainer

EXAMPLE = 'gpo train --model MODEL --data pairs.jsonl --loss "max(0,1-x)**2" --beta 0.1 --output run --steps 60'
# Exit codes, beside those of cli.entry and 128 + a signal's number.
CANNOT_SAVE, NO_GOOD_CHECKPOINT, NON_FINITE = 1, 4, 5
# CPU-seconds for the analysis of the loss on the card, which calls unknown what is not decided by then: most losses of
# the catalogue take less than one.
SECONDS = 10.0
NEEDED = ("loss", "beta", "model", "data")  # options of a new run
# Options that choose held-out pairs; run.json records them, and a resumed run must agree.
SPLIT = ("test_by", "test_share")
# Settings of a run that the trainer does not know, and those that only it knows.
OF_THE_COMMAND, OF_THE_TRAINER = {"schema", "model", "eval_data", *SPLIT}, {"reference_weights", "world_size"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--loss", help="name, alias or formula in x = beta * rho (a new run needs it, --beta, --model, --data)")
    add("--beta", type=float, help="scale of the margin, above 0")
    add("--output", required=True, metavar="FOLDER", help="new or empty folder for the trained model and metrics.jsonl")
    add_param_option(parser)
    add("--seed", type=int, help="order of the pairs (default: 42)")
    add("--resume", action="store_true", help="continue the run in FOLDER from its newest whole checkpoint; options "
        "that are not given are the run's")  # fmt: skip
    add("--allow-change", action="append", default=[], metavar="NAME",
        help="with --resume: a setting that may differ from the run in FOLDER (also: data, eval_data, model); "
             "repeatable")  # fmt: skip
    add("--reference-only", action="store_true",
        help="compute the reference log-probabilities, which many runs can share, and train nothing")  # fmt: skip
    add("--dry-run", action="store_true",
        help="print the memory and arithmetic that the run needs of each device; no weight is loaded")  # fmt: skip
    add_shared_arguments(parser, required=False)


def run(args: argparse.Namespace) -> int:
    """Train, save, report; after a signal or a failure, --resume continues from what was saved."""
    announce("train")
    from gpo_full.distributed import OtherRankFailed

    with _warnings_on_stderr():
        try:
            return _run(args)
        except OtherRankFailed as error:
            return _stopped(str(error), CANNOT_SAVE)


def _run(args: argparse.Namespace) -> int:
    from gpo_full.training.finished import is_complete
    from gpo_full.training.reporting.run_folder import RunFolder, check_output, leaving_nothing

    if not args.output:
        raise InputError("--output '' is not the name of a folder")
    output = Path(args.output)
    # A setting may be named as its option is.
    args.allow_change = [FIELDS.get(name.replace("-", "_"), name) for name in args.allow_change]
    check_output(output, resume=args.resume)
    if args.resume:
        take_recorded(args, RunFolder(output).settings().get("options", {}))
    _check_options(args)
    _quiet(args.threads)
    config = config_of(args)
    try:
        _check_model(args.model)
    except InputError as error:
        moved = "; if the run's model has moved: --model FOLDER --allow-change model" if args.resume else ""
        raise InputError(f"{error}{moved}") from None
    data = _open(args)
    record = _record(args, config, data)
    if args.resume:
        changed = _changes(output, record, args.allow_change)
        if is_complete(output):
            return _already_complete(output, changed, args.json)
    if args.dry_run:
        return _dry_run(args, config, _sides(args, config, data))
    with leaving_nothing(output) if _is_first_rank() and not args.resume else nullcontext():
        with signals_as_exits(signal.SIGTERM):  # in the training, it is saved first
            trainer = _trainer(args, config, _sides(args, config, data))
        if args.reference_only:
            pairs, summary = len(trainer.train_dataset), trainer.summaries.get("train")
            where = "the data" if summary and summary.referred else config.store_folder()
            print(f"the reference's log-probabilities of {pairs} pairs are in {where}")
            return 0
        trainer.facts = {**record, "reference_weights": trainer.reference_weights}
        if args.resume:
            _changes(output, trainer.facts, args.allow_change)
        trainer.facts["options"] = options_to_record(args)
        return _train(trainer, args)


# --- checks ---


def _check_options(args: argparse.Namespace) -> None:
    """Raise InputError for options that exclude each other, or that one without another would ignore."""
    missing = [f"--{name}" for name in NEEDED if getattr(args, name) is None]
    if missing:
        more = " (the run in it does not record them)" if args.resume else ""
        raise InputError(f"the following arguments are required: {', '.join(missing)}{more}")
    if args.dry_run and args.reference_only:
        raise InputError("--dry-run is about the training, and --reference-only trains nothing: choose one")
    if args.allow_change and not args.resume:
        raise InputError(f"--allow-change {args.allow_change[0]} is for --resume")
    if args.test_by is None and args.test_share is not None:
        raise InputError("--test-share goes with --test-by")
    if args.test_by is not None and args.eval_data is not None:
        raise InputError("--test-by takes the held-out pairs from --data, --eval-data from elsewhere: choose one")


def _open(args: argparse.Namespace) -> dict[str, Any]:
    """Return the data of --data and --eval-data, None where it is not given; InputError if it cannot be read."""
    from gpo_full.data.sources import open_data

    held_out = None if args.eval_data is None else open_data("--eval-data", args.eval_data, "test")
    return {"data": open_data("--data", args.data), "eval_data": held_out}


def _check_model(model: str) -> None:
    """Ask the hub once for a model that is no folder: loading it would retry for most of a minute."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    if Path(model).is_dir():
        from gpo_full.training.start.adapters import adapter_config, check_base

        if (adapter := adapter_config(model)) is not None:
            try:
                _check_model(adapter.base_model_name_or_path or check_base(model, adapter))
            except InputError as error:
                raise InputError(f"the base model of the adapter --model {model!r}: {error}; its adapter_config.json "
                                 "says where the base is") from None  # fmt: skip
        return
    # Anything but owner/name can only be a folder.
    if model.count("/") > 1 or model.startswith((".", "/", "~")):
        raise InputError(f"--model {model!r} is not a folder")
    try:
        known = isinstance(try_to_load_from_cache(model, "config.json"), str)
        if not known and not constants.HF_HUB_OFFLINE:
            HfApi().model_info(model, timeout=10)
            known = True
    except Exception as error:  # whatever the client's network library raises
        raise InputError(f"--model {model!r} is no folder, and the hub says: {str(error).splitlines()[0]}") from None
    if not known:
        raise InputError(f"--model {model!r} is neither a folder nor in the hub's cache (HF_HUB_OFFLINE is set)")


def _record(args: argparse.Namespace, config: "GPOConfig", data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a resumed run must agree with, as run.json records it."""
    from gpo_full.data.sources import fingerprint
    from gpo_full.training.resumption import settings

    return {"schema": 1, "model": _resolved(args.model), **{name: getattr(args, name) for name in SPLIT},
            **{name: None if each is None else fingerprint(each) for name, each in data.items()},
            **settings(config)}  # fmt: skip


def _resolved(model: str) -> str:
    """Return the path of a folder whatever the current one, or the name of a model on the hub."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _changes(output: Path, record: Mapping[str, Any], allowed: Collection[str]) -> dict[str, list[Any]]:
    """Return the settings in which `record` differs from the run in `output`; InputError if one is not allowed."""
    from gpo_full.training.reporting.run_folder import RunFolder
    from gpo_full.training.resumption import changes

    not_yet_known = {"options", *OF_THE_TRAINER} - record.keys()
    before = {name: value for name, value in RunFolder(output).settings().items() if name not in not_yet_known}
    before |= {"model": _resolved(before["model"])} if "model" in before else {}
    return changes(before, record, {*allowed} - not_yet_known, run=repr(str(output)),
                   hint=" (--allow-change NAME allows one)")  # fmt: skip


# --- the dry run, and a run that is complete already ---


def _dry_run(args: argparse.Namespace, config: "GPOConfig", data: Mapping[str, Any]) -> int:
    from dataclasses import asdict

    from gpo_full.training.rows import pairs_of
    from gpo_full.training.start.dry_run import forecast_needs
    from gpo_full.training.start.model import loaded_tokenizer

    tokenizer = loaded_tokenizer(args.model)
    pairs, _ = pairs_of("train", data["data"], tokenizer, config)
    found = forecast_needs(args.model, config, pairs, tokenizer)
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


def _already_complete(output: Path, changed: Mapping[str, list[Any]], as_json: bool) -> int:
    from gpo_full.training.finished import stored_result

    if changed:
        listed = "; ".join(f"{name}: {old!r} -> {new!r}" for name, (old, new) in changed.items())
        raise InputError(f"{str(output)!r} is complete, and no setting of it can change now: {listed}; to "
                         "train on, start a run with it as --model")  # fmt: skip
    print(f"gpo train: {str(output)!r} is already complete", file=sys.stderr)
    result = stored_result(output)
    if as_json and result and _is_first_rank():
        print_json({"output": str(output), **result})
    return 0


# --- the run ---


def _sides(args: argparse.Namespace, config: "GPOConfig", data: dict[str, Any]) -> dict[str, Any]:
    """Return what is trained on ("data") and what is held out ("eval_data")."""
    if args.test_by is None:
        return data
    from gpo_full.data.split import split_pairs

    share = 0.3 if args.test_share is None else args.test_share
    try:
        split = split_pairs(data["data"], args.test_by, share, columns=config.columns, skip=config.bad_rows == "skip")
    except InputError as error:
        raise InputError(f"--data {args.data!r}: {error}") from None
    print(f"gpo train: {split}", file=sys.stderr)
    return {"data": split.train, "eval_data": split.test}


def _trainer(args: argparse.Namespace, config: "GPOConfig", data: Mapping[str, Any]) -> "GPOTrainer":
    from transformers import PrinterCallback

    from gpo_full.training.callbacks import ProgressLines
    from gpo_full.training.start.model import loaded_tokenizer
    from gpo_full.training.trainer import GPOTrainer

    model = _resolved(args.model)  # by this path an adapter's folder names its base model, wherever it is loaded from
    trainer = GPOTrainer(model, config, data["data"], data["eval_data"], loaded_tokenizer(model))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressLines())
    return trainer


def _train(trainer: "GPOTrainer", args: argparse.Namespace) -> int:
    """Train and finish; what ends a run early is one line on stderr and an exit code."""
    from gpo_full.checkpoints.atomic import CheckpointNotSaved, DamagedCheckpoint
    from gpo_full.training.callbacks import Interrupted
    from gpo_full.training.finished import finish
    from gpo_full.training.reporting.metrics import NonFiniteLoss
    from gpo_full.training.reporting.model_cards import card_files
    from gpo_full.training.steps import NoGradient
    from gpo_theory import analyze

    analysis = analyze(trainer.objective.loss, SECONDS)
    command = ["gpo", "train", *words_of(args)]
    card_files(trainer, analysis, words=command, held_out=None)  # what fails, fails before the training
    try:
        with trainer.writing(), redirect_stdout(sys.stderr):  # trackers print, and stdout is for the result
            trainer.train(resume_from_checkpoint=args.resume or None,
                          allow_changes={*args.allow_change} - OF_THE_COMMAND)  # fmt: skip
            result = finish(trainer, analysis, command)
    except (NonFiniteLoss, NoGradient) as error:
        return _stopped(f"stopped after step {trainer.state.global_step}: {error}", NON_FINITE)
    except CheckpointNotSaved as error:
        return _stopped(f"{error}; the checkpoints before it are intact", CANNOT_SAVE)
    except DamagedCheckpoint as error:
        return _stopped(str(error), NO_GOOD_CHECKPOINT)
    except Interrupted as error:
        return _stopped(f"{error}; --resume continues from there", int(error.code or 0))
    if trainer.is_world_process_zero():
        _report(trainer, result, args)
    return 0


# --- what is printed ---


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Print the engine's warnings, on one rank: rows skipped, texts cut, prefixes not shared."""
    handler, logger = logging.StreamHandler(), logging.getLogger("gpo_full")
    handler.setLevel(logging.NOTSET if _is_first_rank() else logging.ERROR)
    handler.setFormatter(logging.Formatter("gpo train: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _quiet(threads: int | None) -> None:
    """Keep stdout for results and stderr for what concerns the user; set torch's threads."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)


def _stopped(why: str, code: int) -> int:
    print(f"gpo train: {why}", file=sys.stderr)
    return code


def _report(trainer: "GPOTrainer", result: Mapping[str, Any], args: argparse.Namespace) -> None:
    from gpo_full.training.reporting.length_bias import against_length
    from gpo_full.training.reporting.model_cards import METRICS

    if args.json:
        print_json({"output": str(Path(args.output)), **result})
        return
    first, last, held_out = result["first"], result["last"], result["evaluation"]
    name, beta = trainer.objective.loss.name, trainer.objective.beta
    print(f"{_count(result['steps'], 'step')} on {_count(result['pairs'], 'pair')}, loss {name}, beta {beta:g}, "
          f"{last['cpu_seconds']:.3g} CPU-seconds")  # fmt: skip
    for name in METRICS:
        end = f"   held out {_four(held_out[f'eval_{name}'])}" if held_out else ""
        print(f"  {name:<20} {_four(first[name])} -> {_four(last[name])}{end}")
    if held_out:
        print(against_length(held_out))
    print(f"model and metrics.jsonl in {Path(args.output)}; README.md is the model's card")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _four(value: float) -> str:
    return f"{round(value, 4) + 0.0: .4f}"  # no minus before a zero
