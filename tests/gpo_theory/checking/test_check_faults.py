"""`check_loss` names faults between its fixed margins, in batches, memory, state and upstream gradients; and blames no
healthy function, whatever its seed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import dropout, logsigmoid, relu, softplus

from gpo_theory import LOSSES, InputError, parse, to_torch
from gpo_theory.checking.calling import Finding
from gpo_theory.checking.check import check_loss
from gpo_theory.checking.margins import LADDER
from tests.support.soak import budget

Function = Callable[[torch.Tensor], torch.Tensor]


def right(x: torch.Tensor) -> torch.Tensor:
    """The logistic loss; every fault below is one of it."""
    return -logsigmoid(x)


def slope(x: torch.Tensor) -> torch.Tensor:
    return -torch.sigmoid(-x)


def backward(rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Function:
    """The logistic loss whose gradient is `rule` of x and of the upstream gradient."""

    class Planted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return right(x)

        @staticmethod
        def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
            return rule(ctx.saved_tensors[0], upstream)

    return Planted.apply


def detached(where: Callable[[torch.Tensor], torch.Tensor]) -> Function:
    return lambda x: torch.where(where(x), right(x).detach(), right(x))


def if_many(count: int) -> Function:
    return lambda x: right(x) * (1.001 if x.numel() > count else 1)


def after(calls: int) -> Function:
    count = iter(range(1_000_000))
    return lambda x: right(x) * (1.01 if next(count) >= calls else 1)


def running_mean() -> Function:
    mean = [0.0]

    def function(x: torch.Tensor) -> torch.Tensor:
        value = right(x)
        mean[0] = 0.9 * mean[0] + 0.1 * float(value.detach().sum())
        return value - mean[0]

    return function


def kept_graph() -> Function:
    mean: list[Any] = [0.0]

    def function(x: torch.Tensor) -> torch.Tensor:
        value = right(x)
        mean[0] = 0.9 * mean[0] + 0.1 * value.sum().to(torch.float32)
        return value - mean[0].to(x.dtype)

    return function


def cached_by_shape() -> Function:
    kept: dict[Any, torch.Tensor] = {}
    return lambda x: kept.setdefault((x.shape, x.dtype), right(x).detach()) + 0 * x


def shared_backward() -> Function:
    """Its gradient is taken at the margins of the latest call."""
    kept: dict[str, torch.Tensor] = {}

    class Shared(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            kept["x"] = x.detach()
            return right(x)

        @staticmethod
        def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
            return upstream * slope(kept["x"].reshape(-1)[: upstream.numel()].reshape(upstream.shape))

    return Shared.apply


def sets(name: str, value: Any) -> Function:
    return lambda x: (right(x), getattr(torch, name)(value))[0]


def without_last(x: torch.Tensor) -> torch.Tensor:
    keep = torch.ones(x.numel(), dtype=x.dtype)
    keep[1:][-1:] = 0
    return right(x) * keep.reshape(x.shape)


def in_chunks(x: torch.Tensor) -> torch.Tensor:
    """Chunks of 128, the rest forgotten."""
    n = x.numel() // 128 * 128 or x.numel()
    return torch.cat([right(x.reshape(-1)[:n]), 0 * x.reshape(-1)[n:]]).reshape(x.shape)


# Each with the one test that is to find it.
ALONE: dict[str, tuple[Callable[[], Function], str]] = {
    "nan between the fixed margins": (lambda: lambda x: torch.where((x > 3.4) & (x < 3.6), torch.nan, right(x)), "finite"),
    "nan in a gap of 0.008": (lambda: lambda x: torch.where(abs(x - 1.37) < 0.004, torch.nan, right(x)), "finite"),
    "nan at a number that is often typed": (lambda: lambda x: torch.where(x == 2.5, torch.nan, right(x)), "finite"),
    "infinite far out": (lambda: lambda x: torch.where((x > 2e5) & (x < 7e5), torch.inf, right(x)), "finite"),
    "nan at tiny margins": (lambda: lambda x: torch.where((x != 0) & (abs(x) < 1e-20), torch.nan, right(x)), "finite"),
    "a gradient that is nan": (lambda: backward(lambda x, g: g * torch.where((x > 6) & (x < 7), torch.nan, slope(x))), "finite"),
    "nan in bfloat16": (lambda: lambda x: right(x) * (torch.nan if x.dtype == torch.bfloat16 else 1), "finite"),
    "detached far out": (lambda: detached(lambda x: (x < -2e5) & (x > -8e5)), "gradient"),
    "detached between the fixed margins": (lambda: detached(lambda x: (x > -7) & (x < -5.5)), "gradient"),
    "detached on the right": (lambda: detached(lambda x: x > 15), "gradient"),
    "half detached": (lambda: lambda x: right(x).detach() / 2 + right(x) / 2, "gradient"),
    "a clipped gradient": (lambda: backward(lambda x, g: g * slope(x).clamp(min=-0.9)), "gradient"),
    "sigma(1.0001 x) in the gradient": (lambda: backward(lambda x, g: -g * torch.sigmoid(-1.0001 * x)), "gradient"),
    "a gradient 1e-5 too large": (lambda: backward(lambda x, g: 1.00001 * g * slope(x)), "gradient"),
    "detached at 0": (lambda: detached(lambda x: x == 0), "gradient"),
    "straight through": (lambda: lambda x: right(x) + (right(x).clamp(min=0.01) - right(x)).detach(), "gradient"),
    "ignores its upstream gradient": (lambda: backward(lambda x, g: slope(x)), "upstream"),
    "clamps its upstream gradient": (lambda: backward(lambda x, g: g.clamp(-1, 1) * slope(x)), "upstream"),
    "forgets its upstream sign": (lambda: backward(lambda x, g: g.abs() * slope(x)), "upstream"),
    "averages its upstream gradient": (lambda: backward(lambda x, g: g.sum() / max(g.numel(), 1) * slope(x)), "upstream"),
    "spreads the first upstream gradient": (lambda: backward(lambda x, g: g.reshape(-1)[:1].sum() * slope(x)), "upstream"),
    "drops small upstream gradients": (lambda: backward(lambda x, g: g * (abs(g) > 1e-2) * slope(x)), "upstream"),
    "nan for a negative upstream gradient": (lambda: backward(lambda x, g: g.sqrt().square() * slope(x)), "upstream"),
    "coupled above 100 rows": (lambda: lambda x: right(x) - (right(x).mean() if x.numel() > 100 else 0), "elementwise"),
    "coupled above 2000 rows": (lambda: if_many(2000), "elementwise"),
    "coupled above 50000 rows": (lambda: if_many(50_000), "elementwise"),
    "other in pairs": (lambda: lambda x: right(x) * (1.001 if x.numel() == 2 else 1), "elementwise"),
    "sorted": (lambda: lambda x: right(x.reshape(-1).sort().values).reshape(x.shape), "elementwise"),
    "changed by a large neighbour": (lambda: lambda x: right(x) * (2 if (x > 30).any() else 1), "elementwise"),
    "nan by a large neighbour": (lambda: lambda x: right(x) + 0 * x.abs().exp().sum(), "elementwise"),
    "without its last row": (lambda: without_last, "elementwise"),
    "in chunks": (lambda: in_chunks, "elementwise"),
    "over the last axis": (lambda: lambda x: right(x) - right(x).mean(-1, keepdim=True) if x.dim() > 1 else right(x), "elementwise"),
    "a result kept for each shape": (cached_by_shape, "elementwise"),
    "other after 3 calls": (lambda: after(3), "state"),
    "other after 150 calls": (lambda: after(150), "state"),
    "a running mean": (running_mean, "state"),
    "a graph kept between calls": (kept_graph, "state"),
    "the gradient of the latest call": (shared_backward, "state"),
    "noise": (lambda: lambda x: right(x) + 1e-6 * torch.randn_like(x), "state"),
    "dropout": (lambda: lambda x: right(dropout(x, 0.1)), "state"),
    "changes the default dtype": (lambda: sets("set_default_dtype", torch.float64), "state"),
    "changes the grad mode": (lambda: sets("set_grad_enabled", False), "state"),
    "negates its input": (lambda: lambda x: softplus(x.neg_()), "input"),
    "clamps its input": (lambda: lambda x: (right(x), x.data.clamp_(-30, 30))[0], "input"),
    "asks its input for a gradient": (lambda: lambda x: right(x.requires_grad_()), "input"),
    "a derivative inside": (lambda: lambda x: right(x) + 0 * torch.autograd.grad(right(x).sum(), x, create_graph=True)[0], "no_grad"),
    "other under no_grad": (lambda: lambda x: right(x) if torch.is_grad_enabled() else right(x).clamp(max=5), "no_grad"),
    "only contiguous": (lambda: lambda x: right(x.view(-1)).view(x.shape), "runs"),
    "reads the memory in order": (lambda: lambda x: right(x.as_strided(x.shape, torch.empty(x.shape).stride())), "layout"),
    "other in a slice": (lambda: lambda x: right(x) * (2 if x.storage_offset() else 1), "layout"),
    "no empty batch": (lambda: lambda x: right(x) + 0 * x.max(), "runs"),
    "no scalar": (lambda: lambda x: right(x) + 0 * x[:1].sum(), "runs"),
    "other in float32": (lambda: lambda x: right(x) * (1.01 if x.dtype == torch.float32 else 1), "dtype"),
    "other in bfloat16": (lambda: lambda x: right(x) * (2 if x.dtype == torch.bfloat16 else 1), "dtype"),
}  # fmt: skip
# Found where the formula is known; "value" and "slope" may both see it.
AGAINST: dict[str, tuple[Function, str]] = {
    "sigma(1.0001 x)": (lambda x: right(1.0001 * x), "value"),
    "sigma(1.0001 x) in float32": (lambda x: right(1.0001 * x if x.dtype == torch.float32 else x), "value"),
    "sigma(1.0001 x) in the gradient": (backward(lambda x, g: -g * torch.sigmoid(-1.0001 * x)), "slope"),
    "a bump between the fixed margins": (lambda x: right(x) + 1e-3 * torch.exp(-(((x - 4.1) * 100) ** 2)), "value"),
    "a narrow bump in float32": (lambda x: right(x) + (1e-3 * torch.exp(-(((x - 4.1) * 100) ** 2)) if x.dtype == torch.float32 else 0), "value"),
    "detached in the tail": (detached(lambda x: x > 20), "slope"),
    "clamped": (lambda x: right(x.clamp(min=-600)), "value"),
    "a tail left out": (lambda x: torch.where(x > 14.2, 0 * x, right(x)), "value"),
}  # fmt: skip


def found(function: Function, name: str | None = None, **options: Any) -> set[str]:
    return {finding.test for finding in check_loss(function, LOSSES[name] if name else None, **options).findings}


@pytest.mark.parametrize("fault", ALONE)
def test_a_fault_is_found_by_its_name_and_no_other(fault: str) -> None:
    make, test = ALONE[fault]
    assert found(make()) == {test}


@pytest.mark.parametrize("fault", ALONE)
def test_with_a_formula_it_is_found_too(fault: str) -> None:
    make, test = ALONE[fault]
    assert test in found(make(), "logistic")


@pytest.mark.parametrize("fault", AGAINST)
def test_a_fault_that_only_a_formula_shows(fault: str) -> None:
    function, test = AGAINST[fault]
    assert test in found(function, "logistic")


def test_a_finding_is_repeated_at_its_margin() -> None:
    """The margin is printed with all its digits; the seed and the count of the report give it again."""
    function = ALONE["nan in a gap of 0.008"][0]()
    report = check_loss(function, seed=3)
    (finding,) = [each for each in report.findings if each.dtype == "float64" and "value" in each.message]
    x = float(str(finding).partition("x = ")[2].partition(")")[0])
    assert x == finding.x
    assert function(torch.tensor([x], dtype=torch.float64)).isnan().all()
    assert check_loss(function, seed=report.seed, margins=report.margins) == report
    assert check_loss(function, seed=4).findings != report.findings
    assert Finding("finite", "float64", 0.1 + 0.2, "").place == "float64 at x = 0.30000000000000004"


@pytest.mark.parametrize("fault", ["nan between the fixed margins", "nan in a gap of 0.008", "infinite far out", "detached far out"])
def test_the_fixed_margins_alone_do_not_show_it(fault: str) -> None:
    x = torch.tensor(LADDER, dtype=torch.float64, requires_grad=True)
    value = ALONE[fault][0]()(x)
    (seen,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(value, right(x))
    torch.testing.assert_close(seen, slope(x))


def test_numbers_are_named_with_what_was_expected() -> None:
    report = check_loss(ALONE["ignores its upstream gradient"][0]())
    assert all("expected" in finding.message and finding.x is not None for finding in report.findings)
    (finding, *_) = check_loss(AGAINST["sigma(1.0001 x)"][0], LOSSES["logistic"]).findings
    assert "it is" in finding.message
    assert "logistic has" in finding.message


def test_what_the_formula_lacks_is_not_blamed_on_the_code() -> None:
    """sigma(-x)^2 is not convex, and psi_learning does not fall at 0, whoever writes them."""
    report = check_loss(lambda x: torch.sigmoid(-x) ** 2, LOSSES["savage"])
    assert report.findings == ()
    assert report.inherent == ("convexity",)
    assert "convexity" not in report.tests
    assert {"decrease", "consistency", "gradient"} < {*report.tests}
    # Against a convex formula the same code is blamed for it.
    assert "convexity" in found(lambda x: torch.sigmoid(-x) ** 2, "logistic")


def one_by_one(x: torch.Tensor) -> torch.Tensor:
    """As a trainer's code does that returns the loss of a single pair."""
    return torch.stack([right(one) for one in x.reshape(-1)]).reshape(x.shape) if x.numel() else right(x)


def in_float32(x: torch.Tensor) -> torch.Tensor:
    """bfloat16 margins are computed in float32 and stay there, as trainers do."""
    return right(x.float() if x.dtype == torch.bfloat16 else x)


def refusing(x: torch.Tensor) -> torch.Tensor:
    if x.dtype == torch.bfloat16:
        raise TypeError("float32 or float64, please")
    return right(x)


# A gradient by hand that is right.
exact = backward(lambda x, upstream: upstream * slope(x))

HEALTHY: dict[str, tuple[Function, set[str]]] = {
    "softplus": (lambda x: softplus(-x), set()), "logsigmoid": (right, set()), "logaddexp": (lambda x: torch.logaddexp(-x, 0 * x), set()),
    "binary cross entropy": (lambda x: torch.nn.functional.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction="none"), set()),
    "soft margin": (lambda x: torch.nn.functional.soft_margin_loss(x, torch.ones_like(x), reduction="none"), {"finite"}),
    "hinge": (lambda x: relu(1 - x), set()), "squared": (lambda x: (1 - x).square(), set()),
    "huber": (lambda x: torch.nn.functional.huber_loss(x, torch.ones_like(x), reduction="none"), set()),
    "smooth l1": (lambda x: torch.nn.functional.smooth_l1_loss(x, torch.ones_like(x), reduction="none"), set()),
    "label smoothing": (lambda x: -0.9 * logsigmoid(x) - 0.1 * logsigmoid(-x), set()),
    "robust": (lambda x: (-0.9 * logsigmoid(x) + 0.1 * logsigmoid(-x)) / 0.8, set()),
    "ipo with beta": (lambda x: (x / 0.1 - 5).square(), set()),
    "a small beta": (lambda x: right(0.01 * x), set()), "a large beta": (lambda x: right(25.0 * x), set()),
    "silu": (lambda x: x * torch.sigmoid(x) - x, {"convexity"}), "gelu": (lambda x: torch.nn.functional.gelu(-x), {"convexity"}),
    "savage": (lambda x: torch.sigmoid(-x) ** 2, {"convexity"}), "saturated": (lambda x: 1 - torch.sigmoid(x), {"convexity"}),
    "a logarithm of what saturates": (lambda x: -torch.log(torch.sigmoid(x) + 1e-8), {"convexity"}),
    "a difference that saturates": (lambda x: torch.log(1 - torch.sigmoid(-x) + 1e-8).neg(), {"convexity"}),
    "a clamped probability": (lambda x: -torch.log(torch.sigmoid(x).clamp(1e-6, 1 - 1e-6)), {"convexity"}),
    "tanh": (lambda x: 1 - torch.tanh(x / 2), {"convexity"}), "a square root": (lambda x: torch.sqrt(1 + x**2) - x, set()),
    "steep": (lambda x: 1e-3 * right(1e3 * x), set()),
    "one at a time": (one_by_one, set()), "bfloat16 in float32": (in_float32, set()), "no bfloat16": (refusing, set()),
    "a right gradient by hand": (exact, set()), "a scaled loss": (lambda x: 1e-12 * right(x), set()),
    "a large loss": (lambda x: 1e12 * right(x), set()), "an offset": (lambda x: 1e6 + right(x), set()),
    "vmap": (lambda x: torch.vmap(right)(x.reshape(-1)).reshape(x.shape) if x.numel() else right(x), set()),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_function_is_not_blamed(name: str) -> None:
    """What is left is true of the loss itself: it is not convex, or exp overflows in it."""
    function, true = HEALTHY[name]
    for seed in range(budget(2, 50)):
        assert found(function, seed=seed, margins=200 if name == "one at a time" else 2000) <= true, seed


@pytest.mark.parametrize("beta", ["1/10", "7"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_generated_function_at_another_beta_is_not_blamed(name: str, beta: str) -> None:
    """As a user composes it: f(beta rho), compared with the formula of that."""
    f = to_torch(LOSSES[name])
    factor = 0.1 if beta == "1/10" else 7.0
    for seed in range(1, budget(2, 20)):
        report = check_loss(lambda x: f(factor * x), margins=500, seed=seed)
        assert {each.test for each in report.findings} <= {"decrease", "convexity", "consistency"}, report.findings


def test_bad_numbers_are_refused() -> None:
    for options in ({"seed": -1}, {"margins": 0}):
        with pytest.raises(InputError, match=r"-1|margins 0"):
            check_loss(right, **options)  # type: ignore[arg-type]


def test_a_single_random_margin_is_enough_to_run() -> None:
    assert check_loss(right, parse("log(1+exp(-x))"), margins=1).findings == ()
