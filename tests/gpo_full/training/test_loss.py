"""The loss of a batch as a function of log-probabilities, against closed forms and derivatives by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpo_full.training.loss import Objective, pair_losses
from gpo_theory import LOSSES, InputError, parse

# rho = (-1 - -3) - (-2 - -5) = -1 and (-4 - -2) - (-1 - -2) = -3, in nats.
POLICY = torch.tensor([[-1.0, -2.0], [-4.0, -1.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-3.0, -5.0], [-2.0, -2.0]], dtype=torch.float64)


def test_log_ratios_x_values_and_slopes_by_hand() -> None:
    found = pair_losses(POLICY, REFERENCE, f=lambda x: (1 - x) ** 2, beta=0.5)
    assert found.log_ratios.tolist() == [[2.0, 3.0], [-2.0, 1.0]]
    assert found.x.tolist() == [-0.5, -1.5]
    assert found.values.tolist() == [2.25, 6.25]  # (1 + 1/2)^2, (1 + 3/2)^2
    assert found.slopes.tolist() == [-3.0, -5.0]  # -2 (1 - x)


def test_weight_and_probability_mix_both_signs() -> None:
    weight, p = torch.tensor([2.0, 0.5], dtype=torch.float64), torch.tensor([0.75, 1.0], dtype=torch.float64)
    found = pair_losses(POLICY, REFERENCE, f=torch.exp, beta=1.0, weight=weight, p=p)
    expected = [2 * (0.75 * math.exp(-1) + 0.25 * math.e), 0.5 * math.exp(-3)]
    assert found.values.tolist() == pytest.approx(expected, rel=1e-15)
    slopes = [2 * (0.75 * math.exp(-1) - 0.25 * math.e), 0.5 * math.exp(-3)]
    assert found.slopes.tolist() == pytest.approx(slopes, rel=1e-15)


def test_the_gradient_is_beta_times_the_slope_and_of_opposite_sign_for_the_two_responses() -> None:
    policy = POLICY.clone().requires_grad_()
    found = pair_losses(policy, REFERENCE, f=lambda x: torch.log1p(torch.exp(-x)), beta=0.5)
    found.values.sum().backward()  # type: ignore[no-untyped-call]
    by_hand = [-0.5 / (1 + math.exp(x)) for x in (-0.5, -1.5)]  # beta f'(x), f' = -sigmoid(-x)
    assert policy.grad is not None
    assert policy.grad.flatten().tolist() == pytest.approx([by_hand[0], -by_hand[0], by_hand[1], -by_hand[1]], rel=1e-14)


def test_without_a_gradient_there_are_slopes_and_the_inputs_stay_as_they_are() -> None:
    policy, reference = POLICY.clone(), REFERENCE.clone()
    with torch.no_grad():
        found = pair_losses(policy, reference, f=lambda x: (1 - x) ** 2, beta=0.5)
    assert found.slopes.tolist() == [-3.0, -5.0]
    assert torch.equal(policy, POLICY)
    assert torch.equal(reference, REFERENCE)
    assert not policy.requires_grad


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=4), st.floats(0.05, 3))
def test_equal_log_ratios_give_f_of_0_whatever_beta(log_ratios: list[float], beta: float) -> None:
    both = torch.tensor(log_ratios, dtype=torch.float64)[:, None].expand(-1, 2)
    found = pair_losses(both, torch.zeros_like(both), f=lambda x: torch.exp(-2 * x), beta=beta)
    assert found.values.tolist() == [1.0] * len(log_ratios)
    assert found.slopes.tolist() == [-2.0] * len(log_ratios)


@pytest.mark.parametrize(("name", "slope", "curvature"), [
    ("logistic", -0.5, 0.25), ("squared", -2.0, 2.0), ("exponential", -1.0, 1.0), ("hinge", -1.0, 0.0),
])  # fmt: skip
def test_an_objective_knows_f_at_0_and_scales_by_its_slope(name: str, slope: float, curvature: float) -> None:
    made = Objective.of(LOSSES[name], beta=0.4, margin="sum", scale_gradient=True)
    assert (made.slope_at_zero, made.curvature_at_zero) == (slope, curvature)
    assert made.scale == pytest.approx(1 / (0.4 * abs(slope)), rel=1e-15)
    assert Objective.of(LOSSES[name], beta=0.4, margin="sum").scale == 1.0


def test_a_loss_without_a_slope_at_0_cannot_be_scaled_by_it() -> None:
    for formula in ("x**2", "max(0, -x)"):  # f'(0) = 0, and a kink at 0
        with pytest.raises(InputError, match="has no slope at 0"):
            Objective.of(parse(formula), beta=1.0, margin="sum", scale_gradient=True)
