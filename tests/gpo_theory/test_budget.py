"""Limits on computing time, measured by the clock of the process, which runs in one thread here."""

import time
from contextlib import suppress

import pytest

from gpo_theory.budget import OutOfTimeError, limited, spend


def worked(most: float = 1.0) -> float:
    """CPU-seconds until the limit raises, or `most` if it does not."""
    start = time.process_time()
    with suppress(OutOfTimeError):
        while time.process_time() < start + most:
            spend()
    return time.process_time() - start


def test_it_raises_when_its_time_is_used_up_and_not_before() -> None:
    with limited(0.1):
        assert 0.09 < worked() < 0.3
        with pytest.raises(OutOfTimeError):
            spend()
    assert worked(0.2) >= 0.2  # none outside


def test_time_that_passes_without_work_is_not_used() -> None:
    with limited(0.1):
        spend()
        time.sleep(0.2)
        spend()
        assert 0.05 < worked() < 0.3


def test_an_outer_limit_that_ends_earlier_stays_and_goes_on_after_an_inner_one() -> None:
    with limited(0.1), limited(10):
        assert worked() < 0.3
    with limited(0.2):
        with limited(0.05):
            assert worked() < 0.15
        assert 0.1 < worked() < 0.4
