"""Writing into a run's folder: by one process at a time, and one checkpoint of all ranks."""

__all__ = ["FolderLock", "model_writer", "save_together"]

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.checkpoints.sharded import full_state_dict, is_sharded, write_shards
from gpo_full.distributed import together
from gpo_full.training.reporting.run_folder import RunFolder


class FolderLock:
    """The right to write into a run's folder, which its holder may take again."""

    def __init__(self, folder: Callable[[], RunFolder], accelerator: Any) -> None:
        self._folder, self._accelerator, self._is_held = folder, accelerator, False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only writer of the folder; FolderInUse while another process, or another trainer, is."""
        if self._is_held:
            yield
            return
        with ExitStack() as stack:
            with together(self._accelerator, "the output folder cannot be written"):
                if (folder := self._folder()).writes:
                    stack.enter_context(checkpoint.sole_writer(folder.path))
            self._is_held = True
            stack.callback(setattr, self, "_is_held", False)
            yield


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

    def with_pieces(folder: Path) -> None:
        fill(folder)
        for path in sorted(aside.iterdir()) if sharded else ():
            checkpoint.FILES.rename(path, folder / path.name)

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
            checkpoint.save(run.path, step, parts, fill=with_pieces, **options)


def model_writer(trainer: Any) -> Callable[[Path], None]:
    """Return what writes a Trainer's model into a folder; of a sharded model, every rank must call this."""
    model = trainer.model
    state = full_state_dict(model, keep=trainer.args.should_save) if is_sharded(model) else None
    return lambda folder: trainer._save(str(folder), state_dict=state)
