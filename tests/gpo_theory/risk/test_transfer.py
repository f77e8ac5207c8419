"""The weight at a margin against mpmath's derivative, by hand, and its refusals."""

import mpmath as mp
import pytest
from numpy.testing import assert_allclose

from gpo_theory import LOSSES, InputError, weights
from tests.support.oracle import TRUTHS, number

RHO = [-12.0, -3.5, -0.25, 0.0, 0.5, 4.75, 11.0]
WITHOUT = {"perceptron", "discopop"}  # a kink at 0, and f'(0) > 0


@pytest.mark.parametrize("name", sorted(set(TRUTHS) - WITHOUT))
def test_against_numerical_differentiation(name: str) -> None:
    f, beta = TRUTHS[name].f, 0.3
    with mp.workdps(40):
        slopes = [mp.diff(lambda u, r=rho: f(mp.mpf(beta) * r + u), 0, direction=1) for rho in (*RHO, 0)]
        expected = [float(slope / slopes[-1]) for slope in slopes[:-1]]
    assert_allclose(weights(LOSSES[name], beta, RHO), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", sorted(n for n, t in TRUTHS.items() if n not in WITHOUT and t.slope not in (None, "inf") and len(t.strength) == 1))
def test_its_slope_at_zero_is_minus_beta_times_the_strength(name: str) -> None:
    """P1' equates w'(0) = -beta R."""
    beta, step = 0.5, 1e-5
    behind, ahead = weights(LOSSES[name], beta, [-step, step])
    assert (ahead - behind) / (2 * step) == pytest.approx(-beta * float(number(TRUTHS[name].strength[0])), rel=1e-4)


def test_by_hand_and_at_a_kink() -> None:
    assert weights(LOSSES["hinge"], 1, [0.5, 1, 2]) == (1, 0, 0)  # at the kink from the right
    assert weights(LOSSES["squared"], 0.5, [0, 2, 4]) == (1, 0, -1)
    assert weights(LOSSES["logistic"], 2, [3])[0] == pytest.approx(2 / (1 + float(mp.exp(6))), rel=1e-15)
    assert weights(LOSSES["logistic"], 1, []) == ()


def test_refused_where_there_is_no_push_at_zero() -> None:
    for name in WITHOUT:
        with pytest.raises(InputError, match=rf"{name} has no weight at a margin: it needs f'\(0\) < 0"):
            weights(LOSSES[name], 1.0, [1.0])
    for beta in (0, -1, float("inf"), float("nan")):
        with pytest.raises(InputError, match="not a positive number"):
            weights(LOSSES["logistic"], beta, [1.0])
