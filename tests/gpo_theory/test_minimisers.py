"""Where f is least, near ties, jumps, isolated points and flat ends included; R and f'(0) beyond the range of doubles."""

from fractions import Fraction

import pytest

from gpo_theory import analyze, find_loss, match_beta, strength
from gpo_theory.choosing.matching import unmatchable
from gpo_theory.risk.links import link_at
from gpo_theory.risk.psi import psi_at

# f, its infimum, the target, and the interval of its minimisers, by hand. With d small, (x^2 - r^2)^2 - d x is least at
# r + d/(8 r^2) + ..., where it is -d r - (d^2/(16 r^2)) + ....
LEAST = [
    ("(x**2-9)**2-1e-14*x", -3e-14, 3.0, (3, 3)),
    ("(x**2-9)**2+1e-14*x", -3e-14, -3.0, (-3, -3)),
    ("(x**2-1)**2-1e-14*x", -1e-14, 1.0, (1, 1)),
    ("(x**2-4)**2-1e-25*x", -2e-25, 2.0, None),  # boxes hold both minima, which an enclosure may
    ("1e-13*(x**2-1)**2-1e-27*x", -1e-27, 1.0, (1, 1)),
    ("min((x+3)**2, (x-2)**2-1e-18)", -1e-18, 2.0, (2, 2)),
    ("where(x<-4,where(x<-5,26/5-3*x,(x+4)**2),max(0,2-x))", 0.0, 2.0, (2, float("inf"))),
    ("where(x<1, 3+(x-1)**2, where(x<=1, 1, 2+x))", 1.0, 1.0, (1, 1)),  # an isolated point below both sides
    ("where(x<1, 2-x, where(x<=1, 7, x))", 1.0, None, None),  # approached at 1 from both sides, and not attained
    ("max(0,x+1)", 0.0, float("-inf"), (float("-inf"), -1)),
    ("max(0,1-x)", 0.0, 1.0, (1, float("inf"))),
    ("max(0,abs(x)-2)", 0.0, -2.0, (-2, 2)),
    ("(2*atan(x)-1)**2", 0.0, 0.5463024898437905, (0.5463024898437905, 0.5463024898437905)),  # tan(1/2)
]  # fmt: skip


@pytest.mark.parametrize(("text", "least", "target", "ends"), LEAST)
def test_the_infimum_and_where_it_is_attained(text: str, least: float, target: float | None, ends: tuple[float, float] | None) -> None:
    found = analyze(text)
    value = found.claims["bounded_below"].value
    assert value is not None
    assert value["float"] == pytest.approx(least, rel=1e-9, abs=0)
    at = found.link.target_at_one
    assert (at is None) == (target is None)
    assert at is None or float(Fraction(at) if "/" in at else float(at)) == pytest.approx(target, rel=1e-11)
    around = link_at(find_loss(text), Fraction(1))
    if ends is not None:
        assert around is not None
        assert around == pytest.approx(ends, rel=1e-11)


def test_an_infimum_that_is_approached_beside_a_jump_on_the_wrong_side_refutes_calibration() -> None:
    """f -> 0 = inf f at -4 from the left: at p = 1, H^- = H."""
    claim = analyze("where(x<-4,where(x<-5,26/5-3*x,(x+4)**2),max(0,2-x))").claims["bayes_consistent"]
    assert claim.verdict.value == "refuted"
    assert claim.witness == {"kind": "theta", "theta": "1"}


@pytest.mark.parametrize(
    ("text", "r", "sign"),
    [
        ("exp(-x-400)", "1", 1),
        ("exp(-2*x-4000)", "2", 1),
        ("where(x<0,-x+3*x**2/2,where(x<1,-x-x**2/2,-3/2))", "1", 1),  # (3 - 1)/2
        ("where(x<0,-x-3*x**2/2,-x+x**2/2)", "1", -1),  # (1 - 3)/2 < 0: P1 does not apply
        ("where(x<0,-x+x**2,-x-x**2)", "0", 0),
    ],
)
def test_the_strength_is_that_of_the_signed_mean(text: str, r: str, sign: int) -> None:
    found = strength(find_loss(text))
    assert (found.exact, found.value, found.sign) == (r, float(r), sign)
    assert found.left is None or found.right is None or (found.left + found.right) / 2 == found.value


def test_a_slope_below_the_range_of_doubles_keeps_its_sign() -> None:
    assert unmatchable(find_loss("exp(-x-800)")) is None
    assert "f'(0) = exp(-800) >= 0" in (unmatchable(find_loss("exp(x-800)")) or "")
    exact = analyze("exp(-x-400)").claims["bradley_terry_exact"]
    assert (exact.verdict.value, exact.value) == ("proved", {"exact": "1/2", "float": 0.5})


@pytest.mark.parametrize("k", [1, 10**6, 10**12, 10**20])
def test_a_match_by_target_has_no_units(k: int) -> None:
    """The target of (k x - 1)^2 at p is (2p - 1)/k."""
    found = match_beta("ipo", f"({k}*x-1)**2", beta=0.1, by="target", p="0.9")
    assert found.beta_to == pytest.approx(0.1 / k, rel=1e-11)


@pytest.mark.parametrize("c", ["1", "1e-9", "1e-25", "1e25"])
def test_psi_has_no_units(c: str) -> None:
    """psi of 2 min(1, max(0, 1-x)) is 2 theta, 1 at 1/2; with the factor 1e-9 it was a quarter too much."""
    low, high = psi_at(find_loss(f"{c}*(2*min(1,max(0,1-x)))"), Fraction(1, 2)) or (0, 0)
    assert low <= float(c) <= high
    assert high - low <= 1e-12 * high
