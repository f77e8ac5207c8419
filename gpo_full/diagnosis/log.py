"""The metrics of a training run: our `metrics.jsonl`, or the `trainer_state.json` of TRL's DPOTrainer."""

__all__ = ["RunLog", "changes_of", "read_run"]

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpo_full.run_files import EVENTS_FILE, METER, METRICS_FILE, RESUMED, RUN_FILE, SAMPLES_FILE, STATE_FILE
from gpo_theory.errors import InputError

# TRL's names for ours; its rewards are beta times the summed log-ratio.
OF_TRL = {"rewards/margins": "margin", "rewards/chosen": "log_ratio_chosen", "rewards/rejected": "log_ratio_rejected",
          "rewards/accuracies": "accuracy", "loss": "loss", "grad_norm": "grad_norm", "step": "step",
          "epoch": "epoch"}  # fmt: skip
SAMPLED = ("step", "kl", "kl_se", "win_rate", "win_low", "win_high", "n")
SCALED = ("margin", "log_ratio_chosen", "log_ratio_rejected")


@dataclass(frozen=True)
class RunLog:
    """The logs of a run, oldest first: a column of equal length for each metric that every log has.

    `source` is "gpo" or "trl"; `settings` the configuration that the run records, empty if it records none; `samples`
    the objects of its samples.jsonl; `broken` the number of logs that held a NaN or an infinity, which are left out of
    `columns`. The columns of SCALED are in nats, or from TRL in units of beta times nats.
    """

    run: str
    source: str
    columns: Mapping[str, tuple[float, ...]]
    broken: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Mapping[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_run(path: Path | str) -> RunLog:
    """Read a run: a folder with metrics.jsonl or trainer_state.json (or checkpoints that hold one), or such a file.

    A checkpoint of ours is the run up to its step. Raises InputError if there is no such file, or no training log in
    it.
    """
    file = _find(Path(path))
    entries: Any
    source, folder = "gpo", file.parent
    if file.name.endswith(".jsonl"):
        entries = _lines(file)
    else:
        state = _parse(file, file.read_bytes())
        entries = state.get("log_history") if isinstance(state, dict) else None
        source = "gpo" if isinstance(state, dict) and METER in (state.get("stateful_callbacks") or ()) else "trl"
        folder = file.parent.parent
    settings = _settings(folder / RUN_FILE) if source == "gpo" else {}
    samples = _samples(folder / SAMPLES_FILE) if source == "gpo" and folder == file.parent else ()
    logs = [each for each in entries if isinstance(each, dict) and "loss" in each] if isinstance(entries, list) else []
    if not logs:
        raise InputError(f"{str(file)!r} holds no training log")
    columns, broken = _columns(logs, OF_TRL if source == "trl" else None)
    return RunLog(str(path), source, columns, broken, settings, samples)


def changes_of(folder: Path) -> list[str]:
    """Return the settings that were changed when the run was resumed, each with the step after which it changed."""
    path = folder / EVENTS_FILE
    events = _lines(path) if path.is_file() else []
    return [f"after step {event['step']}, {name}: {old} -> {new}" for event in events
            if isinstance(event, dict) and event.get("event") == RESUMED
            for name, (old, new) in event["changes"].items()]  # fmt: skip


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"run {str(path)!r} is neither a folder nor a file")
    inside = [path / name for name in (METRICS_FILE, STATE_FILE) if (path / name).is_file()]
    saved = [each for each in path.glob(f"checkpoint-*/{STATE_FILE}") if _step(each).isdecimal()]
    if not inside and saved:
        return max(saved, key=lambda each: int(_step(each)))
    if not inside:
        raise InputError(f"run {str(path)!r} holds neither {METRICS_FILE} nor {STATE_FILE}")
    return inside[0]


def _step(state: Path) -> str:
    return state.parent.name.rpartition("-")[2]


def _lines(file: Path) -> list[Any]:
    # A line without a newline was cut off by a crash.
    return [_parse(file, line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _settings(file: Path) -> Mapping[str, Any]:
    found = _parse(file, file.read_bytes()) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def _samples(file: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the objects that hold all of SAMPLED."""
    rows = _lines(file) if file.is_file() else []
    return tuple(row for row in rows if isinstance(row, dict) and all(_is_number(row.get(name)) for name in SAMPLED))


def _parse(file: Path, text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{str(file)!r} is not the JSON of a run") from None


def _columns(
    logs: Iterable[Mapping[str, Any]], names: Mapping[str, str] | None
) -> tuple[Mapping[str, tuple[float, ...]], int]:
    """Return the columns by our names, of the logs that are finite, and the number of the others."""
    rows = [{(names or {}).get(name, name): float(value) for name, value in log.items()
             if (names is None or name in names) and _is_number(value)} for log in logs]  # fmt: skip
    kept = [row for row in rows if all(map(math.isfinite, row.values()))]
    every = [name for name in kept[0] if all(name in row for row in kept)] if kept else []
    return {name: tuple(row[name] for row in kept) for name in every}, len(rows) - len(kept)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
