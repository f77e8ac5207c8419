"""The code of f: value and gradient against mpmath in ulp, finiteness far out, knees, dtypes, shapes, transforms, speed."""

import math
import shutil
import warnings
from collections import Counter
from functools import cache
from typing import Any, ClassVar

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gpo_theory import LOSSES, InputError, Loss, parse, to_numpy, to_torch
from tests.support.jets import jet
from tests.support.oracle import evaluate
from tests.support.soak import budget
from tests.support.strategies import convex_formulas, margins

STEPS = (1e-12, 1e-6, 1e-3, 0.1, 0.35, 0.75, 0.99, 1.0, 1.01, 1.75, 2.5, 3.3, 5.0, 9.0, 15.9, 17.1, 19.9, 20.1, 33.3, 36.9, 40.0,
         44.0, 50.0, 87.0, 88.5, 89.0, 103.0, 105.0, 300.0, 700.0, 709.0, 746.0, 1e3, 4321.0, 1e4)  # fmt: skip
LADDER = sorted({0.0, *STEPS, *(-x for x in STEPS)})
FAR = sorted({1e5, 3e5, 1e6, -1e5, -3e5, -1e6})
EXTREME = [1e10, 1e20, 1e30, -1e10, -1e20, -1e30]
NAMES = list(LOSSES)
KINKS = (-1.0, 0.0, 0.5, 1.0, 1.5, 3.0)  # every breakpoint of the catalogue at its default parameters
DTYPES = {"float64": torch.float64, "float32": torch.float32}
# Errors in ulp of |f| + |x f'| for values, of |f'| + |x f''| for gradients (RELIABILITY section 3).
TOLERANCE = 4


def ulp(scale: mp.mpf, dtype: torch.dtype) -> mp.mpf:
    """The distance of neighbouring numbers of the dtype at `scale`; what is below its normal numbers may be lost."""
    info = torch.finfo(dtype)
    smallest = mp.mpf(float(info.smallest_normal))
    spacing = mp.ldexp(1, int(mp.floor(mp.log(scale, 2)))) * float(info.eps) if scale else 0
    return max(spacing, smallest)


def derivatives(loss: Loss, x: mp.mpf) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    """f, f', f'' by mpmath at x, at a kink those of the piece on the right."""
    pieces = any(word in loss.formula for word in ("max", "min", "abs", "where"))
    found = jet(loss.formula, x + mp.mpf(10) ** -45 if pieces and x in KINKS else x, loss.parameters)
    return found.f, found.d, found.dd


def truth(loss: Loss, knees: tuple[float | None, float | None], x: float) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    """f, f', f'' at x by mpmath, of the tangent beyond a knee."""
    left, right = knees
    knee = left if left is not None and x < left else right if right is not None and x > right else None
    at = mp.mpf(x if knee is None else knee)
    with mp.workdps(70 + int(min(x * x, 760) / 2.3)):  # what is smaller than exp(-760) is 0 in float64
        f, slope, bend = derivatives(loss, at)
        return (f, slope, bend) if knee is None else (f + (mp.mpf(x) - at) * slope, slope, mp.mpf(0))


@cache
def expected(name: str, x: float) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    """The truth of one catalogue entry, shared by the dtypes."""
    return truth(LOSSES[name], to_torch(LOSSES[name]).knees, x)


@cache
def zeros(name: str) -> tuple[float, ...]:
    """Where f or f' changes sign on |x| <= 30, by bisection in mpmath to a double."""
    loss, found = LOSSES[name], []
    grid = [k / 7 for k in range(-210, 211)]
    rows = [derivatives(loss, mp.mpf(x)) for x in grid]
    for k in range(2):
        for low, high, before, after in zip(grid, grid[1:], rows, rows[1:], strict=False):
            if before[k] * after[k] < 0:
                while low < (middle := (low + high) / 2) < high:
                    same = derivatives(loss, mp.mpf(middle))[k] * before[k] > 0
                    low, high = (middle, high) if same else (low, middle)
                found.append(low)
    return tuple(found)


def dense(name: str) -> list[float]:
    """All scales and both signs, the neighbourhood of every kink and of every zero of f and f', and random points."""
    random = np.random.default_rng(7)
    sizes = np.concatenate([np.geomspace(1e-12, 1e4, 50), *(random.uniform(0, top, 14) for top in (5, 50, 800))])
    near = np.geomspace(1e-12, 0.3, 9)
    around = [np.concatenate([[c], c - near, c + near]) for c in {*KINKS, *zeros(name)}]
    return np.unique(np.concatenate([LADDER, sizes, -sizes, *around])).tolist()


def computed(name: str, points: list[float], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.tensor(points, dtype=dtype, requires_grad=True)
    y = to_torch(LOSSES[name])(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return x.detach().double(), y.detach().double(), slope.double()


def worst(name: str, points: list[float], dtype: torch.dtype) -> tuple[float, float, str]:
    """The largest error in ulp of the value and of the gradient, and where each was found."""
    error, places = [0.0, 0.0], ["", ""]
    for x, value, slope in zip(*(t.tolist() for t in computed(name, points, dtype)), strict=True):
        f, first, second = expected(name, x)
        for k, (seen, right, drift) in enumerate(((value, f, first), (slope, first, second))):
            assert math.isfinite(seen), f"{name}: {('f', 'grad')[k]}({x}) = {seen} in {dtype}"
            distance = float(abs(mp.mpf(seen) - right) / ulp(abs(right) + abs(mp.mpf(x) * drift), dtype))
            if distance > error[k]:
                error[k], places[k] = distance, f"{('f', 'grad')[k]}({x}) = {seen}, expected {mp.nstr(right, 20)}"
    return error[0], error[1], "; ".join(places)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_values_are_accurate(name: str, dtype: torch.dtype) -> None:
    value, _, where = worst(name, dense(name), dtype)
    assert value <= TOLERANCE, f"{name}: {value:.1f} ulp: {where}"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_accurate(name: str, dtype: torch.dtype) -> None:
    _, slope, where = worst(name, dense(name), dtype)
    assert slope <= TOLERANCE, f"{name}: {slope:.1f} ulp: {where}"


NEW = {  # further losses of the same kinds
    "basu": "exp(-(3/4)*x)/(3/4) + 4*exp(-x/4)",
    "dpd": "-3*(1/(1+exp(-x)))**(1/2)+(1/(1+exp(-x)))**(3/2)+(1-1/(1+exp(-x)))**(3/2)",
    "cauchit": "-log(1/2+atan(x)/pi)",
    "hinge_power": "max(0,1-x)**(3/2)",
}
BENDS = sorted({*LADDER, *FAR, *np.random.default_rng(11).uniform(-5, 5, 40).tolist(), *(k + s * d for k in KINKS for s in (-1, 1) for d in (0, 1e-9, 1e-3))})


@cache
def bends(name: str, x: float) -> tuple[mp.mpf, mp.mpf]:
    """f'' and f''' at x by mpmath, of the piece on the right; 0 beyond a knee."""
    loss = LOSSES[name] if name in LOSSES else parse(NEW[name])
    left, right = to_torch(loss).knees
    if (left is not None and x < left) or (right is not None and x > right):
        return mp.mpf(0), mp.mpf(0)
    with mp.workdps(110 + int(min(x * x, 760) / 2.3)):
        step = mp.mpf(10) ** -30
        pieces = any(word in loss.formula for word in ("max", "min", "abs", "where"))
        try:
            near, far = (jet(loss.formula, mp.mpf(x) + k * step, loss.parameters).dd for k in (mp.mpf(10) ** -15 if pieces else 0, 1))
        except ZeroDivisionError:  # 0**(-1/2): hinge_power from 1 on, and dpd where exp(-x) is below 10^-440
            return mp.mpf(0), mp.mpf(0)
        return near, (far - near) / step


def second(f: Any, x: torch.Tensor) -> torch.Tensor:
    """f'' by double backward."""
    (slope,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad((slope + 0 * x).sum(), x)
    return bend


def worst_bend(name: str, f: Any, dtype: torch.dtype) -> tuple[float, str]:
    """The largest error of f'' in ulp of |f''| + |x f'''|, and where it was found."""
    x = torch.tensor(BENDS, dtype=dtype).unique().requires_grad_()
    found = (0.0, "")
    for at, seen in zip(x.tolist(), second(f, x).double().tolist(), strict=True):
        right, drift = bends(name, at)
        error = float(abs(mp.mpf(seen) - right) / ulp(abs(right) + abs(at * drift), dtype)) if math.isfinite(seen) else math.inf
        found = max(found, (error, f"f''({at}) = {seen}, expected {mp.nstr(right, 20)}"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", [*NAMES, *NEW])
def test_second_derivatives_are_accurate(name: str, dtype: torch.dtype) -> None:
    error, where = worst_bend(name, to_torch(LOSSES[name] if name in LOSSES else parse(NEW[name])), dtype)
    assert error <= TOLERANCE, f"{name}: {error:.1f} ulp: {where}"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        # torch's own: 1 - sigmoid(37) is 0; a slope at the kink that is counted; a relative error of 1e-14.
        ("logistic", lambda x: -torch.nn.functional.logsigmoid(x)),
        ("hinge", lambda x: torch.relu(1 - x) + 1e-9 * x**2),
        ("squared", lambda x: (1 - x) ** 2 * (1 + 1e-14)),
    ],
)
def test_wrong_second_derivatives_are_seen(name: str, wrong: Any) -> None:
    assert worst_bend(name, to_torch(LOSSES[name]), torch.float64)[0] <= TOLERANCE
    assert worst_bend(name, wrong, torch.float64)[0] > TOLERANCE


@pytest.mark.parametrize("name", NEW)
def test_further_losses_are_accurate(name: str) -> None:
    """Value and gradient in both dtypes by mpmath, in ulp of their scales."""
    loss = parse(NEW[name])
    f = to_torch(loss)
    for dtype in DTYPES.values():
        x = torch.tensor(BENDS, dtype=dtype).unique().requires_grad_()
        y = f(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        for at, *seen in zip(x.tolist(), y.tolist(), slope.tolist(), strict=True):
            if at >= {"dpd": 400, "hinge_power": 1}.get(name, math.inf):  # f is -2 or 0 there, and the jets divide by 0
                assert seen == [{"dpd": -2, "hinge_power": 0}[name], pytest.approx(0, abs=1e-80)]
                continue
            right = truth(loss, f.knees, at)
            for k in range(2):
                error = abs(mp.mpf(seen[k]) - right[k]) / ulp(abs(right[k]) + abs(at * right[k + 1]), dtype)
                assert error <= TOLERANCE, f"{name}: order {k} at {at}: {mp.nstr(error)} ulp"


@pytest.mark.parametrize("name", ["logistic", "hinge", "exponential", "probit", "discopop", "huber"])
def test_second_derivatives_know_their_upstream_gradients(name: str) -> None:
    """Of sum v d(sum w f)/dx: v w f'' by x and v f' by w; on strided, empty and 0-d tensors too."""
    f, generator = to_torch(LOSSES[name]), torch.Generator().manual_seed(3)
    for shape in ((6, 4), (0,), ()):
        x, w, v = (torch.randn(shape, generator=generator, dtype=torch.float64).mul(2) for _ in range(3))
        x = (x.t() if x.ndim == 2 else x).requires_grad_()
        w = (w.t() if w.ndim == 2 else w).requires_grad_()
        v = v.t() if v.ndim == 2 else v
        (slope,) = torch.autograd.grad((w * f(x)).sum(), x, create_graph=True)
        by_x, by_w = torch.autograd.grad((v * slope).sum() + 0 * x.sum(), (x, w))
        for seen, at, a, b in zip(*(t.flatten().tolist() for t in (by_x, x, w.detach(), v)), strict=True):
            right, drift = bends(name, at)
            assert abs(seen - a * b * right) <= 1e-14 * abs(a * b) * (abs(right) + abs(at * drift))
        torch.testing.assert_close(by_w, v * torch.autograd.grad(f(x).sum(), x)[0], rtol=1e-15, atol=0)


def test_what_is_not_supported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third derivative, and a second one that was measured to be inaccurate: an error, never a number."""
    x = torch.tensor([0.3], requires_grad=True)
    f = to_torch(LOSSES["logistic"])
    (slope,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    with pytest.raises(InputError, match="third derivatives"):
        torch.autograd.grad(bend.sum(), x)
    thrice = torch.func.jacfwd(torch.func.jacfwd(torch.func.jacfwd(f)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, about torch.jit
        with pytest.raises(InputError, match="third derivatives"):
            thrice(x.detach())
    g = to_torch(parse("log(1+exp(-7*x/5))"))
    monkeypatch.setattr("gpo_theory.lowering.accurate_code.LIMIT", 0.1)
    (slope,) = torch.autograd.grad(g(x).sum(), x, create_graph=True)
    with pytest.raises(InputError, match=r"second derivatives of .* are not supported"):
        torch.autograd.grad(slope.sum(), x)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_numpy_gives_the_same_values(name: str) -> None:
    """`to_numpy` in ulp of |f| + |x f'|: 4 in float64; in float32, which it computes in float64, 1."""
    for dtype, limit in ((torch.float64, TOLERANCE), (torch.float32, 1)):
        points = torch.tensor(dense(name), dtype=dtype).numpy()
        values = to_numpy(LOSSES[name])(points)
        assert values.dtype == points.dtype
        assert values.shape == points.shape
        for x, seen in zip(points.tolist(), values.tolist(), strict=True):
            f, first, _ = expected(name, x)
            error = float(abs(mp.mpf(seen) - f) / ulp(abs(f) + abs(mp.mpf(x) * first), dtype))
            assert error <= limit, f"{name}({x}) = {seen}, expected {mp.nstr(f, 20)}: {error:.1f} ulp"


def test_numpy_takes_any_shape_and_refuses_integers() -> None:
    f = to_numpy(LOSSES["logistic"])
    assert f(np.zeros((2, 0, 3), np.float32)).shape == (2, 0, 3)
    assert float(f(np.float64(0.0))) == pytest.approx(math.log(2), rel=1e-15)
    with pytest.raises(InputError, match="int64"):
        f(np.array([1, 2]))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), margins(1e4))
def test_random_margins_are_accurate(name: str, x: float) -> None:
    value, _, where = worst(name, [x], torch.float64)
    assert value <= TOLERANCE, f"{name}: {where}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_finite_everywhere(name: str, dtype: torch.dtype) -> None:
    """No NaN or infinity in value or gradient for |x| <= 1e6."""
    x, value, slope = computed(name, LADDER + FAR, dtype)
    bad = ~(torch.isfinite(value) & torch.isfinite(slope))
    assert not bad.any(), f"{name} at {x[bad].tolist()}: {value[bad].tolist()}, {slope[bad].tolist()}"


@pytest.mark.parametrize("name", LOSSES)
def test_margins_gone_wild_do_not_make_nan(name: str) -> None:
    """|x| up to 1e30 gives no NaN in float64; where f itself is finite there, so is the value."""
    _, value, slope = computed(name, EXTREME, torch.float64)
    assert not torch.isnan(value).any()
    assert not torch.isnan(slope).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_far_sign_is_right(name: str) -> None:
    """At |x| = 1e6 the value is f, or the tangent at the knee: to 1e-6 relative in float32."""
    x, value, _ = computed(name, [-1e6, 1e6], torch.float32)
    for at, seen in zip(x.tolist(), value.tolist(), strict=True):
        f = expected(name, at)[0]
        assert abs(seen - f) <= 1e-6 * abs(f) + mp.mpf(2) ** -149, f"{name}({at}) = {seen}, expected {mp.nstr(f)}"


@pytest.mark.parametrize("name", NAMES)
def test_knees_are_where_the_loss_reaches_its_limit(name: str) -> None:
    """At a knee max(|f|, |f'|) = 2^64 to 1e-6; where there is none it is below 2^64 up to 1e6."""
    for side, knee in zip((-1, 1), to_torch(LOSSES[name]).knees, strict=True):
        with mp.workdps(60):
            x = mp.mpf(side * 1e6 if knee is None else knee)
            size = max(map(abs, derivatives(LOSSES[name], x)[:2]))
            if knee is None:
                assert size < mp.mpf(2) ** 64, f"{name} reaches {mp.nstr(size)} at {x} and has no knee"
            else:
                assert side * knee > 0
                assert abs(size / mp.mpf(2) ** 64 - 1) < 1e-6, f"{name}: {mp.nstr(size)} at the knee {knee}"


def test_the_knee_is_once_differentiable() -> None:
    """e^{-x} = 2^64 at x = -64 log 2."""
    f = to_torch(LOSSES["exponential"])
    knee = f.knees[0]
    assert knee == pytest.approx(-64 * math.log(2), rel=1e-9)
    x = torch.tensor([knee - 1e-9, knee + 1e-9], dtype=torch.float64, requires_grad=True)
    y = f(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y[0], y[1], rtol=1e-8, atol=0)
    torch.testing.assert_close(slope[0], slope[1], rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_is_float32_rounded(name: str) -> None:
    x = torch.tensor(LADDER, dtype=torch.bfloat16)
    f = to_torch(LOSSES[name])
    assert f(x).dtype == torch.bfloat16
    torch.testing.assert_close(f(x), f(x.float()).to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_derivative_of_the_value(name: str) -> None:
    """autograd against central differences of the same code, away from kinks."""
    points = [x for x in np.linspace(-4.03, 4.07, 23).tolist() if all(abs(x - kink) > 1e-2 for kink in KINKS)]
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(to_torch(LOSSES[name]), (x,), eps=1e-6, atol=1e-7, rtol=1e-6)
    assert torch.autograd.gradgradcheck(lambda x: to_torch(LOSSES[name])(x) + 0 * x**2, (x,), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_transforms_of_torch_func(name: str) -> None:
    """vmap, grad and grad of grad against mpmath, to 1e-12 of each one's size; below 2.5 no exponential is large."""
    f = to_torch(LOSSES[name])
    x = torch.tensor([-2.03, -0.61, -0.07, 0.27, 0.83, 1.21, 2.41], dtype=torch.float64)
    grad, jacfwd, jacrev = torch.func.grad, torch.func.jacfwd, torch.func.jacrev
    seconds = [a(b(f)) for a in (grad, jacfwd, jacrev) for b in (grad, jacfwd, jacrev)]
    for k, functions in enumerate(([f], [grad(f), jacfwd(f), jacrev(f)], [*seconds, torch.func.hessian(f)])):
        for g in functions:
            for at, seen in zip(x.tolist(), torch.func.vmap(g)(x).tolist(), strict=True):
                right = expected(name, at)[k]
                assert abs(seen - right) <= 1e-12 * (abs(right) + 1e-3), f"{name}: order {k} at {at}"
    torch.testing.assert_close(jacfwd(f)(x), torch.diag(torch.func.vmap(grad(f))(x)), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_torch_compile_traces_the_whole_graph(name: str) -> None:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, about Functions that its tracer makes
        same_when_compiled(name, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not on the path")
@pytest.mark.parametrize("name", ["savage", "smooth_hinge", "logistic", "exponential", "squared", "hinge"][: budget(2, 6)])
def test_torch_compile_generates_the_same_function(name: str) -> None:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, about torch.jit
        same_when_compiled(name, "inductor")


def same_when_compiled(name: str, backend: str) -> None:
    """Value and gradient of the compiled function, which may round otherwise: to 1e-12 of their size."""
    f = to_torch(LOSSES[name])
    points = torch.tensor([x for x in LADDER if abs(x) <= 40], dtype=torch.float64)
    pairs = []
    for g in (torch.compile(f, backend=backend, fullgraph=True), f):
        x = points.clone().requires_grad_()
        y = g(x)
        pairs.append((y.detach(), *torch.autograd.grad(y.sum(), x)))
    for compiled, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)


NATIVE = {
    "logistic": lambda x: -torch.nn.functional.logsigmoid(x), "hinge": lambda x: torch.relu(1 - x), "exponential": lambda x: torch.exp(-x),
    "squared": lambda x: torch.square(x - 1), "truncated_squared": lambda x: torch.square(torch.relu(1 - x)),
}


class Passes(TorchDispatchMode):
    """Counts the passes over the data by the kernel that makes them; a view is none, and in place is the same kernel."""

    SAME: ClassVar[dict[str, str | None]] = {"sub": "add", "rsub": "add", "detach": None, "view": None, "expand": None}

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.removesuffix("_")
        name = self.SAME.get(name, name)
        if name is not None and (isinstance(out, tuple) or (isinstance(out, torch.Tensor) and out.numel() > 1)):
            self.made[name] += 1
        return out


@pytest.mark.parametrize("name", NATIVE)
def test_hardly_more_passes_than_the_native_kernel(name: str) -> None:
    """Forward and backward make at most three passes more than the code that one would write by hand.

    The gradient is code of its own, which recomputes what torch's own gradient would have kept. Times are measured
    (`python -m gpo_theory.lowering.accuracy`), never asserted, because on a busy machine a ratio of times says more about
    the neighbours.
    """
    made = []
    for f in (to_torch(LOSSES[name]), NATIVE[name]):
        x = torch.randn(1000, generator=torch.Generator().manual_seed(5)).requires_grad_()
        with Passes() as passes:
            f(x).sum().backward()
        made.append(passes.made)
    assert made[0].total() <= made[1].total() + 3, f"{name}: {made[0]} against {made[1]}"
    assert made[0].total() >= 4  # two passes forward, two backward: the counter sees them


@pytest.mark.parametrize("name", LOSSES)
def test_elementwise_on_any_shape(name: str) -> None:
    f = to_torch(LOSSES[name])
    x = torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(2, 3, 4)
    y = f(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y.flatten(), torch.stack([f(v) for v in x.flatten()]), rtol=1e-15, atol=1e-300)
    assert f(x[:0]).shape == x[:0].shape
    assert f(torch.tensor(0.5)).shape == ()
    torch.testing.assert_close(x, torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(2, 3, 4), rtol=0, atol=0)


def test_the_slope_at_a_kink_is_a_subgradient() -> None:
    for name, kink, low, high in (("hinge", 1.0, -1, 0), ("perceptron", 0.0, -1, 0), ("pinball", 1.0, -1, 0.25)):
        _, _, slope = computed(name, [kink], torch.float64)
        assert low <= slope.item() <= high, f"{name}: {slope.item()}"


def test_integers_are_refused() -> None:
    with pytest.raises(InputError, match="int64"):
        to_torch(LOSSES["logistic"])(torch.tensor([1, 2]))


@pytest.mark.parametrize(
    "text",
    ["(exp(x)-1)**2/(1+exp(x))**2", "log(1+x**2)+exp(-x**2)", "where(x<1/3, exp(-x), 2-x)", "max(exp(-x), 1-x, 0)", "log(3+exp(x)+exp(-2*x))",
     "sqrt(9+x**2)-x", "log(cosh(x))", "x*sigmoid(x)", "log(1+exp(-x))**2", "exp(-x)/(1+exp(-x))**2", "atan(exp(x))", "log1p(exp(-3*x))/3",
     "softplus(-x)*sigmoid(2*x)", "asinh(-x)+sqrt(1+x**2)", "erfc(x)", "-log_ndtr(x)", "abs(x-1)+abs(x+1)", "tanh(x)**2", "1/(1+abs(x))"],
)  # fmt: skip
def test_formulas_beyond_the_catalogue(text: str) -> None:
    """Value and gradient finite to 1e6 in float32; the value right on |x| <= 60 to 1e-5 of its scale, or to 1e-6."""
    f = to_torch(parse(text))
    x = torch.tensor(LADDER + FAR, dtype=torch.float32, requires_grad=True)
    y = f(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(slope).all()
    with mp.workdps(120):
        for at, seen in zip(x.tolist(), y.tolist(), strict=True):
            if abs(at) <= 60 and (f.knees[0] is None or at > f.knees[0]) and (f.knees[1] is None or at < f.knees[1]):
                right = evaluate(text, mp.mpf(at))
                drift = abs(mp.mpf(at) * mp.diff(lambda u: evaluate(text, u), mp.mpf(at) + mp.mpf(10) ** -12))
                assert abs(seen - right) <= 1e-5 * (abs(right) + drift) + 1e-6, (f"{text} at {at}: {seen}, {mp.nstr(right)}")


@pytest.mark.parametrize("text", ["exp(x)-x-1", "tanh(x)**2", "log(cosh(x))", "erf(x)**2", "x*tanh(x)", "log(1+x**2)", "x*atan(x)"])
def test_formulas_that_vanish_at_zero_keep_their_digits_there(text: str) -> None:
    """At 0 the scale |f| + |x f'| vanishes too: only a series, or a formula without a cancellation, is within 4 ulp."""
    loss = parse(text)
    f, points = to_torch(loss), [s * 2.0**-k * 1.37 for k in range(40) for s in (-1, 1)]
    for x, seen in zip(points, f(torch.tensor(points, dtype=torch.float64)).tolist(), strict=True):
        right, slope, _ = truth(loss, f.knees, x)
        assert abs(seen - right) <= TOLERANCE * ulp(abs(right) + abs(x * slope), torch.float64), f"{text} at {x}"


@settings(max_examples=60, deadline=None)
@given(convex_formulas(), st.floats(-30, 30))
def test_any_formula_is_lowered(text: str, x: float) -> None:
    """torch and numpy agree with mpmath to 1e-9 of the formula's size between the knees."""
    loss = parse(text)
    try:
        f, refusal = to_torch(loss), ""
    except InputError as error:  # the one formula that is refused: a `where` that would be cut at a rounded point
        f, refusal = None, str(error)
    if f is None:
        assert "where" in text
        assert "not rational" in refusal
        return
    left, right = (knee if knee is not None else infinite for knee, infinite in zip(f.knees, (-math.inf, math.inf), strict=True))
    at = min(max(x, left), right)
    with mp.workdps(60):
        value, size = evaluate(text, mp.mpf(at)), 1 + abs(evaluate(text, mp.mpf(at) + 1)) + abs(evaluate(text, mp.mpf(at) - 1))
    for seen in (f(torch.tensor(at, dtype=torch.float64)).item(), float(to_numpy(loss)(np.float64(at)))):
        assert abs(seen - value) <= 1e-9 * (abs(value) + size), f"{text} at {at}: {seen}, expected {mp.nstr(value)}"
