"""The score finds what is wrong: planted faults are seen, and its truth is mpmath's."""

from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
import torch

from gpo_theory import LOSSES, find_loss, to_torch
from gpo_theory.lowering.accuracy import score
from gpo_theory.lowering.accurate_code import program_of
from gpo_theory.lowering.cancellation import polynomials_for
from gpo_theory.lowering.exact_values import sample_points, taylor_at
from tests.support.jets import jet
from tests.support.oracle import evaluate, real

FAST = ("logistic", "exponential", "savage", "exo", "log_cosh", "probit")


@pytest.mark.parametrize("name", LOSSES)
def test_jets_are_the_derivatives(name: str) -> None:
    """The forward differentiation that the tests trust, against mpmath's numerical derivatives of the oracle."""
    loss = LOSSES[name]
    for x in ("-3.37", "0.62", "2.2"):
        with mp.workdps(60):
            found = jet(loss.formula, mp.mpf(x), loss.parameters)
            for k, seen in enumerate((found.f, found.d, found.dd)):
                right = mp.diff(lambda u: evaluate(loss.formula, u, loss.parameters), mp.mpf(x), k)
                assert abs(seen - right) <= mp.mpf(10) ** -20 * (1 + abs(right)), f"{name}: order {k} at {x}"


@pytest.mark.parametrize("name", FAST)
def test_the_truth_of_the_score_is_that_of_mpmath(name: str) -> None:
    loss = LOSSES[name]
    for x in (-30.5, -1.25, 0.75, 6.5, 17.0):
        with mp.workdps(500):
            found = jet(loss.formula, mp.mpf(x), loss.parameters)
        for seen, right in zip(taylor_at(loss.f.primitive(), x, 2), (found.f, found.d, found.dd), strict=True):
            assert mp.mpf(seen.mid().str(30, radius=False)) == pytest.approx(right, rel=1e-15), f"{name} at {x}"


@pytest.mark.parametrize(
    ("name", "wrong", "where"),
    [
        # One planted fault each: the naive formula, softplus's threshold, a relative error of 2e-15, a slope off by 1e-14.
        ("logistic", lambda x: torch.log(1 + torch.exp(-x)), "value"),
        ("logistic", lambda x: torch.nn.functional.softplus(-x), "value"),
        ("exponential", lambda x: torch.exp(-x) * (1 + 2e-15), "value"),
        ("squared", lambda x: (x - 1) ** 2 + 1e-14 * torch.sin(x - x.detach()), "gradient"),
        ("log_cosh", lambda x: torch.log(torch.cosh(1 - x)), "value"),
        ("hinge", lambda x: torch.nn.functional.softplus(1 - x, beta=1e4), "value"),
        ("logistic", lambda x: -torch.nn.functional.logsigmoid(x), "second"),  # torch's own: 1 - sigmoid cancels beyond 37
        ("squared", lambda x: (x - 1) ** 2 + 1e-15 * (x - x.detach()) ** 2, "second"),
    ],
)
def test_planted_faults_are_seen(name: str, wrong: object, where: str) -> None:
    good = score(LOSSES[name], to_torch(LOSSES[name]), torch.float64)
    bad = score(LOSSES[name], wrong, torch.float64)  # type: ignore[arg-type]
    assert max(good.value, good.gradient, good.second) <= 4
    assert getattr(bad, where) > 4


def test_points_surround_every_breakpoint_and_every_zero() -> None:
    """exo's double zero is log 999; the tangent loss vanishes at tan(1/2); each has neighbours on all scales."""
    for name, special in (("exo", mp.log(999)), ("tangent", mp.tan(mp.mpf(1) / 2)), ("huber", 3), ("cauchy", 1)):
        points = sample_points(LOSSES[name].f.primitive(), 0, 200)
        for distance in (1e-9, 1e-5, 1e-2):
            near = [x for x in points if distance / 3 < abs(x - float(special)) < distance * 3]
            assert {x > special for x in near} == {True, False}, f"{name} at {distance}"


@pytest.mark.parametrize("text", ["exo", "exp(x)-x-1", "log(cosh(x))", "erf(x)**2"])
def test_patches_hold_to_their_bound(text: str) -> None:
    """The polynomial is f to 2^-52 of |f| + |x f'| all over its radius, by mpmath."""
    loss = find_loss(text)
    found = program_of(loss.f.primitive(), 0).polynomials
    assert found
    for polynomial, _ in found:
        with mp.workdps(60):
            for k in range(-63, 64, 6):
                v = polynomial.radius * Fraction(k, 64)
                at = real(polynomial.centre + v)
                right = jet(loss.formula, at, loss.parameters)
                value = sum(c * v**i for i, c in enumerate(polynomial.coefficients))
                error = abs(real(value) - right.f)
                assert error <= mp.mpf(2) ** -52 * (abs(right.f) + abs(at * right.d)), f"{text} at {float(at)}"


def test_a_patch_never_crosses_a_breakpoint() -> None:
    """u^2/2 for |u| < 1, |u| - 1/2 beyond, u = 2 - 5x/4: the double zero at 8/5 lies 4/5 from either breakpoint."""
    text = "where(abs(2-5*x/4) < 1, (2-5*x/4)**2/2, abs(2-5*x/4)-1/2)"
    found = [*polynomials_for(find_loss(text).f.primitive(), 0, np.array([8 / 5 + 1e-9]))]
    assert found
    assert all(abs(each.centre - Fraction(8, 5)) < Fraction(1, 10**15) and each.radius <= Fraction(4, 5) for each in found)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("near", [-0.99, -0.3, 0.001, 0.7, 0.99])
def test_patches_of_derivatives_hold_to_their_bound(order: int, near: float) -> None:
    """On [-1, 1] wherever they are asked for: the k-th derivative of log(1 + e^-3x) + x^4, cut at -1 and 1, by mpmath."""
    text = "where(x < -1, 0, where(x < 1, log(1+exp(-3*x)) + x**4, 0))"
    found = [*polynomials_for(find_loss(text).f.primitive(), order, np.array([near, near + 0.005]))]
    assert found
    for each in found:
        assert abs(each.centre) + each.radius <= 1
        with mp.workdps(40):
            for k in range(-63, 64, 18):
                v = each.radius * Fraction(k, 64)
                at = real(each.centre + v)
                right, slope = (mp.diff(lambda u: mp.log1p(mp.exp(-3 * u)) + u**4, at, order + i) for i in range(2))
                error = abs(real(sum(c * v**i for i, c in enumerate(each.coefficients))) - right)
                assert error <= mp.mpf(2) ** -52 * (abs(right) + abs(at * slope)), f"order {order} at {float(at)}"
