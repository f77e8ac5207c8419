"""Transforms: each by its identity, over the whole catalogue, against the oracle's own evaluation of the formulas."""

from fractions import Fraction

import mpmath as mp
import pytest

from gpo_theory import LOSSES, InputError, find_loss, parse
from gpo_theory.transforms import continued, robust, scaled, shifted, smoothed, soft_label
from tests.gpo_theory.test_catalogue import meaning, same
from tests.support.oracle import TRUTHS, evaluate, real

POINTS = [mp.mpf(k) / 7 for k in (-40, -9, -3, -1, 0, 2, 5, 8, 40)]
KINKS = {  # (x, jump of the slope) where f is not differentiable, by hand from the formulas
    "hinge": [(1, 1)],
    "perceptron": [(0, 1)],
    "ramp": [(-1, -1), (1, 1)],
    "psi_learning": [(0, -2), (1, 2)],
    "pinball": [(1, Fraction(5, 4))],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_flips_and_their_undoing(name: str) -> None:
    f = meaning(LOSSES[name])
    same(meaning(soft_label(LOSSES[name], "1/5")), lambda x: (4 * f(x) + f(-x)) / 5, POINTS)
    same(meaning(robust(LOSSES[name], "1/5")), lambda x: (4 * f(x) - f(-x)) / 3, POINTS)
    same(meaning(soft_label(robust(LOSSES[name], "1/5"), "1/5")), f, POINTS)
    same(meaning(robust(soft_label(LOSSES[name], "1/5"), "1/5")), f, POINTS)


@pytest.mark.parametrize("name", LOSSES)
def test_offset_and_scale(name: str) -> None:
    loss, f = LOSSES[name], meaning(LOSSES[name])
    same(meaning(shifted(loss, "2/3")), lambda x: f(x - mp.mpf(2) / 3), POINTS)
    same(meaning(scaled(loss, -3)), lambda x: f(-3 * x), POINTS)
    same(meaning(scaled(shifted(loss, 1), 2)), lambda x: f(2 * x - 1), POINTS)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("at", "side"), [("1/3", "right"), ("-3/2", "left"), ("1", "left"), ("1", "right")])
def test_a_continuation_is_f_and_then_its_tangent(name: str, at: str, side: str) -> None:
    """At x = 1 several losses have a kink: the tangent is that of the side that is kept."""
    f, g = meaning(LOSSES[name]), meaning(continued(LOSSES[name], at, side))
    direction = 1 if side == "right" else -1
    with mp.workdps(120):
        knee, h = real(Fraction(at)), mp.mpf(10) ** -50
        slope = direction * (f(knee) - f(knee - direction * h)) / h  # good to about h, or its root for hinge powers
        for distance in (mp.mpf(0), mp.mpf(1) / 9, mp.mpf(2), mp.mpf(30)):
            before, beyond = knee - direction * distance, knee + direction * distance
            assert abs(g(before) - f(before)) <= mp.mpf(10) ** -40 * abs(f(before))
            tangent = f(knee) + slope * (beyond - knee)
            assert abs(g(beyond) - tangent) < mp.mpf(10) ** -18 * max(1, abs(tangent))


def test_known_losses_are_continuations() -> None:
    """P5's two extremal losses, and Zhang's modified Huber loss from the truncated squared one."""
    same(meaning(continued(LOSSES["exponential"], 0, "left")), meaning(LOSSES["huberised_exponential"]))
    same(meaning(continued(LOSSES["exponential"], 0, "right")), meaning(LOSSES["exponential_linear"]))
    same(meaning(continued(LOSSES["truncated_squared"], -1, "left")), meaning(LOSSES["modified_huber"]))
    halved = parse("max(0, 1-x)**2/2")
    same(meaning(continued(halved, 0, "left")), meaning(LOSSES["smooth_hinge"]))


@pytest.mark.parametrize("name", LOSSES)
def test_smoothing_rounds_every_kink_and_nothing_else(name: str) -> None:
    """Beyond the windows f itself; at a kink the jump is gone, and f is raised by J h/4 there."""
    h = mp.mpf(1) / 4
    kinks, f, rounded = KINKS.get(name, []), meaning(LOSSES[name]), smoothed(LOSSES[name], "1/4")
    g = meaning(rounded)
    clear = [x for x in POINTS if all(abs(x - t) >= h for t, _ in kinks)]
    same(g, f, clear)
    assert len(clear) > 5
    if not kinks:
        assert rounded.f == LOSSES[name].f
    with mp.workdps(60):
        for t, jump in kinks:
            step, at, size = mp.mpf(10) ** -20, mp.mpf(t), real(Fraction(jump))
            assert abs(g(at) - f(at) - size * h / 4) < mp.mpf(10) ** -50
            for place in (at, at - h, at + h):
                right, left = (g(place + step) - g(place)) / step, (g(place) - g(place - step)) / step
                assert abs(right - left) < mp.mpf(10) ** -18


def test_the_kinks_above_are_all_of_them() -> None:
    """Against the oracle's list of points where f is not twice differentiable, by one-sided differences."""
    with mp.workdps(80):
        step = mp.mpf(10) ** -30
        for name, truth in TRUTHS.items():
            for point in map(real, map(Fraction, truth.kinks)):
                bend = (truth.f(point + step) + truth.f(point - step) - 2 * truth.f(point)) / step
                stated = [jump for t, jump in KINKS.get(name, []) if t == point]
                assert abs(bend - sum(real(Fraction(jump)) for jump in stated)) < 1e-10


@pytest.mark.parametrize("name", ["hinge", "perceptron", "ramp", "psi_learning", "pinball"])
def test_for_piecewise_linear_losses_it_is_the_window_average(name: str) -> None:
    h = mp.mpf(3) / 4  # the windows of psi-learning and of the ramp overlap
    f, g = meaning(LOSSES[name]), meaning(smoothed(LOSSES[name], "3/4"))
    for x in (mp.mpf(k) / 8 for k in range(-20, 21)):
        cuts = sorted({x - h, x + h, *(mp.mpf(t) for t, _ in KINKS[name] if x - h < t < x + h)})
        assert abs(g(x) - mp.quad(f, cuts) / (2 * h)) < 1e-12


def test_known_losses_are_smoothed_hinges() -> None:
    """Chapelle's loss at h = 1/2; the gamma-hinge and Rennie's (gamma = 1) are the same moved left by h = gamma/2."""
    same(meaning(smoothed(LOSSES["hinge"], "1/2")), meaning(LOSSES["huberised_hinge"]))
    same(meaning(smoothed(LOSSES["hinge"], "1/3")), meaning(find_loss("huberised_hinge", {"h": "1/3"})))
    same(meaning(shifted(smoothed(LOSSES["hinge"], "1/4"), "-1/4")), meaning(LOSSES["gamma_hinge"]))
    same(meaning(shifted(smoothed(LOSSES["hinge"], "1/2"), "-1/2")), meaning(LOSSES["smooth_hinge"]))


def test_parameters_are_kept_and_a_transform_may_name_its_own() -> None:
    mixed = soft_label(LOSSES["focal"], "0.1", "eps")
    assert mixed.parameters == {"gamma": Fraction(2), "eps": Fraction(1, 10)}
    moved = mixed.with_parameters({"eps": "1/4", "gamma": 1})
    by_hand = lambda x: evaluate("sigmoid(-x)*softplus(-x)", x)  # noqa: E731
    same(meaning(moved), lambda x: 3 * by_hand(x) / 4 + by_hand(-x) / 4, POINTS)
    assert shifted(LOSSES["hinge"], 1).parameters == {}
    with pytest.raises(InputError, match="gamma"):
        shifted(LOSSES["focal"], 1, "gamma")


def test_what_cannot_be_transformed_is_refused() -> None:
    for flip in (Fraction(1, 2), Fraction(-1, 10), Fraction(1)):
        for transform in (soft_label, robust):
            with pytest.raises(InputError, match="1/2"):
                transform(LOSSES["logistic"], flip)
    with pytest.raises(InputError, match="width 0"):
        smoothed(LOSSES["hinge"], 0)
    with pytest.raises(InputError, match="not continuous at x = 0"):
        smoothed(parse("where(x < 0, 1, 0)"), 1)
    with pytest.raises(InputError, match="irrational"):
        smoothed(parse("max(0, 2-x**2)"), 1)
    with pytest.raises(InputError, match="left, right"):
        continued(LOSSES["hinge"], 0, "up")
    with pytest.raises(InputError, match="no tangent at x = 0"):
        continued(parse("where(x < 0, 0, sqrt(x))"), 0, "left")
