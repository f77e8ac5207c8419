"""The least value of a loss: the proposal and the rigorous enclosure, each against the table of the oracle."""

import math
from fractions import Fraction

import pytest

from gpo_theory import LOSSES
from gpo_theory.calculus.infimum import infimum_of, proposed_infimum
from gpo_theory.calculus.pieces import split
from tests.support.oracle import TRUTHS, number

BOUNDED = [name for name, truth in TRUTHS.items() if truth.infimum != "-inf"]


@pytest.mark.parametrize("name", BOUNDED)
def test_the_proposal_is_the_infimum_and_lies_in_the_enclosure(name: str) -> None:
    f, true = LOSSES[name].f.primitive(), float(number(TRUTHS[name].infimum))
    found, around = proposed_infimum(split(f)), infimum_of(f)
    assert found is not None
    assert found.value == pytest.approx(true, rel=1e-14, abs=1e-14)
    assert around is not None
    assert around.low <= math.nextafter(true, math.inf)
    assert math.nextafter(true, -math.inf) <= around.high
    assert around.high - around.low <= 1e-12 * max(1, abs(true))
    if found.at is not None:
        assert around.left <= (float(found.at) if "inf" in found.at else float(Fraction(found.at))) <= around.right
