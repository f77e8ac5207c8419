"""Where the gradient reverses, and the largest convex interval around 0: by hand, and by scans in mpmath."""

import itertools
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest

from gpo_theory import LOSSES, parse
from gpo_theory.certificate import Verdict
from gpo_theory.dynamics.reversals import Bracket, convex_around_zero, reversals_of
from tests.support.oracle import TRUTHS, number, real
from tests.support.session import analysis

NAMES = [name for name in TRUTHS if name != "focal_po"]  # a rate of 1/20: minutes of boxes


def at(value: mp.mpf, place: Bracket) -> bool:
    """Whether a narrow bracket holds the value."""
    assert place.low is not None
    assert place.high is not None
    narrow = place.high - place.low < Fraction(1, 10**11)
    low, high = real(place.low), real(place.high)
    return narrow and low - mp.mpf(10) ** -25 <= value <= high + mp.mpf(10) ** -25


# By hand: f' = 0 with a change of sign.
TURNS = {
    "(x-1)**2": ["1"], "max(0, 1-x)": [], "max(0, 1-x)**2": [], "log(1+exp(-x))": [], "abs(x+2/3)": ["-2/3"],
    "max(1-x, (x-1)/4)": ["1"], "max(0, abs(x)-1)": ["0"], "x**4 - 2*x**2": ["-1", "0", "1"], "x**3": [],
    "(2*atan(x)-1)**2": ["tan(1/2)"], "where(x < 0, -x, x**2)": ["0"],
    # f' is 0 without a change of sign, and of a power that is no whole number at the end of a piece.
    "-atan(x)-1/(1+x**2)": [], "max(0, 1-x)**(3/2)": [], "abs(x-1/3)**(5/3)": ["1/3"], "exp(-x)*(x**2+1)": [],
    "max(0, 1/3-x)**(3/2)-max(0, x-2)**(4/3)": [], "max(0, 1/3-x)**(3/2)+max(0, x-1/2)**(4/3)": ["1/3..1/2"],
}  # fmt: skip


@pytest.mark.parametrize("text", TURNS)
def test_turns_by_hand(text: str) -> None:
    found = reversals_of(parse(text))
    assert found is not None
    assert len(found) == len(TURNS[text])
    for place, wanted in zip(found, TURNS[text], strict=True):
        if text == "max(0, abs(x)-1)":
            assert (place.low, place.high) == (-1, 1)  # flat in between
        elif wanted == "1/3..1/2":
            assert (place.low, place.high) == (Fraction(1, 3), Fraction(1, 2))
        elif wanted == "tan(1/2)":
            assert at(mp.tan(mp.mpf(1) / 2), place)
        else:
            assert place.exact == Fraction(wanted)


# By hand: where f'' changes sign. (x^2-1)^2: f'' = 12 x^2 - 4 < 0 around 0. Cauchy: |1-x| <= 1.
CONVEX = {
    "1/(1+exp(x))**2": ("-log(2)", None), "1/(1+exp(x))": ("0", None), "log(1+(1-x)**2)": ("0", "2"),
    "exp(-2*x)/2-exp(x)": (None, "log(2)/3"), "min(2, max(0, 1-x))": ("-1", None), "max(0, 1-x)": (None, None),
    "(x-1)**2": (None, None), "log(1+(x-1/3)**2/4)": ("-5/3", "7/3"),
}  # fmt: skip


@pytest.mark.parametrize("text", CONVEX)
def test_convex_by_hand(text: str) -> None:
    found = convex_around_zero(parse(text))
    assert found is not None
    for place, wanted in zip(found, CONVEX[text], strict=True):
        if wanted is None:
            assert place == Bracket(None, None)
        elif "log" in wanted:
            with mp.workdps(30):
                assert at(number(wanted), place)
        else:
            assert place.exact == Fraction(wanted)


@pytest.mark.parametrize("text", ["(x**2-1)**2", "-x**2", "min(0, x)", "2*min(1, max(0, 1-x))", "-exp(-x**2)/9 - x**2"])
def test_no_convex_interval_around_zero(text: str) -> None:
    assert convex_around_zero(parse(text)) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_turns_against_a_scan(name: str) -> None:
    """Differences of f on a fine grid change sign exactly where the brackets say, the tails included."""
    f, found = TRUTHS[name].f, reversals_of(LOSSES[name])
    assert found is not None
    with mp.workdps(40):
        grid = [mp.mpf(x) for x in sorted([*np.linspace(-9.77, 9.91, 1001), *np.geomspace(9.92, 80, 40), *-np.geomspace(9.92, 80, 40)])]
        values = [f(x) for x in grid]
        steps = [mp.sign(b - a) if abs(b - a) > mp.mpf(10) ** -38 else 0
                 for a, b in itertools.pairwise(values)]  # fmt: skip
    moving = [(x, s) for x, s in zip(grid, steps, strict=False) if s]
    turns = [(a, b) for (a, s), (b, t) in itertools.pairwise(moving) if s != t]
    assert len(turns) == len(found), f"{name}: {turns} against {found}"
    for (a, b), place in zip(turns, found, strict=True):
        assert place.low is not None
        assert place.high is not None
        assert a <= float(place.high) + 0.02
        assert float(place.low) <= b + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_convexity_against_the_interval_and_chords(name: str) -> None:
    """Convex on R exactly where the interval is R; inside it no second difference is negative, beyond it some are."""
    f, found = TRUTHS[name].f, convex_around_zero(LOSSES[name])
    claim = analysis(name).claims["convex"].verdict
    everywhere = found == (Bracket(None, None), Bracket(None, None))
    if claim is not Verdict.UNKNOWN:
        assert everywhere == (claim is Verdict.PROVED)
    low, high = (-20.0, 20.0) if found is None else (
        -20.0 if found[0].high is None else float(found[0].high), 20.0 if found[1].low is None else float(found[1].low)
    )  # fmt: skip

    def bend(x: float, h: float) -> mp.mpf:
        with mp.workdps(50):
            u, v = mp.mpf(x), mp.mpf(h)
            return f(u + v) - 2 * f(u) + f(u - v)

    if found is not None:
        inside = [low + (high - low) * k / 50 for k in range(1, 50)]
        assert all(bend(x, min(x - low, high - x)) >= -mp.mpf(10) ** -40 for x in inside)
        for end, side in ((found[0].low, -1), (found[1].high, 1)):
            if end is not None:
                assert bend(float(end), 0.01) < 0 or bend(float(end) + side * 0.03, 0.02) < 0
    else:
        assert any(bend(x, 0.005) < 0 for x in (-0.01, 0.0, 0.01))
