"""`gpo reproduce`: everything from nothing to the book."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import os
import sys
from pathlib import Path

from gpo_theory.errors import InputError

EXAMPLE = "gpo reproduce --scale smoke --output build"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo reproduce`."""
    add = parser.add_argument
    add("--scale", choices=("cpu", "smoke", "full"), default="cpu",
        help="cpu: the pretrained policy on real text (default); smoke: tiny random models, nothing fetched, a check "
             "that everything works; full: more losses, betas, seeds and pairs, without the book; first prints a "
             "forecast of its cost")  # fmt: skip
    add("--output", type=Path, default=Path("build"),
        help="folder for results.json, experiment/ and book/ (default: build)")  # fmt: skip
    add("--policy", metavar="PATH_OR_ID", help="start from this causal language model; the experiment alone, no book")
    add("--reward", help="judge by this instead: folder of a sentence encoder or of a reward model, or "
        "module:function, your own code, which is run; the experiment alone, no book")  # fmt: skip
    add("--workers", type=int, metavar="N",
        help="runs of the experiment at a time, each in a process with its share of the cores "
             "(default: 2, or 1 on one core or at scale smoke)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run every stage; the book needs a checkout, because the packages are installed without the lessons."""
    from gpo_full.output import announce

    announce("reproduce")
    from gpo_full.course.execution import LessonError
    from gpo_full.course.lessons import notebooks_folder

    if args.scale != "full" and args.policy is args.reward is None:
        notebooks_folder()
    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {str(args.output)!r} is not a folder")
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers {args.workers} must be at least 1")
    from gpo_full.book import reproduce
    from gpo_full.book.book import BookError
    from gpo_full.experiment.processes import WorkerDied

    try:
        results = reproduce.run(args.scale, args.output, args.policy, args.reward,
                                args.workers or _workers(args.scale))  # fmt: skip
    except (LessonError, BookError, WorkerDied) as error:
        print(f"gpo reproduce: {error}", file=sys.stderr)
        return 1
    _report(args, results)
    return 0


def _workers(scale: str) -> int:
    """Return how many runs are done at a time: two, each of which takes 3 GB of memory, if there are two cores."""
    return 1 if scale == "smoke" else min(2, os.cpu_count() or 1)


def _report(args: argparse.Namespace, results: Path) -> None:
    from gpo_full.experiment.result import ExperimentResult
    from gpo_full.output import print_json

    found = ExperimentResult.load(args.output / "experiment" / "result.json")
    if args.json:
        print_json({"results": str(results), "experiment": str(args.output / "experiment"), "runs": len(found.runs),
                    "checks": list(found.checks)})  # fmt: skip
        return
    words = {True: "as predicted", False: "NOT as predicted", None: "cannot be told"}
    for check in found.checks:
        print(f"{words[check['passed']]:17} {check['claim']}")
    print(results)
