"""The metrics of a training run: our `metrics.jsonl`, or the log that another trainer wrote."""

__all__ = ["RunLog", "changes_of", "read_run"]

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from gpo_full.diagnosis.method import Method, method_of
from gpo_full.diagnosis.names import LOGPS, METRICS, NAMES, columns_of, numbers_of, plain, source_of
from gpo_full.run_files import EVENTS_FILE, METER, METRICS_FILE, RESUMED, RUN_FILE, SAMPLES_FILE, STATE_FILE
from gpo_theory.errors import InputError

SWIFT_FILE, FACTORY_FILE = "logging.jsonl", "trainer_log.jsonl"
READ = (f"{METRICS_FILE}, {STATE_FILE} (TRL, axolotl, LLaMA-Factory), {SWIFT_FILE} (ms-swift), {FACTORY_FILE} "
        "(LLaMA-Factory), and JSON lines or CSV of their keys, OpenRLHF's or NeMo-RL's are read")  # fmt: skip
SAMPLED = ("step", "kl", "kl_se", "win_rate", "win_low", "win_high", "n")
SCALED = ("margin", "log_ratio_chosen", "log_ratio_rejected")
IN_NATS = ("gpo", "nemo-rl")  # sources whose SCALED are log-ratios without beta
BESIDE_F = ("nll_loss", "sft_loss", "aux_loss")  # parts of the loss that TRL, LLaMA-Factory and ms-swift log apart


@dataclass(frozen=True)
class RunLog:
    """The logs of a run, oldest first: a column of equal length for each metric.

    `source` is "gpo" for our runs, or the trainer: "trl", "llama-factory", "ms-swift", "openrlhf" or "nemo-rl". A
    value is NaN in a log that lacks the metric, and infinite in one whose value is not finite. The columns of SCALED
    are in nats, or if not of IN_NATS in units of beta times nats. `settings` is the configuration that the run records,
    empty if it records none; `samples` the objects of its samples.jsonl. For other trainers' logs, `names` are their
    keys of our columns, `unread` those that no rule uses, `beside` the parts of the loss that are not f, and `method`
    is the method where that is not of an f(beta rho).
    """

    run: str
    source: str
    columns: Mapping[str, tuple[float, ...]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Mapping[str, Any], ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    method: Method | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def broken(self) -> int:
        """The number of logs that hold a NaN or an infinity."""
        return sum(any(map(math.isinf, row)) for row in zip(*self.columns.values(), strict=True))

    @property
    def lacking(self) -> dict[str, int]:
        """The number of logs that lack a metric which others have."""
        counts = {name: sum(map(math.isnan, values)) for name, values in self.columns.items()}
        return {name: count for name, count in counts.items() if count}

    def holding(self, names: Iterable[str]) -> "RunLog":
        """Return the logs in which each of the metrics `names` is there and finite."""
        needed = [self.columns[name] for name in names]
        kept = [all(math.isfinite(values[at]) for values in needed) for at in range(len(self))]
        return replace(self, columns={name: tuple(value for value, keep in zip(values, kept, strict=True) if keep)
                                      for name, values in self.columns.items()})  # fmt: skip


def read_run(path: Path | str) -> RunLog:
    """Read a run: a folder with one of the files in READ (or checkpoints that hold one), or such a file.

    A checkpoint of ours is the run up to its step. Raises InputError if there is no such file, or no training log in
    it.
    """
    file = _find(Path(path))
    entries = _entries(file)
    written = [entry for entry in entries.rows if isinstance(entry, dict)]
    rows = [*map(numbers_of, written)]
    keys = {key for row in rows for key in row}
    named = entries.ours or (file.name == METRICS_FILE and "margin" in keys and not source_of(keys))
    source = "gpo" if named else source_of(keys) or "trl"
    ours = source == "gpo"
    rewards = any(NAMES.get(key) in SCALED for key in keys)
    names = {key: key for key in keys} if ours else NAMES if rewards else NAMES | LOGPS
    training = {"loss", "margin"} if ours else METRICS
    logs = [row for row in rows if row.keys() & training]
    if not logs:
        held = f": it has {', '.join(sorted(keys))}; {READ}" if keys else ""
        raise InputError(f"{str(file)!r} holds no training log{held}")
    runs = {key.rpartition(" - ")[0] for entry in written for key in entry if plain(key) in METRICS}
    if len(runs) > 1:
        raise InputError(f"{str(file)!r} holds the columns of several runs ({', '.join(sorted(runs))}): give one's")
    columns, own = columns_of(logs if ours else _merged(logs), names)
    if ours:
        folder = file.parent if entries.lines else file.parent.parent
        samples = _samples(folder / SAMPLES_FILE) if folder == file.parent else ()
        return RunLog(str(path), source, columns, _settings(folder / RUN_FILE), samples)
    return _foreign(RunLog(str(path), source, columns, names=own), logs, rows)


def _merged(logs: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Join neighbours that are parts of one log: of the same step, with no other key in common."""
    found: list[Mapping[str, float]] = []
    for row in logs:
        same = {key for key in row if found and found[-1].get(key) == row[key]}
        parts = found and any(NAMES.get(key) == "step" for key in same)
        if parts and all(NAMES.get(key) in ("step", "epoch") for key in row.keys() & found[-1].keys()):
            found[-1] = {**found[-1], **row}
        else:
            found.append(row)
    return found


def _foreign(log: RunLog, logs: Sequence[Mapping[str, float]], rows: Sequence[Mapping[str, float]]) -> RunLog:
    keys = frozenset(key for row in logs for key in row)
    step = log.columns["step"][0] if "step" in log.columns else None
    apart = log.source == "openrlhf" or log.names.get("loss") == "preference_loss"
    beside = () if apart else tuple(key for key in BESIDE_F if key in keys)
    method = method_of(logs, keys, step)
    read = {*NAMES, *log.names.values(), *beside, *(method.by if method else ())}
    # Of rows that are no logs of training, as of evaluations, the first word of the keys is enough; of a summary, none.
    others = {re.sub("[_/].*", "_*", key) for row in rows if "train_runtime" not in row for key in {*row} - keys - read}
    return replace(log, unread=tuple(sorted(keys - read | others)), beside=beside, method=method)


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
    saved = [each for each in path.glob(f"checkpoint-*/{STATE_FILE}") if _step(each).isdecimal()]
    newest = sorted(saved, key=lambda each: int(_step(each)))[-1:]
    # LLaMA-Factory's own log has no margins, so a checkpoint's state says more.
    order = [path / METRICS_FILE, path / STATE_FILE, path / SWIFT_FILE, *newest, path / FACTORY_FILE]
    found = next((file for file in order if file.is_file()), None)
    if found is None:
        raise InputError(f"run {str(path)!r} holds neither {METRICS_FILE} nor {STATE_FILE}; {READ}")
    return found


def _step(state: Path) -> str:
    return state.parent.name.rpartition("-")[2]


class _Entries(NamedTuple):
    rows: list[Any]
    ours: bool  # known to be a run of ours
    lines: bool  # a file of lines, in the run's own folder


def _entries(file: Path) -> _Entries:
    if file.suffix == ".jsonl":
        return _Entries(_lines(file), False, True)
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8", errors="replace") as text:
            return _Entries(list(csv.DictReader(text, restkey="")), False, True)
    state = _parse(file, file.read_bytes())
    rows = state.get("log_history") if isinstance(state, dict) else state
    ours = isinstance(state, dict) and METER in (state.get("stateful_callbacks") or ())
    return _Entries(rows if isinstance(rows, list) else [], ours, False)


def _lines(file: Path) -> list[Any]:
    *whole, last = file.read_bytes().splitlines(keepends=True) or [b""]
    rows = [_parse(file, line) for line in whole if line.strip()]
    try:
        return [*rows, _parse(file, last)] if last.strip() else rows
    except InputError:
        if last.endswith(b"\n"):
            raise
        return rows  # a line without a newline was cut off by a crash


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
        what = "is empty" if not text.strip() else "is not the JSON of a run"
        looks = re.search(rb"\{'[\w/]+': ", file.read_bytes())
        printed = "; it looks printed: a checkpoint holds trainer_state.json" if looks else ""
        raise InputError(f"{str(file)!r} {what}{printed}; {READ}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
