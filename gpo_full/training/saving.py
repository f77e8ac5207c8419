"""One checkpoint of several ranks: saved whole and known to all, or not saved and known to all."""

__all__ = ["save_together"]

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.checkpoints.sharded import write_shards
from gpo_full.distributed import together
from gpo_full.training.reporting.run_folder import RunFolder


def save_together(
    accelerator: Any,
    run: RunFolder,
    step: int,
    parts: Mapping[str, Any],
    pieces: Mapping[str, Mapping[str, Tensor]],
    *,
    fill: Callable[[Path], None],
    **options: Any,
) -> None:
    """Save as `checkpoint.save` does, on the first rank; of `pieces`, each rank writes what it holds (`write_shards`).

    Where it fails on any rank, every rank raises at once: CheckpointNotSaved there, OtherRankFailed elsewhere. The
    folder of `run` must be one that all ranks share if there are pieces.
    """
    what, aside = f"checkpoint-{step} could not be saved", run.path / f".checkpoint-{step}-pieces"
    sharded = {name: state for name, state in pieces.items() if state}
    if sharded:
        with together(accelerator, what):
            if run.writes:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir()
        with together(accelerator, what):
            for name, state in sharded.items():
                write_shards(aside, name, state, accelerator.process_index, accelerator.num_processes)
    with together(accelerator, what):
        if run.writes:
            run.sync()
            checkpoint.save(run.path, step, parts, fill=lambda folder: _fill(folder, fill, aside), **options)


def _fill(folder: Path, fill: Callable[[Path], None], aside: Path) -> None:
    fill(folder)
    for path in sorted(aside.iterdir()) if aside.is_dir() else ():
        checkpoint.FILES.rename(path, folder / path.name)
