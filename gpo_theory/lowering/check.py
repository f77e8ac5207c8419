"""Numerical tests of a user's own torch function of the scaled margin; their findings are evidence, not proofs."""

__all__ = ["TESTS", "Finding", "Report", "check_loss"]

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpo_theory.calculus.balls import enclose
from gpo_theory.calculus.pieces import Piece, UnsplitError, beside, split
from gpo_theory.errors import InputError, nearest
from gpo_theory.formula.expression import Expr
from gpo_theory.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[["Tensor"], "Tensor"]
Floats = NDArray[np.float64]
FORM = ("runs", "shape", "dtype", "elementwise")
AGAINST_A_LOSS = ("value", "slope")
ALONE = ("gradient", "decrease", "convexity", "consistency")
TESTS = (*FORM, "finite", *AGAINST_A_LOSS, *ALONE)
DTYPES = ("float32", "float64")
# Near 0, around the kinks of the usual losses, where exp overflows (88.7 in float32, 709.8 in float64), and up to 1e6.
_STEPS = (1e-6, 1e-3, 0.1, 0.3, 0.5, 0.9, 1.0, 1.1, 2.0, 3.3, 5.0, 8.0, 13.0, 19.9, 20.1, 34.0, 50.0, 80.0, 88.5, 89.0,
          104.0, 150.0, 400.0, 709.0, 711.0, 746.0, 1e3, 1e4, 1e5, 1e6)  # fmt: skip
# The margins at which values and gradients are tested.
LADDER = (*(-x for x in reversed(_STEPS)), 0.0, *_STEPS)
_PROBABILITIES = (0.6, 0.75, 0.9, 0.99)  # of the preferred response, from doubtful to nearly certain
_BITS = 256  # of the exact values, far beyond float64's 53
_CHORDS = 20_000  # random ones near 0, and as many on all scales
_LARGE = 2.0**64  # values beyond it are not compared: the lowering continues f by its tangent there


@dataclass(frozen=True)
class Finding:
    """One finding: the test, the dtype, the scaled margin x (None where it is not about one), and a message."""

    test: str
    dtype: str
    x: float | None
    message: str

    @property
    def place(self) -> str:
        """The dtype and the margin."""
        return self.dtype if self.x is None else f"{self.dtype} at x = {self.x:g}"

    def __str__(self) -> str:
        return f"{self.test} ({self.place}): {self.message}"


@dataclass(frozen=True)
class Report:
    """The tests that ran and what they found; a report without findings is no proof that there are no faults.

    `unfinished` names the tests that could not finish because another one failed, as when the function raises an error.
    In a test-suite: `assert not check_loss(my_loss).findings`.
    """

    tests: tuple[str, ...]
    findings: tuple[Finding, ...]
    unfinished: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        found = [asdict(finding) for finding in self.findings]
        return {"tests": list(self.tests), "findings": found, "unfinished": list(self.unfinished)}


def check_loss(function: Function, loss: Loss | None = None, *, skip: Collection[str] = ()) -> Report:
    """Test a torch function of x = beta * rho on margins up to 1e6, in float32 and float64.

    Always: shape and dtype kept, each element on its own, no NaN or infinity in value or gradient. With `loss`: value
    and gradient against f and f' computed with 256 bits, to half the dtype's digits. Without: the gradient against
    finite differences, f'(0) < 0, no chord below f (convexity), and the least C_p(x) = p f(x) + (1-p) f(-x) at x > 0
    for p > 1/2 (consistency). `skip` names tests that are not run. Raises InputError for a name that is no test.

    >>> import torch
    >>> for finding in check_loss(lambda x: torch.log(1 + torch.exp(-x)), skip=["gradient"]).findings:
    ...     print(finding)
    finite (float32 at x = -89): the value is inf; also at 10 margins farther out
    finite (float32 at x = -89): the gradient is nan; also at 10 margins farther out
    finite (float64 at x = -711): the value is inf; also at 5 margins farther out
    finite (float64 at x = -711): the gradient is nan; also at 5 margins farther out
    """
    for name in skip:
        if name not in TESTS:
            raise InputError(f"unknown test {name!r}{nearest(name, TESTS)}; allowed: {', '.join(TESTS)}")
    numbers = ("finite", *(ALONE if loss is None else AGAINST_A_LOSS))
    seen = _Seen([], set())
    for dtype in DTYPES:
        seen.look(FORM, dtype, _form(function, dtype))
    if seen.findings:  # without the right form the numbers mean nothing
        seen.cut_short.update(numbers)
    else:
        for dtype in DTYPES:
            seen.look(("finite",), dtype, _finite(function, dtype))
            if loss is not None:
                seen.look(AGAINST_A_LOSS, dtype, _against(function, loss, dtype))
        if loss is None:
            seen.look(ALONE, "float64", _alone(function))
    return seen.report(tuple(test for test in (*FORM, *numbers) if test not in skip))


@dataclass(frozen=True)
class _Seen:
    """The findings so far, and the tests that did not finish."""

    findings: list[Finding]
    cut_short: set[str]

    def look(self, tests: Sequence[str], dtype: str, findings: Iterator[Finding]) -> None:
        """Collect the findings of a group of tests, until the user's function raises an error."""
        try:
            self.findings.extend(findings)
        except _UserCodeError as error:
            self.findings.append(Finding(error.test, dtype, None, str(error)))
            self.cut_short.update(tests)

    def report(self, wanted: Sequence[str]) -> Report:
        found = tuple(finding for finding in self.findings if finding.test in wanted)
        without = self.cut_short - {finding.test for finding in self.findings}
        return Report(tuple(test for test in wanted if test not in without), found,
                      tuple(test for test in wanted if test in without))  # fmt: skip


class _UserCodeError(Exception):
    """The user's function raised an error, or returned a value that the other tests cannot use."""

    def __init__(self, message: str, test: str = "runs") -> None:
        super().__init__(message)
        self.test = test


def _call(function: Function, x: "Tensor") -> Any:
    try:
        # A copy, because the user's function may write into its argument.
        return function(x.clone())
    except Exception as error:
        raise _UserCodeError(f"{_shape(x)} it raises {_line(error)}") from error


def _shape(x: "Tensor") -> str:
    return f"on a tensor of shape {tuple(x.shape)}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _run(function: Function, x: Floats, dtype: str) -> tuple[Floats, Floats]:
    """Return the value and the gradient at each margin."""
    import torch

    leaf = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    value = _call(function, leaf)
    try:
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    except Exception as error:
        raise _UserCodeError(f"{_shape(leaf)} its gradient raises {_line(error)}") from error
    return value.detach().double().numpy(), slope.double().numpy()


def _form(function: Function, dtype: str) -> Iterator[Finding]:
    import torch

    kind = getattr(torch, dtype)
    for shape in ((), (4,), (2, 3)):
        x = torch.linspace(-1.5, 2.0, int(np.prod(shape)), dtype=kind).reshape(shape).requires_grad_()
        value = _call(function, x)
        if not isinstance(value, torch.Tensor):
            raise _UserCodeError(f"it returns {type(value).__name__}, not a tensor", "shape")
        if value.shape != x.shape:
            raise _UserCodeError(f"a tensor of shape {shape} gives {tuple(value.shape)}: one loss per margin is "
                                 "needed, not yet averaged", "shape")  # fmt: skip
        if value.dtype != kind:
            yield Finding("dtype", dtype, None, f"it returns {str(value.dtype).removeprefix('torch.')}")
        if not value.requires_grad:
            raise _UserCodeError("its value carries no gradient with respect to x")
    yield from _elementwise(function, dtype)


def _elementwise(function: Function, dtype: str) -> Iterator[Finding]:
    x = np.linspace(-3, 3, 12)
    together, _ = _run(function, x, dtype)
    alone = np.concatenate([_run(function, part, dtype)[0] for part in (x[:5], x[5:6], x[6:])])
    bad = np.flatnonzero(~np.isclose(together, alone, rtol=1e-4, atol=1e-6, equal_nan=True))
    if bad.size:
        yield Finding("elementwise", dtype, float(x[bad[0]]), "the value depends on the other margins of the batch: "
                      f"{together[bad[0]]:.6g} among others, {alone[bad[0]]:.6g} among fewer")  # fmt: skip


def _finite(function: Function, dtype: str) -> Iterator[Finding]:
    ladder = np.array(LADDER)
    for name, values in zip(("value", "gradient"), _run(function, ladder, dtype), strict=True):
        for side in (-1, 1):
            bad = [i for i in np.argsort(abs(ladder)) if side * ladder[i] > 0 or (side > 0 and ladder[i] == 0)]
            bad = [i for i in bad if not np.isfinite(values[i])]
            if bad:
                yield Finding("finite", dtype, float(ladder[bad[0]]), f"the {name} is {values[bad[0]]}{_also(bad)}")


def _also(bad: Sequence[Any]) -> str:
    return f"; also at {len(bad) - 1} margins farther out" if len(bad) > 1 else ""


# --- against a loss ---------------------------------------------------------------------------------------------------


def _against(function: Function, loss: Loss, dtype: str) -> Iterator[Finding]:
    try:
        pieces = [piece for piece in split(loss.f.primitive()) if not piece.is_point]
    except UnsplitError as error:
        raise InputError(f"{loss.formula!r} cannot be compared: its pieces are not known exactly: {error}") from None
    ladder = np.array(sorted(LADDER, key=abs)).astype(dtype).astype(np.float64)
    results = list(zip(*_run(function, ladder, dtype), strict=True))
    eps = float(np.finfo(dtype).eps)
    at_zero = sum(abs(number) for number in _sides(pieces, Fraction(0))[1][:2])
    for k, name in enumerate(AGAINST_A_LOSS):
        wrong = []
        for x, found in zip(ladder.tolist(), (float(result[k]) for result in results), strict=True):
            left, right = _sides(pieces, Fraction(x))
            low, high = sorted((left[k], right[k]))  # at a kink any slope between the two is one
            scale = max(abs(side[k]) + abs(x * side[k + 1]) for side in (left, right))
            slack = eps**0.5 * scale + 8 * eps * at_zero
            known = np.isfinite(found) and max(map(abs, (*left, *right))) < _LARGE
            if known and not low - slack <= found <= high + slack:
                wrong.append((x, found, right[k]))
        if wrong:
            x, found, exact = wrong[0]
            yield Finding(name, dtype, x, f"it is {found:.9g} and {loss.name} has {exact:.9g}{_also(wrong)}")


def _sides(pieces: Sequence[Piece], x: Fraction) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return f, f' and f'' from the left and from the right of x."""
    return _jet(beside(pieces, x, -1).f, x), _jet(beside(pieces, x, 1).f, x)


@lru_cache(maxsize=4096)
def _jet(f: Expr, x: Fraction) -> tuple[float, ...]:
    balls = (enclose(g, x, _BITS) for g in (f, f.diff(), f.diff().diff()))
    return tuple(float(ball.mid()) if abs(ball) < _LARGE else inf for ball in balls)


# --- alone ------------------------------------------------------------------------------------------------------------


def _alone(function: Function) -> Iterator[Finding]:
    def f(x: Floats) -> Floats:
        return _run(function, x, "float64")[0]

    size = float(np.abs(f(np.array([-1.0, 0.0, 1.0]))).sum())
    with np.errstate(all="ignore"):
        yield from _gradient(function, size)
        yield from _decrease(f, size)
        yield from _convexity(f, size)
        yield from _consistency(f, size)


def _gradient(function: Function, size: float) -> Iterator[Finding]:
    x = np.array(sorted(LADDER, key=abs))
    h = 1e-6 * np.maximum(1, abs(x))
    value, slope = _run(function, x, "float64")
    behind, ahead = (_run(function, x + step, "float64")[0] for step in (-h, h))
    left, right = (value - behind) / h, (ahead - value) / h
    rounding = 1e-13 * (abs(value) + abs(behind) + abs(ahead) + size) / h
    # The first term covers a kink, where autograd may give any slope between the two.
    slack = abs(right - left) + 1e-4 * (abs(left) + abs(right)) + rounding
    outside = (slope < np.minimum(left, right) - slack) | (slope > np.maximum(left, right) + slack)
    bad = np.flatnonzero(outside & np.isfinite(slack) & np.isfinite(slope)).tolist()
    if bad:
        i = bad[0]
        yield Finding("gradient", "float64", float(x[i]), f"autograd gives {slope[i]:.6g}, differences of the value "
                      f"{left[i]:.6g} (left) and {right[i]:.6g} (right){_also(bad)}")  # fmt: skip


def _decrease(f: Callable[[Floats], Floats], size: float) -> Iterator[Finding]:
    h = 1e-6
    behind, here, ahead = f(np.array([-h, 0.0, h]))
    left, right = (here - behind) / h, (ahead - here) / h
    if not max(left, right) < -1e-8 * size:
        yield Finding("decrease", "float64", 0.0, f"f does not fall at 0: its slope is about {left:.6g} on the left "
                      f"and {right:.6g} on the right")  # fmt: skip


def _convexity(f: Callable[[Floats], Floats], size: float) -> Iterator[Finding]:
    draw = np.random.default_rng(0)
    near, far = draw.uniform(-6, 6, _CHORDS), draw.choice([-1, 1], _CHORDS) * 10 ** draw.uniform(-2, 2.5, _CHORDS)
    middle = np.concatenate([near, far])
    width = 10 ** draw.uniform(-2, 2, middle.size)
    a, b = middle - width * draw.uniform(0.1, 1, middle.size), middle + width
    at_a, at_b, at_middle = f(a), f(b), f(middle)
    chord = at_a + (at_b - at_a) * ((middle - a) / (b - a))
    slack = 1e-10 * (abs(at_a) + abs(at_b) + abs(at_middle)) + 1e-13 * size
    excess = np.where(np.isfinite(slack), (at_middle - chord) / slack, -1.0)
    if excess.max() > 1:
        i = int(excess.argmax())
        yield Finding("convexity", "float64", float(middle[i]), f"f = {at_middle[i]:.9g} lies above its chord from "
                      f"{a[i]:.6g} to {b[i]:.6g}, which has {chord[i]:.9g}; so do {int((excess > 1).sum()) - 1} "
                      f"of {middle.size} random chords")  # fmt: skip


def _consistency(f: Callable[[Floats], Floats], size: float) -> Iterator[Finding]:
    x = np.concatenate([np.arange(1, 64 * 20 + 1) / 64, np.geomspace(1e-4, 1e3, 400)])
    ahead, behind, here = f(x), f(-x), f(np.zeros(1))[0]
    for p in _PROBABILITIES:
        right, wrong = p * ahead + (1 - p) * behind, p * behind + (1 - p) * ahead
        best, worst = np.nanmin(right), np.nanmin([here, np.nanmin(wrong)])
        if not best < worst - 1e-9 * size:
            place = float(x[np.nanargmin(right)])
            yield Finding("consistency", "float64", place, f"a pair preferred with probability {p}: the least expected "
                          f"loss with x > 0 is {best:.9g}, with x <= 0 it is {worst:.9g}")  # fmt: skip
            return
