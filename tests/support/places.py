"""Where the checkout and its tests are."""

__all__ = ["ROOT", "TESTS"]

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
