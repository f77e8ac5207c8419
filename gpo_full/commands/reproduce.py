"""`gpo reproduce`: everything from nothing to the book."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import sys
from pathlib import Path

from gpo_theory.errors import InputError

EXAMPLE = "gpo reproduce --scale smoke --output build"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo reproduce`."""
    parser.add_argument("--scale", choices=("cpu", "smoke"), default="cpu",
                        help="cpu: the pretrained policy on real text (default); smoke: tiny random models, "
                             "nothing fetched, a check of the machinery only")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("build"),
                        help="folder for book/ and results.json (default: build)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run every stage; needs a checkout, because the lessons are not installed with the packages."""
    from gpo_full.lessons import LessonError, notebooks_folder

    notebooks_folder()
    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {str(args.output)!r} is not a folder")
    from gpo_full import reproduce
    from gpo_full.book import BookError

    try:
        print(reproduce.run(args.scale, args.output))
    except (LessonError, BookError) as error:
        print(f"gpo reproduce: {error}", file=sys.stderr)
        return 1
    return 0
