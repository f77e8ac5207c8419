"""What a finished run leaves: the model, its card, the proofs on its loss and its result, moved into place together."""

__all__ = ["finish", "is_complete", "stored_result"]

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpo_full.run_files import METRICS_FILE, RESULT_FILE
from gpo_full.training.reporting.metrics import NonFiniteLoss
from gpo_full.training.reporting.model_cards import card_files
from gpo_theory.report.result import Analysis

# The files that make a folder loadable, which are moved into place last, and what they need.
COMPLETE = {"config.json": "model*.safetensors", "adapter_config.json": "adapter_model*.safetensors"}


def is_complete(output: Path) -> bool:
    """Whether a folder holds a finished run, its weights included."""
    return any((output / name).exists() and any(output.glob(weights)) for name, weights in COMPLETE.items())


def stored_result(output: Path) -> dict[str, Any]:
    """Return what `finish` returned, empty for a run that left none."""
    path = output / RESULT_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def finish(trainer: Any, analysis: Analysis, words: Sequence[str]) -> dict[str, Any]:
    """Evaluate the held-out pairs of a trained GPOTrainer, complete its folder, and return the result as JSON.

    `analysis` is that of its loss, `words` the command of the run. Raises NonFiniteLoss if no step was applied.
    """
    if not any("loss" in entry for entry in trainer.state.log_history):
        raise NonFiniteLoss("no step was applied, for none was finite; their rows are in events.jsonl")
    held_out = trainer.evaluate() if trainer.eval_dataset is not None else None
    metrics = trainer.folder.objects(METRICS_FILE)
    result = {"pairs": len(trainer.train_dataset), "steps": trainer.state.global_step,
              "first": metrics[0], "last": metrics[-1], "evaluation": held_out}  # fmt: skip
    texts = {**card_files(trainer, analysis, words=words, held_out=held_out),
             RESULT_FILE: json.dumps(result, allow_nan=False) + "\n"}  # fmt: skip
    output = trainer.folder.path
    # All is written beside its place, and COMPLETE moved there last.
    with tempfile.TemporaryDirectory(dir=output, prefix=".model-") as folder:
        trainer.save_model(folder)
        for name, text in texts.items() if trainer.folder.writes else ():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.name in COMPLETE):
            os.replace(path, output / path.name)
    return result
