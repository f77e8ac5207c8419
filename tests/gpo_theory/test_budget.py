"""Limits on computing time, measured by the clock of the process, which runs in one thread here."""

import multiprocessing
import resource
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gpo_theory import analyze, parse
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


def analysed_in_a_gigabyte(formula: str) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30,) * 2)
    analyze(parse(formula), seconds=2)


@pytest.mark.parametrize("formula", ["exp(-x)+exp(-1000000*x)", "log(1+exp(-x))*(1-sigmoid(1000000*x))+exp(-x)*sigmoid(1000000*x)",
                                     "1/(1+exp(x))+1/(1+exp(1000001*x/1000000))", "(1+exp(-x))**32-exp(-30000000*x)**2"])  # fmt: skip
def test_a_degree_is_looked_at_before_it_is_expanded(formula: str) -> None:
    """In exp(x/10^6) these are polynomials of degree 10^6 and more: an analysis without them ends in 1 GiB."""
    child = multiprocessing.get_context("fork").Process(target=analysed_in_a_gigabyte, args=(formula,))
    child.start()
    child.join(100)
    if child.exitcode is None:
        child.kill()
        child.join()
    assert child.exitcode == 0
