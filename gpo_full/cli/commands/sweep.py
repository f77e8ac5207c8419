"""`gpo sweep`: train every loss at every beta with every seed after one reference pass; one table of results."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.cli.options.parameters import add_param_option, read_parameters
from gpo_full.cli.options.training import add_shared_arguments, shared_words
from gpo_full.files import atomic_file
from gpo_full.run_files import EVENTS_FILE
from gpo_full.signals import signals_as_exits
from gpo_full.sweeps.executors import on_ray, on_this_machine
from gpo_full.sweeps.jobs import Job, Outcome
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from gpo_full.sweeps.grid import Run

Execute = Callable[[Sequence[Job]], Iterator[tuple[Job, Outcome]]]
EXAMPLE = "gpo sweep --model MODEL --data pairs.jsonl --loss dpo --loss ipo --beta 0.1 --betas-of dpo --output sweep"
PLAN, RESULTS, REFERENCE = "sweep.json", "results.parquet", "reference"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: those of the grid, and those of `gpo train` that all runs share."""
    add = parser.add_argument
    add("--loss", required=True, action="append", help="name, alias or formula in x = beta * rho; repeatable")
    add_param_option(parser, "every loss that has it")
    add("--beta", required=True, action="append", type=float, help="scale of the margin, above 0; repeatable")
    add("--betas-of", metavar="LOSS", help="the betas are those of LOSS: each loss is trained at the one of the same "
        "strength, by which its folder is called")  # fmt: skip
    add("--seed", action="append", type=int, help="order of the pairs (default: 42); repeatable")
    add("--output", required=True, metavar="FOLDER", help=f"new or empty folder for the runs and {RESULTS}")
    add("--workers", type=int, help="runs at a time on this machine (default: one, or one for each GPU)")
    add("--ray", metavar="ADDRESS", help="run on a Ray cluster: its address, auto, or local")
    add("--resume", action="store_true", help="run what is left of the sweep in FOLDER; failed runs are tried again")
    add_shared_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run what is left of the grid and write the table; return 1 if a run failed."""
    from gpo_full.output import announce

    announce("sweep")
    from gpo_full.sweeps.grid import all_runs, write_results

    if args.ray is not None and args.workers is not None:
        raise InputError(f"--workers {args.workers} is for this machine; a Ray cluster has its own")
    shared = shared_words(args)
    parameters = read_parameters(args.param)
    runs = all_runs(args.loss, args.beta, args.seed or [42], args.betas_of, parameters)
    if not args.output:
        raise InputError("--output '' is not the name of a folder")
    output = Path(args.output)
    created = not output.exists()
    _write_plan(output, {"schema": 1, "runs": [run.name for run in runs], "betas": [run.beta for run in runs],
                    "shared": shared, "parameters": parameters or None, "data": _hashes(args)},
                args.resume)  # fmt: skip
    jobs = {run.name: Job(tuple(run.words(shared, output)), output / "runs" / run.name,
                          output / "outcomes" / f"{run.name}.json") for run in runs}  # fmt: skip
    outcomes = {name: found for name, job in jobs.items() if (found := job.outcome()) and found.code == 0}
    left = [job for name, job in jobs.items() if name not in outcomes]
    execute = _executor(args)
    with signals_as_exits(signal.SIGTERM, signal.SIGHUP):
        try:
            if left:
                _say_conventions(args)
                _reference_pass(execute, runs[0], shared, output)
        except (InputError, ModuleNotFoundError):
            if not args.resume:
                _undo(output, created)
            raise
        try:
            for job, outcome in execute(left) if left else ():
                outcomes[job.output.name] = outcome
                ended = _ended(outcome) + _not_applied(job.output)
                _report_progress(f"{len(outcomes)}/{len(runs)} {job.output.name}: {ended}")
        finally:
            write_results(runs, outcomes, output / RESULTS)
    return _report(runs, outcomes, output, args.json)


def _hashes(args: argparse.Namespace) -> list[str]:
    """Return hashes of the data on this machine: it may change, and what is left would be trained on other pairs."""
    from gpo_full.data.sources import fingerprint, open_data

    given = {"train": args.data, "test": args.eval_data}
    return [fingerprint(open_data("--data" if part == "train" else "--eval-data", text, part))
            for part, text in given.items() if text and Path(text.partition(":")[0]).exists()]  # fmt: skip


def _write_plan(output: Path, plan: Mapping[str, Any], resume: bool) -> None:
    if resume:
        if not (output / PLAN).is_file():
            raise InputError(f"{str(output)!r} holds no sweep to resume ({PLAN} is missing)")
        try:
            before = json.loads((output / PLAN).read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{str(output / PLAN)!r} is damaged; the sweep cannot be resumed") from None
        before = {"data": plan["data"], **before}  # sweeps of earlier versions do not record it
        changed = [f"{name}: {before.get(name)!r} -> {value!r}" for name, value in plan.items()
                   if before.get(name) != value]  # fmt: skip
        if changed:
            raise InputError(f"{str(output)!r} was started as another sweep: {'; '.join(changed)}")
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"output {str(output)!r} is not an empty folder; choose another, or --resume")
    else:
        with atomic_file(output / PLAN) as temporary:
            temporary.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")


def _undo(output: Path, created: bool) -> None:
    """Restore the folder to its state before a sweep that could not start."""
    shutil.rmtree(output / REFERENCE, ignore_errors=True)
    (output / PLAN).unlink()
    if created and not any(output.iterdir()):
        output.rmdir()


def _say_conventions(args: argparse.Namespace) -> None:
    """Say what names mean that have other meanings elsewhere; what a run says of it nobody sees."""
    from gpo_theory.choosing.matching import convention

    for note in filter(None, (convention(loss, args.margin) for loss in args.loss)):
        print(f"gpo sweep: convention: {note}", file=sys.stderr)


def _executor(args: argparse.Namespace) -> Execute:
    if args.ray is not None:
        return lambda jobs: on_ray(jobs, args.ray, args.gpo)
    devices = _devices()
    return lambda jobs: on_this_machine(jobs, args.workers or len(devices) or 1, devices)


def _reference_pass(execute: Execute, first: "Run", shared: Sequence[str], output: Path) -> None:
    """Compute the reference pass, which all runs share."""
    folder = output / REFERENCE
    job = Job((*first.words(shared, folder), "--reference-only"), folder, folder / "outcome.json")
    _report_progress("reference pass ...")
    for _, outcome in execute([job]):
        if outcome.code:
            raise InputError(f"the reference pass ended with exit code {outcome.code}: {outcome.message}")


def _devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _report_progress(text: str) -> None:
    print(f"gpo sweep: [{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _ended(outcome: Outcome) -> str:
    again = f", started {outcome.attempts} times" if outcome.attempts > 1 else ""
    return ("done" if outcome.code == 0 else f"exit code {outcome.code}: {outcome.message}") + again


def _not_applied(run: Path) -> str:
    """Say how many steps of a run were not applied."""
    from gpo_full.training.reporting.run_folder import RunFolder

    count = sum("not applied" in str(event["event"]) for event in RunFolder(run).objects(EVENTS_FILE))
    return f"; {count} of its steps not applied, as not finite (see {EVENTS_FILE} in its folder)" if count else ""


def _report(runs: Sequence["Run"], outcomes: Mapping[str, Outcome], output: Path, as_json: bool) -> int:
    from gpo_full.output import print_json

    failed = [run.name for run in runs if outcomes[run.name].code]
    betas = {run.name: {"beta": run.beta, "beta_asked": run.like} for run in runs}
    if as_json:
        print_json({"output": str(output), "results": str(output / RESULTS), "runs": len(runs), "failed": failed,
                    "betas": betas})  # fmt: skip
    else:
        _table(output / RESULTS)
        print(f"{len(runs) - len(failed)} of {len(runs)} runs done; the table is {output / RESULTS}")
    return 1 if failed else 0


def _table(path: Path) -> None:
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    width = max(len(row["run"]) for row in rows)
    shown = {"beta": "beta", "beta_R": "beta R", "loss": "loss", "margin": "margin", "accuracy": "accuracy",
             "eval_accuracy": "held out"}  # fmt: skip
    if any(row["beta"] != row["beta_asked"] for row in rows):
        shown = {"beta_asked": "asked"} | shown
    print(f"{'run':<{width}}  " + " ".join(f"{title:>8}" for title in shown.values()))
    for row in rows:
        numbers = (row.get(name) for name in shown)
        print(f"{row['run']:<{width}}  " + " ".join(f"{'-' if n is None else format(n, '.4g'):>8}" for n in numbers))
