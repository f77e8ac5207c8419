"""Metrics: the definitions of metrics.jsonl, computed pair by pair here, over batches of any size."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_full.training.reporting.metrics import Meter, NonFiniteLoss, pair_metrics

RATIOS = st.lists(st.tuples(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32)), min_size=1, max_size=12)


def by_hand(ratios: list[tuple[float, float]], beta: float, left: float, right: float) -> dict[str, float]:
    """Truncated squared loss f = max(0, 1-x)^2, f' = -2 max(0, 1-x), f'(0) = -2."""
    rho = [c - r for c, r in ratios]
    x = [beta * value for value in rho]
    mean = lambda values: sum(values) / len(ratios)  # noqa: E731
    slopes = [2 * max(0.0, 1 - value) for value in x]
    return {
        "loss": mean(max(0.0, 1 - value) ** 2 for value in x),
        "margin": mean(rho),
        "margin_std": math.sqrt(max(0.0, mean((value - mean(rho)) ** 2 for value in rho))),
        "log_ratio_chosen": mean(c for c, _ in ratios),
        "log_ratio_rejected": mean(r for _, r in ratios),
        "accuracy": mean(1.0 if value > 0 else 0.5 if value == 0 else 0.0 for value in rho),
        "regularizer": mean(value**2 / 2 for value in rho),
        "weight": mean(slopes),
        "saturated_left": mean(value < left for value in x),
        "saturated_right": mean(value > right for value in x),
        "flat_right": mean(slope < 0.02 for slope in slopes),
    }


def sums(ratios: list[tuple[float, float]], beta: float, knees: tuple[float | None, float | None]) -> torch.Tensor:
    log_ratios = torch.tensor(ratios, dtype=torch.float64)
    x = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    residual = (1 - x).clamp(min=0)
    return pair_metrics(residual**2, -2 * residual, x, log_ratios, knees=knees, slope_at_zero=-2.0)


@settings(deadline=None)
@given(RATIOS, st.data())
def test_means_over_uneven_batches_are_means_over_pairs(ratios: list[tuple[float, float]], data: Any) -> None:
    cut = data.draw(st.integers(0, len(ratios)))
    meter = Meter()
    for part in (ratios[:cut], ratios[cut:]):
        if part:
            meter.add(sums(part, 0.3, (-4.0, 6.0)), tokens=10 * len(part))
    found = meter.drain()
    for name, value in by_hand(ratios, 0.3, -4.0, 6.0).items():
        # margin_std comes from sums of squares: absolute error of the order of sqrt(epsilon) times the margins.
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-5 if name == "margin_std" else 1e-12), name
    assert found["tokens"] == 10 * len(ratios)


def test_without_knees_or_slope_nothing_is_saturated_or_flat() -> None:
    ratios = torch.tensor([[500.0, -500.0], [-500.0, 500.0]])
    x = ratios[:, 0] - ratios[:, 1]
    found = pair_metrics(x, 0 * x, x, ratios)
    assert found[-4:].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_a_flat_left_tail_is_not_flat_right() -> None:
    ratios = torch.tensor([[0.0, 9.0], [9.0, 0.0]])
    x = ratios[:, 0] - ratios[:, 1]
    assert pair_metrics(x, 0 * x, x, ratios, slope_at_zero=-1.0)[-2] == 1


@pytest.mark.parametrize(("slope", "curvature", "expected"), [
    (-2.0, 2.0, (3 / 4 + 1 / 2 + 0) / 3),  # x = 3, -1, 0: |x| / (1 + |x|), the squared loss
    (-0.5, 0.25, (3 / 5 + 1 / 3 + 0) / 3),  # logistic: R = 1/2
    (-1.0, 0.0, 0.0),  # hinge: nothing of second order
    (0.0, 2.0, 2 / 3),  # nothing of first order: all of it, but where there is nothing at all
])  # fmt: skip
def test_the_share_of_the_squared_loss_by_hand(slope: float, curvature: float, expected: float) -> None:
    ratios = torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    x = ratios[:, 0] - ratios[:, 1]
    found = pair_metrics(x, x, x, ratios, slope_at_zero=slope, curvature_at_zero=curvature)[-1] / 3
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_each_object_starts_at_zero_but_tokens_and_time_go_on() -> None:
    meter = Meter()
    meter.add(sums([(1.0, 0.0)], 1.0, (None, None)), 5)
    meter.add_gradient_norm(torch.tensor(3.0))
    meter.add_gradient_norm(1.0)
    first = meter.drain()
    assert (first["grad_norm"], first["tokens"]) == (2.0, 5)
    meter.add(sums([(0.0, 1.0)], 1.0, (None, None)), 7)
    meter.add_gradient_norm(9.0)
    second = meter.drain()
    assert (second["margin"], second["grad_norm"], second["tokens"]) == (-1.0, 9.0, 12)
    assert second["cpu_seconds"] >= first["cpu_seconds"] >= 0


def test_state_restores_a_partial_interval() -> None:
    one, two = Meter(), Meter()
    for meter in (one, two):
        meter.add(sums([(1.0, 0.25)], 0.1, (None, None)), 5)
        meter.drain()
        meter.add(sums([(2.0, 0.5), (0.1, 0.2)], 0.1, (None, None)), 6)
        meter.add_gradient_norm(0.1)
    resumed = Meter()
    resumed.restore(two.state() | {"cpu_seconds": 1000.0})
    expected, found = one.drain(), resumed.drain()
    assert 1000 <= found.pop("cpu_seconds") < 1010
    expected.pop("cpu_seconds")
    assert found == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["loss", "grad_norm"])
def test_a_value_that_is_not_finite_is_never_averaged_in(value: float, place: str) -> None:
    meter, ratios = Meter(), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    x = ratios[:, 0] - ratios[:, 1]
    loss = torch.tensor([0.5, value]) if place == "loss" else torch.tensor([0.5, 0.5])
    meter.add(pair_metrics(loss, -x, x, ratios), 3)
    meter.add_gradient_norm(value if place == "grad_norm" else 1.0)
    for ask in (meter.drain, meter.state):
        with pytest.raises(NonFiniteLoss, match=f"not finite: {place}"):
            ask()


def test_ranks_are_added_up() -> None:
    meter = Meter()
    meter.add(sums([(1.0, 0.0)], 1.0, (None, None)), 5)
    found = meter.drain(lambda mine: mine + torch.tensor([1.0, 0, 3.0, *[0.0] * 9, 4, 0, 0], dtype=torch.float64))
    assert (found["margin"], found["tokens"]) == (2.0, 9)
