"""`check_loss`: it finds each planted fault, and nothing in the generated functions of the whole catalogue."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import logsigmoid, relu, softplus

from gpo_theory import LOSSES, InputError, parse, to_torch
from gpo_theory.checking.check import TESTS, check_loss
from tests.support.oracle import TRUTHS

Function = Callable[[torch.Tensor], torch.Tensor]
LOGISTIC = LOSSES["logistic"]
CONDUCT = ("runs", "shape", "dtype", "state", "input", "no_grad", "elementwise", "layout", "upstream")
NUMBERS = ("finite", "gradient", "decrease", "convexity", "consistency")


def found(function: Function, name: str | None = None) -> set[tuple[str, str]]:
    report = check_loss(function, LOSSES[name] if name else None)
    return {(finding.test, finding.dtype) for finding in report.findings}


def lacking(name: str) -> set[str]:
    """Convexity and consistency as derived by hand in the oracle; f'(0) < 0 from its Taylor coefficients."""
    truth = TRUTHS[name]
    expected = {test for test, claim in (("convexity", "convex"), ("consistency", "bayes_consistent"))
                if not truth.holds(claim)}  # fmt: skip
    # A slope of 0 on one side of the kink at 0; f'(0) = 0.78.
    return expected | ({"decrease"} if name in ("perceptron", "psi_learning", "discopop") else set())


@pytest.mark.parametrize("name", LOSSES)
def test_the_generated_function_of_a_loss_is_that_loss(name: str) -> None:
    report = check_loss(to_torch(LOSSES[name]), LOSSES[name])
    assert report.findings == ()
    assert {*report.inherent} <= {"decrease", "convexity", "consistency"}
    run = [*CONDUCT, "finite", "value", "slope", "gradient", "decrease", "convexity", "consistency"]
    assert report.tests == tuple(test for test in run if test not in report.inherent)
    if name in TRUTHS:
        assert report.inherent == tuple(test for test in run if test in lacking(name))


@pytest.mark.parametrize("name", [name for name in LOSSES if name in TRUTHS])
def test_alone_the_evidence_agrees_with_the_oracle(name: str) -> None:
    report = check_loss(to_torch(LOSSES[name]), margins=1000)
    assert {finding.test for finding in report.findings} == lacking(name)
    assert report.tests == (*CONDUCT, *NUMBERS)


@pytest.mark.parametrize("function", [lambda x: -logsigmoid(x), lambda x: softplus(-x), lambda x: torch.logaddexp(-x, 0 * x)])
def test_three_ways_to_write_the_logistic_loss_pass(function: Function) -> None:
    assert check_loss(function).findings == ()
    assert check_loss(function, LOGISTIC).findings == ()


@pytest.mark.parametrize(
    ("function", "name"),
    [(lambda x: relu(1 - x), "hinge"), (lambda x: (1 - x).clamp(min=0), "hinge"), (lambda x: relu(1 - x) ** 2, "truncated_squared"),
     (lambda x: torch.where(x < 1, 1 - x, 0 * x), "hinge"), (lambda x: torch.sigmoid(-x) ** 2, "savage"),
     (lambda x: (2 * torch.atan(x) - 1) ** 2, "tangent"), (lambda x: relu(-x), "perceptron")],
)  # fmt: skip
def test_any_slope_at_a_kink_is_accepted(function: Function, name: str) -> None:
    """The derivative that torch gives at a kink differs between its operations: each is a slope there."""
    assert check_loss(function, LOSSES[name]).findings == ()


class Reversed(torch.autograd.Function):
    """The logistic loss with the sign of its gradient lost."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return softplus(-x)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(-x)


def discopop(x: torch.Tensor) -> torch.Tensor:
    """LRML as it is often written: inf * 0 where exp(-x) overflows."""
    weight = torch.sigmoid(x / 0.05)
    return -logsigmoid(x) * (1 - weight) + torch.exp(-x) * weight


BOTH = {"float32", "float64"}
FAULTS: dict[str, tuple[Function, str | None, str, set[str]]] = {
    "overflow": (lambda x: torch.log(1 + torch.exp(-x)), None, "finite", BOTH),
    "overflow, against the loss": (lambda x: torch.log(1 + torch.exp(-x)), "logistic", "finite", BOTH),
    "inf times 0": (discopop, "discopop", "finite", BOTH),
    "the gradient of where": (lambda x: torch.where(x > 0, torch.log(x), 0 * x), None, "finite", BOTH),
    "reduced": (lambda x: softplus(-x).mean(), None, "shape", BOTH),
    "an axis too many": (lambda x: softplus(-x)[None], None, "shape", BOTH),
    "a number": (lambda x: 1.0, None, "shape", BOTH),
    "cast": (lambda x: softplus(-x).float(), None, "dtype", {"float64"}),
    "cast up": (lambda x: softplus(-x).double(), None, "dtype", {"float32"}),
    "batch-coupled": (lambda x: softplus(-x) - softplus(-x).mean() if x.dim() else softplus(-x), None, "elementwise", BOTH),
    "detached": (lambda x: softplus(-x.detach()), None, "runs", BOTH),
    "raises": (lambda x: x @ x, None, "runs", BOTH),
    "raises far out": (lambda x: (_ for _ in ()).throw(OverflowError("far")) if (abs(x) > 1e3).any() else softplus(-x), None, "runs", BOTH),
    "the wrong sign": (lambda x: softplus(x), "logistic", "value", BOTH),
    "a dropped beta": (lambda x: softplus(-0.1 * x), "logistic", "value", BOTH),
    "a wrong constant": (lambda x: softplus(-x) + 0.01, "logistic", "value", BOTH),
    "another convention of IPO": (lambda x: (x - 0.5) ** 2, "ipo_tau", "none", set()),
    "the other convention of IPO": (lambda x: (x - 1) ** 2, "ipo_tau", "value", BOTH),
    "a reversed gradient": (Reversed.apply, "logistic", "slope", BOTH),
    "a reversed gradient, alone": (Reversed.apply, None, "gradient", {"float64"}),
    "rising": (lambda x: softplus(x), None, "decrease", {"float64"}),
    "rising, seen in C_p": (lambda x: softplus(x), None, "consistency", {"float64"}),
    "flat at 0": (lambda x: relu(-x), None, "consistency", {"float64"}),
    "a dip": (lambda x: softplus(-x) - 0.001 * torch.exp(-((x - 1.7) ** 2) * 900), None, "convexity", {"float64"}),
    "few digits": (lambda x: softplus(-x.bfloat16().to(x.dtype)) + 0 * x, "logistic", "value", BOTH),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(name: str) -> None:
    function, loss, test, dtypes = FAULTS[name]
    assert {dtype for kind, dtype in found(function, loss) if kind == test} == dtypes


def test_discopop_fails_below_the_range_of_exp() -> None:
    """exp(-x) overflows below -log(2^128) = -88.7 in float32 and below -709.8 in float64."""
    findings = [f for f in check_loss(discopop).findings if f.test == "finite"]
    assert {(f.dtype, f.x) for f in findings} == {("float32", -89.0), ("float64", -711.0)}
    assert any("nan" in f.message for f in findings)
    assert [f.test for f in check_loss(to_torch(LOSSES["discopop"])).findings if f.test == "finite"] == []


AFTER = tuple(test for test in CONDUCT if test not in ("runs", "shape", "dtype"))


@pytest.mark.parametrize(("fault", "unfinished"), [
    ("raises", ("shape", "dtype", *AFTER, *NUMBERS)),
    ("reduced", ("runs", "dtype", *AFTER, *NUMBERS)),
    ("detached", ("shape", "dtype", *AFTER, *NUMBERS)),
    ("cast", NUMBERS),
    ("raises far out", (*AFTER, *NUMBERS)),
    ("rising", ()),
])  # fmt: skip
def test_what_did_not_come_to_its_end_does_not_pass(fault: str, unfinished: tuple[str, ...]) -> None:
    """Which test meets the fault first follows from their order: called, looked at, called on parts, then numbers."""
    report = check_loss(FAULTS[fault][0])
    assert report.unfinished == unfinished
    assert {*report.tests}.isdisjoint(unfinished)
    assert {finding.test for finding in report.findings} <= {*report.tests}


def test_an_argument_is_never_changed_for_the_next_test() -> None:
    assert check_loss(lambda x: x.neg_().exp_(), parse("exp(-x)"), skip=["finite", "input"]).findings == ()


def test_skip() -> None:
    report = check_loss(lambda x: torch.sigmoid(-x) ** 2, skip=["convexity"])
    assert report.findings == ()
    assert "convexity" not in report.tests
    with pytest.raises(InputError, match="convexity"):
        check_loss(softplus, skip=["convex"])
    assert check_loss(lambda x: x.sum(), skip=TESTS).findings == ()


def test_the_report_as_json() -> None:
    (first, *_) = check_loss(lambda x: torch.log(1 + torch.exp(-x))).as_dict()["findings"]
    assert set(first) == {"test", "dtype", "x", "message"}
    assert first["x"] == -89.0


def test_a_finding_reads_as_one_line() -> None:
    (finding, *_) = check_loss(lambda x: x @ x).findings
    assert str(finding).startswith("runs (float32): on a tensor of shape () it raises RuntimeError")
    assert "\n" not in str(finding)


def test_a_loss_with_irrational_breakpoints_is_refused() -> None:
    with pytest.raises(InputError, match="pieces"):
        check_loss(lambda x: relu(-x), parse("max(2 - x**2, 1 - x)"))
