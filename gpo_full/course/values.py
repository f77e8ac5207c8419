"""Numbers that a lesson publishes: shown in the lesson and collected into `results.json`."""

__all__ = ["Value", "collect", "publish"]

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

_MIME = "application/vnd.gpo.values+json"


@dataclass(frozen=True)
class Value:
    """One published number.

    `low` and `high` bound it where it is an estimate or has a theoretical bracket; `seed` is the seed it depends on;
    `tolerance` is the absolute difference allowed to the same number computed on another machine, None where the
    number comes from a trained network and is therefore not expected to repeat bit for bit elsewhere.
    """

    id: str
    value: float
    low: float | None = None
    high: float | None = None
    seed: int | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        """Reject a number that JSON cannot hold or that lies outside its own interval."""
        numbers = [n for n in (self.value, self.low, self.high, self.tolerance) if n is not None]
        if not all(map(isfinite, numbers)):
            raise ValueError(f"value {self.id!r} is not finite: {self}")
        if (self.low is not None and self.value < self.low) or (self.high is not None and self.value > self.high):
            raise ValueError(f"value {self.id!r} = {self.value} lies outside [{self.low}, {self.high}]")


def publish(*values: Value) -> None:
    """Show `values` as a table in the running notebook and mark them for `collect`."""
    from IPython.display import display

    columns = {
        "value": [f"{v.value:.6g}" for v in values],
        "interval": ["" if v.low is None or v.high is None else f"[{v.low:.4g}, {v.high:.4g}]" for v in values],
        "seed": ["" if v.seed is None else str(v.seed) for v in values],
        "tolerance": ["" if v.tolerance is None else f"{v.tolerance:.1g}" for v in values],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    lines = ["| id | " + " | ".join(kept) + " |", "|:--|" + "--:|" * len(kept)]
    lines += [f"| `{v.id}` | " + " | ".join(cells[i] for cells in kept.values()) + " |" for i, v in enumerate(values)]
    text = "\n".join(f"{v.id} = {v.value:.6g}" for v in values)
    display(  # type: ignore[no-untyped-call]
        {"text/markdown": "\n".join(lines), "text/plain": text, _MIME: [asdict(v) for v in values]}, raw=True
    )


def collect(notebook: Mapping[str, Any]) -> list[Value]:
    """Return the values that an executed notebook (its nbformat dictionary) published, in order; an id is used once."""
    found = [
        Value(**entry)
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        for entry in output.get("data", {}).get(_MIME, ())
    ]
    ids = [value.id for value in found]
    repeated = sorted({i for i in ids if ids.count(i) > 1})
    if repeated:
        raise ValueError(f"values published more than once: {', '.join(repeated)}")
    return found
