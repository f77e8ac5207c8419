"""Kinks at irrational places, maxima and clipped losses: no claim against the numbers, and few left unknown."""

import json
from fractions import Fraction

import mpmath as mp
import pytest

from gpo_theory import InputError, analyze, parse
from gpo_theory.calculus.pieces import UnsplitError, joints, pieces_of, split
from gpo_theory.kernel import seal, verify
from gpo_theory.kernel.zeros import Zero
from gpo_theory.report.certificate_file import certificate_document
from tests.support.kinked import faults, kinked
from tests.support.oracle import CLAIMS, number
from tests.support.soak import budget

# What is true of each, derived by hand: P and R for the claims in their order, Taylor coefficients up to x^2 ("-" for
# one that does not exist), R ("-" where there is none), the classes of the tails of f, and the infimum.
TRUE = {
    "max(0, log(9)-x)": ("PPRRPRPPPPR", "log(9) -1 0", "0", "linear zero", "0"),
    "abs(x-log(2))": ("PPRRPRPRPPR", "log(2) -1 0", "0", "linear linear", "0"),
    "where(x<log(3), (x-log(3))**2, 0)": ("PPRRRPPPPPR", "log(3)**2 -2*log(3) 1", "1/log(3)", "polynomial zero", "0"),
    "max(log(1+exp(-x)), -x)": ("PPPRPPPPPPP", "log(2) -1/2 1/8", "1/2", "linear exponential", "0"),
    "max(exp(-x), 1-x)": ("PPPRRRPPPPP", "1 -1 1/2", "1", "exponential_growth exponential", "0"),
    "max(1-x, exp(-x))": ("PPPRRRPPPPP", "1 -1 1/2", "1", "exponential_growth exponential", "0"),
    "max(exp(-x), 1/10)": ("PPRRRRPPPPR", "1 -1 1/2", "1", "exponential_growth constant", "1/10"),
    "min(2, log(1+exp(-x)))": ("PRRRPRPPPPR", "log(2) -1/2 1/8", "1/2", "constant exponential", "0"),
    "max(0, sqrt(2)-x)**2": ("PPRRRPPPPPR", "2 -2*sqrt(2) 1", "1/sqrt(2)", "polynomial zero", "0"),
    "max(0, 2-x**2)": ("PRRRPRPRPRR", "2 0 -1", "-", "zero zero", "0"),
    "max(log(1+exp(-x)), log(2)-x/2)": ("PPPRPPPPPPP", "log(2) -1/2 1/8", "1/2", "linear exponential", "0"),
    "max(1-x, log(1+exp(-x))+1/(1+exp(x)))": ("PPPRPPPPPPR", "1/2+log(2) -3/4 1/8", "1/3", "linear exponential", "0"),  # they meet at -inf
    "max((x-1)**2, log(1+(x-1)**2))": ("PPPPRPPRPPR", "1 -2 1", "1", "polynomial polynomial", "0"),  # they meet to fourth order
    "max(max(0,1-x)**(3/2), max(0,1-x)**2)": ("PPRRRRPPRRR", "1 - -", "-", "polynomial zero", "0"),
    "max(log(x**2+1), log(2))": ("PRRRPRPRPRR", "log(2) 0 0", "-", "unknown unknown", "log(2)"),
}  # fmt: skip


@pytest.mark.parametrize("formula", TRUE)
def test_what_is_true_by_hand(formula: str) -> None:
    found, (verdicts, taylor, strength, tails, infimum) = analyze(formula), TRUE[formula]
    assert "".join(found.claims[name].verdict.value[0].upper() for name in CLAIMS) == verdicts
    with mp.workdps(40):
        for c, expected in zip(found.taylor, taylor.split(), strict=False):
            assert (c is None) == (expected == "-")
            if c is None:
                continue
            assert abs(number(c.text) - number(expected)) < 1e-35
        assert found.strength.exact is None if strength == "-" else abs(number(found.strength.exact) - number(strength)) < 1e-35
        value = found.claims["bounded_below"].value
        assert abs(mp.mpf(value["float"]) - number(infimum)) < 1e-15
    if tails != "unknown unknown":
        assert [found.tails[side]["loss"].kind for side in ("left", "right")] == tails.split()


PLACES = {
    "max(0, log(9)-x)": ["log(9)"], "abs(x+log(2)/3)": ["-log(2)/3"], "max(x**2, 3)": ["-sqrt(3)", "sqrt(3)"],
    "where(exp(x) < 5, 1, 0)": ["log(5)"],
    "max(0, log(9)-x, log(8)-x/2)": ["2*log(9/8)", "2*log(8)"], "abs(x-log(2)) + abs(x-log(4)/2)": ["log(2)"],
    "max(0, x-pi) + min(0, pi-x)*2": ["pi"], "abs(x-log(7)) + abs(x+log(7))": ["-log(7)", "log(7)"],
}  # fmt: skip


@pytest.mark.parametrize("formula", PLACES)
def test_breakpoints_are_isolated_where_they_are(formula: str) -> None:
    pieces = pieces_of(parse(formula).f.primitive())
    found = [joint.x for joint in joints(pieces)]
    with mp.workdps(30):
        for x, place in zip(found, PLACES[formula], strict=True):
            assert isinstance(x, Zero)
            assert x.low < Fraction(str(number(place))) < x.high
            assert x.high - x.low < abs(x.high) / 10**12
    with pytest.raises(UnsplitError):  # who works with rational ends alone is not given others
        split(parse(formula).f.primitive())


@pytest.mark.parametrize("formula", ["max(1/(x-log(2)), 0)", "where((x**2-2)**2 <= 0, 1, 0)", "max(x**3*cos(x)/(1+x**4), sin(x))"])
def test_what_is_not_isolated_is_left_unknown(formula: str) -> None:
    try:
        claims = analyze(formula).claims
    except InputError:  # undefined at log(2), which may be found
        assert "1/" in formula
        return
    assert {claims[name].verdict.value for name in ("lipschitz", "smooth", "bradley_terry_exact")} <= {"unknown", "refuted"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(budget(8, 4000)))
def test_no_claim_is_against_the_numbers(seed: int) -> None:
    case = kinked(seed)
    found = analyze(case.formula)
    assert list(faults(case, found.claims)) == []
    document = json.loads(json.dumps(certificate_document(found)))
    assert verify(seal(document)) == {name: claim.verdict.value for name, claim in found.claims.items()}


@pytest.mark.parametrize(("formula", "claim"), [
    ("max(log(1+exp(-x)), log(2)-x/2-1/1000)", "smooth"), ("min(2, log(1+exp(-x)))", "smooth"), ("abs(x-log(2))", "convex"),
])  # fmt: skip
def test_the_numbers_speak_against_false_claims(formula: str, claim: str) -> None:
    """A claim that is turned round is found by the numbers, one that is true is not."""
    case = kinked(0).__class__(0, "planted", formula)
    truth = analyze(formula).claims[claim]
    turned = truth.__class__(claim, truth.verdict.__class__("proved"), "planted", None, {"exact": None, "float": 1e-6})
    assert bool(list(faults(case, {claim: turned}))) == (claim != "convex")
