"""The result of the experiment at full size: hours of work, shipped so that all can look at it."""

__all__ = ["published_result"]

from pathlib import Path

from gpo_full.experiment.result import ExperimentResult

FULL = Path(__file__).parent / "results" / "full.json.xz"


def published_result() -> ExperimentResult:
    """Return what `gpo reproduce --scale full` once found, with the versions that it names; the samples are left out.

    >>> len(published_result().runs)
    63
    """
    return ExperimentResult.load(FULL)
