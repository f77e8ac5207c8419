"""The gate is tested: each fault is planted, and the checks that guard the project must fail on it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import gpo_theory.claims.convexity as prover
from gpo_theory import Verdict, match_beta, parse, taylor, to_torch
from gpo_theory.certificate import proved, refuted
from gpo_theory.claims.convexity import convex
from tests.gpo_theory.calculus.test_tails import measure
from tests.gpo_theory.choosing.test_matching import check_match
from tests.gpo_theory.test_catalogue import meaning, same
from tests.support.oracle import TRUTHS, check_claims, check_link, check_strength, check_tails, check_taylor
from tests.support.places import TESTS
from tests.support.session import accepts, payload


def formula(text: str) -> Any:
    return parse(text).f.primitive()


def check_all(name: str, found: dict[str, Any]) -> None:
    check_taylor(name, found["taylor"])
    check_strength(name, found["strength"])
    check_claims(name, found["claims"], decided=True)
    check_tails(name, found["tails"])
    check_link(name, found["link"])


def edit(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        for key in path[:-1]:
            found = found[key]
        assert found[path[-1]] != value, "nothing is planted"
        found[path[-1]] = value

    return change


CHORD = {"kind": "chord", "a": "-1", "b": "1", "t": "1/2"}
FAULTS = {
    "perceptron as consistent": ("perceptron", edit("claims", "bayes_consistent", "verdict", value="proved")),
    "perceptron as differentiable": ("perceptron", edit("claims", "differentiable_at_zero", "verdict", value="proved")),
    "perceptron with the slope of Heaviside": ("perceptron", edit("taylor", value=["0", "-1/2", "0", "0", "0"])),
    "perceptron with a strength": ("perceptron", edit("strength", "value", value=0.0)),
    "Savage as convex": ("savage", edit("claims", "convex", "verdict", value="proved")),
    "Savage as not consistent": ("savage", edit("claims", "bayes_consistent", "verdict", value="refuted")),
    "Savage undecided": ("savage", edit("claims", "convex", "verdict", value="unknown")),
    "a chord that shows nothing": ("savage", edit("claims", "convex", "witness", value={**CHORD, "a": "1", "b": "3"})),
    "no witness": ("savage", edit("claims", "convex", "witness", value=None)),
    "logistic as not convex": ("logistic", edit("claims", "convex", "verdict", value="refuted")),
    "a wrong coefficient": ("logistic", edit("taylor", 2, value="1/4")),
    "a wrong sign": ("logistic", edit("taylor", 1, value="1/2")),
    "a wrong fourth coefficient": ("logistic", edit("taylor", 4, value="1/192")),
    "a missing coefficient": ("squared", edit("taylor", 4, value=None)),
    "R of the other convention of IPO": ("squared", edit("strength", "value", value=2.0)),
    "a curvature of the wrong sign": ("exponential", edit("strength", "sign", value=-1)),
    "squared as decreasing": ("squared", edit("claims", "monotone_decreasing", "verdict", value="proved")),
    "hinge as Bradley-Terry exact": ("hinge", edit("claims", "bradley_terry_exact", "verdict", value="proved")),
    "a wrong constant of exactness": ("exponential", edit("claims", "bradley_terry_exact", "value", value={"exact": "1", "float": 1.0})),
    "exponential as not bounded": ("exponential", edit("claims", "bounded_below", "verdict", value="refuted")),
    "a wrong infimum": ("savage", edit("claims", "bounded_below", "value", value={"exact": "1/4", "float": 0.25})),
    "a tail that never stops": ("hinge", edit("tails", "right", "slope", "class", value="exponential")),
    "a tail that stops": ("logistic", edit("tails", "right", "slope", "class", value="zero")),
    "a wrong rate": ("savage", edit("tails", "right", "slope", "rate", value="1")),
    "a wrong limit": ("savage", edit("tails", "left", "loss", "limit", value="2")),
    "an infinite target made finite": ("logistic", edit("link", "target_at_one", value="1")),
    "a link slope of R/2": ("exponential", edit("link", "slope_at_half", value=0.5)),
    "a claim that vanished": ("hinge", lambda found: found["claims"].pop("total") and None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str) -> None:
    name, plant = FAULTS[fault]
    found = copy.deepcopy(payload(name))
    plant(found)
    with pytest.raises(AssertionError):
        check_all(name, found)


def test_a_wrong_formula_in_the_catalogue_is_caught() -> None:
    for name, wrong in (("logistic", "log(1+exp(-2*x))"), ("savage", "1/(1+exp(x))"), ("squared", "(x-1/2)**2"), ("hinge", "max(0,1-x)**2")):
        with pytest.raises(AssertionError):
            same(meaning(parse(wrong)), TRUTHS[name].f)


def test_a_dropped_beta_is_caught() -> None:
    """Matching that forgets R, beta, or takes the ratio the wrong way round."""
    found = match_beta("dpo", "ipo", beta=0.1).as_dict()
    check_match("logistic", "squared", 0.1, found)
    for beta_to in (0.1, 0.2, 0.5, 0.025):
        with pytest.raises(AssertionError):
            check_match("logistic", "squared", 0.1, {**found, "beta_to": beta_to})


def test_a_dropped_beta_in_the_objective_is_caught() -> None:
    """d/drho f(beta rho) at rho = 0 is beta f'(0): a lowering or a loss that forgets beta gives f'(0)."""
    loss, beta = parse("log(1+exp(-x))"), 0.1
    f = to_torch(loss)

    def slope(objective: Callable[[torch.Tensor], torch.Tensor]) -> float:
        rho = torch.zeros((), dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(objective(rho), rho)[0].item()

    wanted = beta * taylor(loss, 1)[1].value
    assert slope(lambda rho: f(beta * rho)) == pytest.approx(wanted, rel=1e-12)
    assert slope(lambda rho: f(rho)) != pytest.approx(wanted, rel=0.5)


def test_a_rate_that_is_not_the_functions_own_is_caught() -> None:
    honest = {"class": "exponential", "rate": "2", "order": None, "limit": "0", "verdict": "proved"}
    measure("exp(-2*x)", "right", "loss", honest)
    for lie in ({**honest, "rate": "1"}, {**honest, "class": "power", "order": "2"}, {**honest, "limit": "1"}, {**honest, "class": "zero"}):
        with pytest.raises(AssertionError):
            measure("exp(-2*x)", "right", "loss", lie)


def test_the_independent_check_rejects_false_certificates() -> None:
    """Each certificate with one field changed, and each honest certificate of one formula handed to another."""
    savage, hinge = formula("1/(1+exp(x))**2"), formula("max(0,1-x)")
    honest = convex(savage)
    assert honest.verdict is Verdict.REFUTED
    assert accepts(savage, honest)
    assert not accepts(savage, replace(honest, verdict=Verdict.PROVED, witness=None))
    assert not accepts(hinge, honest)
    assert not accepts(hinge, replace(convex(hinge), verdict=Verdict.REFUTED, witness=CHORD))
    assert not accepts(savage, replace(honest, witness={**CHORD, "a": "1", "b": "3"}))
    assert not accepts(savage, refuted("bayes_consistent", "planted", kind="theta", theta="1/1000"))
    assert not accepts(hinge, refuted("bayes_consistent", "planted", kind="theta", theta="1/2"))
    assert not accepts(savage, refuted("monotone_decreasing", "planted", kind="point", x="1"))
    assert not accepts(formula("abs(x)"), refuted("convex", "planted", kind="kink", x="0", left="-1", right="1"))
    assert not accepts(formula("-abs(x)"), refuted("convex", "planted", kind="kink", x="1", left="1", right="-1"))


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        *(("convex", text) for text in ("x**2-abs(x)/1000", "x**2-abs(x-1/3)/100", "where(x<0, x, x/2)", "x**4-x**2/100", "-x**2",
                                        "where(x<0,0,1)", "x**2/2+(501/1000)/(1+x**2)", "1/(1+exp(x))")),
        *(("monotone_decreasing", text) for text in ("(x-1)**2", "log(1+exp(-x))+x/1000", "-x+2*sin(x)", "where(x<0,-x,1-x)")),
        *(("bounded_below", text) for text in ("-x", "-log(1+x**2)", "exp(-x)-x", "-sqrt(1+x**2)")),
        *(("bayes_consistent", text) for text in ("max(0,-x)", "exp(x)", "abs(x)", "x**2", "-sigmoid(x)**(1/20)*log(sigmoid(x))")),
        ("total", "log(x)"), ("total", "1/x"),
    ],
)  # fmt: skip
def test_the_independent_check_rejects_false_proofs(claim: str, text: str) -> None:
    assert not accepts(formula(text), proved(claim, "planted"))


def test_a_prover_without_its_kinks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kink check dropped, a slope that falls is invisible to f'': the independent check must still refuse."""
    text = "where(x<113/97, x, 113/97+(x-113/97)/2)"
    f = formula(text)
    assert convex(f).verdict is Verdict.REFUTED
    assert hasattr(prover, "joints"), "the kink check moved: plant the fault where it is now"
    monkeypatch.setattr(prover, "joints", lambda pieces: [])
    found = convex(f)
    assert found.verdict is not Verdict.PROVED or not accepts(f, found)


def test_the_checks_of_the_oracle_use_no_code_under_test() -> None:
    """The oracle would agree with any fault that it imported."""
    for name in ("oracle.py", "strategies.py"):
        text = (TESTS / "support" / name).read_text(encoding="utf-8")
        assert "import gpo_theory" not in text
        assert "from gpo_theory" not in text
