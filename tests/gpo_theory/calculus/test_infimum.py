"""The least value of a loss: the proposal and the rigorous enclosure, each against the table of the oracle."""

import math
from fractions import Fraction

import pytest

from gpo_theory import LOSSES, find_loss, parse
from gpo_theory.analysis import _replayed
from gpo_theory.calculus.infimum import infimum_of, proposed_infimum
from gpo_theory.calculus.pieces import split
from gpo_theory.claims.lower_bounds import bounded_below
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.expansion import cancelled
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


def stated(f: Expr) -> dict[str, object] | None:
    """The infimum that the verifier accepts."""
    found = _replayed(f, "bounded_below", bounded_below(cancelled(f)))
    assert found.verdict.value == "proved"
    return None if found.value is None else dict(found.value)


@pytest.mark.parametrize("g", ["1/10", "1/4", "1/3", "2/3", "3/4", "7/5"])
def test_the_infimum_of_dpd_is_minus_1_over_g(g: str) -> None:
    """f' < 0, and on the right sigma(x) tends to 1 and sigma(-x) to 0: f tends to -(1+g)/g + 1."""
    exact = -1 / Fraction(g)
    assert stated(find_loss("dpd", {"g": g}).f.primitive()) == {"exact": str(exact), "float": float(exact)}


@pytest.mark.parametrize(("formula", "limit"), [
    ("log(exp(x)+exp(-x))-x", "0"), ("(16+exp(-x))**(1/4)", "2"), ("-(8/27/(1+exp(-x)))**(1/3)", "-2/3"),
    ("where(x<2, 5-x, exp(-x))", "0"),
])  # fmt: skip
def test_what_never_rises_has_its_limit_as_infimum(formula: str, limit: str) -> None:
    assert stated(parse(formula).f.primitive()) == {"exact": limit, "float": float(Fraction(limit))}
