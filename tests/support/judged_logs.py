"""A log of rows written as a file, and what the diagnosis says of it."""

__all__ = ["ids", "judged", "said"]

import json
from pathlib import Path
from typing import Any

from gpo_full.diagnosis.log import read_run
from gpo_full.diagnosis.rules import Diagnosis, diagnose
from gpo_theory import find_loss


def judged(
    folder: Path, rows: list[dict[str, Any]], loss: str | None = "dpo", beta: float | None = 0.1, name: str = "log.jsonl"
) -> Diagnosis:
    """The diagnosis of rows as lines of JSON, as a run of this loss and beta."""
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return diagnose(read_run(path), loss and find_loss(loss), beta)


def ids(found: Diagnosis) -> set[str]:
    """The rules that found something."""
    return {finding.id for finding in found.findings}


def said(found: Diagnosis, rule: str) -> str:
    """The reason that the one finding of a rule gives; it names its columns."""
    (finding,) = [finding for finding in found.findings if finding.id == rule]
    assert finding.columns
    return finding.because
