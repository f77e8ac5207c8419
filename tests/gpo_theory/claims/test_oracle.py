"""The oracle's hand-derived facts against exhaustive numerics: an oracle nobody checks is a second opinion, not a truth."""

from itertools import pairwise

import mpmath as mp
import pytest

from tests.support.oracle import TRUTHS, check_growth, least, number

GRID = [mp.mpf(10) ** (mp.mpf(k) / 12) for k in range(-36, 37)]
NAMES = list(TRUTHS)


@pytest.mark.parametrize("name", NAMES)
def test_hand_derived_coefficients_equal_numerical_differentiation(name: str) -> None:
    truth = TRUTHS[name]
    if "0" in truth.kinks:
        with mp.workdps(30):
            left, right = (mp.diff(truth.f, 0, direction=side) for side in (-1, 1))
            if truth.strength is None:
                assert abs(left - right) > 1e-3
            else:
                sides = [mp.diff(truth.f, 0, 2, direction=side) / abs(left) for side in (-1, 1)]
                assert max(abs(a - number(b)) for a, b in zip(sides, truth.strength, strict=True)) < 1e-15
        return
    with mp.workdps(40):
        numeric = mp.taylor(truth.f, 0, 4)
        errors = [abs(number(text) - value) for text, value in zip(truth.taylor, numeric, strict=False)]
        assert max(errors) < mp.mpf(10) ** -20
        assert abs(abs(2 * numeric[2] / numeric[1]) - number(truth.strength[0])) < mp.mpf(10) ** -20


@pytest.mark.parametrize("name", NAMES)
def test_calibration_by_exhaustive_minimisation(name: str) -> None:
    """H^-(p) - H(p) on a grid over six decades at seven p, for every entry of the table."""
    f = TRUTHS[name].f
    pairs = [(mp.mpf(0), f(mp.mpf(0)), f(mp.mpf(0)))] + [(a, f(a), f(-a)) for a in GRID]
    gaps = []
    for p in (0.52, 0.6, 0.75, 0.9, 0.99, 0.999, 1):
        right = min(p * plus + (1 - p) * minus for _, plus, minus in pairs)
        wrong = min(p * minus + (1 - p) * plus for _, plus, minus in pairs)
        gaps.append(wrong - right)
    if TRUTHS[name].holds("bayes_consistent"):
        assert min(gaps) > 1e-6
    else:
        assert max(gaps) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_convexity_monotonicity_and_bound_on_a_grid(name: str) -> None:
    truth = TRUTHS[name]
    points = sorted({mp.mpf(k) / 16 for k in range(-16 * 24, 16 * 24 + 1)})
    with mp.workdps(40):
        values = [truth.f(x) for x in points]
        seconds = [a - 2 * b + c for a, b, c in zip(values, values[1:], values[2:], strict=False)]
        steps = [b - a for a, b in pairwise(values)]
        tiny = mp.mpf(10) ** -35
        scale = max(map(abs, values))
        assert (min(seconds) >= -tiny * scale) == truth.holds("convex")
        assert (max(steps) <= tiny * scale) == truth.holds("monotone_decreasing")
        if truth.holds("strictly_convex"):
            assert min(seconds) > 0
        if truth.holds("bounded_below"):
            assert min(values) >= number(truth.infimum) - mp.mpf(10) ** -25
            far = min([*values, truth.f(mp.mpf(10) ** 12), truth.f(-(mp.mpf(10) ** 3))])
            assert far < number(truth.infimum) + mp.mpf(10) ** -3
        else:
            assert min(truth.f(mp.mpf(10) ** 6), truth.f(-(mp.mpf(10) ** 6))) < -1000


@pytest.mark.parametrize("name", NAMES)
def test_bradley_terry_ratio(name: str) -> None:
    """log(f'(-x)/f'(x)) / x is the constant 1/c exactly for the BT-exact losses with f' < 0."""
    truth = TRUTHS[name]
    with mp.workdps(40):
        slopes = [(u, mp.diff(truth.f, u), mp.diff(truth.f, -u)) for u in map(mp.mpf, ("0.3", "1.7", "4.1", "9.2"))]
        exact = all(plus < 0 and minus < 0 for _, plus, minus in slopes)
        if exact:
            rates = [mp.log(minus / plus) / u for u, plus, minus in slopes]
            exact = rates[0] > 1e-9 and max(rates) - min(rates) < mp.mpf(10) ** -20
        assert exact == truth.holds("bradley_terry_exact")
        if exact:
            assert abs(rates[0] - 1 / number(truth.c)) < mp.mpf(10) ** -20


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_link_by_direct_minimisation(name: str) -> None:
    """x*(p) by golden-section search of C_p in float arithmetic of 40 digits; slope from p = 1/2 + 1e-4, target from p near 1."""
    truth = TRUTHS[name]
    if truth.slope is None:
        return

    def link(p: mp.mpf) -> mp.mpf:
        return least(lambda x: p * truth.f(x) + (1 - p) * truth.f(-x), [*(-x for x in GRID[::-1]), mp.mpf(0), *GRID])

    with mp.workdps(60):
        step = mp.mpf(10) ** -4
        measured = link(mp.mpf(1) / 2 + step) / step
        expected = number(truth.slope)
        assert measured > 100 if mp.isinf(expected) else abs(measured / expected - 1) < 2e-3
        near_one = link(1 - mp.mpf(10) ** -7)
        target = number(truth.target)
        assert near_one > 5 if mp.isinf(target) else abs(near_one - target) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tails_are_measured(name: str) -> None:
    """Each declared rate, order or limit, by values of f and -f' at two far points."""
    f = TRUTHS[name].f
    for index, tail in enumerate(TRUTHS[name].tails):
        g = (lambda x: -mp.diff(f, x)) if index % 2 else f
        size = None if tail.number is None else number(tail.number)
        check_growth(g, -1 if index < 2 else 1, tail.kind, size, size if tail.kind == "constant" else None, f"{name}[{index}]")


def test_constant_of_spo_is_lambert_w() -> None:
    with mp.workdps(30):
        w = mp.lambertw(mp.exp(-1)).real
        assert abs(number(TRUTHS["spo"].infimum) + w) < mp.mpf(10) ** -26
        assert abs(number(TRUTHS["spo"].target) - 1 - w) < mp.mpf(10) ** -26
