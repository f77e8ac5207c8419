"""How much a test tries: enough for the planted faults on every change, many times as much where GPO_SOAK is set (`make soak`)."""

__all__ = ["SOAK", "budget"]

import os

SOAK = "GPO_SOAK" in os.environ


def budget(short: int, long: int) -> int:
    """Return how many examples to try."""
    return long if SOAK else short
